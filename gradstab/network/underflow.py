"""Signals that end because the dtype of the analysis does.

A float32 gradient that shrinks by 0.7 per step is exactly zero after 250 steps. These
zeros are no missing data: the signal is below what the dtype can hold.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def last_before_zero(dtype: DTypeLike, /) -> float:
    """The largest size from which a signal that shrinks can underflow in one step.

    1e8 times the smallest normal number, 1e-30 in float32: what falls by more is cut
    off. Of a dtype with few exponents the smallest normal number itself.
    """
    least = float(jnp.finfo(dtype).smallest_normal)
    return least * 1e8 if least < 1e-30 else least


def underflow_step(
    norms: np.ndarray | Sequence[Any], dtype: DTypeLike, /
) -> int | None:
    """The first step at which a signal has become zero for good.

    Args:
        norms: (steps,) or (steps, examples), in the order in which it travels.
        dtype: in which they were computed.

    Returns:
        The position of the step; None if the signal reaches its end, or was cut off
        while it was large.

    Examples:
        >>> underflow_step([1e-20, 1e-37, 0.0, 0.0], "float32")
        2
        >>> underflow_step([0.5, 0.0, 0.0], "float32")
    """
    sizes = np.max(np.asarray(norms, np.float64).reshape(len(norms), -1), axis=1)
    alive = np.flatnonzero(sizes != 0)
    if not len(alive) or alive[-1] == len(sizes) - 1:
        return None
    last = alive[-1]
    return int(last) + 1 if sizes[last] <= last_before_zero(dtype) else None


def num_clear_steps(norms: np.ndarray | Sequence[Any], dtype: DTypeLike, /) -> int:
    """How many steps a signal travels before any of it is near underflow.

    All of them if it does not underflow at all.

    Args:
        norms: see `underflow_step`.
        dtype: likewise.
    """
    if underflow_step(norms, dtype) is None:
        return len(norms)
    sizes = np.min(np.asarray(norms, np.float64).reshape(len(norms), -1), axis=1)
    return int(np.argmax(sizes <= last_before_zero(dtype)))
