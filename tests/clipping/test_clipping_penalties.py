"""L1 and L2 penalties are the gradients of what they say."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab import clipping


def apply(tx, grads, params):
    """One step, compiled: that is one compilation, not one for each operation."""

    def step(grads, params):
        return tx.update(grads, tx.init(grads), params)[0]

    return jax.jit(step)(grads, params)


def parameters():
    return {
        "dense": {"kernel": jnp.array([[2.0, -3.0]]), "bias": jnp.array([1.0, -1.0])},
        "norm": {"scale": jnp.array([1.5]), "bias": jnp.array([0.5])},
        "blocks": {"kernel": jnp.full((2, 1, 1), 4.0), "bias": jnp.full((2, 1), 5.0)},
    }


def penalty_l1(params):
    return 0.1 * sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(params))


def penalty_l2(params):
    return 0.1 / 2 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


PENALTIES = {
    "l1": (clipping.add_l1_penalty(0.1), penalty_l1),
    "l2": (clipping.add_l2_penalty(0.1), penalty_l2),
}


@pytest.mark.parametrize(("tx", "penalty"), PENALTIES.values(), ids=PENALTIES.keys())
def test_the_gradient_of_the_penalty_is_added(tx, penalty):
    params = parameters()
    grads = jax.tree.map(jnp.ones_like, params)
    slope = jax.jit(jax.grad(penalty))(params)
    expected = jax.tree.map(jnp.add, grads, slope)
    chex.assert_trees_all_close(apply(tx, grads, params), expected, rtol=1e-6)


@pytest.mark.parametrize(("tx", "penalty"), PENALTIES.values(), ids=PENALTIES.keys())
def test_the_other_factor_is_rejected(tx, penalty):
    params = parameters()
    zeros = jax.tree.map(jnp.zeros_like, params)
    doubled = jax.jit(jax.grad(lambda params: 2 * penalty(params)))(params)
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(apply(tx, zeros, params), doubled, rtol=0.4)


def test_a_weight_at_zero_is_not_pushed_by_l1():
    zeros = jnp.zeros(3)
    np.testing.assert_array_equal(apply(PENALTIES["l1"][0], zeros, zeros), zeros)


@pytest.mark.parametrize("add", [clipping.add_l1_penalty, clipping.add_l2_penalty])
def test_biases_and_normalisations_are_left_out_by_option(add):
    params = parameters()
    zeros = jax.tree.map(jnp.zeros_like, params)
    changed = apply(add(0.1, mask=clipping.weights_only), zeros, params)
    touched = jax.tree.map(lambda leaf: bool(jnp.any(leaf != 0)), changed)
    assert touched == {
        "dense": {"kernel": True, "bias": False},
        "norm": {"scale": False, "bias": False},
        "blocks": {"kernel": True, "bias": False},
    }
    only_norms = apply(add(0.1, mask=lambda path, shape: "norm" in path), zeros, params)
    assert bool(jnp.all(only_norms["norm"]["scale"] != 0))
    assert not jnp.any(only_norms["dense"]["kernel"])


def test_small_weights_survive_half_precision():
    grads, params = jnp.zeros(1, jnp.float16), jnp.full(1, 1e4, jnp.float16)
    changed = apply(clipping.add_l2_penalty(1e-8), grads, params)
    chex.assert_type(changed, jnp.float16)
    np.testing.assert_allclose(np.asarray(changed, np.float32), 1e-4, rtol=1e-2)


def test_parameters_without_a_gradient_are_left_alone():
    params = {"a": jnp.ones(2), "b": jnp.ones(2), "n": jnp.arange(2)}
    grads = {"a": None, "b": jnp.zeros(2), "n": jnp.arange(2)}
    changed = apply(clipping.add_l2_penalty(0.5), grads, params)
    chex.assert_trees_all_equal(
        changed, {"a": None, "b": jnp.full(2, 0.5), "n": jnp.arange(2)}
    )
