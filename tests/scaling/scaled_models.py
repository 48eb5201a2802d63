"""Models of every framework as makers of a width, and the roles of their parameters.

Each is written as its framework's users write it, with nothing that says a role.
"""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
from flax import linen, nnx

VOCAB, CLASSES, HEADS, TIME = 11, 3, 2, 6

IMAGES = jnp.ones((2, 8, 8, 3))
VECTORS = jnp.ones((4, 5))
TOKENS = jnp.zeros((2, TIME), jnp.int32)
SERIES = jnp.ones((2, TIME, 5))


# Flax NNX.


class NnxMLP(nnx.Module):
    """Two hidden layers, an output."""

    def __init__(self, width, rngs):
        self.first = nnx.Linear(5, width, rngs=rngs)
        self.second = nnx.Linear(width, 2 * width, rngs=rngs)
        self.head = nnx.Linear(2 * width, CLASSES, rngs=rngs)

    def __call__(self, x):
        """Logits."""
        return self.head(jax.nn.relu(self.second(jax.nn.relu(self.first(x)))))


class NnxBlock(nnx.Module):
    """Attention and a gated network, normalised before."""

    def __init__(self, width, rngs):
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(HEADS, width, decode=False, rngs=rngs)
        self.norm_up = nnx.RMSNorm(width, rngs=rngs)
        self.gate = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x):
        """The next states."""
        x = x + self.attention(self.norm(x))
        y = self.norm_up(x)
        return x + self.down(jax.nn.silu(self.gate(y)) * self.up(y))


class NnxTransformer(nnx.Module):
    """Learned positions, and an output that is or is not the embedding."""

    def __init__(self, width, rngs, tied):
        self.embed = nnx.Embed(VOCAB, width, rngs=rngs)
        self.positions = nnx.Param(
            0.02 * jax.random.normal(rngs.params(), (TIME, width))
        )
        self.block = NnxBlock(width, rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.tied = tied
        if not tied:
            self.head = nnx.Linear(width, VOCAB, use_bias=False, rngs=rngs)

    def __call__(self, tokens):
        """Logits at every place."""
        x = self.embed(tokens) + self.positions[...]
        x = self.norm(self.block(x))
        return self.embed.attend(x) if self.tied else self.head(x)


class NnxResNet(nnx.Module):
    """Convolutions, batch normalisation with running statistics, a mean over space."""

    def __init__(self, width, rngs):
        self.stem = nnx.Conv(3, width, (3, 3), rngs=rngs)
        self.conv = nnx.Conv(width, width, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.shortcut = nnx.Conv(width, 2 * width, (1, 1), rngs=rngs)
        self.wide = nnx.Conv(width, 2 * width, (3, 3), rngs=rngs)
        self.head = nnx.Linear(2 * width, CLASSES, rngs=rngs)

    def __call__(self, x):
        """Logits."""
        x = self.stem(x)
        x = x + jax.nn.relu(self.norm(self.conv(x)))
        x = self.shortcut(x) + jax.nn.relu(self.wide(x))
        return self.head(x.mean((1, 2)))


class NnxLSTM(nnx.Module):
    """A recurrent layer, and an output of its last state."""

    def __init__(self, width, rngs):
        self.rnn = nnx.RNN(nnx.OptimizedLSTMCell(5, width, rngs=rngs))
        self.head = nnx.Linear(width, CLASSES, rngs=rngs)

    def __call__(self, x):
        """Logits."""
        return self.head(self.rnn(x)[:, -1])


# Flax linen.


class LinenMLP(linen.Module):
    """Two hidden layers, an output."""

    width: int

    @linen.compact
    def __call__(self, x):
        """Logits."""
        x = jax.nn.relu(linen.Dense(self.width)(x))
        x = jax.nn.relu(linen.Dense(2 * self.width)(x))
        return linen.Dense(CLASSES)(x)


class LinenBlock(linen.Module):
    """Attention and a network, normalised before; a step of a scan over layers."""

    width: int

    @linen.compact
    def __call__(self, x, _):
        """The next states."""
        y = linen.LayerNorm()(x)
        x = x + linen.MultiHeadDotProductAttention(HEADS)(y, y)
        y = jax.nn.gelu(linen.Dense(4 * self.width)(linen.LayerNorm()(x)))
        return x + linen.Dense(self.width)(y), None


class LinenTransformer(linen.Module):
    """Blocks in a scan with rematerialisation."""

    width: int
    tied: bool

    @linen.compact
    def __call__(self, tokens):
        """Logits at every place."""
        embed = linen.Embed(VOCAB, self.width)
        small = jax.nn.initializers.normal(0.02)
        x = embed(tokens) + self.param("positions", small, (TIME, self.width))
        blocks = linen.scan(
            linen.remat(LinenBlock),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=2,
        )
        x, _ = blocks(self.width, name="blocks")(x, None)
        x = linen.LayerNorm()(x)
        return embed.attend(x) if self.tied else linen.Dense(VOCAB, name="head")(x)


class LinenResNet(linen.Module):
    """Convolutions, batch normalisation with running statistics, a mean over space."""

    width: int

    @linen.compact
    def __call__(self, x):
        """Logits."""
        x = linen.Conv(self.width, (3, 3))(x)
        y = linen.Conv(self.width, (3, 3), use_bias=False)(x)
        x = x + jax.nn.relu(linen.BatchNorm(use_running_average=True)(y))
        y = linen.Conv(2 * self.width, (1, 1), name="shortcut")(x)
        x = y + jax.nn.relu(linen.Conv(2 * self.width, (3, 3), name="wide")(x))
        return linen.Dense(CLASSES)(x.mean((1, 2)))


class LinenLSTM(linen.Module):
    """A recurrent layer, and an output of its last state."""

    width: int

    @linen.compact
    def __call__(self, x):
        """Logits."""
        return linen.Dense(CLASSES)(linen.RNN(linen.LSTMCell(self.width))(x)[:, -1])


# Equinox; kernels are (output, input).


class EqxTransformer(eqx.Module):
    """One block over one example."""

    embed: eqx.nn.Embedding
    positions: jax.Array
    norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    head: eqx.nn.Linear | None

    def __init__(self, width, tied, key):
        keys = jax.random.split(key, 6)
        self.embed = eqx.nn.Embedding(VOCAB, width, key=keys[0])
        self.positions = 0.02 * jax.random.normal(keys[1], (TIME, width))
        self.norm = eqx.nn.LayerNorm(width)
        self.attention = eqx.nn.MultiheadAttention(HEADS, width, key=keys[2])
        self.up = eqx.nn.Linear(width, 4 * width, key=keys[3])
        self.down = eqx.nn.Linear(4 * width, width, key=keys[4])
        self.head = None if tied else eqx.nn.Linear(width, VOCAB, key=keys[5])

    def __call__(self, tokens):
        """Logits at every place."""
        x = jax.vmap(self.embed)(tokens) + self.positions
        y = jax.vmap(self.norm)(x)
        x = x + self.attention(y, y, y)
        x = x + jax.vmap(self.down)(jax.nn.gelu(jax.vmap(self.up)(x)))
        return x @ self.embed.weight.T if self.head is None else jax.vmap(self.head)(x)


class EqxResNet(eqx.Module):
    """Convolutions with channels first, over one example."""

    stem: eqx.nn.Conv2d
    conv: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    head: eqx.nn.Linear

    def __init__(self, width, key):
        keys = jax.random.split(key, 3)
        self.stem = eqx.nn.Conv2d(3, width, 3, padding=1, key=keys[0])
        self.conv = eqx.nn.Conv2d(width, width, 3, padding=1, key=keys[1])
        self.norm = eqx.nn.GroupNorm(2, width)
        self.head = eqx.nn.Linear(width, CLASSES, key=keys[2])

    def __call__(self, x):
        """Logits."""
        x = self.stem(jnp.moveaxis(x, -1, 0))
        x = x + jax.nn.relu(self.norm(self.conv(x)))
        return self.head(x.mean((1, 2)))


class EqxLSTM(eqx.Module):
    """A recurrent layer, and an output of its last state."""

    cell: eqx.nn.LSTMCell
    head: eqx.nn.Linear

    def __init__(self, width, key):
        key_cell, key_head = jax.random.split(key)
        self.cell = eqx.nn.LSTMCell(5, width, key=key_cell)
        self.head = eqx.nn.Linear(width, CLASSES, key=key_head)

    def __call__(self, x):
        """Logits."""
        start = jnp.zeros(self.cell.hidden_size), jnp.zeros(self.cell.hidden_size)
        (h, _), _ = jax.lax.scan(lambda s, x: (self.cell(x, s), None), start, x)
        return self.head(h)


# Bare functions.


def bare_mlp(width, key):
    """Weights (input, output), drawn as He et al. do."""
    sizes = (5, width, width, CLASSES)
    keys = jax.random.split(key, 3)
    params = [
        {"w": jax.random.normal(k, (n, m)) * (2 / n) ** 0.5, "b": jnp.zeros(m)}
        for k, n, m in zip(keys, sizes, sizes[1:], strict=False)
    ]

    def apply(params, x):
        *hidden, last = params
        for layer in hidden:
            x = jax.nn.relu(x @ layer["w"] + layer["b"])
        return x @ last["w"] + last["b"]

    return apply, params


def bare_transformer(width, key, *, tied):
    """Fused queries, keys and values over heads; all drawn with one size."""
    keys = jax.random.split(key, 6)
    shapes = {
        "embed": (VOCAB, width),
        "qkv": (width, 3, HEADS, width // HEADS),
        "out": (HEADS, width // HEADS, width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
        **({} if tied else {"head": (width, VOCAB)}),
    }
    params = {
        name: 0.02 * jax.random.normal(k, shape)
        for k, (name, shape) in zip(keys, shapes.items(), strict=False)
    }
    params["gain"] = jnp.ones(width)

    def apply(params, tokens):
        x = params["embed"][tokens]
        q, k, v = jnp.einsum("btd,dchk->cbthk", x, params["qkv"])
        logits = jnp.einsum("bthk,bshk->bhts", q, k) / jnp.sqrt(q.shape[-1])
        mixed = jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(logits), v)
        x = x + jnp.einsum("bthk,hkd->btd", mixed, params["out"])
        x = x + jax.nn.gelu(x @ params["up"]) @ params["down"]
        x = x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True)) * params["gain"]
        return x @ (params["embed"].T if tied else params["head"])

    return apply, params


def bare_resnet(width, key):
    """Convolutions with kernels (height, width, input, output)."""
    keys = jax.random.split(key, 4)
    shapes = {
        "stem": (3, 3, 3, width),
        "deep": (3, 3, 1, width),
        "conv": (3, 3, width, width),
        "head": (width, CLASSES),
    }
    params = {
        name: jax.nn.initializers.he_normal()(k, shape)
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }

    def conv(x, kernel, groups=1):
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    def apply(params, x):
        x = conv(x, params["stem"])
        x = x + jax.nn.relu(conv(x, params["deep"], groups=x.shape[-1]))
        x = x + jax.nn.relu(conv(x, params["conv"]))
        return x.mean((1, 2)) @ params["head"]

    return apply, params


def bare_lstm(width, key):
    """Four gates in one kernel, in a scan over time."""
    keys = jax.random.split(key, 3)
    params = {
        "input": jax.random.normal(keys[0], (5, 4 * width)) / 5**0.5,
        "state": jax.random.normal(keys[1], (width, 4 * width)) / width**0.5,
        "bias": jnp.zeros(4 * width),
        "head": jax.random.normal(keys[2], (width, CLASSES)) / width**0.5,
    }

    def apply(params, x):
        def step(state, x):
            h, c = state
            gates = x @ params["input"] + h @ params["state"] + params["bias"]
            i, f, g, o = jnp.split(gates, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        zeros = jnp.zeros((x.shape[0], width))
        (h, _), _ = jax.lax.scan(step, (zeros, zeros), jnp.moveaxis(x, 1, 0))
        return h @ params["head"]

    return apply, params


def haiku_mlp(width, key):
    """A transformed function."""
    net = hk.without_apply_rng(
        hk.transform(lambda x: hk.nets.MLP([width] * 2 + [3])(x))
    )
    return net.apply, net.init(key, VECTORS)


def haiku_lstm(width, key):
    """A recurrent core, unrolled."""

    def forward(x):
        core = hk.LSTM(width)
        outs, _ = hk.dynamic_unroll(core, jnp.moveaxis(x, 1, 0), core.initial_state(2))
        return hk.Linear(CLASSES)(outs[-1])

    net = hk.without_apply_rng(hk.transform(forward))
    return net.apply, net.init(key, SERIES)


def _nnx(build, *args):
    return lambda width, key: build(width, nnx.Rngs(params=key), *args)


def _linen(build, inputs, **options):
    def make(width, key):
        module = build(width, **options)
        return module, module.init(key, inputs)

    return make


MODELS = {
    "nnx mlp": (_nnx(NnxMLP), VECTORS),
    "nnx transformer": (_nnx(NnxTransformer, False), TOKENS),
    "nnx transformer, tied": (_nnx(NnxTransformer, True), TOKENS),
    "nnx resnet": (_nnx(NnxResNet), IMAGES),
    "nnx lstm": (_nnx(NnxLSTM), SERIES),
    "linen mlp": (_linen(LinenMLP, VECTORS), VECTORS),
    "linen transformer": (_linen(LinenTransformer, TOKENS, tied=False), TOKENS),
    "linen transformer, tied": (_linen(LinenTransformer, TOKENS, tied=True), TOKENS),
    "linen resnet": (_linen(LinenResNet, IMAGES), IMAGES),
    "linen lstm": (_linen(LinenLSTM, SERIES), SERIES),
    "equinox mlp": (lambda n, key: eqx.nn.MLP(5, 3, n, 2, key=key), VECTORS),
    "equinox transformer": (lambda n, key: EqxTransformer(n, False, key), TOKENS),
    "equinox transformer, tied": (lambda n, key: EqxTransformer(n, True, key), TOKENS),
    "equinox resnet": (EqxResNet, IMAGES),
    "equinox lstm": (EqxLSTM, SERIES),
    "bare mlp": (bare_mlp, VECTORS),
    "bare transformer": (
        lambda n, key: bare_transformer(n, key, tied=False),
        TOKENS,
    ),
    "bare transformer, tied": (
        lambda n, key: bare_transformer(n, key, tied=True),
        TOKENS,
    ),
    "bare resnet": (bare_resnet, IMAGES),
    "bare lstm": (bare_lstm, SERIES),
    "haiku mlp": (haiku_mlp, VECTORS),
    "haiku lstm": (haiku_lstm, SERIES),
}
