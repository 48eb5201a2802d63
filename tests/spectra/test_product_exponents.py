"""Exponents of the input-output Jacobian, against products that are written out."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_of_layers import NUM, WIDTH, Traced, dense, normal, normalised

from gradstab.spectra import product_exponents

pytestmark = pytest.mark.slow  # many programs to compile

DEPTH = 5


def found_for(traced, **options):
    options = {"examples": NUM, **options}
    return product_exponents(traced.run, **options)


def weights(num=DEPTH):
    return [(normal(i, WIDTH, WIDTH), normal(9 + i, 1, WIDTH)) for i in range(num)]


def by_svd(model, params, x):
    """The exponents of products so short that float64 resolves them."""
    jacobian = jax.vmap(jax.jacfwd(lambda x: model(params, x[None])[0]))(x)
    values = np.linalg.svd(np.asarray(jacobian, np.float64), compute_uv=False)
    return np.log(values) / len(params)


@pytest.fixture(scope="module")
def deep():
    with jax.enable_x64(True):
        params, x = weights(), 0.1 * normal(5, NUM, WIDTH)
        yield params, x, Traced(dense, params, x), by_svd(dense, params, x)


def test_all_exponents_are_those_of_the_product(deep):
    _, _, traced, expected = deep
    with jax.enable_x64(True):
        found = found_for(traced)
    # Rounding of the product of condition 1e5 at the most.
    chex.assert_trees_all_close(found.exponents.values, expected, atol=1e-9)
    assert found.note == ""
    assert found.num_layers == DEPTH


def test_jacobians_that_are_written_out_serve_as_well(deep, monkeypatch):
    _, _, traced, expected = deep
    with jax.enable_x64(True):
        jacobians = [spectrum.jacobians for spectrum in traced.spectra()]
        # No program is asked for a product any more.
        monkeypatch.setattr("gradstab.spectra.layer_map.LayerMap.product", None)
        found = found_for(traced, jacobians=jacobians)
    chex.assert_trees_all_close(found.exponents.values, expected, atol=1e-9)


def test_jacobians_of_other_examples_are_not_taken(deep):
    _, _, traced, expected = deep
    with jax.enable_x64(True):
        jacobians = [s.jacobians for s in traced.spectra(examples=2)]
        for others in (jacobians, [None, *jacobians[1:]]):
            found = found_for(traced, jacobians=others)
            values = found.exponents.values
            chex.assert_trees_all_close(values, expected, atol=1e-9)


def test_the_largest_are_found_alone_and_for_a_few_examples(deep):
    _, _, traced, expected = deep
    with jax.enable_x64(True):
        found = found_for(traced, top_k=2, examples=2)
    chex.assert_trees_all_close(found.exponents.values, expected[:2, :2], atol=1e-9)


def test_a_limit_on_bytes_changes_nothing(deep):
    _, _, traced, expected = deep
    with jax.enable_x64(True):
        # Of the 8 * 6 * 6 * 6 bytes for one example a little more than enough.
        found = found_for(traced, max_bytes=2000)
        none = found_for(traced, max_bytes=100)
    chex.assert_trees_all_close(found.exponents.values, expected, atol=1e-9)
    assert none.exponents is None
    assert "max_bytes" in none.note


def test_a_batch_whose_examples_are_not_taken_apart_has_the_same_exponents(deep):
    params, x, _, expected = deep
    with jax.enable_x64(True):
        found = found_for(Traced(dense, params, x, single=False), examples=2)
    chex.assert_trees_all_close(found.exponents.values, expected[:2], atol=1e-9)


def test_if_a_layer_mixes_examples_the_product_is_of_the_whole_batch():
    with jax.enable_x64(True):
        params, x = weights(2), normal(5, NUM, WIDTH)
        found = found_for(Traced(normalised, params, x))
        jacobian = jax.jacfwd(lambda x: normalised(params, x))(x)
    size = NUM * WIDTH
    values = np.linalg.svd(np.asarray(jacobian).reshape(size, size), compute_uv=False)
    found_values = found.exponents.values
    assert found_values.shape == (1, size)
    # Each unit is centred on nothing and scaled to one: WIDTH directions are lost but
    # for the 1e-3 in the denominator; the others are known to rounding.
    chex.assert_trees_all_close(found_values[0], np.log(values) / 2, atol=1e-6)
    assert "whole batch" in found.note


def test_an_embedding_is_left_out():
    def model(params, tokens):
        x = params[0][tokens]
        for w in params[1:]:
            x = jnp.tanh(x @ w)
        return x

    params = [normal(0, 7, WIDTH), normal(1, WIDTH, WIDTH), normal(2, WIDTH, WIDTH)]
    traced = Traced(model, params, jnp.array([1, 4, 0]))
    found = found_for(traced)
    assert traced.run.network.names == ("0", "1", "2")
    assert found.num_layers == 2
    assert "from 1 on" in found.note
    x = params[0][jnp.array([1, 4, 0])]
    expected = by_svd(lambda p, x: jnp.tanh(jnp.tanh(x @ p[0]) @ p[1]), params[1:], x)
    # Singular values are known to a rounding of the largest one: of two layers, one
    # direction is e^-22 of the first and lost in float32.
    below = np.exp(2 * (expected[:, :1] - expected))
    noise = 1e-4 + np.finfo(np.float32).eps * below / 2
    known = noise < 1
    gaps = np.abs(found.exponents.values - expected)
    assert np.sum(~known) == 1
    assert np.all(gaps[known] <= noise[known])


def test_wide_networks_have_their_largest_exponents_by_default():
    size = 260
    params = [normal(i, size, size) / np.sqrt(size) for i in range(2)]
    traced = Traced(lambda p, x: x @ p[0] @ p[1], params, normal(5, 1, size))
    found = found_for(traced, examples=1)
    product = np.asarray(params[0], np.float64) @ np.asarray(params[1], np.float64)
    expected = np.log(np.linalg.svd(product, compute_uv=False)) / 2
    assert found.exponents.values.shape == (1, 32)
    # The last of 32 is found least well: the block of 72 converges from below.
    chex.assert_trees_all_close(found.exponents.values[0, :4], expected[:4], atol=1e-4)
    assert "largest" in found.note
