r"""The law by which a signal grows along a network, or what is known without one.

The logarithm of a norm walks about its law: with :math:`y_l = \ln \|\cdot\|_l` and a
law :math:`a + r g(l)`,

.. math:: y_{l+1} - y_l = r \, (g(l+1) - g(l)) + \varepsilon_l .

Every law (`growth_laws`) is fitted beside every noise (`growth_noise`). A law is named
if the others are excluded; nothing is a law for want of a better one.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from gradstab.records import NORMAL_95, Growth
from gradstab.spectra.growth_evidence import fits, interval
from gradstab.spectra.growth_laws import laws_for
from gradstab.spectra.growth_noise import noises_for

# A change of less than this over the whole network is no growth, however certain.
_LEAST_CHANGE = 1.5

# A network that keeps its size does not reach its depth scale, whatever its law: the
# signal changes less than e-fold.
MOST_OF_CONSTANT = 1.0

# Two or three steps that agree by chance look like a law of any kind.
_FEWEST_LAYERS = 5

# What the other laws together may have left of the probability for one to be named.
_EXCLUDED = 0.05


def fit_growth(
    norms: ArrayLike, names: Sequence[str] = (), /, *, from_end: bool = False
) -> Growth:
    """The law of growth of a sequence of norms, its rate and its standard error.

    The laws in `Growth`, each with and without a transient or an offset, are compared
    by their probabilities, for steps and for levels that scatter (equal weights
    beforehand; `growth_evidence`). A law of growth is named from five layers on, if all
    others together have less than 5 % and if it changes the norm by more than 1.5. The
    law is ``constant`` if the drift is bounded: at 95 % it changes the norm less than
    e-fold over the network, so that no depth scale is reached. Else it is ``unknown``,
    and `Growth.compatible` says which it may be. Bends are looked for from nine layers
    on.

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
        is ``unknown`` and so is the rate; the change is measured with two.

    Examples:
        >>> growth = fit_growth([1.5**layer for layer in range(1, 21)])
        >>> growth.law, round(growth.factor, 9)
        ('exponential', 1.5)
    """
    layer, levels, names = _usable(norms, names)
    change = _exp(levels[-1] - levels[0]) if len(layer) > 1 else math.nan
    if len(layer) < 3:
        nothing = {"law": "unknown", "layers": names, "depth": len(layer)}
        return Growth(math.nan, math.nan, change, **nothing)
    noises = noises_for(layer)
    laws = laws_for(layer, from_end)
    shares = _shares(
        [each for law in laws for each in fits(law, noises, layer, levels)]
    )
    law, best, rate, error = _decide(shares, layer, levels)
    bent = law in ("power", "exp-sqrt")
    shape = best.shape if best and best.law.shaped else 0.0
    return Growth(
        float(rate),
        float(error),
        change,
        offset=shape if bent else 0.0,
        settling=0.0 if bent else shape,
        law=law,
        layers=names,
        depth=len(layer),
        compatible=(law,) if law != "unknown" else _compatible(shares, len(layer)),
    )


def _usable(norms: ArrayLike, names: Sequence[str]):
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


def _shares(fits):
    """The probability of every fit. The laws start alike, and so do their variants."""
    names = [found.law.name for found in fits]
    evidence = np.array([found.log_evidence for found in fits])
    evidence -= np.log([names.count(name) for name in names])
    shares = np.exp(evidence - evidence.max())
    shares /= shares.sum()
    return {
        name: [(s, f) for s, f in zip(shares, fits, strict=True) if f.law.name == name]
        for name in dict.fromkeys(names)
    }


def _probability(found):
    return float(sum(share for share, _ in found))


def _compatible(shares, depth: int):
    if depth < _FEWEST_LAYERS:
        return tuple(shares)
    return tuple(n for n, found in shares.items() if _probability(found) >= _EXCLUDED)


def _decide(shares, layer: np.ndarray, levels: np.ndarray):
    """The law, its best fit, rate and standard error."""
    likeliest = max(shares, key=lambda name: _probability(shares[name]))
    certain = _probability(shares[likeliest]) > 1 - _EXCLUDED
    enough = len(layer) >= _FEWEST_LAYERS
    if certain and enough and likeliest != "constant":
        best, (low, rate, high), change = _numbers(shares[likeliest])
        if abs(change) >= math.log(_LEAST_CHANGE):
            return likeliest, best, rate, (high - low) / 2 / NORMAL_95
    _, (low, drift, high), _ = _numbers(shares["exponential"])
    bound = max(abs(low), abs(high))
    span = layer[-1] - layer[0]
    small = abs(drift) * span < math.log(_LEAST_CHANGE)
    if small or _probability(shares["constant"]) >= _EXCLUDED:
        best = max(shares["constant"], key=lambda pair: pair[0])[1]
        rest = abs(levels[-1] - levels[0] - best.transient)
        bound = max(bound, rest / span)
        if bound * span <= MOST_OF_CONSTANT:
            return "constant", best, 0.0, bound / NORMAL_95
    return "unknown", None, drift, (high - low) / 2 / NORMAL_95


def _numbers(found):
    """The likeliest fit, the interval of the rate with its median, the change.

    The noise is the likeliest one; over its shapes the rates are averaged.
    """
    by_noise = {}
    for share, each in found:
        by_noise.setdefault(id(each.noise), []).append((share, each))
    same = max(by_noise.values(), key=_probability)
    shares = np.array([share for share, _ in same])
    fits = [each for _, each in same]
    columns = np.array([(f.rate, f.error, f.freedom) for f in fits]).T
    best = fits[int(np.argmax(shares))]
    return best, interval(shares / shares.sum(), *columns), best.change


def _exp(x):
    return math.exp(x) if x < 700 else math.inf
