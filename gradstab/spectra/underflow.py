"""The growth of signals that underflow in the dtype of the analysis."""

import dataclasses
import math

import numpy as np
from jax.typing import DTypeLike

from gradstab.network.underflow import num_clear_steps, underflow_step
from gradstab.records import Growth


def growth_beyond_underflow(
    fit, norms, dtype: DTypeLike, /, *, backward: bool = False
) -> tuple[Growth, str]:
    """The growth of a signal, over all its steps even if it underflows in some.

    Args:
        fit: makes a `Growth` of norms.
        norms: (steps,) or (steps, examples), in the order of the input.
        dtype: in which they were computed.
        backward: whether the signal travels from the last step to the first.

    Returns:
        ``(growth, note)``. If the signal underflows, the growth is that of the steps in
        which it is far enough above the smallest number that none of its entries is
        lost. By an exponential law the change goes on over all steps; otherwise it is
        that of these steps. The note says which, and is empty without an underflow.
    """
    norms = np.asarray(norms, np.float64)
    travelled = norms[::-1] if backward else norms
    zero = underflow_step(travelled, dtype)
    if zero is None:
        return fit(norms), ""
    clear = np.zeros_like(travelled)
    num_clear = num_clear_steps(travelled, dtype)
    clear[:num_clear] = travelled[:num_clear]
    growth = fit(clear[::-1] if backward else clear)
    said = f"its state underflows {dtype} at step {zero}"
    if backward:
        step = len(norms) - 1 - zero
        said = f"its gradient underflows {dtype} at step {step} on its way back"
    if growth.law != "exponential":
        return growth, f"{said}; its growth is that of the {growth.depth} steps before"
    change = _log(growth.change) + growth.rate * (len(norms) - growth.depth)
    whole = math.exp(change) if change < 709 else math.inf
    shrunk = -change if backward else change
    note = f"{said}; the factor over all steps is that of its law, exp({shrunk:.4g})"
    return dataclasses.replace(growth, change=whole), note


def _log(change):
    return math.log(change) if change > 0 else -math.inf
