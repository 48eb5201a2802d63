"""What a user hands in becomes a function of arrays."""

import chex
import jax
import jax.numpy as jnp
import pytest

from gradstab.network import find_layers
from gradstab.network.adapters import as_target


@jax.tree_util.register_pytree_node_class
class Layer:
    """A module that holds an activation, a name and an option among its leaves."""

    def __init__(self, *leaves):
        self.weight, self.activation, self.name, self.rate, self.width = leaves

    def __call__(self, x):
        """One product; the option and the width must be numbers of Python."""
        if self.rate == 0.5:
            x = x.reshape(-1, self.width)
        return self.activation(x @ self.weight)

    def tree_flatten(self):
        """All of it are leaves, as in Equinox."""
        leaves = (self.weight, self.activation, self.name, self.rate, self.width)
        return leaves, None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        """From its leaves."""
        return cls(*leaves)


LAYER = Layer(2 * jnp.eye(3), jnp.tanh, "batch", 0.5, 3)


@pytest.mark.parametrize(
    "given",
    [
        (LAYER,),
        (lambda model, x: model(x), LAYER),
        (lambda models, x: models["one"](x), {"one": LAYER}),
    ],
    ids=["the module", "a function of it", "a function of modules"],
)
def test_of_a_module_with_other_leaves_the_arrays_are_the_parameters(given):
    model, *params = given
    x = jnp.ones((2, 3))
    target = as_target(model, (*params, x))
    chex.assert_trees_all_equal(jax.tree.leaves(target.params), [2 * jnp.eye(3)])
    doubled = jax.tree.map(lambda w: 2 * w, target.params)
    out = jax.jit(target.apply)(doubled, target.state, x)
    chex.assert_trees_all_close(out, jnp.full((2, 3), jnp.tanh(4.0)), rtol=1e-6)
    network = find_layers(target.apply, target.params, (x,), state=target.state)
    assert len(network.layers) == 1


def test_numbers_among_the_parameters_of_a_function_are_parameters():
    def apply(params, x):
        return params["scale"] * x @ params["w"]

    params = {"scale": 2.0, "w": jnp.eye(3)}
    target = as_target(apply, (params, jnp.ones((2, 3))))
    assert jax.tree.leaves(target.params)[0] == 2.0
    tripled = {"scale": 3.0, "w": jnp.eye(3)}
    out = target.apply(tripled, (), jnp.ones((2, 3)))
    chex.assert_trees_all_equal(out, jnp.full((2, 3), 3.0))
