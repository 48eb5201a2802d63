"""Activation functions by name."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradstab.errors import UserKeyError

Activation = Callable[[jax.Array], jax.Array]


def activation(name: str | Activation, /, *, slope: float = 0.01) -> Activation:
    """The elementwise function of that name; a callable is returned as it is.

    Args:
        name: one of the keys of `ACTIVATIONS`, ``"leaky_relu"``, or any function from
            an array to an array of the same shape.
        slope: of ``leaky_relu`` below zero; the others have none.

    Raises:
        KeyError: for an unknown name; the message lists the known ones.

    >>> activation("leaky_relu", slope=0.25)(jnp.array([-4.0, 2.0]))
    Array([-1.,  2.], dtype=float32)
    """
    if callable(name):
        return name
    if name == "leaky_relu":
        return leaky_relu(slope)
    if name not in ACTIVATIONS:
        known = ", ".join(sorted([*ACTIVATIONS, "leaky_relu"]))
        raise UserKeyError(
            f"no activation named {name!r}; known: {known}. "
            "Any function from an array to an array of the same shape will do as well."
        )
    return ACTIVATIONS[name]


@functools.cache  # one object per slope: models built alike compare equal under jit
def leaky_relu(slope: float = 0.01, /) -> Activation:
    """``x`` above zero and ``slope * x`` below (Maas et al. 2013 use 0.01)."""
    return functools.partial(jax.nn.leaky_relu, negative_slope=slope)


def identity(x: jax.Array, /) -> jax.Array:
    """``x``: a network with it is linear in its inputs."""
    return x


def gelu(x: jax.Array, /) -> jax.Array:
    r"""The exact :math:`x \Phi(x)` (Hendrycks and Gimpel 2016), not its tanh form."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS: dict[str, Activation] = {
    "identity": identity,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "gelu": gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
}
