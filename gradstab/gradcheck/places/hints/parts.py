"""Rules that are right for a part of the entries."""

import numpy as np

from gradstab.gradcheck.places.entry import is_pair
from gradstab.gradcheck.places.hints.evidence import Evidence
from gradstab.gradcheck.places.hints.factors import named_factor
from gradstab.gradcheck.subject.vectors import root_mean_square

# Entries that are looked at one by one.
_SAMPLE = 16

# A derivative is compared where it is so many times its bar.
_CLEAR = 1e3


def rows_cause(known: Evidence, /) -> str:
    """One row of an axis is right, or wrong, and not the others."""
    shape = known.seen.shape
    axes = [axis for axis, n in enumerate(shape) if n > 1]
    if len(shape) - is_pair(known.seen) < 2:
        return ""
    for axis in axes[: len(shape) - is_pair(known.seen)]:
        number = np.arange(shape[axis])
        masks = [number == k for k in (0, 1, number[-1])]
        masks += [~masks[0], ~masks[-1]]
        errors, bars = known.seen.gaps(_masked(known, axis, masks))
        wrong = errors > bars
        right = [known.is_nothing(*pair) for pair in zip(errors, bars, strict=True)]
        if right[4] and wrong[2]:
            return f"wrong in the last row only (axis {axis})"
        if right[3] and wrong[0]:
            return f"wrong in the first row only (axis {axis})"
        if right[0] and wrong[1] and wrong[2]:
            return f"right in the first row only (axis {axis}): is the batch forgotten?"
    return ""


def _masked(known: Evidence, axis: int, masks):
    shape = known.seen.shape
    lined = [1] * len(shape)
    lined[axis] = shape[axis]
    full = known.seen.direction.reshape(shape)
    return np.stack([(full * mask.reshape(lined)).ravel() for mask in masks])


def partial_factor_cause(known: Evidence, /) -> str:
    """Some entries are the truth times one number, and the others are right."""
    seen = known.seen
    num = min(_SAMPLE, seen.x.size)
    entries = known.rng.choice(seen.x.size, num, replace=False)
    moved = np.zeros((num, seen.x.size))
    moved[np.arange(num), entries] = seen.direction[entries]
    slopes = seen.slopes(moved)
    truth, rule = slopes.value @ seen.cotangents.T, seen.rule(slopes.moved)
    bars = np.array([root_mean_square(s) for s in slopes.spread @ seen.cotangents.T])
    bars += 6 * seen.noise / seen.step
    sizes = np.array([root_mean_square(row) for row in truth])
    clear = sizes > _CLEAR * bars
    if not clear.any():
        return ""
    truth, rule, bars, sizes = truth[clear], rule[clear], bars[clear], sizes[clear]
    factors = np.sum(rule * truth, axis=1) / np.sum(truth**2, axis=1)
    wrong = np.abs(factors - 1) > 2 * bars / sizes
    if not wrong.any() or wrong.all():
        return ""
    factor, doubt = float(np.median(factors[wrong])), 2 * float(np.max(bars / sizes))
    fitted = np.where(wrong, factor, 1.0)[:, None] * truth
    gaps = np.array([root_mean_square(row) for row in rule - fitted])
    if factor == 0 or np.any(gaps > 2 * max(abs(factor), 1.0) * bars):
        return ""
    count = np.count_nonzero(wrong)
    return (
        f"a factor of {named_factor(factor, doubt)} in {count} of the {len(wrong)} "
        "entries looked at, and right in the others"
    )
