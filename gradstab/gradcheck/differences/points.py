"""Where a function is checked besides the point that was given.

A rule may be right at one point by chance: at a scale where a term does not matter, at
a matrix that is its own transpose, or where no two entries are equal. The moved points
have the same shapes, so nothing is compiled for them.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradstab.gradcheck.differences.directions import directions
from gradstab.gradcheck.subject.vectors import root_mean_square

AS_GIVEN = "as given"
BESIDE = "beside the point given"

GENERIC = "moved at random"
DOWN = "moved at random, zeros down"
# Powers of two: what they do to the arguments is exact.
_SCALED = {
    "16 times as large": 16.0,
    "128 times as small": 2.0**-7,
    "with signs changed": -1.0,
}
TIES = "with zeros and ties"
EQUAL = "with equal arguments"
NEIGHBOURS = "with equal neighbours"

# Points at which f may have kinks that no one would meet by chance.
DEGENERATE = (TIES, EQUAL, NEIGHBOURS)

# By which share of itself every entry is moved at random: and where f ends so near.
_SHARE = 2.0**-3
NEARER = 2.0**-6

# How far beside a kink the rule is checked again, in sizes of the argument.
_BESIDE = 2.0**-3

# Arguments of sizes more different than this are no two ends of one interval; nor are
# so many of one shape.
_ALIKE = 100.0
_MANY = 8


def moved(
    leaves: tuple, rng: np.random.Generator, /, *, neighbours: bool = False
) -> Iterator[tuple[str, tuple]]:
    """Other points: at random, large, small, of the other sign, with ties, and equal.

    A leaf that is zero everywhere is filled with random numbers of size one first.
    Where one leaf is below another in all entries (two ends of an interval), it stays
    so: what of the two exchanges its order is exchanged.

    Args:
        leaves: the point given.
        rng: of these numbers.
        neighbours: whether one is wanted at which every entry is like one beside it:
            all that a rule may do by rank (a minimum, a median, a pool) is tied there.

    Yields:
        What was done in words, and the point.
    """
    yield GENERIC, at_random(leaves, rng)
    if any(np.any(x) and not np.all(x) for x in map(np.asarray, leaves)):
        yield DOWN, at_random(leaves, rng, zeros=-1.0)
    filled = _filled(leaves, rng)
    for name, factor in _SCALED.items():
        yield name, _like(leaves, _in_order(leaves, [factor * x for x in filled]))
    yield TIES, _like(leaves, _in_order(leaves, _tied(filled)))
    if any(map(np.any, map(np.not_equal, equal := _equal(filled), filled))):
        yield EQUAL, _like(leaves, equal)
    if neighbours and any(x.size > 1 for x in leaves):
        yield NEIGHBOURS, _like(leaves, map(_doubled, filled))


def at_random(
    leaves, rng: np.random.Generator, /, *, share: float = _SHARE, zeros: float = 1.0
) -> tuple:
    """A point that has nothing special: no symmetry, no zeros, no equal entries.

    Every entry is moved by about that share of itself, one that is zero by that of the
    root mean square of its leaf: all to one side, since f may end or bend there.

    Args:
        leaves: the point given.
        rng: of the moves.
        share: how far.
        zeros: to which side, if it is a leaf that is not zero everywhere.
    """
    points = []
    for x in _filled(leaves, rng):
        size = np.where(x == 0, _size(x), np.abs(x))
        sign = np.where(x == 0, zeros, rng.choice([-1.0, 1.0], x.shape))
        move = share * sign * rng.uniform(0.5, 1.5, x.shape)
        points.append(x + move * np.where(np.isfinite(x), size, 0.0))
    return _like(leaves, _in_order(leaves, points))


def beside(
    leaves, rng: np.random.Generator, /, *, share: float = _BESIDE, like: tuple = ()
) -> tuple:
    """A point a little away in every leaf, where a kink at the point is not met.

    Args:
        leaves: the point.
        rng: of the way.
        share: how far, in sizes of a leaf.
        like: leaves whose order is to be that of the point, if any.
    """
    moves = [directions(rng, [x], num=1)[0][0] for x in leaves]
    sizes = [share * (_size(x) or 1.0) for x in leaves]
    points = map(np.asarray, leaves)
    away = [x + s * v for x, s, v in zip(points, sizes, moves, strict=True)]
    return _like(leaves, _in_order(like, away))


def has_ties(point: Sequence[Any], /) -> bool:
    """Whether two entries of the leaves are equal."""
    values = np.concatenate([np.asarray(x, np.float64).ravel() for x in point])
    return len(np.unique(values)) < len(values)


def _filled(leaves, rng: np.random.Generator):
    wide = [np.asarray(x, np.float64) for x in leaves]
    return [x if np.any(x) else directions(rng, [x], num=1)[0][0] for x in wide]


def _size(x) -> float:
    """The root mean square of the finite entries; zero without any."""
    finite = np.isfinite(x)
    return root_mean_square(np.asarray(x)[finite]) if finite.any() else 0.0


def _tied(leaves):
    """Of eight entries two are zero, and three like all such entries of that shape.

    Those are like the largest of the first leaf, so that two share a maximum. A single
    number beside others is a scale, a border, a temperature: it is kept. If all are
    single, the first is zero.
    """
    single = all(x.size == 1 for x in leaves)
    levels = {}
    tied = []
    for n, x in enumerate(leaves):
        place = np.arange(x.size).reshape(x.shape) % 8
        level = levels.setdefault(x.shape, np.max(x) or _size(x))
        zero = (place % 4 == 0) & (x.size > 1 or (single and n == 0))
        top = (place % 4 == 2) | (place == 3) | ((place == 1) & (x.size == 3))
        tied.append(np.where(zero, 0.0, np.where(top, level, x)))
    return tied


def _equal(leaves):
    """All leaves of one shape like the first of them, borders and scales apart."""
    single, first = all(x.size == 1 for x in leaves), {}
    return [first.setdefault(x.shape, x) if x.size > 1 or single else x for x in leaves]


def _doubled(x: np.ndarray) -> np.ndarray:
    """Every other entry twice along every axis; the last of an odd number once more."""
    for axis, n in enumerate(x.shape):
        places = np.minimum(np.arange(n) // 2 * 2, max(n // 2 * 2 - 2, 0))
        x = np.take(x, places, axis=axis)
    return x


def ordered(leaves: tuple, /) -> list[tuple[int, int]]:
    """The pairs of leaves of one shape of which the first is below in all entries."""
    alike = {}
    for i, x in enumerate(leaves):
        alike.setdefault(x.shape, []).append(i)
    groups = [group for group in alike.values() if len(group) <= _MANY]
    wide = {i: np.asarray(leaves[i], np.float64) for g in groups for i in g}
    sizes = {i: root_mean_square(x) for i, x in wide.items()}
    return [
        (i, j)
        for i, j in itertools.chain(*(itertools.permutations(g, 2) for g in groups))
        if max(sizes[i], sizes[j]) <= _ALIKE * min(sizes[i], sizes[j])
        if np.all(wide[i] < wide[j])
    ]


def _in_order(leaves, arrays):
    """The arrays with the entries exchanged whose order is no longer that of leaves."""
    arrays, pairs = list(arrays), ordered(leaves)
    # Every exchange leaves fewer pairs in disorder: so many rounds are enough.
    for _ in pairs:
        for i, j in pairs:
            low, high = arrays[i], arrays[j]
            arrays[i], arrays[j] = np.minimum(low, high), np.maximum(low, high)
    return arrays


def _like(leaves, arrays):
    return tuple(a.astype(x.dtype) for a, x in zip(arrays, leaves, strict=True))
