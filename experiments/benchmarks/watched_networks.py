"""Losses of four networks without loops, on random data, for `watched_step`.

Compilers count the body of a loop once, so that none is left in: layers are written one
after the other, and the time steps of the LSTM are unrolled.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax


def mlp(widths=(784, 300, 50, 50, 50, 50, 10), batch_size=200):
    """Tanh layers; the loss, its parameters and a batch."""
    pairs = itertools.pairwise(widths)
    params = [(_normal(i, n, m), jnp.zeros(m)) for i, (n, m) in enumerate(pairs)]

    def logits(params, x):
        *hidden, head = params
        for w, b in hidden:
            x = jnp.tanh(x @ w + b)
        return x @ head[0] + head[1]

    batch = _batch((batch_size, widths[0]), widths[-1])
    return functools.partial(_loss, logits), params, batch


def resnet(size=16, channels=32, blocks=4, batch_size=64):
    """Residual blocks of two convolutions, pooled over the image."""
    params = {
        "stem": _kernel(0, 3, channels),
        "blocks": [
            (
                _kernel(2 * i + 1, channels, channels),
                _kernel(2 * i + 2, channels, channels),
            )
            for i in range(blocks)
        ],
        "head": _normal(99, channels, 10),
    }

    def convolved(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers
        )

    def logits(params, x):
        x = convolved(x, params["stem"])
        for first, second in params["blocks"]:
            inner = convolved(jax.nn.relu(x), first)
            x = x + 0.5 * convolved(jax.nn.relu(inner), second)
        return jnp.mean(x, axis=(1, 2)) @ params["head"]

    batch = _batch((batch_size, size, size, 3), 10)
    return functools.partial(_loss, logits), params, batch


def lstm(features=32, width=128, times=20, batch_size=64):
    """One recurrent layer whose last state is classified."""
    params = {
        "cell": (_normal(0, features + width, 4 * width), jnp.zeros(4 * width)),
        "head": _normal(1, width, 10),
    }

    def logits(params, x):
        w, b = params["cell"]

        def step(state, x):
            h, c = state
            i, f, g, o = jnp.split(jnp.concatenate([x, h], axis=-1) @ w + b, 4, axis=-1)
            c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        start = (jnp.zeros((x.shape[0], width)),) * 2
        rows = jnp.swapaxes(x, 0, 1)
        (h, _), _ = jax.lax.scan(step, start, rows, unroll=len(rows))
        return h @ params["head"]

    batch = _batch((batch_size, times, features), 10)
    return functools.partial(_loss, logits), params, batch


def transformer(width=128, times=64, heads=4, layers=2, batch_size=8):
    """Pre-norm blocks on features of every time, whose mean is classified."""
    shapes = {
        "qkv": (width, 3 * width),
        "out": (width, width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
    }
    params = {
        "blocks": [
            {n: _normal(10 * i + j, *s) for j, (n, s) in enumerate(shapes.items())}
            for i in range(layers)
        ],
        "head": _normal(99, width, 10),
    }

    def attention(block, x):
        split = (*x.shape[:-1], 3, heads, width // heads)
        q, k, v = jnp.moveaxis((x @ block["qkv"]).reshape(split), -3, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (width // heads) ** -0.5
        mixed = jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)
        return mixed.reshape(x.shape) @ block["out"]

    def logits(params, x):
        for block in params["blocks"]:
            x = x + attention(block, jax.nn.standardize(x))
            inner = jax.nn.standardize(x) @ block["up"]
            x = x + jax.nn.gelu(inner) @ block["down"]
        return jnp.mean(jax.nn.standardize(x), axis=1) @ params["head"]

    batch = _batch((batch_size, times, width), 10)
    return functools.partial(_loss, logits), params, batch


NETWORKS = {"mlp": mlp, "resnet": resnet, "lstm": lstm, "transformer": transformer}


def _loss(logits, params, x, labels):
    """Cross entropy."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits(params, x), labels)
    return jnp.mean(losses)


def _normal(seed, *shape):
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1]))
    return jnp.asarray(drawn, jnp.float32)


def _kernel(seed, num_in, num_out):
    return _normal(seed, 3, 3, num_in, num_out)


def _batch(shape, num_classes):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=shape), jnp.float32)
    return x, jnp.asarray(rng.integers(num_classes, size=shape[:1]))
