"""Norms and names of pytrees."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab import _tree


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_a_norm_is_right_where_its_square_is_out_of_range(scale):
    tree = {"a": jnp.array([3.0, 0.0]) * scale, "b": jnp.array([[-4.0]]) * scale}
    # Exact but for the rounding of the scaled numbers themselves.
    chex.assert_trees_all_close(_tree.safe_norm(tree), 5 * scale, rtol=2e-7)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_norm_of_half_precision_is_in_single(dtype):
    found = _tree.safe_norm(jnp.full((1000,), 300, dtype))
    assert found.dtype == jnp.float32
    expected = float(jnp.asarray(300, dtype)) * np.sqrt(1000)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_mixed_dtypes_have_one_norm_also_under_strict_promotion():
    with jax.enable_x64(True):
        leaves = [jnp.full((), 3, jnp.bfloat16), jnp.full((), 4, jnp.float64)]
        found = _tree.safe_norm(leaves)
    assert found.dtype == jnp.float64
    assert float(found) == 5


def test_nan_and_infinity_are_their_own_norm():
    assert np.isnan(_tree.safe_norm([jnp.array([1.0, jnp.nan])]))
    assert np.isinf(_tree.safe_norm([jnp.array([1.0, -jnp.inf])]))


def test_nothing_has_norm_zero():
    assert _tree.safe_norm([]) == 0
    assert _tree.safe_norm([jnp.arange(3)]) == 0
    assert _tree.safe_norm([jnp.zeros(3)]) == 0


def test_a_norm_over_axes_keeps_the_others():
    x = jnp.arange(12.0).reshape(2, 3, 2)
    found = _tree.safe_norm([x, x], axes=(1, 2))
    expected = np.sqrt(2) * np.linalg.norm(np.asarray(x).reshape(2, -1), axis=1)
    chex.assert_trees_all_close(found, expected, rtol=1e-6)


def test_a_norm_survives_jit_grad_and_vmap():
    x = jax.random.normal(jax.random.key(0), (3, 4))
    found = jax.jit(jax.vmap(jax.grad(_tree.safe_norm)))(x)
    expected = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


def test_powers_of_two_bracket_their_argument():
    for x in (2e-38, 0.3, 1.0, 7.0, 3e38):
        power = float(_tree.power_of_two_near(jnp.float32(x)))
        assert 1 / 4 <= x / power <= 4
        assert np.log2(power) == round(np.log2(power))
    assert _tree.power_of_two_near(jnp.float32(0)) == 1


def test_integers_and_keys_have_no_gradient_and_are_finite():
    tree = [jnp.arange(2), jax.random.key(0), jnp.ones(1)]
    assert len(_tree.floating_leaves(tree)) == 1
    assert _tree.all_finite(tree)
    assert not _tree.all_finite([*tree, jnp.array(jnp.nan)])
    assert [_tree.is_key(leaf) for leaf in tree] == [False, True, False]


def test_entries_are_counted():
    assert _tree.num_entries({"a": jnp.ones((2, 3)), "b": 1.0}) == 7


def test_the_widest_dtype_ignores_strictness():
    assert _tree.widest(jnp.float32, jnp.bfloat16) == jnp.float32
    assert _tree.widest(jnp.float16, jnp.bfloat16) == jnp.float32
