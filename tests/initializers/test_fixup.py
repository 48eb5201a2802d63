"""Fixup and SkipInit start deep residual networks as the identity."""

import functools

import chex
import jax
import jax.numpy as jnp
import pytest

from gradstab import initializers as I

WIDTH = 16


def residual_network(x, num_blocks, inits):
    """Blocks x + a * V relu(W x), as in both papers, biases left out."""
    inner, last, multiplier = inits

    def block(x, key):
        key_w, key_v, key_a = jax.random.split(key, 3)
        w, v = inner(key_w, (WIDTH, WIDTH)), last(key_v, (WIDTH, WIDTH))
        return x + multiplier(key_a, ()) * (jax.nn.relu(x @ w) @ v), None

    return jax.lax.scan(block, x, jax.random.split(jax.random.key(1), num_blocks))[0]


RECIPES = {
    "fixup": (I.fixup(I.he_normal(), 8, 2), I.zeros, I.ones),
    "skipinit": (I.he_normal(), I.he_normal(), I.zeros),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_jacobian_at_the_start_is_exactly_the_identity(recipe):
    x = jax.random.normal(jax.random.key(0), (WIDTH,))
    network = functools.partial(residual_network, num_blocks=8, inits=RECIPES[recipe])
    jacobian = jax.jit(jax.jacobian(network))(x)
    chex.assert_trees_all_equal(jacobian, jnp.eye(WIDTH))


def test_a_plain_he_initialisation_is_not_the_identity():
    x = jax.random.normal(jax.random.key(0), (WIDTH,))
    plain = residual_network(x, 8, (I.he_normal(), I.he_normal(), I.ones))
    assert jnp.linalg.norm(plain) > 3 * jnp.linalg.norm(x)


@pytest.mark.parametrize(
    ("num_blocks", "layers", "factor"),
    [(1, 2, 1.0), (16, 2, 0.25), (16, 3, 0.5), (64, 4, 0.5), (100, 2, 0.1)],
)
def test_the_scale_is_blocks_to_the_minus_one_over_two_m_minus_two(
    num_blocks, layers, factor
):
    base = I.he_normal()(jax.random.key(0), (3, 4))
    scaled = I.fixup(I.he_normal(), num_blocks, layers)(jax.random.key(0), (3, 4))
    chex.assert_trees_all_close(scaled, factor * base, rtol=1e-6)  # float32 products


@functools.partial(jax.jit, static_argnums=(0, 1))
def first_step(num_blocks, inner):
    """How fast gradient descent on its sum changes the output, at the start."""
    key_x, key = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_x, (WIDTH,))
    w = jax.vmap(lambda k: inner(k, (WIDTH, WIDTH)))(jax.random.split(key, num_blocks))

    def output(w, v):
        def block(x, wv):
            return x + jax.nn.relu(x @ wv[0]) @ wv[1], None

        return jnp.sum(jax.lax.scan(block, x, (w, v))[0])

    zero = jnp.zeros_like(w)
    step_w, step_v = jax.grad(output, argnums=(0, 1))(w, zero)
    # To first order, a step of size h changes the output by h times the squared norm.
    return jnp.sum(step_w**2) + jnp.sum(step_v**2)


@pytest.mark.slow
def test_gradient_descent_starts_as_fast_at_any_depth_under_fixup():
    shallow = first_step(4, I.fixup(I.he_normal(), 4, 2))
    deep = first_step(256, I.fixup(I.he_normal(), 256, 2))
    # Sixty-four times the blocks; each block's share is random, within a factor 1.3.
    assert 1 / 1.3 < deep / shallow < 1.3
    assert first_step(256, I.he_normal()) > 100 * shallow


def test_fixup_rounds_once_in_narrow_dtypes():
    init = I.fixup(I.he_normal(), 7, 3)
    narrow = init(jax.random.key(0), (8, 8), jnp.bfloat16)
    wide = init(jax.random.key(0), (8, 8))
    chex.assert_trees_all_equal(narrow, wide.astype(jnp.bfloat16))


@pytest.mark.parametrize(("num_blocks", "layers"), [(4, 1), (0, 2)])
def test_fixup_has_no_scale_for_branches_of_one_layer(num_blocks, layers):
    with pytest.raises(ValueError, match="zeros"):
        I.fixup(I.he_normal(), num_blocks, layers)
