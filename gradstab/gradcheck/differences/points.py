"""Where a function is checked besides the point that was given.

A rule may be right at one point by chance: at a scale where a term does not matter, or
where no two entries are equal. The moved points have the same shapes, so nothing is
compiled for them.
"""

from collections.abc import Iterator

import numpy as np

from gradstab.gradcheck.differences.directions import directions
from gradstab.gradcheck.subject.vectors import root_mean_square

AS_GIVEN = "as given"
BESIDE = "beside the point given"

# Powers of two: what they do to the arguments is exact.
_SCALED = {
    "16 times as large": 16.0,
    "128 times as small": 2.0**-7,
    "with signs changed": -1.0,
}
TIES = "with zeros and ties"
EQUAL = "with equal arguments"

# How far beside a kink the rule is checked again, in sizes of the argument.
_BESIDE = 2.0**-3


def moved(leaves: tuple, rng: np.random.Generator, /) -> Iterator[tuple[str, tuple]]:
    """Other points: large, small, of the other sign, with zeros and ties, and equal.

    A leaf that is zero everywhere is filled with random numbers of size one first.

    Args:
        leaves: the point given.
        rng: of these numbers.

    Yields:
        What was done in words, and the point.
    """
    filled = [np.asarray(x, np.float64) for x in leaves]
    filled = [x if np.any(x) else directions(rng, [x], num=1)[0][0] for x in filled]
    for name, factor in _SCALED.items():
        yield name, _like(leaves, [factor * x for x in filled])
    yield TIES, _like(leaves, _tied(filled))
    if len({x.shape for x in leaves}) < len(leaves):
        yield EQUAL, _like(leaves, _equal(filled))


def beside(leaves: tuple, rng: np.random.Generator, /) -> tuple:
    """A point a little away in every leaf, where a kink at the point is not met."""
    moves = [directions(rng, [x], num=1)[0][0] for x in leaves]
    sizes = [_BESIDE * (root_mean_square(x) or 1.0) for x in leaves]
    points = map(np.asarray, leaves)
    return _like(
        leaves, [x + s * v for x, s, v in zip(points, sizes, moves, strict=True)]
    )


def _tied(leaves):
    """Of four entries one is zero and one like all such entries of that shape."""
    shared = {}
    tied = []
    for x in leaves:
        place = np.arange(x.size).reshape(x.shape) % 4
        level = shared.setdefault(x.shape, x.flat[0] or root_mean_square(x))
        tied.append(np.where(place == 0, 0.0, np.where(place == 2, level, x)))
    return tied


def _equal(leaves):
    """All leaves of one shape like the first of them."""
    first = {}
    return [first.setdefault(x.shape, x) for x in leaves]


def _like(leaves, arrays):
    return tuple(a.astype(x.dtype) for a, x in zip(arrays, leaves, strict=True))
