r"""Numbers of every step that may warn before a loss diverges, and how they are judged.

An indicator is a number of every step, or of every layer, seen in one of four ways
(`Form`). It gives one score per step; an alarm rings where the score is above a
threshold. What is judged by the steps before says nothing of the first twenty.
"""

import collections
import dataclasses
import enum
import math
import warnings
from collections.abc import Callable

import numpy as np

from gradstab.watch.history_metrics import DERIVED, Get
from gradstab.watch.locating import jump, median
from gradstab.watch.scalars import WINDOW

LEAST = 20
"""Of so many steps before something can be said."""
# Of standard deviations, what a step may be off without being added up: half of the
# shift that the sum is most sensitive to, which is one (Page 1954).
_SLACK = 0.5


class Form(enum.StrEnum):
    """How a number is judged."""

    LEVEL = "as it is"
    RISE = "above its median of the 100 steps before"
    Z_SCORE = "standard deviations above the mean of the 100 steps before"
    CUSUM = "sum of what these deviations are above one half, never below zero"
    JUMP = "of what `gradstab.Statistics.spike` allows"


class Scale(enum.StrEnum):
    """What is taken of a number first."""

    LINEAR = "x"
    LOG = "ln x"
    LOG_ODDS = "ln(x / (1 - x))"


@dataclasses.dataclass(frozen=True)
class Indicator:
    """A number of every step, or of every layer, and how it is judged.

    Attributes:
        name: for tables.
        of: computes it from columns, for ``(steps,)`` or ``(steps, names)``.
        form: how it is judged.
        scale: what is taken of it first.
        two_sided: whether a fall counts as a rise does.
    """

    name: str
    of: Callable[[Get], np.ndarray]
    form: Form
    scale: Scale = Scale.LOG
    two_sided: bool = False

    def values(self, get: Get, /) -> np.ndarray:
        """What is judged, of all steps.

        Args:
            get: gives a column of `gradstab.Statistics` by its name.

        Returns:
            ``(steps, 1)``, or ``(steps, names)`` of what every layer has; NaN of what
            is not finite.
        """
        x = np.asarray(self.of(get), np.float64)
        x = x if x.ndim > 1 else x[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.scale is Scale.LOG:
                x = np.log(x)
            elif self.scale is Scale.LOG_ODDS:
                x = np.log(x) - np.log1p(-x)
        return np.where(np.isfinite(x), x, np.nan)


class Scorer:
    """The scores of an indicator, step after step.

    Args:
        indicator: what is judged.
        every: of so many steps one is measured.
    """

    def __init__(self, indicator: Indicator, /, *, every: int = 1):
        self._indicator = indicator
        self._before = collections.deque(maxlen=max(WINDOW // every, 2))
        self._least = max(LEAST // every, 2)
        self._sum: np.ndarray | float = 0.0

    def look(self, values, /) -> np.ndarray:
        """The scores of the next step.

        Args:
            values: from `Indicator.values`, ``(..., names)``. On leading axes may be
                several runs, each judged by itself.

        Returns:
            ``(..., names)``, NaN where there is nothing to judge.
        """
        form, x = self._indicator.form, np.asarray(values, np.float64)
        score = x
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of nothing but NaN
            if form is not Form.LEVEL:
                score = self._beside(x)
            if self._indicator.two_sided:
                score = np.abs(score)
            if form is Form.CUSUM:
                step = np.where(np.isfinite(score), score - _SLACK, 0.0)
                self._sum = np.maximum(self._sum + step, 0)
                score = np.where(np.isnan(score), np.nan, self._sum)
        if np.isfinite(x).any():
            self._before.append(x)
        return score

    def _beside(self, x):
        """By how much a step exceeds those before it."""
        if len(self._before) < self._least:
            return np.full_like(x, np.nan)
        before = np.stack(self._before)
        if self._indicator.form is Form.JUMP:
            return jump(x, before)
        if self._indicator.form is Form.RISE:
            return x - median(before)
        return (x - np.nanmean(before, axis=0)) / np.nanstd(before, axis=0, ddof=1)


def largest(scores, /) -> np.ndarray:
    """The largest score of the layers, ``(...)``; NaN where none is known."""
    return np.fmax.reduce(scores, axis=-1, initial=np.nan)


def _update_norm(get):
    return np.sqrt(np.nansum(np.square(get("update_norm")), axis=1))


def _sizes(get):
    columns = [get(name) for name in ("forward_rms", "backward_rms", "gradient_norm")]
    return np.concatenate([*columns, get("value")[:, None]], axis=1)


_loss, _norm = DERIVED["loss"], DERIVED["global_norm"]
_gain, _share, _ratio = DERIVED["gain"], DERIVED["share"], DERIVED["update_ratio"]

GAIN_RISE = Indicator("gain of a layer", _gain, Form.RISE, two_sided=True)
RATIO_LEVEL = Indicator("update ratio of a layer", _ratio, Form.LEVEL)
NORM_RISE = Indicator("global norm", _norm, Form.RISE)
ANY_JUMP = Indicator("any size", _sizes, Form.JUMP)

INDICATORS = (
    Indicator("gain of a layer", _gain, Form.LEVEL, two_sided=True),
    GAIN_RISE,
    Indicator("update norm", _update_norm, Form.LEVEL),
    Indicator("update norm", _update_norm, Form.RISE),
    RATIO_LEVEL,
    Indicator("update ratio of a layer", _ratio, Form.RISE),
    Indicator("share of the squared norm", _share, Form.LEVEL, Scale.LOG_ODDS),
    Indicator("share of the squared norm", _share, Form.RISE, Scale.LOG_ODDS),
    NORM_RISE,
    Indicator("global norm", _norm, Form.Z_SCORE, Scale.LINEAR),
    Indicator("loss", _loss, Form.Z_SCORE, Scale.LINEAR),
    Indicator("loss", _loss, Form.CUSUM, Scale.LINEAR),
    ANY_JUMP,
)
"""Of what is there at every step."""


@dataclasses.dataclass(frozen=True)
class Alarm:
    """An indicator that a watched run speaks of, and how often it does so for nothing.

    Attributes:
        indicator: what is judged.
        threshold: of its score.
        false: in how many healthy runs it rang.
        healthy: how many these were, each of 400 steps; none of them set the threshold.
    """

    indicator: Indicator
    threshold: float
    false: int
    healthy: int

    def __str__(self):
        return (
            f"false alarm in {self.false} of {self.healthy} healthy runs of 400 steps"
        )


# Set by, and measured with, `python -m experiments.early_warnings`: of 80 healthy runs
# 5 % exceed the threshold, and of 80 others so many.
ALARMS = (
    Alarm(GAIN_RISE, math.log(3.30), 1, 80),
    Alarm(RATIO_LEVEL, math.log(0.0386), 5, 80),
    Alarm(NORM_RISE, math.log(6.71), 6, 80),
)
"""Those that come before a divergence most often, and know no units."""
