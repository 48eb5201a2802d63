r"""Averages of an activation under the Gaussian, exact to rounding, kinks included.

Mean-field theory needs :math:`E\,\phi(\sqrt q z)^2` and its kin. Gauss-Hermite rules
converge fast only for activations that are smooth on the scale :math:`1 / \sqrt q`:
with 128 nodes the mean squared slope of a hard tanh is 8 % off, that of tanh 1 % at
q = 10 and 80 % at q = 100. So the Gaussian is written as a weight on Gauss-Legendre
panels whose edges lie where the activation asks for them: at its kinks and jumps, which
are found by bisection, and as close as its curvature needs. The same panels then serve
every q.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.errors import UserValueError
from gradstab.program.cache import Cache
from gradstab.program.compiling import quick_jit
from gradstab.theory.gaussian_rule import (
    GRID,
    REACH,
    gaussian_nodes,
    nodes,
    value_and_slope,
)
from gradstab.theory.pairs import Pair, pair_of
from gradstab.theory.panels import find_panels

# Points at which the activation is computed at a time.
_AT_ONCE = 2048

# Below the least q only one-sided limits at zero are left.
_LEAST_Q = 1e-300

# Panels reach so far at most, or if there are too many less far. A tail that is a power
# has one or two from half of it on; an activation that has more oscillates all the way.
_REACHES = 2.0**14, 2.0**12, 2.0**10
_PIECES_OF_A_TAIL = 8

# Below this variance all averages are resolved.
_EASY = (_REACHES[-1] / REACH) ** 2


class Moments(NamedTuple):
    r"""Averages over x = sqrt(q) z with z standard normal.

    Attributes:
        mean: :math:`E\,\phi`.
        square: :math:`E\,\phi^2`.
        slope_square: :math:`E\,\phi'^2`.
        slope_fourth: :math:`E\,\phi'^4`.
        growth: :math:`d E\,\phi^2 / dq = E\,\phi \phi' z / \sqrt q`, which needs no
            second derivative and so holds for kinks too.
    """

    mean: float
    square: float
    slope_square: float
    slope_fourth: float
    growth: float


def expectations(activation, /) -> "Expectations":
    """The Gaussian averages of an activation, remembered for the last few of them."""
    try:
        hash(activation)
    except TypeError:  # a callable that holds arrays
        return Expectations(activation)
    return _remembered(activation)


class Expectations:
    r"""Gaussian averages of one elementwise activation, in float64.

    Errors are below 1e-12 of the largest value for an activation that is computed in
    float64, with any number of kinks and jumps, for q from zero to 1e6, and beyond
    where it is asymptotically a power. An activation computed in a lower precision is
    averaged to that precision.

    Args:
        activation: a function of an array, written in JAX, that acts on each entry by
            itself.

    Raises:
        ValueError: if it mixes entries, changes the shape, is not a number somewhere,
            or cannot be resolved (random, or rougher than 1e5 pieces).
    """

    def __init__(self, activation, /):
        self.activation = activation
        self._compiled, self._panels = {}, {}
        # What was interpolated, see `averaged`.
        self.fits = Cache(most=512)
        self._tolerance = self._check()

    def moments(self, q, /) -> Moments:
        """Averages at variance ``q``; at zero the one-sided limits."""
        return Moments(*(float(np.ravel(values)[0]) for values in self.many([q])))

    def many(self, variances, /, mean=0.0) -> Moments:
        """Averages at several variances, of inputs that share one mean.

        Args:
            variances: (k,)
            mean: of the Gaussian.

        Returns:
            Moments, each an array (k,).

        Raises:
            ValueError: if the activation is not a number there, or oscillates there and
                a variance is above `resolved`.
        """
        q = np.asarray(variances, np.float64)
        if q.max() > _EASY and q.max() > (1 + 1e-9) * self.resolved:
            raise UserValueError(
                "the activation oscillates too often to be averaged at variance "
                f"{q.max():.3g}: its averages are resolved up to {self.resolved:.2g}"
            )
        edges, _ = self.panels(np.sqrt(q.max()) + abs(mean) / REACH)
        moments = Moments(*_moments(self.at, edges, np.maximum(q, _LEAST_Q), mean))
        wrong = np.isnan(moments.square) | np.isnan(moments.slope_square)
        if wrong.any():
            raise UserValueError(
                f"the activation or its slope is not a number within {REACH:g} "
                f"standard deviations of {mean:g} at variance {q[wrong][0]:g}; it has "
                "to be finite (with jnp.where, guard the branch that is not taken as "
                "well)."
            )
        # Nothing but slopes at zero.
        tiny = (q < _LEAST_Q) & (moments.square < 1e-100)
        share = np.where(tiny, np.minimum(q, _LEAST_Q) / _LEAST_Q, 1.0)
        return moments._replace(square=moments.square * share)

    def pair(self, q, other, gap, /) -> Pair:
        """Averages at variances ``q`` and ``other`` and correlation 1 - ``gap``."""
        q, other = (max(float(value), _LEAST_Q) for value in (q, other))
        return pair_of(self, q, other, gap)

    def panels(self, scale, /):
        """Edges between which the activation is smooth, and which of them are kinks.

        Args:
            scale: the standard deviation of its input.
        """
        exponent = int(np.ceil(np.log2(np.clip(REACH * scale, 16.0, _REACHES[0]))))
        if exponent not in self._panels:
            reach = 2.0**exponent
            self._panels[exponent] = find_panels(self.at, reach, self._tolerance)
        return self._panels[exponent]

    @functools.cached_property
    def resolved(self) -> float:
        """The largest variance at which averages are resolved; mostly infinity.

        It is finite for an activation that has pieces all the way: one that oscillates.
        """
        for reach in _REACHES:
            try:
                edges, _ = self.panels(reach / REACH)
            except UserValueError:  # too many to be found
                continue
            tail = np.sum(np.abs(np.unique(edges)) > reach / 2)
            farthest = reach == _REACHES[0] and tail <= _PIECES_OF_A_TAIL
            return np.inf if farthest else (reach / REACH) ** 2
        return 0.0

    def compiled(self, f, /):
        """A function of the activation and of arrays: compiled once, in float64."""
        if f not in self._compiled:
            self._compiled[f] = quick_jit(functools.partial(f, self.activation))

        def in_float64(*args):
            with jax.enable_x64(True):
                return jax.tree.map(np.asarray, self._compiled[f](*args))

        return in_float64

    def at(self, x):
        """Values and slopes at ``x``, some points at a time: by one program for all."""
        run = self.compiled(_with_fewer)
        flat = np.zeros(-(-x.size // _AT_ONCE) * _AT_ONCE)
        flat[: x.size] = x.ravel()
        parts = [run(part)[:2] for part in flat.reshape(-1, _AT_ONCE)]
        pair = np.concatenate(parts, axis=1)[:, : x.size]
        return pair.reshape(2, *x.shape)

    def _check(self):
        """Refuses what is not elementwise; returns the tolerance of its precision."""
        x = np.resize(np.linspace(-2.0, 2.0, 8), _AT_ONCE)
        with jax.enable_x64(True):
            full = jax.eval_shape(self.activation, x)
        same = full.shape == x.shape
        if same:
            values, _, part = self.compiled(_with_fewer)(x)
            same = np.allclose(values[: len(part)], part, rtol=1e-3)
        if not same:
            raise UserValueError(
                f"the activation has to act on each entry by itself: of {len(x)} "
                f"entries it makes shape {full.shape}, and three of them alone give "
                "other values. Softmax, gated units and normalisations have no length "
                "map."
            )
        return max(1e-12, 64 * float(jnp.finfo(full.dtype).eps))


_remembered = functools.lru_cache(maxsize=32)(Expectations)


def gaussian_averages(averages, q, /):
    """Weights and squared slopes at the nodes of the Gaussian of variance ``q``.

    Every panel is cut in sixteen, for averages that are nearly singular.
    """
    edges, _ = averages.panels(np.sqrt(q))
    root = np.sqrt(max(q, _LEAST_Q))
    edges = np.sort(np.r_[GRID, np.clip(edges / root, -REACH, REACH)])
    parts = np.linspace(0.0, 1.0, 17)
    edges = np.unique(edges[:-1, None] + np.diff(edges)[:, None] * parts)
    z, weights = nodes(edges)
    weights = weights * np.exp(-(z**2) / 2)
    _, slopes = averages.at(root * z)
    return weights / weights.sum(), slopes**2


def _with_fewer(activation, x):
    """Values and slopes at every entry, and the values of the first three alone."""
    return *value_and_slope(activation, x), activation(x[:3])


def _moments(at, edges, q, mean):
    """Each average at every variance: arrays (k,)."""
    root = np.sqrt(q)[:, None]
    with np.errstate(all="ignore"):  # what is not a number is told by the sums
        z, weights = gaussian_nodes((edges[None, :] - mean) / root, np)
        value, slope = at(mean + root * z)
        every = (value, value**2, slope**2, slope**4, value * slope * z / root)
        return [np.sum(np.where(weights > 0, weights * y, 0), axis=1) for y in every]
