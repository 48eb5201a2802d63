r"""The whole spectrum of a wide network's Jacobian, not only its moments and its edge.

With :math:`m(\zeta) = E\,\phi'^2 / (\zeta - \phi'^2)`, the S-transforms of the factors
multiply to a relation between :math:`m` and :math:`z`, the moment generating function
of the squared singular values and its argument. It gives z for any :math:`\zeta`; the
density at a value is found the other way round, by Newton's method, coming down from
the complex plane where the solution is known.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from gradstab.errors import UserValueError
from gradstab.theory.fixed_points import NEAR_INFINITY
from gradstab.theory.mean_field import MeanField
from gradstab.theory.quadrature import expectations, gaussian_averages

_SLOPES = 200  # numbers that stand for the distribution of squared slopes
_HEIGHTS = np.geomspace(1e3, 1e-4, 60)  # of z above the axis, relative
_STEPS, _ENOUGH = 50, 1e-10


def singular_value_density(
    field: MeanField, depth: int, values: ArrayLike, /, *, orthogonal: bool = False
) -> np.ndarray:
    r"""Density of the singular values of ``depth`` layers at the fixed point.

    Solves, for z just above the squares of ``values``,

    .. math::
        z = \frac{1 + m}{m} \Big[\sigma_w^2 (1 + m)^{-1-s_1} m \zeta \Big]^L, \quad
        m = E\,\frac{\phi'^2}{\zeta - \phi'^2},

    with :math:`s_1 = -1` for Gaussian and 0 for orthogonal weights; the density of
    squares is :math:`-\mathrm{Im}\,(1 + m) / (\pi z)`. Features narrower than 1e-4 of
    a value are smoothed out.

    Args:
        field: what `mean_field` returned.
        depth: number of layers, each one activation and one square weight matrix.
        values: ``(k,)`` positive singular values.
        orthogonal: weights are sigma_w times random orthogonal matrices.

    Returns:
        ``(k,)`` the density per unit of singular value. Its integral is less than one
        if some singular values are zero: a half for one relu layer.

    Raises:
        ValueError: depth or a value is not positive, or chi is zero or infinite.

    Cost:
        Some seconds for 300 values.

    References:
        Pennington, Schoenholz and Ganguli (2018), The emergence of spectral
        universality in deep networks, equations 10 to 16.

    Examples:
        One linear layer has the quarter-circle law, sqrt(4 - s^2) / pi.

        >>> from gradstab.theory.mean_field import mean_field
        >>> field = mean_field(lambda x: x, sigma_w=1.0)
        >>> round(float(singular_value_density(field, 1, [1.0])[0]), 3)
        0.551
    """
    values = np.asarray(values, np.float64)
    if depth < 1 or np.any(values <= 0):
        raise UserValueError("depth and all values must be positive")
    if not 0 < field.chi < math.inf:
        raise UserValueError(f"chi is {field.chi} at this network's fixed point")
    weights, squares = _slopes(field)
    mean = weights @ squares
    z = values**2 * (1 + 1j * _HEIGHTS[0])
    m = (field.sigma_w**2 * mean) ** depth / z
    zeta = mean / m
    for height in _HEIGHTS:
        z = values**2 * (1 + 1j * height)
        zeta, m = _solve(zeta, np.log(z), weights, squares, field, depth, orthogonal)
    return 2 * values * np.maximum(-((1 + m) / z).imag, 0) / np.pi


def _slopes(field: MeanField) -> tuple[np.ndarray, np.ndarray]:
    """The distribution of squared slopes, in groups of equal probability."""
    q = min(field.q_star, NEAR_INFINITY)
    weights, squares = gaussian_averages(expectations(field.activation), q)
    order = np.argsort(squares)
    weights, squares = weights[order], squares[order]
    group = np.minimum((np.cumsum(weights) * _SLOPES).astype(int), _SLOPES - 1)
    sums = np.bincount(group, weights, _SLOPES)
    means = np.bincount(group, weights * squares, _SLOPES)[sums > 0] / sums[sums > 0]
    return sums[sums > 0], means


def _solve(
    zeta: np.ndarray,
    target,
    weights: np.ndarray,
    squares: np.ndarray,
    field: MeanField,
    depth: int,
    orthogonal: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Newton's method for log z(zeta) = target, from a point nearby."""
    m = np.full_like(zeta, np.nan)
    for _ in range(_STEPS):
        log_z, slope, m = _log_z(zeta, weights, squares, field, depth, orthogonal)
        gap = log_z - target
        gap = gap.real + 1j * (np.mod(gap.imag + np.pi, 2 * np.pi) - np.pi)
        if np.max(np.abs(gap)) < _ENOUGH:
            break
        step = gap / slope
        far = np.abs(step) / (0.3 * np.abs(zeta))
        zeta = zeta - step / np.maximum(far, 1)
    return zeta, m


def _log_z(
    zeta: np.ndarray,
    weights: np.ndarray,
    squares: np.ndarray,
    field: MeanField,
    depth: int,
    orthogonal: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The logarithm of z, its derivative, and m."""
    away = zeta[:, None] - squares
    m = (weights * squares / away).sum(axis=1)
    dm = -(weights * squares / away**2).sum(axis=1)
    power = depth * orthogonal
    constant = 2 * depth * math.log(field.sigma_w)
    log_z = (1 - power) * np.log(1 + m) + (depth - 1) * np.log(m)
    slope = (1 - power) * dm / (1 + m) + (depth - 1) * dm / m + depth / zeta
    return constant + log_z + depth * np.log(zeta), slope, m
