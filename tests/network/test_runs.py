"""A layer as it ran: function, arrays and gradient belong to one another."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.network import find_layers, propagate
from gradstab.spectra.layer_map import layer_map

WIDTH, DEPTH = 3, 4
WEIGHTS = jax.random.normal(jax.random.key(0), (DEPTH, WIDTH, WIDTH)) / WIDTH**0.5
X = jax.random.normal(jax.random.key(1), (2, WIDTH))


def _wide(params, x):
    """Layers of different shapes: each has a function of its own."""
    for w in params:
        x = jnp.tanh(x @ w)
    return x


def _rolled(params, x):
    """Equal layers that follow each other share a function."""
    return _wide(list(params), x)


def _scanned(params, x, reverse=False):
    def step(x, w):
        return jnp.tanh(x @ w), None

    return jax.lax.scan(step, x, params, reverse=reverse)[0]


def _reversed(params, x):
    return _scanned(params, x, reverse=True)


MODELS = {
    "wide": (_wide, [jnp.ones((3, 5)) / 3, jnp.ones((5, 2)) / 5]),
    "rolled": (_rolled, WEIGHTS),
    "scanned": (_scanned, WEIGHTS),
    "reversed": (_reversed, WEIGHTS),
}


@pytest.fixture(scope="module", params=MODELS, ids=list(MODELS))
def run(request):
    apply, params = MODELS[request.param]
    network = find_layers(apply, params, (X,))
    return propagate(network, params, (), (X,), loss=lambda out: jnp.sum(out**2))


def test_every_layer_has_its_place_and_its_function(run):
    network = run.network
    assert [layer.name for layer in run.layers] == list(network.names)
    for layer, place in zip(run.layers, network.layers, strict=True):
        assert layer.place is place
        assert layer.function is network.blocks[place.block]
        assert layer.leads_with_examples
        assert (layer.num_examples, layer.recurrences) == (2, ())


def test_the_output_is_that_of_the_function(run):
    entering = X
    for layer in run.layers:
        (data,) = layer.data
        chex.assert_trees_all_close(data, entering, rtol=1e-6)
        entering = layer.function(layer.context, data)
        chex.assert_trees_all_close(layer.output, entering, rtol=1e-6)
    assert entering is not X


def test_a_gradient_is_the_next_layers_pulled_back(run):
    layers = run.layers
    for before, after in itertools.pairwise(layers):
        _, pull = jax.vjp(after.function, after.context, *after.data)
        *_, expected = pull(after.gradient)
        chex.assert_trees_all_close(before.gradient, expected, rtol=1e-5)
    np.testing.assert_allclose(layers[-1].gradient, 2 * layers[-1].output, rtol=1e-6)


def test_a_layer_of_which_nobody_knows_whether_it_mixes_has_no_jacobians(run):
    layer = run.layers[0]
    with pytest.raises(ValueError, match=f"nobody looked whether {layer.name} mixes"):
        layer_map(layer, examples=2)
    linear, note = layer_map(layer.of_batch(), examples=2)
    assert linear is not None
    assert (linear.num, linear.coupled, note) == (1, True, "")


def test_of_the_batch_a_layer_is_coupled_and_has_the_same_arrays(run):
    layer = run.layers[1]
    whole = layer.of_batch()
    assert (layer.example, layer.coupled) == (None, None)
    assert (whole.example, whole.coupled) == (None, True)
    chex.assert_trees_all_equal(whole.data, layer.data)
