"""Jacobians of convolutions are put together from the images of colours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.network import find_layers, propagate
from gradstab.spectra import find_examples, layer_spectrum
from gradstab.spectra.layer_map import layer_map

pytestmark = pytest.mark.usefixtures("quick_compiler")


def apply(w, x):
    conv = jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(conv)


@pytest.fixture(scope="module")
def traced():
    w = 0.3 * jax.random.normal(jax.random.key(0), (3, 3, 2, 3))
    x = jax.random.normal(jax.random.key(1), (3, 8, 8, 2))
    network = find_layers(apply, w, (x,))
    run = propagate(network, w, (), (x,))
    single = find_layers(apply, w, (x[:1],))
    (layer,) = find_examples(run, single).layers
    assert layer.example is not None
    truth = jax.vmap(jax.jacrev(lambda a: apply(w, a[None])[0]))(x)
    truth = np.asarray(truth, np.float64).reshape(3, 8 * 8 * 3, 8 * 8 * 2)
    return layer, truth


@pytest.mark.slow
def test_the_jacobian_of_a_convolution_takes_as_many_products_as_colours(traced):
    layer, truth = traced
    found, _ = layer_map(layer, examples=2)
    assert found.colouring.num == 3 * 3 * 2
    np.testing.assert_allclose(found.dense(2**20), truth[:2], atol=1e-6)
    # A few colours at a time give the same.
    np.testing.assert_allclose(found.dense(1), truth[:2], atol=1e-6)


@pytest.mark.slow
def test_the_norm_of_a_large_jacobian_is_exact(traced):
    layer, truth = traced
    found = layer_spectrum(layer, examples=3, max_dense=8, top_k=2)
    square = np.sum(truth**2, axis=(1, 2))
    estimate = found.spectrum.frobenius_square
    np.testing.assert_allclose(estimate.value, square, rtol=1e-5)
    assert np.all(estimate.error < 1e-4 * square)  # random probes are good to per cents
    values = np.linalg.svd(truth, compute_uv=False)[:, :2]
    np.testing.assert_allclose(found.spectrum.values, values, rtol=1e-5)
