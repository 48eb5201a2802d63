"""Slopes of log sizes against log width, their errors, and what can be said of them."""

import enum
import math
from typing import NamedTuple

import numpy as np
from scipy import special

# At most so much is called flat: over widths from 64 to 512 a factor 1.7.
MARGIN = 0.25
# Of a slope of which nothing is known yet.
_MANY = 1000
# What small models are off the power law by: at the smallest size a term in 1/n and one
# in 1/sqrt(n), each of this standard deviation. Without them 72 % of the slopes of
# `experiments.coordinate_check` lay within two errors of theory's, and with them 95 %;
# of muP with other seeds, on which nothing was chosen, 66 % and 92 %.
_SMALL = 0.1
# Of logarithms of float32 numbers.
_ROUNDING = 1e-6


class Trend(enum.StrEnum):
    """What a size does as the model grows."""

    FLAT = "flat"
    """Within the margin, with 95 % confidence."""
    GROWS = "grows"
    """Its slope is above the margin, and positive with 95 % confidence."""
    SHRINKS = "shrinks"
    """Its slope is below the margin, and negative with 95 % confidence."""
    UNKNOWN = "cannot tell"
    """The error is too large."""
    NOTHING = "is zero"
    """There is nothing to fit: it is zero, or not finite."""


class Slope(NamedTuple):
    """A slope: what a size goes with as a power of the width.

    Attributes:
        value: d log(size) / d log(width); NaN if there is nothing to fit.
        error: its standard error, from the scatter of all seeds and widths about the
            line, and from what small sizes may be off the power law by.
        freedom: degrees of freedom of the error.
        seeds: how many were measured.
    """

    value: float
    error: float
    freedom: int
    seeds: int

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval."""
        if self.freedom < 1 or not math.isfinite(self.error):
            return math.inf
        return float(special.stdtrit(self.freedom, 0.975)) * self.error

    @property
    def trend(self) -> Trend:
        """What can be said of it."""
        if math.isnan(self.value):
            return Trend.NOTHING
        low, high = self.value - self.half_width, self.value + self.half_width
        if low > -MARGIN and high < MARGIN:
            return Trend.FLAT
        if low > 0 and self.value >= MARGIN:
            return Trend.GROWS
        if high < 0 and self.value <= -MARGIN:
            return Trend.SHRINKS
        return Trend.UNKNOWN

    @property
    def seeds_needed(self) -> int | None:
        """How many seeds would probably settle it; None if it is, or none would."""
        if self.trend is not Trend.UNKNOWN or not math.isfinite(self.half_width):
            return None
        # The interval is to fit between the margins, or to leave zero.
        inside = abs(self.value) < MARGIN
        room = MARGIN - abs(self.value) if inside else abs(self.value)
        needed = math.ceil(
            self.seeds * min((self.half_width / max(room, 1e-3)) ** 2, _MANY)
        )
        return max(min(needed, _MANY), self.seeds + 1)

    def __str__(self) -> str:
        """The slope with its standard error."""
        if math.isnan(self.value):
            return ""
        return f"{self.value:+.2f} ± {self.error:.2f}"


def fit(sizes: np.ndarray, values: np.ndarray) -> Slope:
    r"""The slope of log values against log sizes, by least squares.

    Small models are off the power law. They are fitted by

    .. math::
        \log y = a + b \log n + c \sqrt{n_0 / n} + d\, n_0 / n

    with normal priors of standard deviation 0.1 for :math:`c` and :math:`d`, the terms
    at the smallest size :math:`n_0`: where the scatter is small the data say what they
    are, and else they widen the error of :math:`b`.

    Args:
        sizes: (sizes,) widths, depths or batch sizes.
        values: (sizes, seeds) root mean squares.

    References:
        Gelman et al. (2013), Bayesian Data Analysis, section 14.8: a prior as one
        further row of data.

    >>> fit(np.array([1.0, 2.0, 4.0]), np.array([[1.0], [2.0], [4.0]])).value
    1.0
    """
    num_seeds = values.shape[1]
    x = np.repeat(np.asarray(sizes, np.float64), num_seeds)
    y = values.ravel()
    some = np.isfinite(y) & (y > 0)
    x, y = x[some], np.log(y[some])
    if len(set(x)) < 2 or len(x) <= values.size / 2:
        return Slope(math.nan, math.nan, 0, num_seeds)
    line = [np.log(x / x[0]), np.ones_like(x)]
    terms = [np.sqrt(x[0] / x), x[0] / x]
    # With few sizes a term cannot be told from scatter.
    used = line if len(set(x)) < 4 else [*line, terms[0]]
    scatter, freedom = _scatter(np.stack(used, axis=1), y)
    prior = max(scatter, _ROUNDING) / _SMALL if freedom else 1.0
    rows = np.vstack([np.stack([*line, *terms], axis=1), prior * np.eye(4)[2:]])
    inverse = np.linalg.pinv(rows)
    value = float(inverse[0] @ np.append(y, [0.0, 0.0]))
    error = max(scatter, _ROUNDING) * math.hypot(*inverse[0])
    return Slope(round(value, 9) + 0.0, error, freedom, num_seeds)


def _scatter(columns: np.ndarray, y: np.ndarray) -> tuple[float, int]:
    """The standard deviation about a fit, and its degrees of freedom."""
    best, *_ = np.linalg.lstsq(columns, y)
    left = y - columns @ best
    freedom = len(y) - columns.shape[1]
    return (math.sqrt(left @ left / freedom) if freedom else math.inf), freedom
