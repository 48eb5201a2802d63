"""Many initialisations of one model: each the one that its key gives."""

import chex
import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import gradstab as gs
from gradstab.analysis.initialization import ensemble_size, member


class Tied(nnx.Module):
    """Two names for one layer, statistics, and a key."""

    def __init__(self, rngs):
        self.first = nnx.Linear(3, 3, rngs=rngs)
        self.second = self.first
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        """Normalised, with dropout."""
        return self.dropout(self.norm(self.second(self.first(x))))


def _bare(key):
    key_w, key_b = jax.random.split(key)
    return {
        "w": jax.random.normal(key_w, (3, 3)),
        "b": [jax.random.normal(key_b, (3, 3))],
        "steps": 4,
    }


def _linen(key):
    return linen.Dense(3).init(key, jnp.ones((1, 3)))


def _equinox(key):
    return equinox.nn.MLP(3, 3, 3, 1, key=key)


def _nnx(key):
    return Tied(nnx.Rngs(params=key, dropout=7))


def _untraceable(key):
    return np.linalg.qr(np.asarray(jax.random.normal(key, (3, 3))))[0]


def _arrays(model):
    tree = nnx.split(model)[1] if isinstance(model, nnx.Module) else model
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    pairs = zip(leaves, keys, strict=True)
    return [np.asarray(jax.random.key_data(a) if key else a) for a, key in pairs]


@pytest.mark.parametrize("make", [_bare, _linen, _equinox, _nnx, _untraceable])
def test_each_member_is_what_its_key_makes(make):
    found = _arrays(gs.initializations(make, jax.random.key(0), 3))
    for number, key in enumerate(jax.random.split(jax.random.key(0), 3)):
        expected = _arrays(make(key))
        # Mapped over keys, the same operations may be fused otherwise.
        of_one = [array[number] for array in found]
        chex.assert_trees_all_close(of_one, expected, rtol=1e-6)


def test_a_module_comes_back_as_a_module_with_its_ties_and_statistics():
    model = gs.initializations(_nnx, jax.random.key(0), 3)
    assert isinstance(model, Tied)
    assert model.first is model.second
    assert model.norm.mean.shape == (3, 3)
    assert model.dropout.rngs.key.shape == (3,)


def test_what_is_not_an_array_is_kept():
    found = gs.initializations(_bare, jax.random.key(0), 3)
    assert found["steps"] == 4
    model = gs.initializations(_equinox, jax.random.key(0), 3)
    assert callable(model.activation)
    assert not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(model))


def test_a_make_without_use_of_its_key_is_refused():
    with pytest.raises(ValueError, match="all 3 initialisations are equal"):
        gs.initializations(
            lambda key: nnx.Linear(2, 2, rngs=nnx.Rngs(0)), jax.random.key(0), 3
        )


def test_one_initialisation_may_be_asked_for_and_none_may_not():
    one = gs.initializations(_linen, jax.random.key(0), 1)
    assert one["params"]["kernel"].shape == (1, 3, 3)
    with pytest.raises(ValueError, match="whole number from 1, got 0"):
        gs.initializations(_linen, jax.random.key(0), 0)


def test_an_error_inside_make_is_the_users_to_see():
    def make(key):
        raise TypeError("no such layer")

    with pytest.raises(TypeError, match="no such layer"):
        gs.initializations(make, jax.random.key(0), 2)


def test_the_size_is_the_leading_axis_of_parameters_and_state():
    params, state = {"w": jnp.zeros((4, 2)), "b": jnp.zeros(4)}, jnp.zeros((4, 1))
    assert ensemble_size(params, state) == 4
    chex.assert_trees_all_equal(member(params, 1)["w"], jnp.zeros(2))
    for wrong in ((params, jnp.zeros((3, 1))), (jnp.zeros((1, 2)), ()), ({}, ())):
        with pytest.raises(ValueError, match="leading axis over at least two"):
            ensemble_size(*wrong)
