"""What the tests of the analysis share."""

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs

WIDTH = 4

W = np.array([[0.5, 1.0], [0.0, 2.0]], np.float32)


def normal(seed, *shape):
    """Standard normal numbers."""
    return jax.random.normal(jax.random.key(seed), shape)


def run(*args, theory=False, **options):
    """`gs.analyze` without a progress bar, and without theory unless asked for."""
    return gs.analyze(*args, progress=False, theory=theory, **options)


def scanned(activation=lambda z: z):
    """A scan over layers without bias, all with one activation."""

    def apply(params, x):
        def body(h, w):
            return activation(h @ w), None

        return jax.lax.scan(body, x, params["blocks"])[0]

    return apply


def diagonal(scale, depth):
    """A stack of multiples of the identity."""
    return {"blocks": scale * jnp.stack([jnp.eye(WIDTH)] * depth)}


def square_loss(output):
    """Squared distance from one."""
    return jnp.mean(jnp.sum(jnp.square(output - 1), axis=1))
