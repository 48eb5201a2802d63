r"""Averages of an activation over two Gaussian inputs at a time.

Given u, v is Gaussian of mean c u and deviation s. Of few pieces, the average over v is
integrated anew for every u. An activation that oscillates many times within a deviation
has thousands of pieces, so only those within reach of c u are taken; and where s spans
many of them, the conditional average is smooth on the scale of s whatever the function
is, so it is computed at few points and interpolated.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.errors import UserValueError
from gradstab.theory.gaussian_rule import (
    GRID,
    REACH,
    gaussian_nodes,
    nodes,
    value_and_slope,
)
from gradstab.theory.panels import NUM_POINTS, legendre

# Around a kink of the second factor the conditional mean changes within a standard
# deviation of the noise between the two; these panels resolve that layer.
_LAYER = np.array([-8.5, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.5])

# Up to so many panels are all taken; that costs a tenth of a second.
_FEW = 128

# A function averaged over a Gaussian of deviation s is a polynomial of degree 15 over
# so many s, to 1e-13 of its largest value: its n-th derivative is below sqrt(n!) / s^n.
_SMOOTH = 1.25

# Products of a value and a weight that are formed in a minute.
_MOST = 5e9


class Pair(NamedTuple):
    r"""Averages over two Gaussian inputs of correlation c = 1 - gap.

    Attributes:
        product: :math:`E\,\phi(u)\phi(v)`.
        half_gap: :math:`E (\phi(u) - \phi(v))^2 / 2`, which keeps its digits as c
            approaches one.
        slopes: :math:`E\,\phi'(u)\phi'(v)`.
    """

    product: float
    half_gap: float
    slopes: float


def pair_of(averages, q: float, other: float, gap: float, /) -> Pair:
    """Averages at variances ``q`` and ``other`` and correlation 1 - ``gap``.

    Args:
        averages: `Expectations` of the activation.
        q: a variance, above zero.
        other: the other one.
        gap: from 0 to 2.

    Raises:
        ValueError: if the activation oscillates too often for its pairs.
    """
    edges, kinks = averages.panels(np.sqrt(max(q, other)))
    if len(edges) <= _FEW:
        values = averages.compiled(_pair)(edges, kinks, q, other, float(gap))
        return Pair(*map(float, values))
    deviation = np.sqrt(gap * (2 - gap) * other)
    window = _window(edges, deviation)
    outer = len(edges) + len(_LAYER) * len(kinks)
    one_by_one = NUM_POINTS**2 * outer * window
    smoothed = _smoothed_work(edges, deviation, other)
    if min(one_by_one, smoothed) > _MOST:
        raise UserValueError(
            f"the activation has {len(edges)} pieces within ten standard deviations of "
            f"zero at variance {max(q, other):.3g}: averages over pairs of inputs of "
            f"correlation {1 - gap:.6g} would take minutes. Choose smaller weights, or "
            "an activation that oscillates less."
        )
    if smoothed < one_by_one:
        return _smoothed(averages, edges, q, other, gap)
    within = averages.compiled(_within(window))
    return Pair(*map(float, within(edges, kinks, q, other, float(gap))))


def _window(edges: np.ndarray, deviation: float) -> int:
    """The most panels within reach of a mean, rounded up to a power of four."""
    edges = np.unique(edges)
    ends = np.searchsorted(edges, edges + 2 * REACH * deviation, side="right")
    most = np.max(ends - np.arange(len(edges))) + 2
    return min(4 ** int(np.ceil(np.log2(most) / 2)), len(edges))


def _pair(
    activation: Callable[..., Any],
    edges: jax.Array,
    kinks: jax.Array,
    q: jax.Array,
    other: jax.Array,
    gap: jax.Array,
    window: int | None = None,
) -> jax.Array:
    """One integral inside another: v given u has mean c u and deviation s."""
    root, other = jnp.sqrt(q), jnp.sqrt(other)
    c, s = 1 - gap, jnp.sqrt(gap * (2 - gap))
    inverse = jnp.where(jnp.abs(c) > 1e-3, 1 / c, jnp.inf)
    layers = (kinks[:, None] / other + s * _LAYER[None, :]).reshape(-1) * inverse
    layers = jnp.where(jnp.isnan(layers), REACH, layers)
    z, weights = gaussian_nodes(jnp.concatenate([edges / root, layers]))

    def near(z: jax.Array) -> jax.Array:
        if window is None:
            return edges[None, :]
        lowest = other * (c * z - REACH * s)
        first = jnp.searchsorted(edges, lowest, side="right") - 1
        following = jnp.arange(window, dtype=first.dtype)[None, :]
        places = jnp.clip(first, 0)[:, None] + following
        return edges[jnp.minimum(places, len(edges) - 1)]

    def inner(z_and_weights: tuple[jax.Array, jax.Array]) -> jax.Array:
        z, weights = z_and_weights
        shifted = (near(z) / other - c * z[:, None]) / s
        noise, inner_weights = gaussian_nodes(shifted)
        u, v = root * z, other * (c * z[:, None] + s * noise)
        (a, slope_a), (b, slope_b) = (value_and_slope(activation, x) for x in (u, v))
        a, slope_a = a[:, None], slope_a[:, None]
        averaged = (a * b, (a - b) ** 2 / 2, slope_a * slope_b)
        joint = weights[:, None] * inner_weights
        return jnp.stack(
            [jnp.sum(jnp.where(joint > 0, joint * y, 0)) for y in averaged]
        )

    panels = (z.reshape(-1, NUM_POINTS), weights.reshape(-1, NUM_POINTS))
    return jnp.sum(jax.lax.map(inner, panels), axis=0)


@functools.cache
def _within(window: int) -> Callable[..., jax.Array]:
    """`_pair` with so many panels about every mean: one function for each number."""
    return functools.partial(_pair, window=window)


def _smoothed_work(edges: np.ndarray, deviation: float, other: float) -> float:
    """Products that `_smoothed` forms."""
    if deviation == 0:
        return np.inf
    share = min(1.0, (REACH + _SMOOTH) * deviation / (REACH * np.sqrt(other)))
    means = 2 * REACH * np.sqrt(other) / (_SMOOTH * deviation) + 1
    return NUM_POINTS**2 * means * share * (len(edges) + means)


def _smoothed(averages, edges: np.ndarray, q: float, other: float, gap: float) -> Pair:
    r"""With the conditional averages of :math:`\phi, \phi^2, \phi'` interpolated."""
    c, deviation = 1 - gap, np.sqrt(gap * (2 - gap) * other)
    width = _SMOOTH * deviation
    y, weights = _points(edges, np.sqrt(other), width)
    value, slope = averages.at(y)
    table = weights[:, None] * np.stack([value, value**2, slope], axis=1)
    conditional = _Conditional(y, table, deviation, abs(c) * REACH * np.sqrt(other))
    ratio = c * np.sqrt(other / q)
    x, weights = _points(edges, np.sqrt(q), width / max(abs(ratio), 1e-3))
    weights = weights * np.exp(-(x**2) / (2 * q)) / np.sqrt(2 * np.pi * q)
    value, slope = averages.at(x)
    mean, square, slope_mean = conditional(ratio * x)
    averaged = (value * mean, (value**2 - 2 * value * mean + square) / 2)
    return Pair(*(float(weights @ f) for f in (*averaged, slope * slope_mean)))


def _points(edges: np.ndarray, root: float, width: float) -> Iterator[np.ndarray]:
    """Points and weights up to ten deviations from zero, on panels below a width."""
    edges = np.unique(np.r_[np.clip(edges, -REACH * root, REACH * root), GRID * root])
    parts = np.ceil(np.diff(edges) / width).astype(int)
    starts = np.repeat(edges[:-1], parts)
    number = np.arange(len(starts)) - np.repeat(np.cumsum(parts) - parts, parts)
    starts = starts + number * np.repeat(np.diff(edges) / parts, parts)
    return map(np.asarray, nodes(np.append(starts, edges[-1])))


class _Conditional:
    """Averages over a Gaussian about a mean, interpolated between panels of means.

    Args:
        y: (n,) ascending points.
        table: (n, k) functions at them, times the weights of the integral.
        deviation: of the Gaussian.
        largest: the largest mean.
    """

    def __init__(
        self, y: np.ndarray, table: np.ndarray, deviation: float, largest: float
    ) -> None:
        self.num = int(np.ceil(2 * largest / (_SMOOTH * deviation))) + 1
        edges = np.linspace(-largest, largest, self.num + 1)
        self.largest = max(largest, np.finfo(float).tiny)
        if largest == 0:
            edges = np.array([-deviation, deviation]) / 2
            self.largest = deviation / 2
        means = np.asarray(nodes(edges)[0]).reshape(-1, NUM_POINTS)
        ends = np.searchsorted(
            y, [edges[:-1] - REACH * deviation, edges[1:] + REACH * deviation]
        )
        self.coefficients = np.stack(
            [
                legendre().T @ _averages(row, y[i:j], table[i:j], deviation)
                for row, i, j in zip(means, *ends, strict=True)
            ]
        )

    def __call__(self, means: np.ndarray) -> list[np.ndarray]:
        """The k functions at means ``(n,)``."""
        place = (means / self.largest + 1) / 2 * self.num
        panel = np.clip(place.astype(int), 0, self.num - 1)
        orders = np.polynomial.legendre.legvander(
            2 * (place - panel) - 1, NUM_POINTS - 1
        )
        rows = np.moveaxis(self.coefficients, 2, 0)
        return [np.einsum("ni,ni->n", orders, row[panel]) for row in rows]


def _averages(
    means: np.ndarray, y: np.ndarray, table: np.ndarray, deviation: float
) -> np.ndarray:
    """The average about each of some means: (means, k)."""
    kernel = np.exp(-(((y - means[:, None]) / deviation) ** 2) / 2)
    return kernel @ table / (deviation * np.sqrt(2 * np.pi))
