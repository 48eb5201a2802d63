"""Rules that give the true gradient in the wrong place, or without a part of it."""

import itertools

import numpy as np

from gradstab.gradcheck.places.comparison import Comparison
from gradstab.gradcheck.places.hints.evidence import Evidence
from gradstab.gradcheck.places.leaf_programs import LeafPrograms
from gradstab.gradcheck.subject.vectors import root_mean_square


def undefined_cause(known: Evidence, /) -> str:
    """Numbers that are not finite, and whether the others are right."""
    if known.gradients is None:
        return "" if np.isfinite(known.rule).all() else "not finite"
    good = np.isfinite(known.gradients).all(axis=0)
    num = good.size - np.count_nonzero(good)
    if not num:
        return ""
    found = f"not finite in {num} of {good.size} entries"
    direction = known.seen.direction * good
    gradients = np.where(good, known.gradients, 0.0)
    error, bar = known.seen.gaps(direction[None], gradients)
    if not good.any() or error[0] > bar[0]:
        return found
    return (
        f"{found} and right in the others: is something infinite or undefined computed "
        "there under a mask?"
    )


def transpose_cause(known: Evidence, /) -> str:
    """The gradient of the matrix is that of its transpose."""
    if known.gradients is None:
        return ""
    shape = known.seen.shape
    shaped = known.shaped(known.gradients)
    for a, b in itertools.combinations(range(len(shape)), 2):
        if shape[a] == shape[b] > 1:
            turned = shaped.swapaxes(a + 1, b + 1).reshape(len(shaped), -1)
            table = known.slopes.moved @ turned.T
            if known.fits(table):
                return f"the gradient is transposed (axes {a} and {b})"
            if known.fits(table, _of_transposed_cotangents(known, a, b)):
                return (
                    "a transposition is missing: the gradient is the transpose of the "
                    f"one that belongs to the transposed cotangent (axes {a} and {b})"
                )
    return _transposed_map(known)


def _of_transposed_cotangents(known: Evidence, a, b):
    """The true table for cotangents whose axes are exchanged, where they can be."""
    weights = [
        w.swapaxes(a + 1, b + 1)
        if w.ndim > b + 1 and w.shape[a + 1] == w.shape[b + 1]
        else w
        for w in known.by_output(known.seen.cotangents)
    ]
    flat = np.concatenate([w.reshape(len(w), -1) for w in weights], axis=1)
    return known.slopes.value @ flat.T


def _transposed_map(known: Evidence) -> str:
    """The gradient is J w in the place of J' w."""
    seen = known.seen
    if seen.x.size != seen.num_outputs or seen.x.size == 1:
        return ""
    forward = seen.slopes(seen.cotangents).value
    if known.fits(known.rule, known.slopes.moved @ forward.T):
        return "the Jacobian is transposed: is A used for A.T?"
    return ""


def exchange_cause(known: Evidence, /) -> str:
    """The gradient that belongs here was returned for another argument."""
    seen = known.seen
    if known.gradients is None or len(seen.programs.alike) < 2:
        return ""
    returned = seen.programs.pull(seen.point, seen.cotangents)
    for i, gradients in returned.items():
        if i == seen.leaf or not known.fits(known.slopes.moved @ gradients.T):
            continue
        programs = LeafPrograms(seen.problem, i)
        other = Comparison(programs, seen.point, "reverse", known.rng)
        error, bar = other.gaps(other.direction[None])
        seen.programs.evaluations += programs.evaluations
        if error[0] > bar[0]:
            return f"exchanged with the gradient of {seen.problem.names[i]}"
    return ""


def region_cause(known: Evidence, /) -> str:
    """Entries get no gradient, and the others are right."""
    if known.gradients is None:
        return ""
    zero = ~known.gradients.any(axis=0)
    if not zero.any() or zero.all():
        return ""
    regions = list(_regions(zero.reshape(known.seen.shape)))
    masked = [known.seen.direction * ~mask.ravel() for mask, _ in regions]
    errors, bars = known.seen.gaps(np.stack(masked))
    for (_, name), error, bar in zip(regions, errors, bars, strict=True):
        if known.is_nothing(error, bar):
            return f"no gradient for {name}, and right ones for the others"
    return ""


def _regions(zero):
    """Ends of axes, then of the whole, then just the zeros, each as mask and name."""
    for axis, size in enumerate(zero.shape):
        if zero.ndim == 1:
            break
        others = tuple(k for k in range(zero.ndim) if k != axis)
        yield from _ends(zero.all(axis=others), size, axis, zero.shape)
    for mask, name in _ends(zero.ravel(), zero.size, None, (zero.size,)):
        yield mask.reshape(zero.shape), name
    yield zero, f"{np.count_nonzero(zero)} of {zero.size} entries"


def _ends(line, size: int, axis, shape):
    what = "element" if axis is None else "row"
    along = "" if axis is None else f" (axis {axis})"
    for word, run in (("last", line[::-1]), ("first", line)):
        num = int(np.argmin(run))  # entries before the one that is not zero
        if not 0 < num < size:
            continue
        index = np.arange(size)
        mask = index >= size - num if word == "last" else index < num
        lined = [1] * len(shape)
        lined[axis or 0] = size
        some = f"{word} {what}" if num == 1 else f"{word} {num} of {size} {what}s"
        yield np.broadcast_to(mask.reshape(lined), shape), f"the {some}{along}"


def missing_term_cause(known: Evidence, /) -> str:
    """The error is a multiple of something known in every row.

    Along directions orthogonal to that in every row the rule is right, and not because
    f does not move there.
    """
    if known.gradients is None:
        return ""
    terms = list(_terms(known))
    if not terms:
        return ""
    directions = np.stack([_orthogonal(known, axis, row) for axis, row, _ in terms])
    seen = known.seen.slopes(directions)
    errors, bars = known.seen.gaps(directions)
    slopes = [root_mean_square(y) for y in seen.value @ known.seen.cotangents.T]
    for (axis, _, name), error, bar, y in zip(terms, errors, bars, slopes, strict=True):
        if known.is_nothing(error, bar) and y > 10 * bar:
            return f"the error is {name} along axis {axis}"
    return ""


def _terms(known: Evidence):
    """Along which axis, what the error may be a multiple of, and its name."""
    seen = known.seen
    x = np.where(seen.held, 0.0, seen.x.astype(np.float64)).reshape(seen.shape)
    outputs = seen.problem.outputs
    for axis in reversed([k for k, n in enumerate(seen.shape) if n > 2]):
        centred = x - x.mean(axis=axis, keepdims=True)
        yield axis, np.ones_like(x), "constant: is a centring term missing"
        if len(outputs) == 1 and outputs[0].shape == x.shape:
            y = seen.value.reshape(x.shape)
            yield axis, y, "a multiple of the output: is a normalising term missing"
        yield axis, x, "a multiple of the argument: is the term of a norm missing"
        yield (
            axis,
            centred,
            "a multiple of the centred argument: is the term of a variance missing",
        )


def _orthogonal(known: Evidence, axis, row):
    direction = known.seen.direction.reshape(known.seen.shape)
    square = np.sum(row**2, axis=axis, keepdims=True)
    part = np.sum(direction * row, axis=axis, keepdims=True)
    part = np.divide(part, square, out=np.zeros_like(part), where=square > 0)
    return (direction - row * part).ravel()
