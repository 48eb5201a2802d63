"""Layers of the zoo, cut out of their models by hand.

Each is a function of the parameters, by their dotted paths, and of the data that enter.
"""

import jax
import jax.numpy as jnp
from functions import _conv, _norm


def _nnx_sequential(p, h):
    return jnp.tanh(h @ p["layers.0.kernel"] + p["layers.0.bias"])


def _batch_norm(h, scale, bias, epsilon=1e-5):
    axes = tuple(range(h.ndim - 1))
    mean = jnp.mean(h, axes)
    variance = jnp.mean(jnp.square(h), axes) - jnp.square(mean)
    return (h - mean) * jax.lax.rsqrt(variance + epsilon) * scale + bias


def _residual_block_in_training(p, x):
    p = {k.removeprefix("blocks.0."): v for k, v in p.items()}
    h = _conv(p["conv1.kernel"], x)
    h = jax.nn.silu(_batch_norm(h, p["norm1.scale"], p["norm1.bias"]))
    h = _conv(p["conv2.kernel"], h)
    return jax.nn.silu(x + _batch_norm(h, p["norm2.scale"], p["norm2.bias"]))


def _dense_after_gelu(p, h):
    return jax.nn.leaky_relu(h @ p["Dense_1.kernel"] + p["Dense_1.bias"])


def _scanned_block_of_linen(p, x):
    p = {k.removeprefix("blocks."): v[1] for k, v in p.items() if "blocks" in k}
    h = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + 1e-6)
    h = h * p["RMSNorm_0.scale"]
    # Written in one expression, the outer module is made first.
    up, down = "Feedforward_0.Dense_1", "Feedforward_0.Dense_0"
    h = jax.nn.gelu(h @ p[f"{up}.kernel"] + p[f"{up}.bias"])
    return x + h @ p[f"{down}.kernel"] + p[f"{down}.bias"]


def _linear_of_haiku(p, h):
    return jax.nn.relu(h @ p["mlp/~/linear_1.w"] + p["mlp/~/linear_1.b"])


def _linear_of_equinox(p, h):
    return jax.nn.gelu(h @ p["layers.1.weight"].T + p["layers.1.bias"])


def _scanned_block(p, x):
    return x + jnp.tanh(_norm(x) @ p["blocks.up"][2]) @ p["blocks.down"][2]


def _inception(p, x):
    sizes = ("five", "one", "three")  # the order of a dictionary that JAX has sorted
    return jnp.concatenate(
        [jax.nn.silu(_conv(p[f"blocks.0.{size}"], x)) for size in sizes], axis=-1
    )


def _highway(p, x):
    gate = jax.nn.sigmoid(x @ p["layers.1.gate"] - 1)
    return gate * jnp.tanh(x @ p["layers.1.body"]) + (1 - gate) * x


def _equilibrium(p, x):
    z = x
    for _ in range(60):  # a contraction by at least a half
        z = jnp.tanh(z @ p["equilibrium"]) + x
    return z


def _cond(p, x):
    return x + jnp.tanh(x @ p["gated"])


def _shard(p, x):
    return jnp.tanh(x @ p["sharded"])


def _while(p, x):
    for _ in range(5):
        x = jnp.tanh(x @ p["loop"])
    return x


def _feedforward(p, x):
    return x + jax.nn.gelu(_norm(x) @ p["layers.0.mlp.up"]) @ p["layers.0.mlp.down"]


def _down_with_its_skips(p, packed):
    """The stem's activation is a skip: it leaves with what is half as wide."""
    num = packed.shape[0]
    skip, x = packed[:, :48].reshape(num, 4, 4, 3), packed[:, 48:].reshape(num, 2, 2, 3)
    down = jax.nn.softplus(_conv(p["down.1"], x, stride=(2, 2)))
    parts = [part.reshape(num, -1) for part in (skip, x, down)]
    return jnp.concatenate(parts, axis=1)


BY_HAND = {
    "nnx.sequential": {"layers.0": _nnx_sequential},
    "nnx.resnet_in_training": {"blocks.0": _residual_block_in_training},
    "linen.dense": {"Dense_1": _dense_after_gelu},
    "linen.scan_of_rematerialised_blocks": {"blocks.1": _scanned_block_of_linen},
    "haiku.mlp": {"mlp/~/linear_1": _linear_of_haiku},
    "equinox.mlp": {"layers.1": _linear_of_equinox},
    "functions.scan_over_rematerialised_layers": {"blocks.2": _scanned_block},
    "functions.inception_branches": {"blocks.0": _inception},
    "functions.highway": {"layers.1": _highway},
    "functions.deep_equilibrium": {"equilibrium": _equilibrium},
    "functions.while_loop_of_unknown_length": {"loop": _while},
    "functions.cond_gated_layer": {"gated": _cond},
    "functions.shard_map_on_one_device": {"sharded": _shard},
    "functions.u_net_with_boundaries": {"down.1": _down_with_its_skips},
    "functions.causal_language_model_with_tied_embedding": {
        "layers.0.mlp": _feedforward
    },
}
