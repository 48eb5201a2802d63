"""Spectra of the layers of networks, against Jacobians written by JAX or by hand."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.network import NetworkRun, find_layers
from gradstab.spectra import (
    alignment,
    find_examples,
    layer_spectrum,
)
from gradstab.spectra.layer_map import layer_map
from gradstab.spectra.tangents import first_product

# Many programs to compile.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compiler")]

NUM, WIDTH = 3, 6


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


class Traced:
    """A model and a batch, taken apart; or not, if told to work on the whole batch."""

    def __init__(self, apply, params, x, *others, single=True):
        network = find_layers(apply, params, (x, *others))
        # Evaluated one operation after the other: nothing to compile.
        replay = network.replay(params, (), (x, *others))
        arrays = params, (), (x, *others)
        run = NetworkRun(network, arrays, None, replay, [], None, None)
        self.run = dataclasses.replace(run, coupled=(False,) * len(run.layers))
        if single:
            one = find_layers(apply, params, (x[:1], *others))
            self.run = find_examples(run, one)

    def spectra(self, **options):
        options = {"examples": NUM, "max_dense": 1024, **options}
        return [layer_spectrum(layer, **options) for layer in self.run.layers]

    def maps(self, examples=NUM):
        return [layer_map(layer, examples=examples)[0] for layer in self.run.layers]


def dense(params, x):
    for w, b in params:
        x = jnp.tanh(x @ w + b)
    return x


def residual(params, x):
    for w, b in params:
        x = x + jnp.tanh(x @ w + b) * jnp.sin(x)
    return x


def from_the_right(params, x):
    """Weights times data, and two axes summed at once."""
    for w, b in params:
        parts = x.reshape(len(x), 2, WIDTH // 2)
        kernel = w.reshape(2, WIDTH // 2, WIDTH).transpose(2, 1, 0)
        x = jnp.tanh(jnp.einsum("oji,bij->bo", kernel, parts) + b)
    return x


def before(params, x):
    """The activation comes first: no layer begins with a product."""
    for w, b in params:
        x = jax.nn.softplus(x + b) @ w
    return x


def attention(params, x):
    for w, _ in params:
        steps = x.reshape(len(x), 2, WIDTH // 2)
        scores = jax.nn.softmax(steps @ jnp.swapaxes(steps, 1, 2))
        x = x + (scores @ steps).reshape(x.shape) @ w
    return x


MODELS = (dense, residual, from_the_right, before, attention)


def weights(num=2):
    return [(normal(i, WIDTH, WIDTH), normal(9 + i, 1, WIDTH)) for i in range(num)]


def by_hand(model, params, x):
    """The Jacobians of each layer by `jax.jacfwd`, example by example."""
    found = []
    for layer in params:
        one = jax.jacfwd(lambda x, layer=layer: model([layer], x[None])[0])
        found.append(jax.vmap(one)(x))
        x = model([layer], x)
    return found


@pytest.mark.parametrize("model", MODELS)
def test_jacobians_are_those_of_jax_with_and_without_functions_of_one_example(model):
    params, x = weights(1), normal(5, NUM, WIDTH)
    expected = by_hand(model, params, x)
    for single in (True, False):
        traced = Traced(model, params, x, single=single)
        assert not any(traced.run.coupled)
        examples = [layer.example for layer in traced.run.layers]
        assert all((example is not None) == single for example in examples)
        for linear, jacobians in zip(traced.maps(), expected, strict=True):
            found = linear.dense(1e9)
            chex.assert_trees_all_close(found, np.asarray(jacobians), atol=2e-6)


@pytest.mark.parametrize("subscripts", ["oji,bij->bo", "bij,oji->bo"])
def test_a_first_product_over_two_axes_gives_the_images_of_the_basis(subscripts):
    def model(params, x):
        pair = (params[0], x) if subscripts[0] == "o" else (x, params[0])
        return jnp.tanh(jnp.einsum(subscripts, *pair))

    params, x = [normal(0, WIDTH, 3, 2)], normal(5, NUM, 2, 3)
    traced = Traced(model, params, x)
    (linear,) = traced.maps()
    context, _ = linear.owner.separate(linear.context, linear.data)
    first = first_product(linear.owner, context)
    images = params[0].transpose(2, 1, 0).reshape(6, WIDTH)
    chex.assert_trees_all_equal(first.images.reshape(6, WIDTH), images)
    one = jax.jacfwd(lambda x: model(params, x[None])[0])
    expected = np.asarray(jax.vmap(one)(x)).reshape(NUM, WIDTH, 6)
    chex.assert_trees_all_close(linear.dense(1e9), expected, atol=1e-6)


@pytest.mark.parametrize("single", [True, False])
def test_a_limit_on_bytes_changes_nothing_but_the_pieces(single):
    traced = Traced(residual, weights(1), normal(5, 5, WIDTH), single=single)
    for linear in traced.maps(examples=5):
        whole = linear.dense(1e9)
        chex.assert_trees_all_close(linear.dense(1.0), whole, atol=1e-6)
        parts = list(linear.parts(num_bytes=10, max_bytes=20))
        assert len(parts) == (3 if single else 1)
        joined = [part.dense(1e9)[skip:] for part, skip in parts]
        chex.assert_trees_all_close(np.concatenate(joined), whole, atol=1e-6)
    one, other = (traced.spectra(examples=5, max_bytes=b) for b in (2.0**28, 200.0))
    for a, b in zip(one, other, strict=True):
        chex.assert_trees_all_close(a.spectrum, b.spectrum, atol=1e-5)


def test_narrow_and_wide_layers_and_rules_for_backward_only_are_built():
    @jax.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (x**3, x), lambda x, w: (3 * x**2 * w,))

    def model(params, x):
        for w, b in params:
            x = cube(x @ w + b)
        return x

    shapes = ((WIDTH, 2), (2, 5))
    params = [(normal(i, *s), normal(3 + i, 1, s[1])) for i, s in enumerate(shapes)]
    x = normal(5, NUM, WIDTH)
    expected = []
    for layer in params:
        one = jax.jacrev(lambda x, layer=layer: model([layer], x[None])[0])
        expected.append(jax.vmap(one)(x))
        x = model([layer], x)
    maps = Traced(model, params, normal(5, NUM, WIDTH)).maps()
    for linear, jacobians in zip(maps, expected, strict=True):
        found = linear.dense(1e9)
        chex.assert_trees_all_close(found, np.asarray(jacobians), rtol=1e-5)


def test_only_the_first_examples_are_taken():
    params, x = weights(1), normal(5, 5, WIDTH)
    for single in (True, False):
        traced = Traced(dense, params, x, single=single)
        for linear, jacobians in zip(
            traced.maps(examples=2), by_hand(dense, params, x), strict=True
        ):
            found = linear.dense(1e9)
            chex.assert_trees_all_close(found, np.asarray(jacobians[:2]), atol=1e-6)


def normalised(params, x):
    for w, _ in params:
        x = x @ w
        x = x / jnp.sqrt(1e-3 + jnp.mean(jnp.square(x), axis=0, keepdims=True))
    return x


def test_coupled_layers_have_one_joint_jacobian():
    params, x = weights(1), normal(5, NUM, WIDTH)
    traced = Traced(normalised, params, x)
    assert traced.run.coupled == (True,)
    assert traced.run.examples == (None,)
    (found,) = traced.spectra()
    jacobian = jax.jacfwd(lambda x: normalised(params, x))(x)
    values = np.linalg.svd(jacobian.reshape(NUM * WIDTH, -1), compute_uv=False)
    chex.assert_trees_all_close(found.spectrum.values, values[None], atol=1e-5)
    assert found.spectrum.coupled


def deep_and_wide(seed, size, num=2):
    """Layers wide enough for products, and their Jacobians in float64."""
    params = [
        (normal(seed + i, size, size) / np.sqrt(size), jnp.zeros((1, size)))
        for i in range(num)
    ]
    x = normal(5, NUM, size)
    jacobians = [np.asarray(j, np.float64) for j in by_hand(dense, params, x)]
    return params, x, jacobians


@pytest.fixture(scope="module")
def wide():
    """A network of two layers of 150, by products and written out."""
    with jax.numpy_rank_promotion("raise"):
        params, x, jacobians = deep_and_wide(0, 150)
        traced = Traced(dense, params, x)
        return (
            traced.spectra(top_k=8, vectors=True),
            traced.spectra(vectors=True),
            jacobians,
        )


def test_large_jacobians_have_leading_values_within_their_errors(wide):
    by_products, _, jacobians = wide
    for found, jacobian in zip(by_products, jacobians, strict=True):
        spectrum = found.spectrum
        exact = np.linalg.svd(jacobian, compute_uv=False)
        assert spectrum.method == "golub-kahan"
        assert spectrum.values.shape == spectrum.errors.shape == (NUM, 8)
        chex.assert_trees_all_close(spectrum.values[:, 0], exact[:, 0], rtol=1e-5)
        gaps = np.abs(spectrum.values[:, :, None] - exact[:, None, :]).min(axis=2)
        assert (gaps <= spectrum.errors).all()
        square = np.sum(np.square(exact), axis=1)
        estimate = spectrum.frobenius_square
        assert (np.abs(estimate.value - square) < 4 * estimate.error).all()
        rank = square / exact[:, 0] ** 2
        assert (np.abs(spectrum.stable_rank.value - rank) < 0.1 * rank).all()


def test_small_jacobians_have_all_values_within_their_errors(wide):
    _, written_out, jacobians = wide
    for found, jacobian in zip(written_out, jacobians, strict=True):
        spectrum = found.spectrum
        exact = np.linalg.svd(jacobian, compute_uv=False)
        assert spectrum.method == "gram"
        assert spectrum.values.shape == exact.shape
        assert (np.abs(spectrum.values - exact) <= spectrum.errors).all()
        assert (spectrum.errors < 1e-3 * exact[:, :1]).all()
        square = np.sum(np.square(exact), axis=1)
        mean_square = spectrum.mean_square
        assert (mean_square.low <= square / 150).all()
        assert (square / 150 <= mean_square.high).all()
        rank = spectrum.stable_rank
        assert (rank.low <= square / exact[:, 0] ** 2).all()
        assert (square / exact[:, 0] ** 2 <= rank.high).all()


def test_alignment_is_that_of_the_leading_vectors_of_a_decomposition(wide):
    jacobians = wide[2]
    (u, _, _), (_, _, v) = (np.linalg.svd(jacobian) for jacobian in jacobians)
    expected = np.abs(np.sum(u[:, :, 0] * v[:, 0, :], axis=1))
    for found, tolerance in ((wide[0], 0.02), (wide[1], 1e-3)):
        aligned = alignment(found[0].leading, found[1].leading)
        # The residual over the gap to the next value, about 1e-2 of the largest.
        chex.assert_trees_all_close(aligned, expected, atol=tolerance)


def test_a_joint_layer_is_not_aligned_with_single_examples(wide):
    params, x = weights(1), normal(5, NUM, WIDTH)
    joint = Traced(normalised, params, x).spectra(vectors=True)
    single = Traced(dense, params, x).spectra(vectors=True)
    assert alignment(single[0].leading, joint[0].leading) is None


def test_top_k_keeps_the_largest_of_what_is_written_out():
    params, x = weights(), normal(5, NUM, WIDTH)
    traced = Traced(dense, params, x)
    for few, whole in zip(traced.spectra(top_k=2), traced.spectra(), strict=True):
        chex.assert_trees_all_equal(few.spectrum.values, whole.spectrum.values[:, :2])
        assert few.spectrum.errors.shape == (NUM, 2)
        chex.assert_trees_all_equal(
            few.spectrum.frobenius_square, whole.spectrum.frobenius_square
        )


def relu(params, x):
    for w in params:
        x = jax.nn.relu(x @ w)
    return x


@pytest.mark.parametrize("max_dense", [1024, 20])
def test_degenerate_jacobians_have_no_nan_and_right_values(max_dense):
    """Of low rank, with dead units, of rank one with a dead example, zero."""
    size, w = 40, normal(1, 40, 40) / np.sqrt(40)
    alive = jnp.arange(size)[None] < 3
    x = normal(5, NUM, size)
    few, flat = jnp.where(alive, w, 0), jnp.outer(jnp.abs(w[0]), w[1])
    flat = flat.at[:, 0].set(0)
    params = [few, flat, 0 * w]
    spectra = Traced(relu, params, x).spectra(max_dense=max_dense, vectors=True)
    for found, w in zip(spectra, params, strict=True):
        z = x @ w
        slopes = np.asarray(z > 0, np.float64)
        exact = np.linalg.svd(slopes[:, None] * np.asarray(w, float), compute_uv=False)
        x = jax.nn.relu(z)
        spectrum = found.spectrum
        values = exact[:, : spectrum.values.shape[1]]
        # Below the largest ones only rounding of the largest is left.
        tolerance = 1e-5 * exact[:, 0].max()
        chex.assert_trees_all_close(spectrum.values, values, rtol=1e-5, atol=tolerance)
        for estimate in (spectrum.largest, spectrum.mean_square, spectrum.stable_rank):
            assert np.isfinite([estimate.value, estimate.error]).all()
        dead = exact[:, 0] == 0
        assert (np.isnan(found.leading.left).all(axis=1) == dead).all()
        assert (spectrum.stable_rank.value[dead] == 0).all()
    assert dead.all()


def test_float64_networks_have_values_to_float64():
    with jax.enable_x64(True):
        params = [(normal(i, 40, 40), jnp.zeros((1, 40))) for i in range(2)]
        x = 0.1 * normal(5, NUM, 40)
        assert x.dtype == jnp.float64
        traced = Traced(dense, params, x)
        expected = by_hand(dense, params, x)
        for found, jacobian in zip(traced.spectra(), expected, strict=True):
            exact = np.linalg.svd(np.asarray(jacobian), compute_uv=False)
            chex.assert_trees_all_close(found.spectrum.values, exact, rtol=1e-6)
            assert (
                np.abs(found.spectrum.values - exact) <= found.spectrum.errors
            ).all()
            chex.assert_trees_all_close(
                found.spectrum.values[:, 0], exact[:, 0], rtol=1e-12
            )
