r"""The law by which a signal grows along a network.

The logarithm of a norm walks: layer after layer adds a step, and in a random network
the steps scatter independently about their mean. So the laws are fitted to the steps,
not to the levels: with :math:`y_l = \ln \|\cdot\|_l` and a law :math:`a + r g(l)`,

.. math:: y_{l+1} - y_l = r \, (g(l+1) - g(l)) + \varepsilon_l .

Fitted to the levels, a random walk without drift looks like a trend with a tiny error.
"""

import math

import numpy as np
from scipy import special

from gradstab.records import Growth

LAWS = {
    "power": np.log,
    "exp-sqrt": np.sqrt,
    "exponential": lambda layer: np.asarray(layer, float),
}

# A change of less than this over the whole network is no growth, however certain.
_LEAST_CHANGE = 1.5


def fit_growth(norms, names=(), /) -> Growth:
    """The law of growth of a sequence of norms, its rate and its standard error.

    The law with the least squared residual is taken. It is ``constant`` unless the
    fitted change from the first to the last layer exceeds both a factor of 1.5 and
    three standard errors (in short networks more: as many as Student's distribution
    asks for at the same 0.27 %: 19 with four layers and 3.5 with twenty).

    Args:
        norms: (layers,) or (layers, examples), layers counted from the input. Examples
            are averaged in the logarithm, as their norms are heavy-tailed.
        names: the layers, for the record.

    Returns:
        The growth. Examples whose norm is zero or not finite in some layer are left
        out; if that leaves none, such layers are. With fewer than three layers the law
        is ``unknown``.

    Examples:
        >>> growth = fit_growth([1.5**layer for layer in range(1, 21)])
        >>> growth.law, round(growth.factor, 9)
        ('exponential', 1.5)
    """
    norms = np.asarray(norms, np.float64)
    norms = norms.reshape(len(norms), -1)
    usable = np.isfinite(norms) & (norms > 0)
    whole = usable.all(axis=0)
    if not whole.any():
        whole = usable.any(axis=0)
    norms, kept = norms[:, whole], np.logical_and(usable[:, whole].all(1), whole.any())
    layer = 1.0 + np.flatnonzero(kept)
    names = tuple(name for name, keep in zip(names, kept, strict=bool(names)) if keep)
    if len(layer) < 3:
        return Growth(math.nan, math.nan, math.nan, law="unknown", layers=names)
    levels = np.mean(np.log(norms[kept]), axis=1)
    fits = {law: _fit(g(layer), levels) for law, g in LAWS.items()}
    law = min(fits, key=lambda name: fits[name][2])
    rate, error, _ = fits[law]
    span = float(LAWS[law](layer[-1]) - LAWS[law](layer[0]))
    least = max(_certain(len(layer) - 2) * error * span, math.log(_LEAST_CHANGE))
    if abs(rate) * span < least:
        return Growth(0.0, error, 1.0, law="constant", layers=names)
    return Growth(rate, error, _exp(rate * span), law=law, layers=names)


def _fit(g, levels):
    """Rate, its standard error and the sum of squared residuals of the steps."""
    steps, spacing = np.diff(levels), np.diff(g)
    weight = float(spacing @ spacing)
    rate = float(spacing @ steps) / weight
    residual = float(np.sum(np.square(steps - rate * spacing)))
    freedom = max(len(steps) - 1, 1)
    return rate, math.sqrt(residual / freedom / weight), residual


def _certain(freedom):
    """Standard errors that chance exceeds as rarely as a normal variable three."""
    return -float(special.stdtrit(freedom, 0.00135))


def _exp(x):
    return math.exp(x) if x < 700 else math.inf
