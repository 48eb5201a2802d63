"""The function of one example, found by tracing a batch of one."""

from dataclasses import fields

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.network import (
    ExampleBlock,
    agree,
    example_blocks,
    find_layers,
    layer_slice,
)

pytestmark = pytest.mark.usefixtures("quick_compiler")

NUM, WIDTH = 3, 4


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def traced(apply, *inputs, params=None):
    """Network, replay and functions of one example, of a model and a batch."""
    params = [normal(9, WIDTH, WIDTH)] if params is None else params
    inputs = tuple(jax.random.key(a) if isinstance(a, int) else a for a in inputs)
    network = find_layers(apply, params, inputs)
    first = jax.tree.map(lambda a: a if a.ndim == 0 else a[:1], inputs)
    single = find_layers(apply, params, first)
    # Evaluated one operation after the other: nothing to compile.
    replay = network.replay(params, (), inputs)
    return network, replay, example_blocks(network, single)


def agreements(network, replay, pairs):
    return [
        bool(
            agree(
                network.blocks[place.block],
                pairs[place.block],
                layer_slice(replay.contexts, place),
                layer_slice(replay.entering, place),
                np.uint32(0),
            )
        )
        for place in network.layers
    ]


def plain(params, x):
    return jnp.tanh(x @ params[0])


def masked(params, x):
    return jnp.where(x > 0, jnp.tanh(x @ params[0]), 0)


def labelled(params, x, label):
    return jnp.tanh(x @ params[0] + jax.nn.one_hot(label, WIDTH))


def merged(params, x):
    """Time steps and examples lie on one axis within the layer."""
    rows = x.reshape(-1, WIDTH)
    return jnp.tanh(rows @ params[0]).reshape(x.shape)


def time_first(params, x):
    return jnp.swapaxes(jnp.tanh(jnp.swapaxes(x, 0, 1) @ params[0]), 0, 1)


def dropped(params, x, key):
    keep = jax.random.bernoulli(key, 0.5, x.shape)
    return jnp.where(keep, jnp.tanh(x @ params[0]), 0)


UNCOUPLED = {
    "plain": (plain, normal(0, NUM, WIDTH)),
    "mask from the data": (masked, normal(0, NUM, WIDTH)),
    "labels": (labelled, normal(0, NUM, WIDTH), jnp.array([0, 3, 1])),
    "merged axes": (merged, normal(0, NUM, 2, WIDTH)),
    "time first": (time_first, normal(0, NUM, 2, WIDTH)),
    "dropout": (dropped, normal(0, NUM, WIDTH), 3),
}


@pytest.mark.parametrize("case", UNCOUPLED.values(), ids=UNCOUPLED)
def test_the_function_of_one_example_does_what_the_layer_does(case):
    network, replay, pairs = traced(*case)
    assert all(agreements(network, replay, pairs))
    (pair,) = pairs
    place = network.layers[0]
    context = layer_slice(replay.contexts, place)
    data = layer_slice(replay.entering, place)
    found = pair.over_batch(context, *data)
    expected = layer_slice(replay.activations, place)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)
    # And example by example, from arrays in which only one is left.
    context, data = pair.separate(context, data)
    context_axes, data_axes = pair.axes
    second = jax.tree.map(
        lambda axis, array: array if axis is None else array[1],
        (context_axes, data_axes),
        (context, data),
        is_leaf=lambda axis: axis is None,
    )
    alone = pair(second[0], *second[1])
    assert alone.size * NUM == expected.size
    everyone = np.split(np.asarray(found), NUM, axis=pair.out_axis)
    chex.assert_trees_all_close(alone, everyone[1], rtol=1e-6)


def centred(params, x):
    return (x - jnp.mean(x, axis=0, keepdims=True)) @ params[0]


def rolled(params, x):
    return jnp.roll(x, 1, axis=0) @ params[0]


def scaled_by_batch(params, x):
    """Only the slope knows of the others: values agree at a batch of equal examples."""
    return (x / jnp.mean(x, axis=0, keepdims=True)) @ params[0]


def sized(params, x):
    return x @ params[0] / x.shape[0]


COUPLED = {
    "centred": (centred, normal(0, NUM, WIDTH)),
    "rolled": (rolled, normal(0, NUM, WIDTH)),
    "equal examples": (scaled_by_batch, jnp.full((NUM, WIDTH), 0.7)),
    "divided by the batch size": (sized, normal(0, NUM, WIDTH)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", COUPLED.values(), ids=COUPLED)
def test_a_function_that_is_not_that_of_the_layer_is_found_out(case):
    network, replay, pairs = traced(*case)
    assert not any(agreements(network, replay, pairs))


def test_a_mask_of_its_own_is_found_out():
    network, replay, pairs = traced(*UNCOUPLED["dropout"])
    context, data = replay.contexts[0], replay.entering[0]
    axes = pairs[0].varying_axes
    turned = [
        array if axis is None else jnp.roll(array, 1, axis)
        for array, axis in zip(context.varying, axes, strict=True)
    ]
    assert set(axes) == {None, 0}

    class Mistaken(ExampleBlock):
        def over_batch(self, context, *data):
            return super().over_batch(context._replace(varying=turned), *data)

    given = [field.name for field in fields(ExampleBlock) if field.init]
    mistaken = Mistaken(*(getattr(pairs[0], name) for name in given))
    number = np.uint32(0)
    assert not agree(network.blocks[0], mistaken, context, data, number)


@pytest.mark.slow
def test_a_batch_of_one_is_its_own_example():
    network, replay, pairs = traced(plain, normal(0, 1, WIDTH))
    assert agreements(network, replay, pairs) == [True]


def test_models_that_differ_with_the_batch_have_no_counterpart():
    def apply(params, x):
        for w in params[: len(x)]:
            x = jnp.tanh(x @ w)
        return x

    params = [normal(i, WIDTH, WIDTH) for i in range(2)]
    network, _, pairs = traced(apply, normal(0, NUM, WIDTH), params=params)
    assert len(network.layers) == 2
    assert pairs == (None,) * len(network.blocks)
    assert example_blocks(network, None) == pairs


def test_layers_of_a_scan_share_the_function():
    def apply(params, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, params)[0]

    network, replay, pairs = traced(
        apply, normal(0, NUM, WIDTH), params=normal(1, 5, WIDTH, WIDTH)
    )
    assert len(pairs) == 1
    assert agreements(network, replay, pairs) == [True] * 5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_must_be_the_same_ones(bad):
    x = normal(0, NUM, WIDTH).at[1, 2].set(bad)
    network, replay, pairs = traced(plain, x)
    assert agreements(network, replay, pairs) == [True]
