r"""The Lyapunov exponents of a sequence of Jacobians, with the error of its length.

A random orthonormal basis is carried through the steps, :math:`J_t Q_{t-1} = Q_t R_t`.
It turns into the directions that grow fastest, and from then on the exponents are means
over the steps,

.. math:: \lambda_i = \langle \ln |R_{t, ii}| \rangle .

The logarithms of the singular values of the whole product tend to the same limit, but
slowly and from above: the directions of a finite time are chosen in hindsight.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special

from gradstab.records import record
from gradstab.spectra.exponents import log_diagonals

# The second half of the steps is averaged, in so many blocks of at least so many steps:
# neighbouring steps depend on each other, blocks should not.
_BLOCKS = 8
_LEAST = 4
FEWEST = 2 * _BLOCKS * _LEAST

_CONFIDENCE = 0.95
_QUANTILE = float(special.stdtrit(_BLOCKS - 1, (1 + _CONFIDENCE) / 2))

# A transient that dies like 1 / t, as that of a Jordan block, has a mean over the
# second half that is too large by what it is below the mean over the quarter before.
# Half as much again, as both are not known exactly.
_DRIFT = 1.5


@record
class Lyapunov:
    """Lyapunov exponents of sequences of Jacobians.

    Attributes:
        values: (num, k) per step, in descending order; -inf for directions that do not
            get through, NaN where a Jacobian is not finite.
        errors: (num, k) half of the 95 % interval; NaN for fewer than `FEWEST` steps.
    """

    values: np.ndarray
    errors: np.ndarray


def lyapunov(
    steps: Sequence, /, *, num_values: int, spectra_on: str = "auto"
) -> Lyapunov:
    r"""Lyapunov exponents by means over the second half of the steps.

    The error is that of the finite length: the standard error of eight block means
    times the quantile of Student's distribution, and the drift between the second
    quarter and the second half, which shows a transient that has not died out; and the
    rounding. It supposes that the steps are stationary, as they are on an attractor and
    with inputs drawn alike.

    Args:
        steps: the Jacobians in the order of time, as `exponents` takes them.
        num_values: how many of the largest.
        spectra_on: 'device' or 'host', see `exponents`.

    Returns:
        The exponents. Cost: one sweep, :math:`O(T n k^2)` per example beside the
        products with k vectors.

    References:
        Benettin et al. (1980), Lyapunov characteristic exponents for smooth dynamical
        systems, part 2. Block means: Flyvbjerg and Petersen (1989), Error estimates on
        averages of correlated data.

    Examples:
        >>> cat = np.array([[[2.0, 1.0], [1.0, 1.0]]])
        >>> lyapunov([cat] * 100, num_values=2).values.round(7)
        array([[ 0.9624237, -0.9624237]])
    """
    logs, noise = log_diagonals(steps, num_values, spectra_on=spectra_on)
    half, quarter = len(logs) // 2, len(logs) // 4
    values = np.mean(logs[half:], axis=0)
    logs = np.where(np.isneginf(logs), 0, logs)
    late, early = logs[half:], logs[quarter:half]
    errors = np.full_like(values, np.nan)
    if len(logs) >= FEWEST:
        drift = np.mean(late, axis=0) - np.mean(early, axis=0)
        spread = _standard_error(late) * _QUANTILE
        errors = np.hypot(spread, _DRIFT * drift) + np.mean(noise, axis=0)
        errors = np.where(np.isneginf(values), 0, errors)
    order = np.argsort(-values, axis=1, kind="stable")
    sort = np.take_along_axis
    return Lyapunov(sort(values, order, 1), sort(errors, order, 1))


def _standard_error(logs):
    """Of the mean over time, from means over blocks."""
    length = len(logs) // _BLOCKS
    kept = logs[len(logs) - _BLOCKS * length :]
    means = kept.reshape(_BLOCKS, length, *logs.shape[1:]).mean(axis=1)
    return np.std(means, axis=0, ddof=1) / np.sqrt(_BLOCKS)
