"""Norms of parts of a batch are those of their own gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradstab as gs

DRAW = np.random.default_rng(0)
X = jnp.asarray(DRAW.normal(size=(12, 3)), jnp.float32)
Y = jnp.asarray(DRAW.normal(size=(12, 2)), jnp.float32)
PARAMS = {
    "w": jnp.asarray(DRAW.normal(size=(3, 2)), jnp.float32),
    "b": jnp.zeros(2, jnp.float32),
}


def loss(params, x, y):
    return jnp.mean((jnp.tanh(x @ params["w"] + params["b"][None]) - y) ** 2)


def norms(grads):
    return [jnp.linalg.norm(g) for g in jax.tree.leaves(grads)]


@pytest.mark.parametrize("num_parts", [2, 4, 12])
def test_each_part_has_the_norm_of_its_own_gradient(num_parts):
    found = jax.jit(
        lambda p, x, y: gs.watch.part_norms(loss, p, x, y, num_parts=num_parts)
    )(PARAMS, X, Y)
    assert found.names == ("b", "w")
    for got, x, y in zip(
        found.parts_by_param,
        jnp.split(X, num_parts),
        jnp.split(Y, num_parts),
        strict=True,
    ):
        np.testing.assert_allclose(got, norms(jax.grad(loss)(PARAMS, x, y)), 1e-5)
    whole = jax.grad(loss)(PARAMS, X, Y)
    np.testing.assert_allclose(found.by_param, norms(whole), 1e-5)
    flat = jnp.concatenate([g.ravel() for g in jax.tree.leaves(whole)])
    np.testing.assert_allclose(found.norm, jnp.linalg.norm(flat), 1e-5)
    expected = gs.watch.gradient_noise(found.norm, found.parts, batch_size=12)
    np.testing.assert_array_equal(found.noise, expected)


def test_norms_whose_squares_overflow_are_finite():
    found = gs.watch.part_norms(
        lambda w, x: 1e30 * jnp.mean(x @ w), jnp.ones(3), X, num_parts=3
    )
    assert jnp.isfinite(found.parts).all()
    assert jnp.isfinite(found.norm)


def test_modules_of_nnx_and_equinox_are_taken():
    module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    ours = gs.watch.part_norms(
        lambda m, x, y: jnp.mean((m(x) - y) ** 2), module, X, Y, num_parts=3
    )
    assert ours.names == ("bias", "kernel")
    tree = eqx.nn.Linear(3, 2, key=jax.random.key(0))
    tree = eqx.tree_at(
        lambda m: (m.weight, m.bias), tree, (module.kernel[...].T, module.bias[...])
    )
    other = gs.watch.part_norms(
        lambda m, x, y: jnp.mean((jax.vmap(m)(x) - y) ** 2), tree, X, Y, num_parts=3
    )
    np.testing.assert_allclose(other.parts, ours.parts, 1e-5)


@pytest.mark.parametrize(
    ("batch", "num_parts", "message"),
    [
        ((X, Y[:4]), 2, "as many in each; got the shapes"),
        ((X, jnp.float32(1)), 2, "Close over"),
        ((), 2, "the shapes of no array"),
        ((X, Y), 5, "12 examples has no 5 equal parts"),
        ((X, Y), 1, "num_parts must be a whole number"),
    ],
)
def test_a_batch_without_equal_parts_is_refused(batch, num_parts, message):
    with pytest.raises(ValueError, match=message):
        gs.watch.part_norms(loss, PARAMS, *batch, num_parts=num_parts)
