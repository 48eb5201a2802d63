"""Flax NNX: its own modules, and well-known architectures made of them."""

import jax.numpy as jnp
from entries import filled, handed, normal, real, shelf, tokens
from flax import nnx

NNX, holds = shelf("nnx")


def _made(cls, *args, **kwargs):
    """A module with filled arrays; initialisers would compile one program each."""
    model = nnx.eval_shape(lambda: cls(*args, **kwargs, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(model)
    return nnx.merge(graphdef, filled(state))


class _Net(nnx.Module):
    """Calls what `run` says."""

    def __init__(self, run, parts, *, rngs):
        self.run = run
        for name, make in parts.items():
            setattr(self, name, make(rngs))

    def __call__(self, *inputs):
        return self.run(self, *inputs)


def _linear(n, m):
    return lambda rngs: nnx.Linear(n, m, rngs=rngs)


def _conv(n, m, k=3, **options):
    return lambda rngs: nnx.Conv(n, m, (k, k), rngs=rngs, **options)


def _rnn(cell, n, m, **options):
    return lambda rngs: nnx.RNN(cell(n, m, param_dtype=real(), rngs=rngs, **options))


def _several(make, num):
    return lambda rngs: nnx.List([make(rngs) for _ in range(num)])


@holds("layers.0", "layers.2", "layers.4")
def sequential():
    def make(rngs):
        first, second = nnx.Linear(4, 6, rngs=rngs), nnx.Linear(6, 5, rngs=rngs)
        last = nnx.Linear(5, 2, rngs=rngs)
        return nnx.Sequential(first, jnp.tanh, second, nnx.gelu, last)

    return handed(_made(lambda rngs: make(rngs)), normal(1, 3, 4))


@holds("conv1", "conv2", "head")
def convolutional():
    def run(self, x):
        x = nnx.avg_pool(nnx.silu(self.conv1(x)), (2, 2), strides=(2, 2))
        return self.head(nnx.silu(self.conv2(x)).reshape(x.shape[0], -1))

    parts = {"conv1": _conv(1, 3), "conv2": _conv(3, 2), "head": _linear(8, 2)}
    return handed(_made(_Net, run, parts), normal(1, 3, 4, 4, 1))


@holds("first", "second", "head")
def stacked_lstm():
    def run(self, x):
        return self.head(self.second(self.first(x))[:, -1])

    parts = {"first": _rnn(nnx.LSTMCell, 2, 3), "second": _rnn(nnx.LSTMCell, 3, 3)}
    return handed(_made(_Net, run, parts | {"head": _linear(3, 2)}), normal(1, 3, 4, 2))


@holds("rnn", "head")
def optimized_lstm():
    def run(self, x):
        return self.head(self.rnn(x)[:, -1])

    parts = {"rnn": _rnn(nnx.OptimizedLSTMCell, 2, 3), "head": _linear(3, 2)}
    return handed(_made(_Net, run, parts), normal(1, 3, 4, 2))


@holds("encoder", "head")
def bidirectional_gru():
    def run(self, x):
        return self.head(self.encoder(x)[:, 0])

    def encoder(rngs):
        there, back = (
            nnx.RNN(nnx.GRUCell(2, 3, param_dtype=real(), rngs=rngs)) for _ in range(2)
        )
        return nnx.Bidirectional(there, back, rngs=rngs)

    parts = {"encoder": encoder, "head": _linear(6, 2)}
    return handed(_made(_Net, run, parts), normal(1, 3, 4, 2))


class _PostNormBlock(nnx.Module):
    def __init__(self, *, rngs):
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.norm1 = nnx.LayerNorm(4, rngs=rngs)
        self.up = nnx.Linear(4, 6, rngs=rngs)
        self.down = nnx.Linear(6, 4, rngs=rngs)
        self.norm2 = nnx.LayerNorm(4, rngs=rngs)

    def __call__(self, x):
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.down(nnx.relu(self.up(x))))


@holds(
    "embed",
    "blocks.0.attention",
    "blocks.0.down+up",
    "blocks.1.attention",
    "blocks.1.down+up",
    "head",
    table="embed",
)
def post_norm_transformer():
    def run(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, axis=1))

    parts = {
        "embed": lambda rngs: nnx.Embed(5, 4, rngs=rngs),
        "blocks": _several(lambda rngs: _PostNormBlock(rngs=rngs), 2),
        "head": _linear(4, 2),
    }
    return handed(_made(_Net, run, parts), tokens(5, 3, 4))


class _ConvBlock(nnx.Module):
    def __init__(self, *, rngs):
        self.conv1 = nnx.Conv(3, 3, (3, 3), use_bias=False, rngs=rngs)
        self.norm1 = nnx.BatchNorm(3, rngs=rngs)
        self.conv2 = nnx.Conv(3, 3, (3, 3), use_bias=False, rngs=rngs)
        self.norm2 = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        h = nnx.silu(self.norm1(self.conv1(x)))
        return nnx.silu(x + self.norm2(self.conv2(h)))


def _resnet():
    def run(self, x):
        x = nnx.silu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, axis=(1, 2)))

    parts = {
        "stem": _conv(1, 3),
        "norm": lambda rngs: nnx.BatchNorm(3, rngs=rngs),
        "blocks": _several(lambda rngs: _ConvBlock(rngs=rngs), 2),
        "head": _linear(3, 2),
    }
    return _made(_Net, run, parts)


@holds("stem", "blocks.0", "blocks.1", "head", couples=True)
def resnet_in_training():
    model = _resnet()
    model.train()
    return handed(model, normal(1, 3, 4, 4, 1))


@holds("stem", "blocks.0", "blocks.1", "head")
def resnet_in_evaluation():
    model = _resnet()
    model.eval()
    return handed(model, normal(1, 3, 4, 4, 1))


@holds("first", "second", "head")
def dropout():
    def run(self, x):
        for layer in (self.first, self.second):
            x = self.drop(nnx.tanh(layer(x)))
        return self.head(x)

    parts = {"first": _linear(4, 6), "second": _linear(6, 6), "head": _linear(6, 2)}
    parts["drop"] = lambda rngs: nnx.Dropout(0.4, rngs=rngs)
    return handed(_made(_Net, run, parts), normal(1, 3, 4))


class _ResidualBlock(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.RMSNorm(4, rngs=rngs)
        self.up = nnx.Linear(4, 6, rngs=rngs)
        self.down = nnx.Linear(6, 4, rngs=rngs)

    def __call__(self, x):
        return x + self.down(nnx.swish(self.up(self.norm(x))))


@holds("stem", "blocks.0", "blocks.1", "blocks.2", "head")
def scan_over_layers():
    @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
    def through(x, block):
        return block(x)

    def run(self, x):
        return self.head(through(self.stem(x), self.blocks))

    @nnx.split_rngs(splits=3)
    @nnx.vmap(in_axes=(0,), out_axes=0)
    def blocks(rngs):
        return _ResidualBlock(rngs)

    parts = {"stem": _linear(2, 4), "blocks": blocks, "head": _linear(4, 2)}
    return handed(_made(_Net, run, parts), normal(1, 3, 2))


@holds("blocks.0", "blocks.1", "blocks.2", "head")
def rematerialised_blocks():
    @nnx.remat
    def through(block, x):
        return block(x)

    def run(self, x):
        for block in self.blocks:
            x = through(block, x)
        return self.head(x)

    parts = {"blocks": _several(_ResidualBlock, 3), "head": _linear(4, 2)}
    return handed(_made(_Net, run, parts), normal(1, 3, 4))


@holds("embed", "hidden", "embed@2", positions="positions")
def tied_embedding():
    def run(self, ids):
        x = self.embed(ids) + self.positions
        return self.embed.attend(nnx.tanh(self.hidden(x))[:, -1])

    parts = {"embed": lambda rngs: nnx.Embed(5, 4, rngs=rngs), "hidden": _linear(4, 4)}
    parts["positions"] = lambda rngs: nnx.Param(jnp.zeros((1, 4, 4)))
    return handed(_made(_Net, run, parts), tokens(5, 3, 4))


class _MobileBlock(nnx.Module):
    def __init__(self, rngs):
        self.expand = nnx.Conv(3, 6, (1, 1), rngs=rngs)
        self.depthwise = nnx.Conv(6, 6, (3, 3), feature_group_count=6, rngs=rngs)
        self.norm = nnx.GroupNorm(6, num_groups=2, rngs=rngs)
        self.project = nnx.Conv(6, 3, (1, 1), rngs=rngs)

    def __call__(self, x):
        h = nnx.hard_swish(self.norm(self.depthwise(nnx.hard_swish(self.expand(x)))))
        return x + self.project(h)


@holds("stem", "blocks.0", "blocks.1", "head", slow=True)
def mobilenet():
    def run(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, axis=(1, 2)))

    parts = {"stem": _conv(1, 3), "blocks": _several(_MobileBlock, 2)}
    return handed(
        _made(_Net, run, parts | {"head": _linear(3, 2)}), normal(1, 3, 4, 4, 1)
    )


@holds("down1", "down2", "up1", "up2")
def convolutional_autoencoder():
    def run(self, x):
        for layer in (self.down1, self.down2, self.up1):
            x = nnx.softplus(layer(x))
        return self.up2(x)

    def up(n, m):
        return lambda rngs: nnx.ConvTranspose(n, m, (2, 2), strides=(2, 2), rngs=rngs)

    parts = {"down1": _conv(1, 2, 2, strides=2), "down2": _conv(2, 3, 2, strides=2)}
    parts |= {"up1": up(3, 2), "up2": up(2, 1)}
    return handed(_made(_Net, run, parts), normal(1, 3, 4, 4, 1))


@holds("einsum", "general", "adapter", "head")
def general_contractions():
    def run(self, x):
        x = self.slope(self.einsum(x))
        x = self.general(x)
        return self.head(self.adapter(nnx.tanh(x)))

    parts = {
        "einsum": lambda r: nnx.Einsum("ni,ihd->nhd", (4, 2, 3), (2, 3), rngs=r),
        "slope": lambda r: nnx.PReLU(),
        "general": lambda r: nnx.LinearGeneral((2, 3), (5,), axis=(-2, -1), rngs=r),
        "adapter": lambda r: nnx.LoRALinear(5, 4, lora_rank=2, rngs=r),
        "head": _linear(4, 2),
    }
    return handed(_made(_Net, run, parts), normal(1, 3, 4))


@holds("simple", "head")
def simple_recurrent():
    def run(self, x):
        return self.head(self.simple(x)[:, -1])

    parts = {"simple": _rnn(nnx.SimpleCell, 2, 3, dtype=real()), "head": _linear(3, 2)}
    return handed(_made(_Net, run, parts), normal(1, 3, 4, 2))
