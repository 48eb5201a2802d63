r"""Residual networks: gradients grow with depth, but not always exponentially."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradstab.records import record
from gradstab.theory.fixed_points import length_map_of_inputs
from gradstab.theory.quadrature import expectations


@record
class Residual:
    r"""Lengths and gradient gains along a wide residual network.

    Attributes:
        lengths: (depth + 1,) mean square of the entries of the stream, input first.
        gains: (depth,) by which each block multiplies the expected *squared* norm of a
            gradient, :math:`E \|J u\|^2`.
    """

    lengths: np.ndarray
    gains: np.ndarray

    @property
    def log_growth(self) -> float:
        r""":math:`\ln E \|J\|^2` of all blocks together, of squared norms."""
        return float(np.sum(np.log(self.gains)))


def residual(
    activation: Callable[..., Any],
    depth: int,
    /,
    sigma_w: float,
    sigma_b: float = 0.0,
    *,
    sigma_v: float | None = None,
    alpha: float = 1.0,
    p0: float = 1.0,
) -> Residual:
    r"""Lengths and gradients of blocks :math:`x \mapsto x + \alpha V \phi(W x + b)`.

    With :math:`p = E\,x_i^2` and :math:`q = \sigma_w^2 p + \sigma_b^2`, a block makes

    .. math::
        p' = p + \alpha^2 \sigma_v^2 E\,\phi(\sqrt q z)^2, \quad
        \text{gain} = 1 + \alpha^2 \sigma_v^2 \sigma_w^2 E\,\phi'(\sqrt q z)^2.

    For relu the gain does not depend on q, and it is exact at any width: without
    biases, :math:`1 + \alpha^2 \sigma_v^2 \sigma_w^2 / 2`. Without ``sigma_v`` the
    blocks are the reduced ones, :math:`x + \alpha \phi(W x + b)`; their stream gathers
    the mean of the activation, which is kept in p. With tanh they grow like
    :math:`\exp(\frac43 \sqrt{2/\pi} \sigma_w \sqrt{L})`.

    Args:
        activation: an elementwise function, written in JAX.
        depth: number of blocks.
        sigma_w: scale of W: N(0, sigma_w^2 / fan_in).
        sigma_b: standard deviation of b.
        sigma_v: scale of V, or None for blocks without V.
        alpha: factor of the branch; 1 / sqrt(depth) keeps growth bounded.
        p0: mean square of the entries of the input, of mean zero.

    Returns:
        Lengths and gains per block.

    References:
        Yang and Schoenholz (2017), Mean field residual networks: on the edge of chaos,
        theorems 5 to 8 and 12.

    Examples:
        >>> import jax
        >>> network = residual(jax.nn.relu, 10, sigma_w=1.0, sigma_v=2**0.5)
        >>> round(float(network.gains.prod()), 6)
        1024.0
    """
    averages = expectations(activation)
    mean, lengths, gains = 0.0, [float(p0)], []
    for _ in range(depth):
        p = lengths[-1]
        moments = averages.moments(length_map_of_inputs(sigma_w, sigma_b, p))
        if sigma_v is None:
            branch, cross = alpha**2, 2 * alpha * mean * moments.mean
            mean += alpha * moments.mean
        else:
            branch, cross = (alpha * sigma_v) ** 2, 0.0
        lengths.append(p + cross + branch * moments.square)
        gains.append(1 + branch * sigma_w**2 * moments.slope_square)
    return Residual(lengths=np.array(lengths), gains=np.array(gains))
