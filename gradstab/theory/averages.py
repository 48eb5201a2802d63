"""Gaussian averages at many variances, from few that are computed; internal."""

import math

import numpy as np

from gradstab.theory.quadrature import Expectations, Moments

# Of ln q: most averages are analytic there within pi / 2 of every real number, so that
# sixteen points on an interval of length one leave 1e-13. Where one is not, because of
# a kink far from the mean, the last coefficients tell, and shorter intervals are taken.
_NUM_POINTS = 16
_POINTS = np.polynomial.chebyshev.chebpts1(_NUM_POINTS)

_ACCURACY, _NARROWEST = 1e-11, 2.0**-6

# Variances below this share of the largest are taken for it.
_LEAST = 1e-12


def averaged(
    averages: Expectations, variances: np.ndarray, mean, /
) -> list[np.ndarray]:
    r"""Means of :math:`\phi, \phi^2, \phi'^2` for an array of variances.

    Each is smooth in ln q, so it is interpolated from Chebyshev points there, to twelve
    digits. Intervals are the same for all layers, and remembered.

    Args:
        averages: `Expectations` of the activation.
        variances: of the Gaussian inputs, any shape, finite.
        mean: of them all.

    Returns:
        Three arrays like ``variances``.

    Raises:
        ValueError: if an average is not a number.
    """
    q, where = np.unique(variances, return_inverse=True)
    table = np.empty((len(q), 3))
    positive = q > 0
    if not positive.all():
        table[~positive] = _table(averages.many([0.0], mean))
    if positive.any():
        clipped = np.maximum(q[positive], _LEAST * q[-1])
        table[positive] = _interpolated(averages, np.log(clipped), float(mean))
    return [column[where].reshape(variances.shape) for column in table.T]


def _interpolated(
    averages: Expectations, logs: np.ndarray, mean: float, width: float = 1.0
) -> np.ndarray:
    table = np.empty((len(logs), 3))
    intervals = np.floor(logs / width)
    for number in np.unique(intervals):
        chosen = intervals == number
        start = number * width
        fit = averages.fits.get(
            (start, width, mean),
            lambda start=start: _fit(averages, start, width, mean),
        )
        if fit is not None:
            shares = (logs[chosen] - start) / width
            coefficients, positive = fit
            table[chosen] = _values(coefficients, positive, shares)
        elif width > _NARROWEST:
            table[chosen] = _interpolated(averages, logs[chosen], mean, width / 4)
        else:
            table[chosen] = _table(averages.many(np.exp(logs[chosen]), mean))
    return table


def _fit(
    averages: Expectations, start: float, width: float, mean: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Chebyshev coefficients (points, 3), and which are of logarithms.

    None if the polynomials do not converge, or an average is not a number there.
    """
    try:
        q = np.exp(start + width * (_POINTS + 1) / 2)
        values = _table(averages.many(q, mean))
    except ValueError:
        return None
    rms = math.sqrt(np.max(values[:, 1]))
    # Logarithms vary less.
    positive = np.all(values > 0, axis=0)
    values = np.where(positive, np.log(np.where(positive, values, 1)), values)
    basis = np.polynomial.chebyshev.chebvander(_POINTS, _NUM_POINTS - 1)
    coefficients = 2 / _NUM_POINTS * basis.T @ values
    coefficients[0] /= 2
    # A mean of rounding only is small beside the values themselves.
    size = np.where(positive, 1, [rms, 0, 0])
    last = np.max(np.abs(coefficients[-2:]), axis=0)
    return (coefficients, positive) if np.all(last <= _ACCURACY * size) else None


def _values(
    coefficients: np.ndarray, positive: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    basis = np.polynomial.chebyshev.chebvander(2 * shares - 1, _NUM_POINTS - 1)
    values = basis @ coefficients
    return np.where(positive, np.exp(np.where(positive, values, 0)), values)


def _table(moments: Moments) -> np.ndarray:
    return np.stack([moments.mean, moments.square, moments.slope_square], axis=1)
