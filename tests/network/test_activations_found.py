"""What counts as an activation, and how much of it is saturated or dead."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab import models
from gradstab.network import Activation, Context, find_activations, find_layers
from gradstab.network.activations import saturation

pytestmark = pytest.mark.usefixtures("quick_compiler")


def _saturation(activation, z):
    """Saturation of one layer whose pre-activations are ``z``."""
    network = find_layers(lambda w, x: activation(x @ w), jnp.eye(z.shape[1]), (z,))
    (block,) = network.blocks
    context = Context([jnp.eye(z.shape[1])], [])
    return saturation(block, find_activations(block), context, (z,))


def _chains(apply, params, x):
    network = find_layers(apply, params, (x,))
    return [chain for block in network.blocks for chain in find_activations(block)]


@jax.custom_vjp
def hard(x):
    """A clipped identity with a rule for the backward direction only."""
    return jnp.clip(x, -1, 1)


hard.defvjp(lambda x: (hard(x), x), lambda x, g: (jnp.where(jnp.abs(x) < 1, g, 0),))


# 5 % of the greatest slope: sigmoid 4.36, tanh 2.18 from the centre, by hand.
CASES = {
    "relu": (jax.nn.relu, [-3, -0.1, 0.1, 3], 0.5),
    "sigmoid": (jax.nn.sigmoid, [-4.5, -4.2, 4.2, 4.5], 0.5),
    "tanh": (jnp.tanh, [-2.3, -2.0, 2.0, 2.3], 0.5),
    "gelu": (jax.nn.gelu, [-5, 0, 1, 5], 0.25),
    "silu": (jax.nn.silu, [-9, 0, 1, 5], 0.25),
    "elu": (jax.nn.elu, [-5, -1, 1, 5], 0.25),
    "softplus": (jax.nn.softplus, [-5, -1, 1, 5], 0.25),
    "relu6": (jax.nn.relu6, [-1, 1, 5, 7], 0.5),
    "a sine": (jnp.sin, [0, 1.5708, 3, 6], 0.25),
    "leaky": (lambda x: jnp.where(x > 0, x, 0.2 * x), [-5, -1, 1, 5], 0.0),
    "a user's own": (lambda x: x * jax.nn.sigmoid(1.702 * x), [-9, 0, 1, 5], 0.25),
    "backward rule": (hard, [-2, -0.5, 0.5, 2], 0.5),
    "step": (jnp.sign, [-2, -0.5, 0.5, 2], 1.0),
}


@pytest.mark.parametrize(("activation", "z", "expected"), CASES.values(), ids=CASES)
def test_the_saturated_fraction_is_counted_by_slope(activation, z, expected):
    found = _saturation(activation, jnp.array(z, jnp.float32)[None])
    assert float(found.saturated) == expected


def test_a_unit_is_dead_if_no_example_moves_it():
    z = jnp.array([[-1.0, -1.0, 1.0, 1.0], [-2.0, 2.0, 2.0, -2.0]])
    assert float(_saturation(jax.nn.relu, z).dead) == 0.25
    # Saturated is not dead: the slope of a sigmoid is never zero in float32 here.
    assert float(_saturation(jax.nn.sigmoid, 10 * z).dead) == 0.0
    assert float(_saturation(jax.nn.sigmoid, 10 * z).saturated) == 1.0


def test_a_layer_without_an_activation_has_no_fractions():
    found = _saturation(lambda z: z, jnp.ones((1, 2)))
    assert np.isnan(found.saturated)
    assert np.isnan(found.dead)


@pytest.mark.parametrize("name", models.ACTIVATIONS)
def test_every_activation_of_the_models_is_found(name):
    chains = _chains(
        lambda w, x: models.activation(name)(x @ w), jnp.eye(2), jnp.ones((1, 2))
    )
    assert len(chains) == (name not in ("identity", "linear"))


def test_the_greatest_slope_of_known_functions_is_found():
    for function, slope in ((jax.nn.sigmoid, 0.25), (jnp.tanh, 1.0), (jax.nn.relu, 1)):
        (chain,) = _chains(
            lambda w, x, f=function: f(x @ w), jnp.eye(2), jnp.ones((1, 2))
        )
        # The grid of 512 points misses the maximum by at most half a step, 0.016.
        chex.assert_trees_all_close(chain.greatest_slope, slope, rtol=3e-4)


def test_statistics_and_softmax_are_no_activations():
    def norm(w, x):
        h = x @ w
        mean = jnp.mean(h, axis=1, keepdims=True)
        variance = jnp.maximum(jnp.mean(h * h, axis=1, keepdims=True) - mean**2, 0)
        return (h - mean) * jax.lax.rsqrt(variance + 1e-6)

    def softmax(w, x):
        return jax.nn.softmax(x @ w, axis=1)

    x = jax.random.normal(jax.random.key(0), (2, 3))
    assert _chains(norm, jnp.eye(3), x) == []
    assert _chains(softmax, jnp.eye(3), x) == []


def test_dropout_does_not_hide_an_activation():
    def apply(w, x, key):
        mask = jax.random.bernoulli(key, 0.5, x.shape)
        return jnp.where(mask, jnp.tanh(x @ w) / 0.5, 0)

    network = find_layers(apply, jnp.eye(2), (jnp.ones((1, 2)), jax.random.key(0)))
    assert len(find_activations(network.blocks[0])) == 1


def test_each_activation_of_a_gated_layer_counts():
    def apply(params, x):
        return jnp.tanh(x @ params["a"]) * jax.nn.sigmoid(x @ params["b"])

    chains = _chains(apply, {"a": jnp.eye(2), "b": jnp.eye(2)}, jnp.ones((1, 2)))
    slopes = sorted(round(chain.greatest_slope, 2) for chain in chains)
    assert slopes == [0.25, 1.0]


def test_an_activation_takes_the_parameters_that_it_is_given():
    def apply(params, x):
        h = x @ params["w"]
        return jnp.where(h > 0, h, params["slope"][None] * h)

    params = {"w": jnp.eye(2), "slope": jnp.array([0.1, 0.5])}
    network = find_layers(apply, params, (jnp.ones((1, 2)),))
    (block,) = network.blocks
    product, *rest = block.eqns
    values = dict.fromkeys(block.varying_vars, params["slope"][None])
    leaky = Activation(tuple(rest), product.outvars[0], block.out_var, context=values)
    z = jnp.array([[-1.0, -1.0]])
    chex.assert_trees_all_close(leaky(z), jnp.array([[-0.1, -0.5]]))
    chex.assert_trees_all_close(leaky.slopes(z), jnp.array([[0.1, 0.5]]))
