"""Rules that are right for another cotangent than the one they were given."""

import itertools

import numpy as np

from gradstab.gradcheck.places.hints.evidence import Evidence
from gradstab.gradcheck.subject.arguments import AS_PAIR


def cotangent_cause(known: Evidence, /) -> str:
    """The gradient is the true one of a cotangent of which a part is not used.

    If the rule gives J'(S w) for some S, its table is <S w, J v>, and J v is known.
    """
    if known.gradients is None:
        return ""
    if hint := _ignored(known):
        return hint
    weights = known.by_output(known.seen.cotangents)
    slopes = known.by_output(known.slopes.value)
    whole = [_table(w, y) for w, y in zip(weights, slopes, strict=True)]
    for k, (w, y) in enumerate(zip(weights, slopes, strict=True)):
        others = sum(whole[:k] + whole[k + 1 :], np.zeros_like(known.truth))
        name = known.seen.problem.output_names[k].removesuffix(AS_PAIR)
        if name == "output":
            name = "the output"
        if len(whole) > 1 and known.fits(known.rule, others):
            return f"the cotangent of {name} is not used"
        for axis in range(1, w.ndim):
            if w.shape[axis] > 1 and (hint := _along(known, w, y, others, axis, name)):
                return hint
        for a, b in itertools.combinations(range(1, w.ndim), 2):
            square = w.shape[a] == w.shape[b]
            if square and known.fits(known.rule, others + _table(w.swapaxes(a, b), y)):
                return (
                    f"the cotangent of {name} is transposed, or summed over axis "
                    f"{a - 1} instead of {b - 1}"
                )
    return ""


def _ignored(known) -> str:
    """The same gradient for every cotangent."""
    first, *rest = known.gradients
    if not np.any(first) or not all(np.array_equal(first, g) for g in rest):
        return ""
    ones = np.broadcast_to(known.slopes.value.sum(axis=1)[:, None], known.truth.shape)
    assumed = ", as if it were one" if known.fits(known.rule, ones) else ""
    return f"the cotangent is ignored{assumed}"


def _along(
    known: Evidence, w: np.ndarray, y: np.ndarray, others, axis: int, name: str
) -> str:
    """A part of the cotangent is dropped, or one row stands for all."""
    size = w.shape[axis]
    where = f"axis {axis - 1} of {name}"
    total = y.sum(axis=axis)
    for row, word in ((0, "first"), (-1, "last")):
        if known.fits(known.rule, others + _table(w.take(row, axis), total)):
            return f"the {word} row of the cotangent, along {where}, is used for all"
    mean = _table(w.mean(axis=axis), total)
    if known.fits(known.rule, others + mean):
        return f"the mean of the cotangent over {where} is used for all its rows"
    rows = _rows(w, y, axis)
    sums = others[..., None] + np.cumsum(rows, axis=-1)
    kept = _best(known, sums)
    if kept is not None:
        return _kept_first(kept + 1, size, where)
    sums = others[..., None] + np.cumsum(rows[..., ::-1], axis=-1)
    kept = _best(known, sums)
    return "" if kept is None else _kept_last(kept + 1, size, where)


def _kept_first(kept, size: int, where: str):
    if kept == 1:
        return (
            f"only the first row of the cotangent is used: is a sum over {where} "
            "missing?"
        )
    dropped = size - kept
    rows = "row" if dropped == 1 else f"{dropped} of {size} rows"
    return f"the last {rows} of the cotangent, along {where}, dropped"


def _kept_last(kept, size: int, where: str):
    rows = "row" if kept == 1 else f"{kept} of {size} rows"
    return (
        f"only the last {rows} of the cotangent, along {where}, used: is a running "
        "sum lost?"
    )


def _best(known: Evidence, sums):
    """Which of the partial sums, all but the whole one, is the rule's table."""
    partial = sums[..., :-1]
    misfit = np.sqrt(np.mean((partial - known.rule[..., None]) ** 2, axis=(0, 1)))
    best = int(np.argmin(misfit))
    return best if known.is_nothing(misfit[best]) else None


def _table(w: np.ndarray, y: np.ndarray):
    """<w_j, y_k> as (directions, cotangents)."""
    return y.reshape(len(y), -1) @ w.reshape(len(w), -1).T


def _rows(w: np.ndarray, y: np.ndarray, axis: int):
    """The same before it is summed over one axis: (directions, cotangents, size)."""
    w, y = (np.moveaxis(a, axis, 1).reshape(len(a), a.shape[axis], -1) for a in (w, y))
    return np.einsum("jrm,krm->kjr", w, y)
