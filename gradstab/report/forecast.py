r"""When a walk crosses a limit, as far as it is known and beyond.

The logarithm of a size goes on by its law of growth and walks about it: after k more
layers it is off by a variance :math:`\sigma^2 k`, with :math:`\sigma` the deviation of
the steps that were measured, and by the error of the rate. A run in a narrow dtype goes
another way from the start if the network is chaotic: :math:`2 \sigma^2` per layer.
"""

import bisect
import math
from typing import NamedTuple

import numpy as np
from scipy import special

from gradstab.records import Growth

# The largest entry of a layer is that of another unit and example once all numbers are
# rounded: half of the logarithm of what lies between such draws.
_REDRAWN = 0.5

# Both tails outside of the stated interval.
_OUTSIDE = 0.05

# Layers beyond the network at which the ends of an interval are looked for.
_AHEAD = np.unique(np.geomspace(1, 1e9, 2000).round())


class Course(NamedTuple):
    """How the logarithm of a size goes on, in the direction in which it travels.

    Attributes:
        rate: per unit of the law's axis.
        error: its standard error.
        variance: of one step about the law; NaN if nothing is known of it.
        steps: from how many of them that is known.
        law: see `Growth`.
        here: layers from the law's origin to the last one.
        last: position from which the law goes on.
        start: the logarithm there.
        spread: by how much the logarithm of the largest entry over the root mean square
            grows per sqrt(layer).
    """

    rate: float
    error: float
    variance: float
    steps: int
    law: str
    here: float
    last: int
    start: float = math.nan
    spread: float = 0.0

    def of_largest(self, levels: np.ndarray, rms: np.ndarray) -> "Course":
        r"""The course of the largest entry, which leaves the root mean square behind.

        Of N log-normal numbers with a variance v of the logarithm the largest is about
        :math:`\exp \sqrt{2 v \ln N}`, and v grows with every layer: the excess is
        ``a + c sqrt(layer)``, c positive.

        Args:
            levels: logarithms of the largest entry, in the order in which it travels.
            rms: those of the root mean square.
        """
        with np.errstate(invalid="ignore"):
            excess = (levels - rms)[: self.last + 1]
        excess = excess[np.isfinite(excess)]
        if len(excess) < 3 or not math.isfinite(rms[self.last]):
            return self._replace(start=float(levels[self.last]))
        away = np.sqrt(1.0 + np.arange(len(excess)))
        away = away - away.mean()
        slope = max(float(away @ excess / (away @ away)), 0.0)
        start = rms[self.last] + excess.mean() + slope * away[-1]
        return self._replace(start=float(start), spread=slope)

    def path(self, further: np.ndarray | float):
        """The logarithm so many layers after the last one."""
        apart = np.sqrt(self.last + 1 + further) - math.sqrt(self.last + 1)
        return self.start + self.rate * self.axis(further) + self.spread * apart

    def axis(self, further: np.ndarray | float) -> np.ndarray | float:
        """How far so many layers more are along the law's axis."""
        if self.law == "power":
            return np.log1p(further / self.here)
        if self.law == "exp-sqrt":
            return np.sqrt(self.here + further) - math.sqrt(self.here)
        return np.asarray(further, np.float64)

    def layers(self, distance: float) -> float:
        """How many layers more are so far along the law's axis."""
        if self.law == "power":
            return self.here * math.expm1(min(distance, 600))
        if self.law == "exp-sqrt":
            return (math.sqrt(self.here) + distance) ** 2 - self.here
        return distance

    def deviations(
        self, inside: np.ndarray | float, further: np.ndarray | float
    ) -> np.ndarray:
        """Standard deviations of what a narrow run finds there.

        Args:
            inside: layers that the signal travelled inside of the network.
            further: layers beyond.
        """
        walked = self.variance * (2 * inside + further)
        drifted = np.square(self.error * self.axis(further))
        return np.sqrt(_REDRAWN**2 + walked + drifted)


class Crossing(NamedTuple):
    """The first layer beyond a limit, counted from one, and an interval for it."""

    depth: float
    earliest: float
    latest: float
    inside: bool


def course(
    levels: np.ndarray, growth: Growth, /, *, last: int, backward: bool
) -> Course:
    """How a signal goes on by its law of growth.

    Where the growth has no rate, the mean step is taken for it if it is certain.

    Args:
        levels: logarithms of its size in the order in which it travels, of the layers
            that are compared.
        growth: its `Growth`, whose rate counts from the input.
        last: position from which the law goes on.
        backward: whether it travels towards the input.
    """
    here = max(growth.depth + growth.offset, 1)
    rate = -growth.rate if backward else growth.rate
    unknown = math.isnan(rate)
    known = Course(rate, growth.error, math.nan, 0, growth.law, here, last)
    if unknown:
        known = known._replace(rate=0.0, error=0.0)
    steps = np.diff(levels)
    if len(steps) < 2:
        return known
    once, lasting = _variances(steps)
    known = known._replace(variance=max(once, lasting), steps=len(steps))
    if unknown:
        error = math.sqrt(known.variance / len(steps))
        mean = float(np.mean(steps))
        certain = abs(mean) > _quantile(known) * error
        return known._replace(rate=mean if certain else 0.0, error=error)
    # The fit takes steps for independent.
    wider = math.sqrt(known.variance / once) if once else 1.0
    return known._replace(error=growth.error * wider)


def _variances(steps: np.ndarray) -> list[float]:
    """Per layer, of single steps and of runs of them: more if they are correlated.

    From the median of absolute deviations, which a transient does not move.
    """
    levels, found = np.append(0.0, np.cumsum(steps)), []
    for length in (1, math.isqrt(len(steps))):
        runs = levels[length:] - levels[:-length]
        deviation = 1.4826 * np.median(np.abs(runs - np.median(runs)))
        found.append(float(deviation**2) / length)
    return found


def crossing(
    levels: np.ndarray, course: Course, limit: float, sign: int, /
) -> Crossing:
    """When a signal is beyond a limit.

    Args:
        levels: logarithms of its size in the order in which it travels; NaN where it
            was cut off.
        course: how it goes on.
        limit: the logarithm that it must not pass.
        sign: +1 if that is the largest, -1 if it is the smallest.

    Returns:
        Depths; infinite if it never gets there.
    """
    inside = 1.0 + np.arange(len(levels))
    beyond = sign * (levels - limit) > 0
    depth = _ahead(course, limit, sign)
    if beyond.any():
        depth = float(inside[np.argmax(beyond)])
    earliest, latest = 1.0, math.inf
    if not math.isnan(course.variance):
        where = np.concatenate([inside, course.last + 1 + _AHEAD])
        above = sign * (np.append(levels, course.path(_AHEAD)) - limit)
        margin = _quantile(course) * np.append(
            course.deviations(inside, 0), course.deviations(course.last + 1, _AHEAD)
        )
        earliest = min(_first(where, above + margin > 0), depth)
        latest = max(_first(where, above - margin > 0), depth)
    return Crossing(depth, earliest, latest, bool(beyond.any()))


def _first(where: np.ndarray, flags: np.ndarray) -> float:
    return float(where[np.argmax(flags)]) if flags.any() else math.inf


def _ahead(course: Course, limit: float, sign: int) -> float:
    """The first layer beyond the limit, where rounding cannot tell: beyond a tie."""
    if not sign * course.rate > 0 or not math.isfinite(course.start):
        return math.inf
    layers = course.layers((limit - course.start) / course.rate)
    further = max(math.floor(layers + 1e-9) + 1, 1)
    if course.spread:
        # What the largest entry gains besides brings the limit nearer.
        before = range(1, min(further, 2**62))
        further = 1 + bisect.bisect_right(before, limit, key=course.path)
    return float(course.last + 1 + further)


def _quantile(course: Course) -> float:
    return -float(special.stdtrit(max(course.steps - 1, 1), _OUTSIDE / 2))
