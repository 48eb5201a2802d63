"""Panels between which a function is smooth, found by bisection, kinks included."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from gradstab.errors import UserValueError

NUM_POINTS = 16
POINTS, WEIGHTS = np.polynomial.legendre.leggauss(NUM_POINTS)
_ONES = np.ones(NUM_POINTS)


def find_panels(
    at: Callable[..., Any], reach: float, tolerance: float, /
) -> tuple[np.ndarray, np.ndarray]:
    """Edges within ``reach`` of zero between which a function is a polynomial.

    Bisects once to find the kinks, and once more with the kinks as edges.

    Args:
        at: from an array of points to values and slopes at them.
        reach: how far from zero to look.
        tolerance: error of value and slope, relative to the largest on the panel or
            within two of zero, whichever is larger.

    Returns:
        The edges, ascending, and those of them that are kinks or jumps.

    Raises:
        ValueError: if 1e5 panels do not suffice.
    """
    # Edges that no one would choose, so that no kink falls on one and goes unseen.
    rough = _bisect(at, np.linspace(-1.0137, 1.0071, 34) * reach, tolerance)
    kinks = _narrowest(rough)
    kinks = kinks[np.abs(kinks) < reach]
    edges = _bisect(at, np.unique([-reach, *kinks, reach]), tolerance)
    # Empty panels at the end, so that few sizes are compiled.
    size = max(8, 1 << (len(edges) - 1).bit_length())
    return np.pad(edges, (0, size - len(edges)), mode="edge"), kinks


def _bisect(at: Callable[..., Any], edges: np.ndarray, tolerance: float) -> np.ndarray:
    """Halves panels until a polynomial of degree 15 follows value and slope.

    It must follow them to the very ends of the panel: a kink between the end and the
    outermost point would go unseen.
    """
    unit, done, left, right = 0.0, [edges], edges[:-1], edges[1:]
    while left.size:
        middle = (left + right) / 2
        inside = np.maximum(1e-12 * (right - left), 4 * np.spacing(np.abs(middle)))
        points = middle[:, None] + (right - left)[:, None] / 2 * POINTS
        points = np.column_stack([points, left + inside, right - inside])
        pair = np.stack(list(at(points)))
        near = np.isfinite(pair) & (np.abs(points) < 2)
        unit = np.max(np.abs(pair), where=near, initial=unit)
        # An entry x is itself rounded, by eps |x|.
        allowed = tolerance * np.maximum(1.0, np.abs(middle) / 64)
        rough = np.any([_misfit(y, unit) > allowed for y in pair], axis=0)
        floor = 4e-14 * np.maximum(1.0, np.abs(middle))
        split = rough & (right - left > floor)
        done.append(middle[split])
        left, right = (
            np.concatenate(sides)
            for sides in ((left[split], middle[split]), (middle[split], right[split]))
        )
        if sum(map(len, done)) + len(left) > 1e5:
            raise UserValueError(
                f"the activation has more than 1e5 pieces within {edges[-1]:g} of "
                "zero; it has to be a fixed function, smooth between its kinks and "
                "computed in the precision of its result."
            )
    return np.sort(np.concatenate(done))


def _misfit(values, unit: float) -> np.ndarray:
    """The last Legendre coefficients and the error at both ends, of each panel.

    Relative to its largest value, or to ``unit`` if that is larger.
    """
    finite = np.isfinite(values)
    whole, partly = finite.all(axis=1), finite.any(axis=1)
    values = np.where(whole[:, None], values, 0.0)
    coefficients = values[:, :NUM_POINTS] @ legendre()
    ends = coefficients @ np.array([(-1.0) ** np.arange(NUM_POINTS), _ONES]).T
    misfit = np.maximum(
        np.max(np.abs(coefficients[:, -3:]), axis=1),
        np.max(np.abs(ends - values[:, NUM_POINTS:]), axis=1) / NUM_POINTS,
    )
    largest = np.maximum(np.max(np.abs(values), axis=1), unit)
    return np.where(whole, misfit / np.where(largest > 0, largest, 1.0), partly)


@functools.cache
def legendre() -> np.ndarray:
    """Values at the points to Legendre coefficients."""
    orders = np.arange(NUM_POINTS)
    polynomials = np.polynomial.legendre.legvander(POINTS, NUM_POINTS - 1)
    return WEIGHTS[:, None] * polynomials * (orders + 0.5)


def _narrowest(edges: np.ndarray) -> np.ndarray:
    """Where bisection ran deepest: kinks, jumps, jumps of the second derivative."""
    widths = np.diff(edges)
    narrow = np.flatnonzero(widths < 1e-3)
    runs = np.split(narrow, np.flatnonzero(np.diff(narrow) > 1) + 1)
    places = []
    for run in runs:
        if run.size:
            deepest = run[widths[run] < 1.5 * widths[run].min()]
            places.append((edges[deepest[0]] + edges[deepest[-1] + 1]) / 2)
    places = np.array(places)
    # Most kinks are at round numbers, and at zero it matters that they are exactly.
    near = np.round(places * 2**16) / 2**16
    return np.where(np.abs(near - places) < 1e-9, near, places)
