r"""The law by which a signal grows along a network.

The logarithm of a norm walks: layer after layer adds a step, and in a random network
the steps scatter independently about their mean. So the laws are fitted to the steps,
not to the levels: with :math:`y_l = \ln \|\cdot\|_l` and a law :math:`a + r g(l)`,

.. math:: y_{l+1} - y_l = r \, (g(l+1) - g(l)) + \varepsilon_l .

Fitted to the levels, a random walk without drift looks like a trend with a tiny error.

A network does not begin at its law: lengths relax to their fixed point first, and the
steps with them. So a constant and an exponential may begin with steps that die out like
:math:`\exp(-l / \tau)` (Schoenholz et al. 2017), and a power counts its layers from
:math:`l = -d`: the length of a critical tanh network is :math:`1 / (2 (l + d))`, with d
given by the length of its input.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

from gradstab.records import Growth

# A change of less than this over the whole network is no growth, however certain.
_LEAST_CHANGE = 1.5

# How often a network without growth may be said to have some: as often as a normal
# variable exceeds three standard errors. It is divided among the laws that are tried
# (Bonferroni); at 0.27 % for each, 5 in 300 ReLU networks with layer normalisation,
# width 256 and depth 60, were called exponential.
_CHANCE = 0.0027

# The steps' standard deviation falls like a power of depth: 0 for a chain, whose layers
# are alike, 1 for a residual network, where a layer adds one part in l.
_SCATTERS = (0.0, 0.5, 1.0)

# Shorter sequences do not show their bend.
_BENT_STEPS = 8

# How far offsets and transients reach, in layers, and from where on in shares of depth:
# critical tanh networks of inputs down to a mean square of 0.1 have offsets up to five.
_LONG_OFFSET = 5.0
_LONG_SHARE = 12

# The step of finite differences in a shape, which is of order one.
_NUDGE = 1e-4

# Steps are taken for rounded to this: relative rounding errors in float32.
_ROUNDING = 1e-7


class _Law(NamedTuple):
    """Curves g with as many rates, and the values that their shape may take.

    ``curves(layer, shapes)`` has shape (shapes, layers, rates); the first rate is that
    of the law, the others are of its transient.
    """

    name: str
    curves: Callable
    num_rates: int = 1
    shapes: np.ndarray = np.zeros(1)


class _Fit(NamedTuple):
    """Rates; how the law's change over the network follows from rates and shape."""

    law: _Law
    shape: float
    score: float
    rates: np.ndarray
    covariance: np.ndarray
    slope: np.ndarray
    freedom: int
    total: float


def fit_growth(norms, names=(), /, *, from_end=False) -> Growth:
    """The law of growth of a sequence of norms, its rate and its standard error.

    Of the laws in `Growth`, each with and without a transient, that with the least
    Bayesian information criterion (Schwarz 1978) is taken: as depth grows it finds the
    true one. It is ``constant`` unless the fitted change from the first to the last
    layer, without the transient, exceeds both a factor of 1.5 and what chance exceeds
    in 0.27 % of networks, whichever of the laws it takes: 3.6 standard errors in a deep
    network, 4.1 with twenty layers and 33 with four. Bends are looked for from nine
    layers on.

    Args:
        norms: (layers,) or (layers, examples), layers counted from the input. Examples
            are averaged in the logarithm, as their norms are heavy-tailed.
        names: the layers, for the record.
        from_end: whether the signal starts at the last layer, so that the transient may
            be there. A gradient that enters an LSTM by its output has yet to turn to
            the directions that last; that of a chain of random layers has not.

    Returns:
        The growth. Examples whose norm is zero or not finite in some layer are left
        out; if that leaves none, such layers are. With fewer than three layers the law
        is ``unknown``.

    Examples:
        >>> growth = fit_growth([1.5**layer for layer in range(1, 21)])
        >>> growth.law, round(growth.factor, 9)
        ('exponential', 1.5)
    """
    layer, levels, names = _usable(norms, names)
    if len(layer) < 3:
        nan = math.nan
        return Growth(nan, nan, nan, law="unknown", layers=names, depth=len(layer))
    fits = [_fit(law, layer, levels) for law in _laws(layer, from_end)]
    chance = _CHANCE / sum(fit.law.name != "constant" for fit in fits)
    certain = [f for f in fits if f.law.name == "constant" or _is_certain(f, chance)]
    best = min(certain, key=_score)
    if best.law.name == "constant":
        drift = min((f for f in fits if f.law.name == "exponential"), key=_score)
        rate, error = 0.0, math.sqrt(drift.covariance[0, 0])
    else:
        rate, error = float(best.rates[0]), math.sqrt(best.covariance[0, 0])
    bent = best.law.name in ("power", "exp-sqrt")
    return Growth(
        rate,
        error,
        _exp(best.total),
        offset=best.shape if bent else 0.0,
        settling=0.0 if bent else best.shape,
        law=best.law.name,
        layers=names,
        depth=len(layer),
    )


def _usable(norms, names):
    """Positions, averaged logarithms and names of the layers that can be compared."""
    norms = np.asarray(norms, np.float64)
    norms = norms.reshape(len(norms), -1)
    usable = np.isfinite(norms) & (norms > 0)
    whole = usable.all(axis=0)
    if not whole.any():
        whole = usable.any(axis=0)
    norms, kept = norms[:, whole], np.logical_and(usable[:, whole].all(1), whole.any())
    names = tuple(name for name, keep in zip(names, kept, strict=bool(names)) if keep)
    levels = np.log(norms[kept]).mean(axis=1) if kept.any() else np.zeros(0)
    return 1.0 + np.flatnonzero(kept), levels, names


def _laws(layer, from_end):
    num = len(layer) - 1
    laws = [
        _Law("constant", _nothing, 0),
        _Law("exponential", _line),
        _Law("power", _shifted(np.log)),
        _Law("exp-sqrt", _shifted(np.sqrt)),
    ]
    if num < _BENT_STEPS:
        return laws
    # A law is known by its bend: a power that begins beyond a third of the network is
    # straight, and a transient of more than a sixth of it may as well be a bent law. In
    # a deep network either could pass for an exponential of the root: at 60 residual
    # tanh layers a power with an offset of 10 to 17 fits no worse.
    shifts = np.concatenate([[0.0], np.geomspace(0.1, _longest(num, num / 3), 24)])
    lengths = np.geomspace(0.5, _longest(num, num / 6), 24)
    transients = [_transient, _last_transient] if from_end else [_transient]
    return [
        *laws[:2],
        *(law._replace(shapes=shifts) for law in laws[2:]),
        *(_Law("constant", curve, 1, lengths) for curve in transients),
        *(_Law("exponential", _and_line(curve), 2, lengths) for curve in transients),
    ]


def _longest(num, share):
    """A share of the steps, above five of them no more than one in twelve."""
    return max(min(share, _LONG_OFFSET), num / _LONG_SHARE)


def _nothing(layer, shapes):
    return np.zeros((len(shapes), len(layer), 0))


def _line(layer, shapes):
    return np.broadcast_to(layer[:, None], (len(shapes), len(layer), 1))


def _shifted(g):
    return lambda layer, shifts: g(layer + shifts[:, None])[..., None]


def _transient(layer, lengths):
    """Sums of the steps 1, q, q^2, ... with q = exp(-1 / length)."""
    q = np.exp(-1 / lengths)[:, None]
    return ((1 - q ** (layer - 1)) / (1 - q))[..., None]


def _last_transient(layer, lengths):
    return -_transient(layer[-1] - layer + 1, lengths)


def _and_line(transient):
    def curves(layer, lengths):
        both = _line(layer, lengths), transient(layer, lengths)
        return np.concatenate(both, axis=2)

    return curves


def _fit(law, layer, levels):
    """The likeliest shape and rates, for the scatter under which they are likeliest."""
    steps, spacing = np.diff(levels), np.diff(layer)
    weights = [layer[:-1] ** power / np.sqrt(spacing) for power in _SCATTERS]

    def deviance(shapes, weight):
        columns = np.diff(law.curves(layer, shapes), axis=1) * weight[:, None]
        square = np.mean(_residuals(columns, steps * weight) ** 2, axis=1)
        square = np.maximum(square, _ROUNDING**2)
        return len(steps) * np.log(square) - 2 * np.sum(np.log(weight))

    weight = min(weights, key=lambda weight: np.min(deviance(law.shapes, weight)))
    shape, least = _minimum(lambda shapes: deviance(shapes, weight), law.shapes)
    num = law.num_rates + (len(law.shapes) > 1)
    score = least + num * math.log(len(steps))
    return _Fit(law, shape, score, *_estimate(law, shape, layer, steps, weight))


def _residuals(columns, steps):
    """What is left of the steps after a least-squares fit: (shapes, steps)."""
    if not columns.shape[2]:
        return steps[None]
    q = np.linalg.qr(columns)[0]
    return steps - (q @ (np.swapaxes(q, 1, 2) @ steps)[..., None])[..., 0]


def _minimum(f, grid):
    """Where f is least, and its value there: on a grid that closes in three times."""
    for _ in range(3 if len(grid) > 1 else 0):
        best = int(np.argmin(f(grid)))
        low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
        grid = np.unique(np.append(np.linspace(low, high, 15), grid[best]))
    values = f(grid)
    best = int(np.argmin(values))
    return float(grid[best]), float(values[best])


def _estimate(law, shape, layer, steps, weight):
    """Rates, covariance of rates and shape, and how the law's change follows both."""
    shaped = len(law.shapes) > 1
    curves, shifted = law.curves(layer, shape + np.array([0.0, _NUDGE]))
    columns, moved = (np.diff(c, axis=0) * weight[:, None] for c in (curves, shifted))
    rates = np.linalg.lstsq(columns, steps * weight)[0]
    residual = steps * weight - columns @ rates
    bend = (moved - columns) @ rates / _NUDGE
    inverse = np.linalg.pinv(np.column_stack([columns, bend] if shaped else [columns]))
    freedom = max(len(steps) - len(inverse), 1)
    covariance = residual @ residual / freedom * inverse @ inverse.T
    span, further = curves[-1] - curves[0], shifted[-1] - shifted[0]
    slope = np.zeros(len(inverse))
    slope[:1] = span[:1]
    if shaped and len(rates):
        slope[-1] = rates[0] * (further[0] - span[0]) / _NUDGE
    return rates, covariance, slope, freedom, float(span @ rates)


def _score(fit):
    return fit.score


def _is_certain(fit, chance):
    """Whether the law without its transient is a change, and not by chance."""
    change = abs(fit.rates[0] * fit.slope[0])
    error = math.sqrt(fit.slope @ fit.covariance @ fit.slope)
    errors = -float(special.stdtrit(fit.freedom, chance / 2))
    return change > max(errors * error, math.log(_LEAST_CHANGE))


def _exp(x):
    return math.exp(x) if x < 700 else math.inf
