"""How far to go where f hardly moves, and which leaves are moved entry by entry.

Steps begin at the size of an argument. Of 1 + x at 1e-8 the differences are rounding
then, though f is smooth: what counts is the length on which f changes.
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstab.gradcheck.differences.probes import Measurement, Probes
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.vectors import root_mean_square

# A leaf whose largest step moves f by so many units of rounding (to this power of eps)
# is resolved to far below what is asked for.
_RESOLVED = -0.75

# Movements below so many units are rounding.
_SEEN = 10

# How much farther to go if nothing is seen: the ladder reaches back so far.
_BLINDLY = 2.0**24

# Entries of one leaf that differ by more than this differ in size.
_SPREAD = 100.0


def farther(seen: Measurement, problem: Problem, reach, /) -> tuple | None:
    """By how much farther than the size of each leaf to go, to see f move.

    No leaf is moved farther than one that is zero would be, and nothing that iterates
    is moved farther at all.

    Args:
        seen: one round of probes.
        problem: that was probed.
        reach: how many times its size each leaf was moved in it.

    Returns:
        The new factors, powers of two; None if none is larger.
    """
    if problem.iterates:
        return None
    grown = [
        r * _gain(probes, problem.dtype)
        for r, probes in zip(reach, seen.leaves, strict=False)
    ]
    return (
        tuple(grown) if any(g > r for g, r in zip(grown, reach, strict=True)) else None
    )


def _gain(probes: Probes, dtype: DTypeLike) -> float:
    eps = float(jnp.finfo(dtype).eps)
    if not is_small(probes, dtype) or not probes.movable:
        return 1.0
    level = int(np.argmax(probes.steps <= probes.scale))
    moved, rounding = probes.moved[level], probes.rounding[level]
    if not moved > _SEEN * rounding:
        gain = _BLINDLY
    else:
        gain = 2.0 ** np.ceil(np.log2(eps**_RESOLVED * rounding / moved))
    return float(np.clip(gain, 1.0, 2.0 ** np.ceil(-np.log2(probes.scale))))


def too_small(seen: Measurement, problem: Problem, zero: set, /) -> bool:
    """Whether a derivative seems zero because the argument is nearly.

    Args:
        seen: one round of probes.
        problem: that was probed.
        zero: the names of the leaves whose derivative seems to be zero.
    """
    tiny = float(jnp.finfo(problem.dtype).eps) ** 0.5
    return any(
        name in zero and probes.scale < tiny and is_small(probes, problem.dtype)
        for name, probes in zip(problem.names, seen.leaves, strict=False)
    )


def is_small(probes: Probes, dtype: DTypeLike, /) -> bool:
    """Whether a leaf is so small that beside f's value its movements are rounding.

    Of one that seems to have no slope only if f would have to be steep to be seen.
    """
    eps = float(jnp.finfo(dtype).eps)
    nothing = all(root_mean_square(r) == 0 for r in probes.rules.values())
    return probes.scale < (eps**0.5 if nothing else 1.0)


def differ_in_size(point: tuple, /) -> bool:
    """Whether a leaf has entries, other than zero, of very different sizes."""
    return any(_spread(np.abs(np.asarray(x, np.float64))) > _SPREAD for x in point)


def _spread(sizes) -> float:
    used = sizes[np.isfinite(sizes) & (sizes > 0)]
    return float(np.max(used) / np.min(used)) if used.size else 1.0
