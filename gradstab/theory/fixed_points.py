r"""Where the length map and the correlation map of a wide network come to rest."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradstab.errors import UserValueError
from gradstab.theory.quadrature import Expectations

# In the ordered and the chaotic phase alike, a length map with V(0) = 0 that has no
# fixed point above the first number falls to zero, and one that stays above the
# diagonal up to the second grows without bound.
_SMALL, _LARGE = 1e-7, 1e10

# V(q) = q within the first counts as a fixed point where the iteration starts, so that
# a line of them (relu at criticality) is one. The second is for a map that touches the
# diagonal and turns back: nothing passes such a point in fewer than 1e4 layers.
_ROUNDING, _TOUCH = 1e-11, 1e-8

# Up to here the averages of every activation are resolved.
_FAR = 1e4

# Fixed points and touching points closer to one another than this factor merge.
_STEP = 2**0.125

# By how much the slope of the correlation map between 1 - 1e-10 and 1 may differ from
# that at one for an activation with kinks: the root of 1e-10, times a hundred.
_JUMP = 1e-3

# Variances that stand for the limits at zero and at infinity.
NEAR_ZERO, NEAR_INFINITY = 1e-12, 1e24


def root(f: Callable[..., Any], low: float, high: float, /) -> float:
    """The zero of ``f`` between two points of opposite sign, to 1e-14.

    An end that is itself a zero may have either sign, by rounding.
    """
    at_ends = {x: f(x) for x in (low, high)}
    if at_ends[low] * at_ends[high] > 0:
        return float(min(at_ends, key=lambda x: abs(at_ends[x])))
    from scipy import optimize  # an analysis needs none of it, and it loads for long

    found = optimize.root_scalar(
        f, bracket=sorted((low, high)), method="brentq", xtol=1e-14, rtol=1e-14
    )
    return float(found.root)


def least(f: Callable[..., Any], *ends) -> tuple[float, float]:
    """Where ``f`` is least between two points, and its value there."""
    from scipy import optimize

    x, value, *_ = optimize.fminbound(f, *sorted(ends), xtol=1e-9, full_output=True)
    return float(x), float(value)


def length_map(
    averages: Expectations, sigma_w: float, sigma_b: float, q: float, /
) -> float:
    r""":math:`V(q) = \sigma_w^2 E\,\phi(\sqrt q z)^2 + \sigma_b^2`."""
    if np.isinf(q):
        return float("inf")
    return sigma_w**2 * averages.moments(q).square + sigma_b**2


def length_map_of_inputs(
    sigma_w: float, sigma_b: float, mean_square: float = 1.0, /
) -> float:
    """Variance of the first pre-activations, from the mean square of the inputs."""
    return sigma_w**2 * mean_square + sigma_b**2


def length_limit(
    averages: Expectations, sigma_w: float, sigma_b: float, start: float, /
) -> float:
    """The fixed point of the length map that lies next on the way from ``start``.

    That is the limit of the iteration wherever the map rises with q, as it does for
    every activation that grows in absolute value away from zero.

    Returns:
        The fixed point; 0 or infinity where there is none on the way.

    Raises:
        ValueError: if it lies where the averages of the activation are not resolved.
    """

    def excess(q: float):
        return length_map(averages, sigma_w, sigma_b, q) / q - 1

    start = start or length_map(averages, sigma_w, sigma_b, 0.0)
    if start < 1e-30:
        return 0.0
    first = excess(start)
    if not abs(first) > _ROUNDING:
        return float(start)
    step = _STEP if first > 0 else 1 / _STEP
    anchor = behind = start
    here = start * step
    before, now = first, excess(here)
    bottom = length_map(averages, sigma_w, sigma_b, 0.0)
    bound = min(_SMALL, start / 2, bottom / 4 if bottom > 1e-30 else _SMALL)
    while bound < here < max(_LARGE, 2 * start):
        if now * first < 0 and abs(now) > _ROUNDING:
            log_q = root(lambda x: excess(np.exp(x)), *np.log((anchor, here)))
            return float(np.exp(log_q))
        if np.isinf(now):
            return float("inf")
        ahead = here * step
        if ahead > _FAR and ahead > averages.resolved:
            return _beyond_what_is_resolved(averages, sigma_w, sigma_b)
        after = excess(ahead)
        # Where rounding is all that is left of the excess, the map has not turned back.
        turns = max(abs(before), abs(after)) > _ROUNDING
        if turns and abs(now) <= min(abs(before), abs(after)):
            touched = _touch(excess, behind, ahead)
            if touched is not None:
                return touched
        anchor = here if now * first > 0 else anchor
        behind, here, before, now = here, ahead, now, after
    return 0.0 if first < 0 else float("inf")


def _beyond_what_is_resolved(averages, sigma_w, sigma_b):
    """Infinity if the length map is a line that does not come back to the diagonal."""
    near, far = averages.resolved / 4, averages.resolved
    lengths = [length_map(averages, sigma_w, sigma_b, q) for q in (near, far)]
    if lengths[1] > far and lengths[1] - lengths[0] > (1 - 1e-9) * (far - near):
        return float("inf")
    raise UserValueError(
        f"the activation oscillates too often: at sigma_w {sigma_w:g} variances come "
        f"to rest above {far:.2g}, where its averages are not resolved"
    )


def _touch(excess: Callable[..., Any], *ends):
    """The point between the ends at which the map comes within 1e-8 of the diagonal."""
    log_q, distance = least(lambda x: abs(excess(np.exp(x))), *np.log(ends))
    if distance > _TOUCH or excess(ends[0]) * excess(ends[1]) < 0:
        return None
    inside = abs(np.log(ends) - log_q).min() > 1e-3
    return float(np.exp(log_q)) if inside else None


def correlation_limit(
    averages: Expectations, sigma_w: float, sigma_b: float, q_star: float, /
) -> tuple[float, float]:
    r"""The attracting fixed point of the correlation map, and the map's slope there.

    .. math:: C(c) = (\sigma_w^2 E\,\phi(u)\phi(v) + \sigma_b^2) / V(q^*)

    On [0, 1] the map is a power series without negative terms (Mehler), so it is
    convex: c = 1 attracts if the slope there is at most one, and otherwise exactly one
    fixed point lies below. Where the activation jumps the slope at one is infinite, as
    :math:`1 - C(c)` falls like :math:`\sqrt{1 - c}`, whatever the mean squared slope.
    """
    if np.isinf(q_star) and np.isfinite(averages.resolved):
        return float("nan"), float("nan")
    q = min(max(q_star, NEAR_ZERO), NEAR_INFINITY)
    length = length_map(averages, sigma_w, sigma_b, q)
    if length == 0:
        return 1.0, 0.0
    if not np.isfinite(length):
        return float("nan"), float("nan")
    if q == q_star:
        length = q  # but for rounding, which would part the slope at one from chi
    scale = sigma_w**2 / length * q

    def excess(log_gap):
        gap = np.exp(log_gap)
        return sigma_w**2 * averages.pair(q, q, gap).half_gap / (length * gap) - 1

    at_one = scale * averages.moments(q).slope_square
    near_one = excess(np.log(1e-10))
    jumps = near_one > at_one - 1 + _JUMP
    if at_one <= 1 + 1e-9 and not jumps:
        return 1.0, at_one
    if near_one <= 0:
        return _next_to_one(excess, at_one)
    if abs(excess(0.0)) < 1e-12:
        gap = 1.0
    else:
        gap = float(np.exp(root(excess, np.log(1e-10), 0.0)))
    if jumps:
        return 1.0 - gap, _slope(lambda g: excess(np.log(g)) * g, gap) + 1
    return 1.0 - gap, scale * averages.pair(q, q, gap).slopes


def _next_to_one(excess: Callable[..., Any], at_one: float):
    r"""The fixed point less than 1e-10 below one that attracts, and the slope there.

    Near one the excess falls like :math:`\chi - 1 - k g^p` with the gap g, with p = 1/2
    where the activation has kinks, 1 where it has none. At its zero the map has the
    slope :math:`1 - p (\chi - 1)`. Values of g too small to be averaged are not needed.
    """
    falls = [at_one - 1 - excess(np.log(gap)) for gap in (1e-10, 1e-8)]
    power = np.log(falls[1] / falls[0]) / np.log(100.0)
    gap = 1e-10 * ((at_one - 1) / falls[0]) ** (1 / power)
    return float(1 - gap), float(1 - power * (at_one - 1))


def _slope(f: Callable[..., Any], x):
    """The derivative by differences, to 1e-9."""
    h = 1e-3 * x
    pairs = [f(x + k * h) - f(x - k * h) for k in (1, 2)]
    return (8 * pairs[0] - pairs[1]) / (12 * h)
