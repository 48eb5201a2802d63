"""Flax linen: its own modules, and well-known architectures made of them."""

import jax
import jax.numpy as jnp
from entries import filled, handed, normal, real, shelf, tokens
from flax import linen as nn

LINEN, holds = shelf("linen")


def _pair(module, *inputs, **options):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return handed((module, filled(shapes)), *inputs, **options)


@holds("Dense_0", "Dense_1", "Dense_2")
def dense():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.gelu(nn.Dense(6)(x))
            x = nn.leaky_relu(nn.Dense(5)(x))
            return nn.Dense(2)(x)

    return _pair(Net(), normal(1, 3, 4))


def _convolutional(train):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for features in (3, 4):
                x = nn.Conv(features, (3, 3), use_bias=False)(x)
                x = nn.silu(nn.BatchNorm(use_running_average=not train)(x))
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
            return nn.Dense(2)(x.reshape(x.shape[0], -1))

    return Net()


@holds("Conv_0", "Conv_1", "Dense_0")
def batch_norm_in_evaluation():
    return _pair(_convolutional(False), normal(1, 3, 4, 4, 1))


@holds("Conv_0", "Conv_1", "Dense_0", couples=True)
def batch_norm_in_training():
    options = {"apply_kwargs": {"mutable": ["batch_stats"]}}
    return _pair(_convolutional(True), normal(1, 3, 4, 4, 1), **options)


class Feedforward(nn.Module):
    """Two products and what lies between."""

    @nn.compact
    def __call__(self, x):
        """Of the width it is given."""
        return nn.Dense(x.shape[-1])(nn.gelu(nn.Dense(6)(x)))


class PreNormBlock(nn.Module):
    """Attention and a feedforward part, each behind a normalisation."""

    def setup(self):
        """Named as they are in papers."""
        self.norm1, self.norm2 = nn.LayerNorm(), nn.LayerNorm()
        self.attention = nn.MultiHeadDotProductAttention(num_heads=2)
        self.mlp = Feedforward()

    def __call__(self, x):
        """A residual block."""
        h = self.norm1(x)
        x = x + self.attention(h, h)
        return x + self.mlp(self.norm2(x))


@holds(
    "patch",
    "block_0.attention",
    "block_0.mlp",
    "block_1.attention",
    "block_1.mlp",
    "head",
)
def vision_transformer():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(4, (2, 2), strides=(2, 2), padding="VALID", name="patch")(x)
            x = x.reshape(x.shape[0], -1, 4)
            token = self.param("token", nn.initializers.zeros, (1, 1, 4))
            token = jnp.broadcast_to(token, (x.shape[0], 1, 4))
            x = jnp.concatenate([token, x], axis=1)
            x = x + self.param("positions", nn.initializers.zeros, (1, 5, 4))
            for i in range(2):
                x = PreNormBlock(name=f"block_{i}")(x)
            return nn.Dense(2, name="head")(nn.LayerNorm(name="norm")(x)[:, 0])

    return _pair(Net(), normal(1, 3, 4, 4, 1))


@holds("LSTMCell_0", "LSTMCell_1", "Dense_0")
def stacked_lstm():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(2):
                x = nn.RNN(nn.LSTMCell(3, param_dtype=real()))(x)
            return nn.Dense(2)(x[:, -1])

    return _pair(Net(), normal(1, 3, 4, 2))


@holds("GRUCell_0+GRUCell_1", "Dense_0")
def bidirectional_gru():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            there, back = (nn.GRUCell(3, param_dtype=real()) for _ in range(2))
            x = nn.Bidirectional(nn.RNN(there), nn.RNN(back))(x)
            return nn.Dense(2)(x[:, 0])

    return _pair(Net(), normal(1, 3, 4, 2))


@holds("ConvLSTMCell_0", "Dense_0")
def convolutional_lstm():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.RNN(nn.ConvLSTMCell(2, (2, 2), param_dtype=real()))(x)
            return nn.Dense(2)(x[:, -1].reshape(x.shape[0], -1))

    return _pair(Net(), normal(1, 3, 2, 2, 2, 1))


@holds("stem", "blocks.0", "blocks.1", "blocks.2", "head")
def scan_of_rematerialised_blocks():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return x + Feedforward()(nn.RMSNorm()(x)), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4, name="stem")(x)
            scanned = nn.scan(
                nn.remat(Block, prevent_cse=False),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=3,
            )
            x, _ = scanned(name="blocks")(x, None)
            return nn.Dense(2, name="head")(x)

    return _pair(Net(), normal(1, 3, 2))


@holds("GLU_0", "GLU_1", "Dense_0")
def gated_linear_units():
    class GLU(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(x) * nn.sigmoid(nn.Dense(4)(x))

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(2):
                x = GLU()(x)
            return nn.Dense(2)(x)

    return _pair(Net(), normal(1, 3, 4))


@holds("Dense_0+WeightNorm_0", "Dense_1+WeightNorm_1", "Dense_2")
def weight_norm():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(2):
                x = nn.tanh(nn.WeightNorm(nn.Dense(4))(x))
            return nn.Dense(2)(x)

    return _pair(Net(), normal(1, 3, 4))


@holds("Dense_0", "Dense_1", "Dense_2")
def dropout():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(2):
                x = nn.Dropout(0.4, deterministic=False)(nn.tanh(nn.Dense(6)(x)))
            return nn.Dense(2)(x)

    x = normal(1, 3, 4)
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    shapes = jax.eval_shape(Net().init, rngs, x)
    return handed(
        (Net(), filled(shapes)),
        x,
        apply_kwargs={"rngs": {"dropout": jax.random.key(2)}},
    )


@holds("Conv_0", "Conv_1", "Conv_2", "Conv_3", "Dense_0", slow=True)
def dense_block():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Conv(2, (3, 3))(x)
            for _ in range(3):
                h = nn.Conv(2, (3, 3))(nn.silu(nn.GroupNorm(1)(x)))
                x = jnp.concatenate([x, h], axis=-1)
            return nn.Dense(2)(jnp.mean(x, axis=(1, 2)))

    return _pair(Net(), normal(1, 3, 3, 3, 1))


@holds("embed", "encoder.attention", "encoder.mlp", "head", table="embed", slow=True)
def language_model():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, ids):
            x = nn.Embed(5, 4, name="embed")(ids)
            x = PreNormBlock(name="encoder")(x)
            return nn.Dense(5, name="head")(x[:, -1])

    return _pair(Net(), tokens(5, 3, 4))
