"""A deep network of sigmoids, whose gradient does not reach its first layers.

Mended by skip connections and an odd activation (He et al. 2016, Deep residual learning
for image recognition).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradstab import data
from gradstab.analysis import analyze
from gradstab.report import Report

DEPTH, WIDTH, EXAMPLES = 16, 64, 32


def sigmoid_network(params, x):
    """Sixteen layers of sigmoids, and a head."""
    for w in params["hidden"]:
        x = jax.nn.sigmoid(x @ w)
    return x @ params["head"]


def residual_network(params, x):
    """The same weights beside skip connections."""
    for w in params["hidden"]:
        x = x + jnp.tanh(x @ w) / DEPTH**0.5
    return x @ params["head"]


def examine(apply=sigmoid_network, /) -> Report:
    """The analysis of a network as it is initialised, on real digits.

    Args:
        apply: ``apply(params, x) -> logits``.
    """
    # NumPy's random numbers need no compiler.
    rng, scale = np.random.default_rng(0), WIDTH**-0.5
    shapes = {"hidden": [(WIDTH, WIDTH)] * DEPTH, "head": (WIDTH, 10)}
    params = jax.tree.map(
        lambda shape: jnp.asarray(scale * rng.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    digits = data.load("digits")
    y = digits.y_train[:EXAMPLES]

    def loss(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return analyze(apply, params, digits.x_train[:EXAMPLES], loss=loss, progress=False)
