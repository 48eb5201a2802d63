"""Equinox: callable pytrees, most of which take one example at a time."""

import equinox as eqx
import jax
import jax.numpy as jnp
from entries import filled, handed, normal, shelf, tokens

EQUINOX, holds = shelf("equinox")


def _made(make):
    """A module with filled arrays; initialisers would compile one program each."""
    return filled(eqx.filter_eval_shape(make, jax.random.key(0)))


def _keys(key, num):
    return list(jax.random.split(key, num))


@holds("layers.0", "layers.1", "layers.2", "layers.3")
def mlp():
    model = _made(lambda key: eqx.nn.MLP(4, 2, 5, 3, jax.nn.gelu, key=key))
    return handed(model, normal(1, 3, 4), batched=False)


@holds("layers.0", "layers.3", "layers.6")
def convolutional():
    def make(key):
        keys = _keys(key, 3)
        return eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(1, 3, 3, padding=1, key=keys[0]),
                eqx.nn.Lambda(jax.nn.silu),
                eqx.nn.AvgPool2d(2, 2),
                eqx.nn.Conv2d(3, 2, 3, padding=1, key=keys[1]),
                eqx.nn.Lambda(jax.nn.silu),
                eqx.nn.Lambda(jnp.ravel),
                eqx.nn.Linear(8, 2, key=keys[2]),
            ]
        )

    return handed(_made(make), normal(1, 3, 1, 4, 4), batched=False)


class Recurrent(eqx.Module):
    """A cell unrolled over time, and a head."""

    cell: eqx.Module
    head: eqx.nn.Linear

    def __call__(self, x):
        """Of the last state."""
        size = self.cell.hidden_size
        h = jnp.zeros((size,), x.dtype)
        start = (h, h) if isinstance(self.cell, eqx.nn.LSTMCell) else h

        def step(state, x):
            return self.cell(x, state), None

        state, _ = jax.lax.scan(step, start, x)
        return self.head(jax.tree.leaves(state)[0])


@holds("cell", "head")
def gru():
    def make(key):
        key, other = _keys(key, 2)
        return Recurrent(eqx.nn.GRUCell(2, 3, key=key), eqx.nn.Linear(3, 2, key=other))

    return handed(_made(make), normal(1, 3, 4, 2), batched=False)


@holds("cell", "head")
def lstm():
    def make(key):
        key, other = _keys(key, 2)
        return Recurrent(eqx.nn.LSTMCell(2, 3, key=key), eqx.nn.Linear(3, 2, key=other))

    return handed(_made(make), normal(1, 3, 4, 2), batched=False)


class Block(eqx.Module):
    """A transformer block with rotary positions."""

    norm1: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    norm2: eqx.nn.RMSNorm
    mlp: eqx.nn.MLP

    def __init__(self, key):
        """Width four, two heads."""
        key, other = _keys(key, 2)
        self.norm1, self.norm2 = eqx.nn.LayerNorm(4), eqx.nn.RMSNorm(4)
        self.attention = eqx.nn.MultiheadAttention(2, 4, key=key)
        self.mlp = eqx.nn.MLP(4, 4, 6, 1, jax.nn.gelu, key=other)

    def __call__(self, x):
        """Of a sequence."""
        h = jax.vmap(self.norm1)(x)
        x = x + self.attention(h, h, h)
        return x + jax.vmap(self.mlp)(jax.vmap(self.norm2)(x))


class Transformer(eqx.Module):
    """Embedding, blocks, head."""

    embed: eqx.nn.Embedding
    blocks: list
    head: eqx.nn.Linear

    def __init__(self, key):
        """Two blocks."""
        keys = _keys(key, 4)
        self.embed = eqx.nn.Embedding(5, 4, key=keys[0])
        self.blocks = [Block(keys[1]), Block(keys[2])]
        self.head = eqx.nn.Linear(4, 2, key=keys[3])

    def __call__(self, ids):
        """Of the mean."""
        x = jax.vmap(self.embed)(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, axis=0))


@holds(
    "embed",
    "blocks.0.attention",
    "blocks.0.mlp",
    "blocks.1.attention",
    "blocks.1.mlp",
    "head",
    table="embed",
)
def transformer():
    return handed(_made(Transformer), tokens(5, 3, 4), batched=False)


class Normalised(eqx.Module):
    """Running statistics live in a state of their own."""

    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __init__(self, key):
        """One convolution."""
        key, other = _keys(key, 2)
        self.conv = eqx.nn.Conv2d(1, 3, 3, key=key)
        self.norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")
        self.head = eqx.nn.Linear(3, 2, key=other)

    def __call__(self, x, state):
        """Of the mean over the image."""
        x, state = self.norm(self.conv(x), state)
        return self.head(jnp.mean(jax.nn.silu(x), axis=(1, 2))), state


@holds("conv", "head", couples=True)
def batch_norm_in_training():
    model, state = eqx.nn.make_with_state(Normalised)(jax.random.key(0))

    def apply(model, x):
        one = jax.vmap(model, in_axes=(0, None), out_axes=(0, None), axis_name="batch")
        return one(x, state)[0]

    return handed(apply, model, normal(1, 3, 1, 4, 4))


class Scanned(eqx.Module):
    """Layers whose arrays are stacked, one function for all of them."""

    layers: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self, key):
        """Three layers."""
        key, other = _keys(key, 2)
        make = eqx.filter_vmap(lambda key: eqx.nn.Linear(4, 4, key=key))
        self.layers = make(jax.random.split(key, 3))
        self.head = eqx.nn.Linear(4, 2, key=other)

    def __call__(self, x):
        """Of what comes out of the scan."""
        arrays, rest = eqx.partition(self.layers, eqx.is_array)

        def step(x, arrays):
            return jnp.tanh(eqx.combine(arrays, rest)(x)), None

        return self.head(jax.lax.scan(step, x, arrays)[0])


@holds("layers.0", "layers.1", "layers.2", "head")
def scan_over_layers():
    return handed(_made(Scanned), normal(1, 3, 4), batched=False)


@holds("first", "second", "head")
def mapped_by_the_user():
    class Net(eqx.Module):
        first: eqx.nn.Linear
        second: eqx.nn.Linear
        head: eqx.nn.Linear

        def __init__(self, key):
            keys = _keys(key, 3)
            self.first = eqx.nn.Linear(3, 3, key=keys[0])
            self.second = eqx.nn.Linear(3, 3, use_bias=False, key=keys[1])
            self.head = eqx.nn.Linear(3, 2, key=keys[2])

        def __call__(self, x):
            return self.head(jax.lax.tanh(self.second(jax.lax.sin(self.first(x)))))

    return handed(lambda model, x: jax.vmap(model)(x), _made(Net), normal(1, 3, 3))


@holds("layers.0", "layers.3", "layers.6")
def dropout():
    def make(key):
        keys = _keys(key, 3)
        layers = [eqx.nn.Linear(4, 4, key=keys[0])]
        for key in keys[1:]:
            layers += [eqx.nn.Lambda(jnp.tanh), eqx.nn.Dropout(0.4)]
            layers += [eqx.nn.Linear(4, 4, key=key)]
        return eqx.nn.Sequential(layers)

    def apply(model, x, key):
        keys = jax.random.split(key, x.shape[0])
        return jax.vmap(lambda x, key: model(x, key=key))(x, keys)

    return handed(apply, _made(make), normal(1, 3, 4), jax.random.key(3))


@holds("layers.0", "layers.1", "layers.2")
def weight_norm():
    def make(key):
        keys = _keys(key, 3)
        layers = [eqx.nn.WeightNorm(eqx.nn.Linear(4, 4, key=k)) for k in keys]
        return eqx.nn.Sequential(layers)

    return handed(_made(make), normal(1, 3, 4), batched=False)
