"""Rules that round to a narrower dtype inside."""

import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.places.hints.evidence import Evidence
from gradstab.gradcheck.subject.vectors import root_mean_square

_NARROW = (jnp.bfloat16, jnp.float16)

# Entries that are looked at one by one.
_SAMPLE = 16


def precision_cause(known: Evidence, /) -> str:
    """The gradient or the cotangent is rounded, or its errors look like that."""
    if known.gradients is None:
        return ""
    for dtype in _NARROW:
        limits = jnp.finfo(dtype)
        if float(limits.eps) <= known.seen.eps:
            continue
        name = limits.dtype.name
        w = known.seen.cotangents
        with np.errstate(over="ignore"):
            rounded = w.astype(dtype).astype(np.float64)
            narrow = known.gradients.astype(dtype).astype(np.float64)
        if known.fits(known.rule, known.slopes.value @ rounded.T):
            return f"the cotangent is rounded to {name}"
        if np.array_equal(narrow, known.gradients) and _is_rounding(known, limits.eps):
            return f"the gradient is rounded to {name}"
    return _looks_rounded(known)


def _is_rounding(known, eps) -> bool:
    """Whether the error is as large as rounding makes it: eps / 2 at most, uniform."""
    squares = (known.slopes.moved**2) @ (known.gradients.T**2)
    expected = float(eps) / 2 / np.sqrt(3) * np.sqrt(np.mean(squares))
    return bool(0.2 < known.error / expected < 3)


def _looks_rounded(known) -> str:
    """Relative errors near 2^-9, of either sign, in entries that stand out."""
    seen = known.seen
    num = min(_SAMPLE, seen.x.size)
    entries = known.rng.choice(seen.x.size, num, replace=False)
    moved = np.zeros((num, seen.x.size))
    moved[np.arange(num), entries] = seen.direction[entries]
    slopes = seen.slopes(moved)
    truth = slopes.value @ seen.cotangents.T
    bar = np.abs(slopes.spread @ seen.cotangents.T) + 6 * seen.noise / seen.step
    clear = np.abs(truth) > 2.0**13 * bar
    if np.count_nonzero(clear) < num:
        return ""
    errors = (seen.rule(slopes.moved)[clear] / truth[clear]) - 1
    eps = float(jnp.finfo(jnp.bfloat16).eps)
    positive = np.mean(errors > 0)
    like_rounding = (
        eps / 12 < root_mean_square(errors) < eps / 2
        and eps / 32 < np.median(np.abs(errors))
        and np.max(np.abs(errors)) < 2 * eps
        and 0.2 < positive < 0.8
    )
    if not like_rounding:
        return ""
    size = int(np.round(np.log2(root_mean_square(errors))))
    return (
        f"relative errors near 2^{size} of either sign: is something rounded to "
        "bfloat16 inside?"
    )
