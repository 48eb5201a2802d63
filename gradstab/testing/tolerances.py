"""Tolerances as `jax.test_util` takes them: numbers, or numbers by dtype.

Not for users; `check_grads` says what they mean.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree

# Those of `jax.test_util` for gradients. They allow for its differences in the dtype of
# the arguments.
_DEFAULTS = {
    "bfloat16": 1e-1,
    "float16": 1e-2,
    "float32": 2e-3,
    "float64": 1e-5,
    "complex64": 1e-3,
    "complex128": 1e-5,
}
_OTHERS = 1e-1

# A function that was lifted to float64 shows no rounding that would have to be allowed.
_LIFTED = 5e-3

# What is asked for if nothing is allowed: differences of most functions show it.
_FINEST, _FINE = 1e-9, 1e-7


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """What is accepted of a function at its arguments.

    Attributes:
        rtol: relative to the true Jacobian.
        atol: absolute.
        asked: the resolution to ask of a check.
        by_user: whether the absolute part was given, or is a default: that is meant for
            functions of about the size of their arguments, and shrinks with smaller
            ones.
        default: whether the relative part is one.
        exact: whether both are zero: no error that is seen is accepted.
    """

    rtol: float
    atol: float
    asked: float
    by_user: bool
    default: bool
    exact: bool

    def relative(self, *, lifted: bool) -> float:
        """The relative part for a function that was, or was not, lifted to float64."""
        return min(self.rtol, _LIFTED) if lifted and self.default else self.rtol

    def absolute(self, *, lifted: bool) -> float:
        """The absolute part, likewise."""
        return min(self.atol, _LIFTED) if lifted and not self.by_user else self.atol


def tolerances(args: Sequence[Any], rtol, atol, /) -> Tolerances:
    """What tolerances mean at these arguments.

    Args:
        args: of the function.
        rtol: a number, numbers by dtype (those that are not named have JAX's defaults),
            or None: JAX's default, for the dtype of the arguments.
        atol: likewise; by default not more than an ``rtol`` that was given.
    """
    relative, absolute = (_value(args, tolerance) for tolerance in (rtol, atol))
    if atol is None and rtol is not None:
        absolute = min(absolute, relative)
    nothing = relative == 0 and absolute == 0
    asked = min(relative, 0.5) or (_FINEST if nothing else _DEFAULTS["float64"])
    if rtol is None:
        asked = min(asked, _LIFTED)
    return Tolerances(
        rtol=_FINE if nothing else relative,
        atol=absolute,
        asked=asked,
        by_user=atol is not None,
        default=rtol is None,
        exact=nothing,
    )


def _value(args: Sequence[Any], tolerance) -> float:
    if tolerance is not None and not isinstance(tolerance, dict):
        return float(tolerance)
    known = {np.dtype(key).name: value for key, value in (tolerance or {}).items()}
    known = _DEFAULTS | known
    return float(max(known.get(name, _OTHERS) for name in _dtypes(args)))


def _dtypes(args: Sequence[Any]) -> set[str]:
    """Of the floating arguments, as JAX takes them; float32 without any."""
    found = {
        jax.dtypes.canonicalize_dtype(jnp.result_type(leaf)).name
        for leaf in jax.tree.leaves(args)
        if isinstance(leaf, float | complex | np.ndarray | np.generic | jax.Array)
        and _tree.is_floating(leaf)
    }
    return found or {"float32"}
