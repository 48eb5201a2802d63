r"""How the logarithm of a norm scatters about its law.

In a random network the logarithm walks: layer after layer adds a step, and the steps
scatter independently about their mean. Where layers of several kinds take turns, or a
norm is measured with an error of its own, the levels scatter and the walk does not add
up: two neighbouring steps share one level, with opposite signs. Fitted to the levels, a
walk without drift looks like a trend with a tiny error; fitted to the steps, a trend
through scattered levels gets an error that is far too large. So both are tried.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# The steps' standard deviation falls like a power of depth: 0 for a chain, whose layers
# are alike, 1 for a residual network, where a layer adds one part in l.
_SCATTERS = (0.0, 0.5, 1.0)

# By how much the log likelihood of another noise must exceed that of a walk of equal
# steps before it is the likelier. One in seven walks of six layers has levels that look
# independent, and a trend through them an error of a third of the true one; more layers
# allow for more caution: one more for every twelve.
_LEVELS_ODDS, _LAYERS_PER_ODDS, _MOST_ODDS = 1.0, 12, 6.0
_SCATTER_ODDS = 4.0

# In short networks a walk cannot be told from scattered levels. Errors of walks are so
# much larger that intervals cover 95 % of both as nearly as can be: by this share with
# twelve layers and fewer, not at all from thirty-six on.
_SHORT, _LONG, _WIDER = 12, 36, 1.3


class Noise(NamedTuple):
    """A covariance of the steps, up to a factor.

    Attributes:
        whiten: (..., steps, k) -> the same shape; it makes the steps independent and
            alike.
        log_scale: minus half the logarithm of the covariance's determinant.
        log_prior: natural logarithm of its weight.
        wider: factor on standard errors.
    """

    whiten: Callable[..., Any]
    log_scale: float
    log_prior: float
    wider: float


def noises_for(layer: np.ndarray) -> list[Noise]:
    """The noises that are tried.

    Args:
        layer: (layers,) positions, ascending; a step over missing layers scatters as
            that many.
    """
    spacing = np.diff(layer)
    share = (_LONG - len(layer)) / (_LONG - _SHORT)
    wider = 1 + (_WIDER - 1) * float(np.clip(share, 0, 1))
    walks = [
        _walk(
            np.sqrt(spacing) * layer[:-1] ** -power, -_SCATTER_ODDS * bool(power), wider
        )
        for power in _SCATTERS
    ]
    odds = _LEVELS_ODDS + max(len(layer) - _SHORT, 0) / _LAYERS_PER_ODDS
    return [*walks, _levels(len(spacing), min(odds, _MOST_ODDS))]


def _walk(deviation: np.ndarray, log_prior: float, wider: float):
    deviation = deviation / np.exp(np.mean(np.log(deviation)))
    return Noise(lambda steps: steps / deviation[:, None], 0.0, log_prior, wider)


def _levels(num: int, odds: float):
    """Independent levels: variance 2 of every step, covariance -1 of neighbours.

    Step i less what the steps before it tell of it is a mean of all up to it with the
    weights 1, 2, ..., i.
    """
    number = np.arange(1.0, num + 1)[:, None]
    scale = np.sqrt(number * (number + 1))

    def whiten(steps: np.ndarray):
        return np.cumsum(number * steps, axis=-2) / scale

    return Noise(whiten, -math.log(num + 1) / 2, -odds, 1.0)
