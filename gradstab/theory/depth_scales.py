r"""How deep a signal reaches, and the weights at which it reaches everywhere.

Schoenholz et al. (2017), Deep information propagation: near a fixed point of a map of
slope s, deviations decay like exp(-depth / xi) with xi = -1 / ln s.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from gradstab.errors import UserValueError
from gradstab.theory.fixed_points import (
    NEAR_INFINITY,
    length_limit,
    length_map_of_inputs,
    root,
)
from gradstab.theory.quadrature import Expectations, expectations

# A chi this close to one counts as one: it changes nothing within 1e5 layers.
CRITICAL = 1e-6

_GRID = np.geomspace(1e-7, 1e5, 145)  # twelve points a decade


class CriticalPoint(NamedTuple):
    r"""Parameters at which neither gradients nor lengths change with depth.

    Attributes:
        sigma_w: scale of the weights.
        sigma_b: standard deviation of the biases.
        q_star: the variance of the pre-activations.
    """

    sigma_w: float
    sigma_b: float
    q_star: float


def depth_scale(slope: float, /) -> float:
    r""":math:`\xi = -1 / \ln |slope|`, in layers.

    Negative where deviations grow (a growth length), infinite at slope one (to 1e-9,
    what quadrature and root finding resolve), zero at slope zero.

    Examples:
        >>> round(depth_scale(0.5), 4), depth_scale(1.0)
        (1.4427, inf)
    """
    slope = abs(slope)
    if math.isnan(slope) or slope == 0 or math.isinf(slope):
        return math.nan if math.isnan(slope) else 0.0
    return math.inf if abs(math.log(slope)) < 1e-9 else -1 / math.log(slope)


def critical_sigma_w(activation: Callable[..., Any], /, sigma_b: float = 0.0) -> float:
    r"""The weight scale at which gradients keep their norm, :math:`\chi = 1`.

    On that line :math:`\sigma_w^2 = 1 / E\,\phi'(\sqrt q z)^2` and
    :math:`\sigma_b^2 = q - \sigma_w^2 E\,\phi(\sqrt q z)^2`, so one equation in q is
    solved. Of several solutions, that of the smallest q which a network reaches from
    inputs of unit variance counts. Where lengths grow without bound while chi tends to
    one (relu with biases), that weight scale is returned.

    Args:
        activation: an elementwise function, written in JAX.
        sigma_b: standard deviation of the biases.

    Returns:
        The scale: weights are N(0, sigma_w^2 / fan_in).

    Raises:
        ValueError: if no network with these biases is critical.

    References:
        Schoenholz et al. (2017), figure 1; Hayou et al. (2019), On the impact of the
        activation function on deep neural networks training, definition 2.

    Examples:
        >>> import jax
        >>> round(critical_sigma_w(jax.nn.tanh, sigma_b=0.05**0.5) ** 2, 4)
        1.761
        >>> round(critical_sigma_w(jax.nn.relu), 6)
        1.414214
    """
    averages = expectations(activation)
    if not sigma_b >= 0:
        raise UserValueError(
            f"sigma_b is {sigma_b}; a standard deviation is at least 0."
        )
    if sigma_b == 0 and averages.moments(0.0).square < 1e-30:
        sigma_w = _weights(averages, 0.0)
        if sigma_w is not None and _reached(averages, sigma_w, 0.0):
            return sigma_w

    def excess(log_q: float) -> float:
        return _biases(averages, np.exp(log_q)) - sigma_b**2

    for q in _zeros(excess):
        sigma_w = _weights(averages, q)
        if sigma_w is not None and _reached(averages, sigma_w, sigma_b):
            return sigma_w
    sigma_w = _weights(averages, NEAR_INFINITY)
    if sigma_w is not None and _reached(averages, sigma_w, sigma_b):
        return sigma_w
    raise UserValueError(
        f"with sigma_b={sigma_b:g} no sigma_w makes this activation critical: at every "
        "fixed point of the length that a network reaches from inputs of unit "
        "variance, chi differs from one. Try larger biases, or half_stable_point."
    )


def half_stable_point(activation: Callable[..., Any], /) -> CriticalPoint:
    r"""The point at which gradients and lengths are both critical, at finite length.

    Smooth activations that are not odd, like GELU and SiLU, are critical at zero length
    only unstably. Their other critical point is where :math:`\chi = 1` and
    :math:`V'(q) = 1`. It is half-stable: lengths approach it from one side.

    Raises:
        ValueError: if there is no such point, or (scale-invariant activations) all are.

    References:
        Roberts, Yaida and Hanin (2022), The principles of deep learning theory, section
        5.3.4.

    Examples:
        >>> import jax
        >>> point = half_stable_point(lambda x: jax.nn.gelu(x, approximate=False))
        >>> round(point.sigma_w**2, 5), round(point.sigma_b**2, 5)
        (1.98306, 0.17292)
    """
    averages = expectations(activation)

    def excess(log_q: float) -> float:
        moments = averages.moments(np.exp(log_q))
        return moments.growth - moments.slope_square

    for q in _zeros(excess):
        sigma_w, biases = _weights(averages, q), _biases(averages, q)
        if sigma_w is not None and biases >= 0:
            return CriticalPoint(sigma_w, math.sqrt(biases), q)
    raise UserValueError(
        "this activation has no half-stable critical point at a finite length; "
        "critical_sigma_w gives its critical line."
    )


def _zeros(f: Callable[..., Any]) -> Iterator[float]:
    """Every q at which ``f`` of its logarithm changes sign, in ascending order."""
    before = f(np.log(_GRID[0]))
    for low, high in itertools.pairwise(np.log(_GRID)):
        after = f(high)
        if before * after < 0 and max(abs(before), abs(after)) > 1e-12:
            yield float(np.exp(root(f, low, high)))
        before = after


def _weights(averages: Expectations, q: float) -> float | None:
    slopes = averages.moments(q).slope_square
    return slopes**-0.5 if 0 < slopes < np.inf else None


def _biases(averages: Expectations, q: float) -> float:
    """The variance of biases that keeps lengths at q on the line chi = 1."""
    moments = averages.moments(q)
    if moments.slope_square == 0 or not np.isfinite(moments.square):
        return np.nan
    level = q - moments.square / moments.slope_square
    return 0.0 if abs(level) < 1e-13 * q else level


def _reached(averages: Expectations, sigma_w: float, sigma_b: float) -> bool:
    """Whether a network with unit inputs comes to rest where chi is one."""
    start = length_map_of_inputs(sigma_w, sigma_b)
    limit = length_limit(averages, sigma_w, sigma_b, start)
    slopes = averages.moments(min(limit, NEAR_INFINITY)).slope_square
    return abs(sigma_w**2 * slopes - 1) < CRITICAL
