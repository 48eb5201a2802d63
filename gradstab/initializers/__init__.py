"""Initialisers in the protocol of `jax.nn.initializers`, under researchers' names.

Each function builds an ``init(key, shape, dtype)``; pass it to Flax (linen and NNX),
Haiku or a loop of your own. Layers stacked on a leading axis are initialised by mapping
over keys, ``jax.vmap(lambda key: init(key, shape))(keys)``, which every one supports.

>>> import jax
>>> w = mean_field(1.3)(jax.random.key(0), (256, 256), jax.numpy.bfloat16)
"""

from gradstab.initializers.orthogonal import delta_orthogonal, looks_linear, orthogonal
from gradstab.initializers.protocol import sampled_wide, scaled
from gradstab.initializers.recurrent import (
    chrono_bias,
    forget_bias,
    identity_rnn,
    per_gate,
)
from gradstab.initializers.registry import NAMES, named
from gradstab.initializers.residual import constant, fixup, ones, zeros
from gradstab.initializers.variance import (
    gain,
    glorot_normal,
    glorot_uniform,
    he_normal,
    he_uniform,
    kaiming_normal,
    kaiming_uniform,
    lecun_normal,
    lecun_uniform,
    mean_field,
    mean_field_bias,
    normal,
    scaled_for,
    variance_scaling,
    xavier_normal,
    xavier_uniform,
)

__all__ = [
    "NAMES",
    "chrono_bias",
    "constant",
    "delta_orthogonal",
    "fixup",
    "forget_bias",
    "gain",
    "glorot_normal",
    "glorot_uniform",
    "he_normal",
    "he_uniform",
    "identity_rnn",
    "kaiming_normal",
    "kaiming_uniform",
    "lecun_normal",
    "lecun_uniform",
    "looks_linear",
    "mean_field",
    "mean_field_bias",
    "named",
    "normal",
    "ones",
    "orthogonal",
    "per_gate",
    "sampled_wide",
    "scaled",
    "scaled_for",
    "variance_scaling",
    "xavier_normal",
    "xavier_uniform",
    "zeros",
]


def __dir__():
    return __all__
