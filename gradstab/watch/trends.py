r"""Since when a number of every step grows, at what rate, and how sure that is.

A series is a level, or a line, from some step on another line, and noise: a slow part
that is like that of the step before, an AR(1) process, and one that is independent at
every step, as of batches. When the last line begins and what the noise is like are not
known: all of them are weighed by how likely they make the series, with the lines
integrated out, so that the error of the rate holds what is unknown of both.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from gradstab.errors import UserValueError

# Fewer steps say nothing of a trend and its error.
LEAST = 8
# Of more steps so many means of neighbours are looked at.
_MOST = 64
_NUM_STARTS = 24
# How alike the slow part of the noise is from one to the next; the last is as good as
# a random walk. Beside it the variance of what is independent at every step.
_ALIKE = (-0.3, 0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.999)
_INDEPENDENT = (0.0, 1.0, 4.0, 16.0, 64.0)
_NEIGHBOURS = 7
# What float32 rounds is no noise to be divided by.
_ROUNDING = 1e-6
_SHARES = (0.00135, 0.025, 0.5, 0.975, 0.99865)


class Trend(NamedTuple):
    """The line at the end of a series.

    Attributes:
        rate: its slope, per step.
        low: of the interval that holds the slope with 95 %.
        high: of the same.
        since: the step at which it begins: the first one if the series has no bend.
        change: by how much the line changes the series up to the end.
        grows: whether it goes up beyond the noise: by three standard errors, or what is
            as unlikely (0.13 %) of this distribution.
        falls: the same, down.
    """

    rate: float
    low: float
    high: float
    since: int
    change: float
    grows: bool
    falls: bool


def find_trend(steps, series, /, *, bends: bool = True) -> Trend:
    """The trend at the end of a series.

    Args:
        steps: ascending numbers, ``(steps,)``.
        series: a number of each.
        bends: whether the line may begin later than the series does.

    Raises:
        ValueError: there are fewer than eight that are finite.

    References:
        The average over models is that of Raftery, Madigan and Hoeting (1997), Bayesian
        model averaging for linear regression models. Of 60 series each with 60, 300 and
        3000 steps, neighbours alike by 0, 0.6 and 0.9 (AR(1)), without a trend, with
        one, with one that begins in the middle, and with one after a fall, intervals of
        95 % held the true rate in 97 to 100 %, and none of 540 without a trend was said
        to grow or to fall. Of random walks, with and without white noise beside them,
        they held it in 73 to 85 %, and 2 to 8 % were said to grow or to fall.
    """
    finite = np.isfinite(series)
    x, y = np.asarray(steps, float)[finite], np.asarray(series, float)[finite]
    if len(x) < LEAST:
        raise UserValueError(
            f"a trend needs {LEAST} steps with finite numbers, got {len(x)}"
        )
    x, y = _means(x, _without_spikes(y))
    scale = np.ptp(y) or 1.0
    y = (y - y.mean()) / scale
    starts = np.zeros(0)
    if bends:
        starts = np.linspace(x[1], x[-1 - max(len(x) // 8, 3)], _NUM_STARTS)
        starts = _closer(_weigh_lines(x, y, starts), starts)
    weights, means, errors, begin = _weigh_lines(x, y, starts)
    slopes = scale / (x[-1] - begin)
    known = (weights, means * slopes, errors * slopes, len(x) - 3)
    least, low, middle, high, most = (_quantile(*known, p) for p in _SHARES)
    order = np.argsort(begin)
    half = np.searchsorted(np.cumsum(weights[order]), 0.5)
    since = begin[order][min(half, len(order) - 1)]
    steps = np.asarray(steps)
    return Trend(
        rate=middle,
        low=low,
        high=high,
        since=int(steps[np.searchsorted(steps, since) if since > x[0] else 0]),
        change=middle * float(x[-1] - since),
        grows=least > 0,
        falls=most < 0,
    )


def _without_spikes(y):
    """What is far from the median of its neighbours brought nearer: a Hampel filter.

    Of numbers that only rise, or only fall, none is; nor are those at the ends.
    """
    half = _NEIGHBOURS // 2
    windows = np.lib.stride_tricks.sliding_window_view(y, _NEIGHBOURS)
    middle = np.median(windows, axis=1)
    beside = y[half:-half] - middle
    # Of Gaussian noise 1.48 of this are a standard deviation.
    limit = 6 * 1.48 * np.median(np.abs(beside))
    if not limit:
        return y
    inside = middle + np.clip(beside, -limit, limit)
    return np.concatenate([y[:half], inside, y[-half:]])


def _means(x, y):
    """Not too many means of neighbours: their noise is nearer to an AR(1) process."""
    every = -(-len(x) // _MOST)
    if every == 1:
        return x, y
    # What is over is left out at the beginning.
    x, y = (a[len(a) % every :].reshape(-1, every).mean(axis=1) for a in (x, y))
    return x, y


def _weigh_lines(x, y, starts):
    """How likely lines are, and what each says of the change up to the end.

    Returns:
        Of lines and noises that are not unlikely: weights, of which the sum is one;
        means and scales of Student's distributions of the change; where each begins.
    """
    num, begin = len(x), starts[:, None]
    ramps = np.clip((x - begin) / (x[-1] - begin), 0, 1)
    before = np.clip((begin - x) / (begin - x[0]), 0, 1)
    ones = np.ones_like(ramps)
    line = np.stack([np.ones(num), (x - x[0]) / (x[-1] - x[0])])[None]
    bent = [np.stack([ones, ramps], 1), np.stack([ones, before, ramps], 1)]
    families = [line, *bent] if len(starts) else [line]
    parts = [_weigh(design, y) for design in families]
    weights, means, errors = (np.concatenate(p) for p in zip(*parts, strict=True))
    begin = np.concatenate([x[:1], starts, starts])
    begin = np.repeat(begin, len(_noises(num)[1]))
    weights = np.exp(weights - weights.max())
    kept = weights > 1e-7 * weights.sum()
    found = weights / weights[kept].sum(), means, errors, begin
    return tuple(array[kept] for array in found)


def _closer(weighed, starts):
    """More beginnings where the likely ones are."""
    weights, begin = weighed[0], weighed[-1]
    bent = begin >= starts[0]
    if not weights[bent].sum() > 1e-6:
        return starts
    likely = begin[bent & (weights > 1e-4 * weights[bent].max())]
    width = starts[1] - starts[0]
    low, high = likely.min() - width, likely.max() + width
    return np.linspace(max(low, starts[0]), min(high, starts[-1]), _NUM_STARTS)


def _weigh(design, y):
    """Logarithms of the weights of lines and noises, and of each the last column.

    Args:
        design: the columns of lines, ``(lines, columns, steps)``; the last goes from 0
            to 1.
        y: the series, of which the range is one.

    Returns:
        Logarithms of weights, the means and the scales of Student's distributions of
        the last coefficient, each ``(lines * noises,)``.
    """
    num_lines, columns, num = design.shape
    inverses, volumes = _noises(num)
    every = np.broadcast_to(y, (num_lines, 1, num))
    design = np.concatenate([design, every], axis=1)
    flat = design.reshape(-1, num) @ inverses  # (noises, lines * columns, steps)
    white = flat.reshape(len(inverses), num_lines, columns + 1, num)
    products = np.swapaxes(white @ np.swapaxes(design, -1, -2), 0, 1)
    gram, product = products[..., :-1, :-1], products[..., :-1, -1:]
    inverse = np.linalg.inv(gram)
    fitted = inverse @ product
    explained = np.sum(product * fitted, axis=(-1, -2))
    squares = np.maximum(products[..., -1, -1] - explained, 0) + num * _ROUNDING**2
    free = num - columns
    # Coefficients are likely as large as the range of the series, and go both ways.
    log_weights = (
        special.gammaln(free / 2)
        - free / 2 * np.log(np.pi * squares)
        - np.linalg.slogdet(gram)[1] / 2
        - volumes / 2
        - columns * np.log(2)
        - np.log(num_lines)
    )
    scales = np.sqrt(squares / free * inverse[..., -1, -1])
    return log_weights.ravel(), fitted[..., -1, 0].ravel(), scales.ravel()


@functools.cache
def _noises(num):
    """Inverses of the covariances of noises, and logarithms of their determinants.

    Returns:
        ``(noises, steps, steps)`` and ``(noises,)``, for innovations of variance one.
    """
    apart = np.abs(np.subtract.outer(np.arange(num), np.arange(num)))
    slow = [alike**apart / (1 - alike**2) for alike in _ALIKE]
    every = np.stack(
        [part + size * np.eye(num) for part in slow for size in _INDEPENDENT]
    )
    return np.linalg.inv(every), np.linalg.slogdet(every)[1]


def _quantile(weights, means, scales, free, share):
    """A quantile of a mixture of Student's distributions."""
    own = means + scales * special.stdtrit(free, share)
    low, high = float(own.min()), float(own.max())
    if not low < high:
        return low

    def beyond(place):
        return float(weights @ special.stdtr(free, (place - means) / scales)) - share

    if beyond(low) >= 0 or beyond(high) <= 0:  # but for the last digit they are not
        return low if beyond(low) >= 0 else high
    from scipy import optimize  # it loads for long, and not everybody asks

    root: Any = optimize.brentq(beyond, low, high, xtol=1e-9 * (high - low))
    return float(root)
