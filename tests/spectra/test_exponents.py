import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.spectra.exponents import exponents
from gradstab.spectra.linear_map import LinearMap, jacobian_map

DIGITS = 400


def reference(layers):
    """Exponents of one product, multiplied and decomposed in 400-digit arithmetic."""
    mpmath = pytest.importorskip(
        "mpmath", reason="mpmath, the reference, is in the test extra"
    )
    with mpmath.workdps(DIGITS):
        product = mpmath.matrix(layers[0][0].astype(np.float64).tolist())
        for layer in layers[1:]:
            product = mpmath.matrix(layer[0].astype(np.float64).tolist()) * product
        values = mpmath.svd_r(product, compute_uv=False)
        # Below 10^-300 of the largest they are zero to 400 digits.
        nothing = mpmath.mpf(10) ** -300 * values[0]
        logs = [float(mpmath.log(v)) if v > nothing else -math.inf for v in values]
    return np.sort(np.array(logs) / len(layers))[::-1]


def random_layers(widths, dtype=np.float64, num=1, seed=0):
    """Gaussian layers with slopes between 0.05 and 1, as those of a saturating net."""
    rng = np.random.default_rng(seed)
    return [
        (
            rng.uniform(0.05, 1, (num, n_out, 1))
            * rng.standard_normal((num, n_out, n_in))
            / math.sqrt(n_in)
        ).astype(dtype)
        for n_in, n_out in itertools.pairwise(widths)
    ]


def as_maps(layers, dtype=jnp.float32):
    """The layers as linear maps that compute in a dtype."""

    def one(layer):
        matrix = jnp.asarray(layer, dtype)
        return LinearMap(
            lambda v: jnp.einsum("boi,bi->bo", matrix, v.astype(dtype)),
            lambda w: jnp.einsum("boi,bo->bi", matrix, w.astype(dtype)),
            len(layer),
            layer.shape[1:],
        )

    return [one(layer) for layer in layers]


either_kind = pytest.mark.parametrize(
    "kind", [lambda layers: layers, as_maps], ids=["arrays", "maps"]
)


@pytest.fixture(scope="module")
def deep():
    """Sixty layers, whose singular values spread over 60 orders of magnitude."""
    layers = random_layers([12] * 61, np.float32)
    return layers, reference(layers)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sixty_layers_agree_with_400_digits(dtype, deep):
    layers, truth = deep
    assert truth[0] - truth[-1] > 2
    found = exponents([layer.astype(dtype) for layer in layers])
    # Rounding of 60 QR decompositions in float64, in logarithms of size 200.
    chex.assert_trees_all_close(found.values[0], truth, rtol=0, atol=1e-12)


def test_sixty_float32_maps_agree_with_400_digits_within_1e_5(deep):
    layers, truth = deep
    found = exponents(as_maps(layers))
    chex.assert_trees_all_close(found.values[0], truth, rtol=0, atol=1e-5)


def test_one_sweep_is_not_enough(deep):
    layers, truth = deep
    mutant = exponents(as_maps(layers), max_sweeps=1)
    assert np.max(np.abs(mutant.values[0] - truth)) > 1e-3


def test_the_svd_of_the_float32_product_is_not_enough(deep):
    layers, truth = deep
    product = layers[0][0]
    for layer in layers[1:]:
        product = layer[0] @ product
    values = np.linalg.svd(product, compute_uv=False)
    mutant = np.log(np.maximum(values, np.finfo(np.float32).tiny)) / len(layers)
    assert np.max(np.abs(mutant - truth)) > 0.1


@pytest.mark.parametrize("widths", [[6] * 4, [9, 5, 7], [4, 8], [8, 4], [3, 9, 9, 3]])
def test_shallow_products_agree_with_an_svd(widths):
    layers = random_layers(widths, num=3)
    product = layers[0]
    for layer in layers[1:]:
        product = layer @ product
    values = np.linalg.svd(product, compute_uv=False)
    expected = np.log(values[:, : min(widths)]) / len(layers)
    found = exponents(layers).values
    assert found.shape == (3, min(widths[0], widths[-1]))
    chex.assert_trees_all_close(found[:, : min(widths)], expected, rtol=1e-9)


def test_exponents_that_lie_close_agree_with_400_digits():
    layers = random_layers([32] * 11)
    truth = reference(layers)
    # They span more than float64 resolves, and neighbours differ by a factor of 3.
    assert 10 * (truth[0] - truth[-1]) > 30
    chex.assert_trees_all_close(exponents(layers).values[0], truth, rtol=0, atol=1e-12)


def test_a_bottleneck_gives_minus_infinity_beyond_its_width():
    layers = random_layers([10, 8, 3, 9, 7])
    found = exponents(layers).values[0]
    chex.assert_trees_all_close(found[:3], reference(layers)[:3], rtol=1e-9)
    assert found.shape == (7,)
    assert (found[3:] == -np.inf).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@either_kind
def test_a_rank_deficient_layer_gives_minus_infinity(kind, dtype):
    layers = random_layers([8] * 11, dtype)
    factors = random_layers([8, 2, 8])
    layers[4] = (factors[1] @ factors[0]).astype(dtype)
    found = exponents(kind(layers)).values[0]
    exact = [layer.astype(np.float64) for layer in layers]
    exact[4] = factors[1] @ factors[0]
    chex.assert_trees_all_close(found[:2], reference(exact)[:2], atol=1e-5)
    assert (found[2:] == -np.inf).all()


@either_kind
def test_dead_units_leave_as_many_exponents_as_the_narrowest_layer_has_live_ones(kind):
    layers = random_layers([8] * 13, np.float32)
    layers[3][:, :3] = 0
    layers[9][:, :, 6:] = 0
    found = exponents(kind(layers)).values[0]
    assert (found[5:] == -np.inf).all()
    chex.assert_trees_all_close(found[:5], reference(layers)[:5], atol=1e-5)


@either_kind
def test_a_dead_layer_gives_minus_infinity_everywhere(kind):
    layers = random_layers([5] * 9, np.float32, num=2)
    layers[4][0] = 0
    found = exponents(kind(layers))
    assert (found.values[0] == -np.inf).all()
    assert np.isfinite(found.values[1]).all()
    assert not np.isnan(found.errors).any()


def test_an_example_that_is_not_finite_is_nan_and_leaves_the_others_alone():
    layers = random_layers([5] * 9, num=2)
    alone = exponents([layer[1:] for layer in layers]).values[0]
    layers[4][0, 0, 0] = np.nan
    found = exponents(layers).values
    assert np.isnan(found[0]).all()
    chex.assert_trees_all_close(found[1], alone, rtol=1e-9)


def test_exponents_of_layers_far_out_of_range_are_finite():
    layers = [np.diag([1e100, 1e98, 1e96])[None]] * 2000
    found = exponents(layers).values[0]
    expected = math.log(10) * np.array([100, 98, 96])
    chex.assert_trees_all_close(found, expected, rtol=1e-12, atol=1e-12)


def test_isometries_have_exponents_zero():
    layers = [np.linalg.qr(layer)[0] for layer in random_layers([20] * 31, num=2)]
    chex.assert_trees_all_close(exponents(layers).values, np.zeros((2, 20)), atol=1e-13)


def test_scaling_every_layer_shifts_every_exponent():
    layers = random_layers([7] * 21)
    one = exponents(layers).values
    found = exponents([3 * layer for layer in layers]).values
    chex.assert_trees_all_close(found, one + math.log(3), rtol=1e-10)


def test_the_transposed_product_has_the_same_exponents():
    layers = random_layers([6, 9, 7, 6])
    transposed = [layer.swapaxes(1, 2) for layer in reversed(layers)]
    pair = exponents(layers).values, exponents(transposed).values
    chex.assert_trees_all_close(*pair, rtol=1e-9)


@either_kind
@pytest.mark.parametrize("num_layers", [3, 40])
def test_the_largest_exponents_are_found_by_a_block(kind, num_layers):
    layers = random_layers([60] * (num_layers + 1), np.float32)
    every = exponents(layers).values
    found = exponents(kind(layers), top_k=3, max_sweeps=40)
    assert found.values.shape == (1, 3)
    chex.assert_trees_all_close(found.values, every[:, :3], rtol=0, atol=1e-5)


def test_the_change_bounds_the_error_of_a_block_that_is_too_small():
    layers = random_layers([100] * 3)
    truth = exponents(layers).values[:, :2]
    found = exponents(layers, top_k=2, max_sweeps=2)
    error = np.abs(found.values - truth)
    assert (error > 1e-6).any()
    # Sweeps converge linearly, so what is left is like what was gained.
    assert (error <= found.errors).all()


def test_it_takes_the_maps_of_a_function():
    weights = jax.random.normal(jax.random.key(0), (5, 10, 10)) / 3
    x = jax.random.normal(jax.random.key(1), (2, 10))
    maps, denses = [], []
    for weight in weights:

        def layer(x, weight=weight):
            return jnp.tanh(x @ weight)

        maps.append(jacobian_map(layer, (x,), coupled=False))
        denses.append(jax.vmap(jax.jacfwd(layer))(x))
        x = layer(x)
    pair = exponents(maps).values, exponents(denses).values
    chex.assert_trees_all_close(*pair, rtol=0, atol=1e-5)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="no layers given"):
        exponents([])
    with pytest.raises(
        ValueError, match="layer 1 takes 4 numbers, but layer 0 gives 3"
    ):
        exponents([np.ones((1, 3, 2)), np.ones((1, 3, 4))])
    with pytest.raises(ValueError, match="layer 1 has shape"):
        exponents([np.ones((1, 3, 2)), np.ones((2, 3, 3))])
