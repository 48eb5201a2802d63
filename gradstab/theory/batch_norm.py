r"""Batch normalisation without skips makes gradients explode, whatever the weights."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.errors import UserValueError
from gradstab.theory.gaussian_rule import nodes, value_and_slope
from gradstab.theory.panels import NUM_POINTS
from gradstab.theory.quadrature import expectations

# Angles in units of the standard deviation 1 / sqrt(batch); the density beyond is nil.
_GRID = np.linspace(-10.0, 10.0, 21)


def batch_norm_gain(
    activation: Callable[..., Any], batch: float = math.inf, /
) -> float:
    r"""By how much a batch-normalised layer multiplies squared gradient norms.

    Layers are :math:`h' = \phi(\mathrm{BN}(W h))` in training mode, B examples
    normalised together (no epsilon). At the fixed point the normalised pre-activations
    of a unit are a point y of the sphere of radius :math:`\sqrt B` about the origin,
    orthogonal to the vector of ones, and with :math:`d = \phi'(y)` the gain is

    .. math::
        \frac{(B-1) E d_1^2 + E d_1 d_2 - E y_1^2 d_1^2 + E y_1 d_1 y_2 d_2}
        {(B - 3) (E \phi(y_1)^2 - E \phi(y_1) \phi(y_2))} .

    The scale of the weights cancels. Linear: (B - 2) / (B - 3). As B grows it tends to
    :math:`E\,\phi'(z)^2 / \mathrm{Var}\,\phi(z)`, for relu
    :math:`\pi / (\pi - 1) = 1.467`: its root 1.211 is the growth of norms.

    Args:
        activation: any elementwise function, written in JAX; identity and relu agree
            with the closed forms to 1e-9, others are computed by the same quadrature.
        batch: the number B of examples normalised together, at least 4 (with three or
            fewer the gain has no mean); infinity for the limit.

    Returns:
        The gain of a layer deep inside a wide network; its root is that of norms.

    Raises:
        ValueError: for a batch below four, or a constant activation.

    References:
        Yang, Pennington, Rao, Sohl-Dickstein and Schoenholz (2019), A mean field theory
        of batch normalization, theorems 3.5, 3.9 and section 4.

    Examples:
        >>> import jax
        >>> round(batch_norm_gain(jax.nn.relu), 6)
        1.466942
        >>> round(batch_norm_gain(jax.nn.relu, 8), 5)
        1.78819
    """
    if math.isinf(batch):
        moments = expectations(activation).moments(1.0)
        spread = moments.square - moments.mean**2
        return _ratio(moments.slope_square, spread)
    (square, slope_square, leaning), joint = _averages(activation, batch)
    product, slopes, leanings = joint
    pulled = (batch - 1) * slope_square + slopes - leaning + leanings
    return _ratio(pulled / (batch - 3), square - product)


def batch_norm_square(
    activation: Callable[..., Any], batch: float = math.inf, /
) -> float:
    r"""The mean square :math:`E \phi(y)^2` of what a batch-normalised layer yields.

    Normalised pre-activations y of wide layers lie on the sphere of `batch_norm_gain`,
    whatever enters the layer. As B grows they become standard normal.

    Args:
        activation: any elementwise function, written in JAX.
        batch: the number B of examples normalised together, at least 4; or infinity.

    Raises:
        ValueError: for a batch below four.

    References:
        Yang et al. (2019), as for `batch_norm_gain`, section 3.2.

    Examples:
        >>> import jax
        >>> round(batch_norm_square(jax.nn.relu, 8), 12)
        0.5
    """
    if math.isinf(batch):
        return expectations(activation).moments(1.0).square
    return _averages(activation, batch)[0][0]


def _averages(
    activation: Callable[..., Any], batch: float
) -> tuple[tuple[float, ...], ...]:
    """Averages over one entry and over two of the normalised pre-activations."""
    if batch < 4 or batch != int(batch):
        raise UserValueError(
            f"batch is {batch}; the gain has a mean for four examples or more."
        )
    averages = expectations(activation)
    edges, kinks = averages.panels(math.sqrt(batch))
    both = averages.compiled(_sphere)(edges, kinks, float(batch - 1))
    return tuple(tuple(float(x) for x in part) for part in both)


def _ratio(pulled: float, spread: float) -> float:
    if spread < 1e-14:
        raise UserValueError(
            "the activation is constant over the batch, so normalisation divides zero "
            "by zero."
        )
    return pulled / spread


def _sphere(
    activation: Callable[..., Any], edges: jax.Array, kinks: jax.Array, n: int
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Averages over one entry and over two entries of a random point of the sphere.

    In n = B - 1 dimensions y1 = R sin a and y2 = R (c sin a + s cos a sin b), with
    densities cos^(n-2) a and cos^(n-3) b, c = -1 / n and R = sqrt(n).
    """
    radius, c, s = jnp.sqrt(n), -1 / n, jnp.sqrt(1 - 1 / n**2)
    tilt = jnp.asin(c) * np.array([1.0, -1.0])
    # Where a kink of the second entry leaves its range, the inner average is rough.
    turns = jnp.arccos(jnp.clip(kinks / radius, -1, 1))
    turns = jnp.concatenate([turns, -turns, np.pi - turns, turns - np.pi])
    rough = (turns[:, None] + tilt[None, :]).reshape(-1)
    cuts = jnp.arcsin(jnp.clip(jnp.concatenate([edges, kinks]) / radius, -1, 1))
    a, outer_weights = _angles(_graded(jnp.concatenate([cuts, rough])), n - 2, n)
    y1 = radius * jnp.sin(a)
    value, slope = value_and_slope(activation, y1)
    single = (value**2, slope**2, (y1 * slope) ** 2)

    def inner(angle: jax.Array) -> list[jax.Array]:
        mean, reach = c * jnp.sin(angle)[:, None], s * jnp.cos(angle)[:, None]
        cuts = jnp.clip((edges[None, :] / radius - mean) / reach, -1, 1)
        b, weights = _angles(jnp.arcsin(cuts), n - 3, n)
        y2 = radius * (mean + reach * jnp.sin(b))
        value, slope = value_and_slope(activation, y2)
        return [jnp.sum(weights * x, axis=1) for x in (value, slope, y2 * slope)]

    others = jax.lax.map(inner, a.reshape(-1, NUM_POINTS))
    pairs = zip((value, slope, y1 * slope), others, strict=True)
    joint = [jnp.sum(outer_weights * x * y.reshape(-1)) for x, y in pairs]
    return [jnp.sum(outer_weights * x) for x in single], joint


def _graded(edges: jax.Array) -> jax.Array:
    """Panels that shrink towards each edge: in few dimensions roots begin there."""
    steps = np.concatenate([[0.0], 0.25 ** np.arange(1, 9)])
    ends = np.array([-np.pi / 2, np.pi / 2])
    edges = jnp.concatenate([edges, ends])[:, None]
    return jnp.concatenate([edges + steps[None, :], edges - steps[None, :]]).reshape(-1)


def _angles(edges: jax.Array, power: int, n: int) -> tuple[jax.Array, jax.Array]:
    """Nodes and weights of the density cos^power on (-pi/2, pi/2)."""
    grid = jnp.concatenate([_GRID / jnp.sqrt(n), np.array([-np.pi, np.pi])])
    grid = jnp.broadcast_to(grid, (*edges.shape[:-1], len(_GRID) + 2))
    both = jnp.sort(jnp.concatenate([edges, grid], axis=-1), axis=-1)
    angles, weights = nodes(jnp.clip(both, -np.pi / 2, np.pi / 2))
    weights = weights * jnp.cos(angles) ** power
    return angles, weights / jnp.sum(weights, axis=-1, keepdims=True)
