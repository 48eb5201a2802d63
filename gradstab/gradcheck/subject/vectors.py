"""Vectors of several arrays: their products, and some whose sums are exact."""

from collections.abc import Callable
from typing import Any

import numpy as np


def exact_combinations(rng: np.random.Generator, like, /, *, kept: int = 0) -> list:
    """One random vector in seven versions, between which additions are exact.

    Its entries are odd multiples of 1/16 below four, nearly normal and never zero:
    in every dtype down to bfloat16 the sums of the versions are exact.

    Args:
        rng: draws the vector.
        like: arrays or shape records, together one vector.
        kept: how many arrays the part keeps; if none, it keeps one entry.

    Returns:
        The vector itself, -2 times it, a part of it (zero elsewhere), the rest, ones,
        the vector plus ones, and zeros.

    >>> w, _, part, rest, ones, raised, _ = exact_combinations(
    ...     np.random.default_rng(0), [np.zeros(3, np.float16)]
    ... )
    >>> bool(np.all(part[0] + rest[0] == w[0]) and np.all(raised[0] - ones[0] == w[0]))
    True
    """
    w = tuple(_odd_sixteenths(rng, leaf) for leaf in like)
    part = _part(w, kept)
    return [
        w,
        _each(lambda a: -2 * a, w),
        part,
        _each(lambda a, b: a - b, w, part),
        _each(np.ones_like, w),
        _each(lambda a: a + 1, w),
        _each(np.zeros_like, w),
    ]


def dot(a: Any, b: Any, /):
    """The inner product of two vectors, in float64."""
    return sum(np.vdot(np.float64(x), np.float64(y)) for x, y in zip(a, b, strict=True))


def norm(a: Any, /):
    """The Euclidean norm of a vector, in float64."""
    return np.sqrt(sum(np.sum(np.square(np.float64(x))) for x in a))


def root_mean_square(a: Any, /) -> float:
    """Without overflow; infinite or NaN if an entry is.

    >>> root_mean_square(np.array([3e300, -3e300])), root_mean_square(np.zeros(2))
    (3e+300, 0.0)
    """
    magnitude = np.abs(np.asarray(a, np.float64))
    largest = float(np.max(magnitude))
    if not np.isfinite(largest) or largest == 0:
        return largest
    return float(largest * np.sqrt(np.mean((magnitude / largest) ** 2)))


def _odd_sixteenths(rng: np.random.Generator, leaf: Any):
    z = np.clip(rng.standard_normal(leaf.shape), -3, 3)
    return np.asarray((2 * np.floor(8 * z) + 1) / 16).astype(leaf.dtype)


def _part(w, kept):
    if kept:
        return tuple(a if n < kept else np.zeros_like(a) for n, a in enumerate(w))
    part = _each(np.zeros_like, w)
    part[0].flat[-1] = w[0].flat[-1]
    return part


def _each(function: Callable[..., Any], *vectors):
    """The function of every array, in the dtype of the first vector's."""
    return tuple(
        np.asarray(function(*arrays)).astype(arrays[0].dtype)
        for arrays in zip(*vectors, strict=True)
    )
