"""Points and weights of Gaussian averages, on panels with edges of one's own."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.theory.panels import POINTS, WEIGHTS

# Beyond ten standard deviations the Gaussian holds 1e-23 of its mass. Panels of two
# standard deviations resolve it to rounding.
REACH = 10.0
GRID = np.linspace(-REACH, REACH, 11)


def value_and_slope(
    activation: Callable[..., Any], x: jax.Array | np.ndarray, /
) -> tuple[jax.Array, jax.Array]:
    """The activation and its derivative at every entry of ``x``, as float64."""
    # Backward: a user's own function may have a rule for that direction only.
    value, pull = jax.vjp(activation, x)
    (slope,) = pull(jnp.ones_like(value))
    return value.astype(x.dtype), slope.astype(x.dtype)


def nodes(edges, /):
    """Points and weights of the Gauss-Legendre rule on panels along the last axis."""
    half = (edges[..., 1:] - edges[..., :-1])[..., None] / 2
    middle = (edges[..., 1:] + edges[..., :-1])[..., None] / 2
    unit = (1,) * (half.ndim - 1) + (-1,)
    points = middle + half * POINTS.reshape(unit)
    weights = half * WEIGHTS.reshape(unit)
    flat = (*edges.shape[:-1], -1)
    return points.reshape(flat), weights.reshape(flat)


def gaussian_nodes(edges, /, xp: Any = jnp):
    """Points and weights of the standard normal, with the given edges added.

    Args:
        edges: along the last axis.
        xp: NumPy, or that of JAX.
    """
    grid = xp.broadcast_to(GRID, (*edges.shape[:-1], len(GRID)))
    both = xp.concatenate([xp.clip(edges, -REACH, REACH), grid], axis=-1)
    z, weights = nodes(xp.sort(both, axis=-1))
    return z, weights * xp.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
