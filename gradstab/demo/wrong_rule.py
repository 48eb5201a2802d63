"""A normalisation with a gradient of its own, of which one line is wrong.

A network learns with it all the same: its gain only learns more slowly the larger the
batch is. Mended, the line takes the sum where it took the mean.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck import GradCheck, check

SHAPE = (8, 16)


def rms_norm(gain_gradient):
    """RMS normalisation with a custom rule (Zhang and Sennrich 2019).

    Args:
        gain_gradient: from the gradient of the gain for every example, ``(examples,
            features)``, that of the batch.

    Returns:
        ``f(x, gain)`` of arrays ``(examples, features)`` and ``(features,)``.
    """

    @jax.custom_vjp
    def normalise(x, gain):
        return forward(x, gain)[0]

    def forward(x, gain):
        scale = jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)
        return gain * x * scale, (x * scale, scale, gain)

    def backward(kept, g):
        normal, scale, gain = kept
        along = jnp.mean(gain * g * normal, axis=-1, keepdims=True)
        return scale * (gain * g - normal * along), gain_gradient(g * normal)

    normalise.defvjp(forward, backward)
    return normalise


def mean_of_examples(gradients):
    """What is wrong."""
    return gradients.mean(axis=0)


def sum_of_examples(gradients):
    """What is right: every example has its part in the gradient of the gain."""
    return gradients.sum(axis=0)


def examine(gain_gradient=mean_of_examples, /) -> GradCheck:
    """The check of the rule.

    Args:
        gain_gradient: see `rms_norm`.
    """
    return check(rms_norm(gain_gradient), *_arguments())


def cases():
    """Both rules, for ``gradstab check gradstab.demo.wrong_rule:cases``."""
    return {
        "wrong": (rms_norm(mean_of_examples), _arguments()),
        "mended": (rms_norm(sum_of_examples), _arguments()),
    }


def _arguments():
    x = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    return x, np.linspace(0.5, 1.5, SHAPE[1], dtype=np.float32)
