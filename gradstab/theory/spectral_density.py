r"""Singular values of the input-output Jacobian of a wide network: isometry or not.

The Jacobian is a product of L factors: weights, and diagonal slopes of the activation.
Wide factors are free of one another, so their S-transforms multiply.
"""

import math

import numpy as np

from gradstab.errors import UserValueError
from gradstab.records import record, static
from gradstab.theory.fixed_points import NEAR_INFINITY, least
from gradstab.theory.mean_field import MeanField
from gradstab.theory.quadrature import Expectations, expectations, gaussian_averages


@record
class SingularValues:
    r"""The squared singular values of the Jacobian of a wide network.

    Attributes:
        mean_square: their mean, :math:`m_1 = \chi^L`.
        variance: their variance over the square of their mean, :math:`m_2/m_1^2 - 1`;
            zero for an isometry.
        largest: the largest singular value (not squared) as the width goes to infinity.
        depth: number of layers.
        orthogonal: whether the weights are orthogonal, otherwise they are Gaussian.
    """

    mean_square: float
    variance: float
    largest: float
    depth: int = static()
    orthogonal: bool = static()


def singular_values(
    field: MeanField, depth: int, /, *, orthogonal: bool = False
) -> SingularValues:
    r"""How far the Jacobian of ``depth`` layers at the fixed point is from an isometry.

    With :math:`\mu_k = E\,\phi'(\sqrt{q^*} z)^{2k}`, and :math:`s_1 = -1` for Gaussian
    and 0 for orthogonal weights, the relative variance of squared singular values is

    .. math:: L (\mu_2 / \mu_1^2 - 1 - s_1).

    Only orthogonal weights with :math:`\mu_2 \to \mu_1^2` (tanh at small
    :math:`q^*`, not relu) keep it bounded. The edge of the spectrum is the least value
    over :math:`\zeta > \sup \phi'^2` of

    .. math::
        \frac{1 + m}{m} \Big[\sigma_w^2 (1 + m)^{-1-s_1} m \zeta \Big]^L, \quad
        m = E\,\frac{\phi'^2}{\zeta - \phi'^2}.

    Args:
        field: what `mean_field` returned.
        depth: number of layers, each one activation and one square weight matrix.
        orthogonal: weights are sigma_w times random orthogonal matrices.

    Returns:
        The moments and the edge. A network of width n follows them while L is far below
        n; its largest singular value is then 6 to 30 % below the edge.

    Raises:
        ValueError: if the depth is less than one, or chi is zero or infinite.

    References:
        Pennington, Schoenholz and Ganguli (2017), Resurrecting the sigmoid in deep
        learning through dynamical isometry, equations 15 to 22; (2018), The emergence
        of spectral universality in deep networks, section 3.

    Examples:
        >>> import jax
        >>> from gradstab.theory.mean_field import mean_field
        >>> he = mean_field(jax.nn.relu, sigma_w=2**0.5)
        >>> round(singular_values(he, 8, orthogonal=True).variance, 9)
        8.0
        >>> round(singular_values(he, 8, orthogonal=True).largest, 4)
        4.5135
    """
    if depth < 1:
        raise UserValueError(f"depth is {depth}; a Jacobian has at least one layer.")
    if not 0 < field.chi < math.inf:
        raise UserValueError(
            f"chi is {field.chi} at this network's fixed point, so its Jacobian has no "
            "spectrum: choose a sigma_w at which chi is positive and finite."
        )
    averages = expectations(field.activation)
    q = min(field.q_star, NEAR_INFINITY)
    moments = averages.moments(q)
    spread = moments.slope_fourth / moments.slope_square**2 - 1
    log_edge = _log_edge(averages, field.sigma_w, q, depth, orthogonal)
    with np.errstate(over="ignore"):
        return SingularValues(
            mean_square=float(np.float64(field.chi) ** depth),
            variance=depth * (spread + (not orthogonal)),
            largest=float(np.exp(log_edge / 2)),
            depth=depth,
            orthogonal=orthogonal,
        )


def _log_edge(
    averages: Expectations, sigma_w: float, q: float, depth: int, orthogonal: bool
) -> float:
    """Logarithm of the largest squared singular value."""
    weights, squares = gaussian_averages(averages, q)
    top = float(squares.max())

    def level(log_distance: float) -> float:
        zeta = top * (1 + math.exp(log_distance))
        m = float(weights @ (squares / (zeta - squares)))
        factor = 2 * math.log(sigma_w) + math.log(m * zeta)
        factor -= math.log1p(m) if orthogonal else 0.0
        return math.log1p(m) - math.log(m) + depth * factor

    grid = np.linspace(math.log(1e-6), math.log(1e6), 200)
    best = int(np.argmin([level(x) for x in grid]))
    return least(level, grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])[1]
