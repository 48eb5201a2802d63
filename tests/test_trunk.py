"""Which layers vote on the law of growth."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.analysis.trunk import find_trunk
from gradstab.network import find_layers

WIDTH, DEPTH = 8, 6


def _weights(num=DEPTH):
    keys = jax.random.split(jax.random.key(0), num)
    return [jax.random.normal(key, (WIDTH, WIDTH)) / WIDTH**0.5 for key in keys]


def _layers_of(apply, params, x=None):
    x = jax.random.normal(jax.random.key(1), (4, WIDTH)) if x is None else x
    network = find_layers(apply, params, (x,))
    return len(network.layers), len(find_trunk(network).layers)


def _normalised(x):
    x = x - jnp.mean(x, -1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5)


def _chain(step, last):
    def apply(weights, x):
        for w in weights[:-1]:
            x = step(x, w)
        return last(x, weights[-1])

    return apply


def _product(x, w):
    return x @ w


HEADS = {
    "relu": _chain(lambda x, w: jax.nn.relu(x @ w), _product),
    "a bias and a scale in the head": _chain(
        lambda x, w: jnp.tanh(x @ w), lambda x, w: 0.5 * (x @ w + 1.0)
    ),
    "normalised layers": _chain(lambda x, w: _normalised(x @ w), _product),
    "skip connections": _chain(lambda x, w: x + jnp.tanh(x @ w), _product),
    "a gate": _chain(lambda x, w: x * jax.nn.sigmoid(x @ w), _product),
}

LAYERS = {
    "a linear network": _chain(_product, _product),
    "a linear network with biases": _chain(lambda x, w: x @ w + 1.0, _product),
    "an activation behind every product": _chain(
        lambda x, w: jnp.tanh(x @ w), lambda x, w: jnp.tanh(x @ w)
    ),
    "linear skip connections": _chain(lambda x, w: x + x @ w, lambda x, w: x + x @ w),
}


def _every_other(weights, x):
    for number, w in enumerate(weights):
        x = x @ w
        if number % 2 == 0:
            x = jax.nn.relu(x)
    return x


LAYERS["an activation behind every other product"] = _every_other


@pytest.mark.parametrize("apply", HEADS.values(), ids=HEADS.keys())
def test_a_square_head_is_no_layer_of_the_law(apply):
    num, kept = _layers_of(apply, _weights())
    assert (num, kept) == (DEPTH, DEPTH - 1)


@pytest.mark.parametrize("apply", LAYERS.values(), ids=LAYERS.keys())
def test_a_last_layer_like_the_others_is_a_layer_of_the_law(apply):
    num, kept = _layers_of(apply, _weights())
    assert (num, kept) == (DEPTH, DEPTH)


def test_neither_a_square_head_nor_the_norm_before_it_is_of_the_law():
    apply = _chain(
        lambda x, w: x + jax.nn.relu(_normalised(x) @ w),
        lambda x, w: _normalised(x) @ w,
    )
    assert _layers_of(apply, _weights()) == (DEPTH, DEPTH - 2)


def test_two_layers_are_too_few_to_tell_a_head():
    assert _layers_of(HEADS["relu"], _weights(2)) == (2, 2)


def test_a_stack_in_a_scan_has_a_square_head():
    def apply(params, x):
        def block(x, w):
            return jnp.tanh(x @ w), None

        return jax.lax.scan(block, x, params["blocks"])[0] @ params["head"]

    weights = _weights()
    params = {"blocks": jnp.stack(weights[1:]), "head": weights[0]}
    assert _layers_of(apply, params) == (DEPTH, DEPTH - 1)


class _Transformer(nn.Module):
    """Pre-norm blocks between an embedding and a head as wide as they are."""

    @nn.compact
    def __call__(self, x):
        for _ in range(3):
            x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
            x = x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))
        return nn.Dense(WIDTH)(nn.LayerNorm()(x))


def test_a_transformer_has_a_square_head():
    model, x = _Transformer(), jax.random.normal(jax.random.key(1), (2, 5, WIDTH))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    network = find_layers(functools.partial(_applied, model), variables, (x,))
    trunk = find_trunk(network)
    assert trunk.layers.stop <= len(network.layers) - 1
    assert "taken for the head" in trunk.notes[0]


def _applied(model, variables, x):
    return model.apply(variables, x)
