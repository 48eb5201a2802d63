"""Singular values of Jacobians that are written out, known on paper."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.spectra import dense_jacobian, dense_spectrum, jacobian_map
from gradstab.spectra.dense import decompose


def _linear(matrix, x, **options):
    return jacobian_map(lambda x: x @ matrix.T, (x,), coupled=False, **options)


ORTHOGONAL = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
KNOWN = {
    "diagonal": (np.diag([1.0, -3.0, 2.0]), [3, 2, 1]),
    "orthogonal": (ORTHOGONAL, [1, 1, 1, 1]),
    "rank one": (np.outer([3.0, 4.0], [1.0, 2.0, 2.0]), [15, 0]),
    "zero": (np.zeros((2, 3)), [0, 0]),
    "one column": (np.array([[3.0], [4.0]]), [5]),
}


@pytest.mark.parametrize(("matrix", "values"), KNOWN.values(), ids=KNOWN)
def test_singular_values_known_on_paper_are_exact(matrix, values):
    found = dense_spectrum(matrix[None])
    chex.assert_trees_all_close(found.values, np.array([values], float), atol=1e-14)
    assert found.shape == matrix.shape
    assert np.all(np.isfinite(found.mean_square.value))


@pytest.mark.parametrize("power", [-800, 800])
def test_entries_whose_squares_leave_the_range_of_float64_are_no_trouble(power):
    matrix = np.random.default_rng(1).normal(size=(5, 4))
    # A power of two changes no digit.
    expected = np.ldexp(decompose(matrix[None]).values, power)
    found = decompose(np.ldexp(matrix, power)[None])
    chex.assert_trees_all_close(found.values, expected, rtol=1e-12)


def test_the_mean_square_is_that_of_a_random_direction():
    matrix = np.random.default_rng(1).normal(size=(5, 3))
    found = dense_spectrum(matrix[None]).mean_square
    expected = np.sum(matrix**2) / 3
    chex.assert_trees_all_close(found.value[0], expected, rtol=1e-13)
    assert 0 < found.error[0] < 1e-14 * expected * 30
    directions = np.random.default_rng(2).normal(size=(3, 200_000))
    directions /= np.linalg.norm(directions, axis=0)
    gains = np.sum((matrix @ directions) ** 2, axis=0)
    # Four standard errors of the sampled mean.
    assert abs(gains.mean() - expected) < 4 * gains.std() / np.sqrt(200_000)


def test_the_largest_value_has_an_error_that_covers_it():
    """In float32 the value errs by no more than its stated rounding."""
    rng = np.random.default_rng(3)
    for size in (3, 30):
        exact = rng.normal(size=(size, size))
        rounded = dense_spectrum(jnp.asarray(exact, jnp.float32)[None])
        true = np.linalg.norm(exact, 2)
        assert abs(rounded.largest.value[0] - true) <= rounded.largest.error[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_jacobian_that_is_not_finite_has_no_values_and_harms_no_other(bad):
    matrices = np.stack([np.diag([1.0, 2.0]), np.array([[bad, 0], [0, 1]])])
    found = dense_spectrum(matrices)
    chex.assert_trees_all_close(found.values[0], np.array([2.0, 1.0]))
    assert np.all(np.isnan(found.values[1]))
    assert np.isnan(found.largest.mean)
    assert np.isnan(dense_spectrum(matrices[1:]).values).all()


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(jnp.float32, (2, 5)), (jnp.bfloat16, (5, 2)), (jnp.float16, (300, 4))],
)
def test_forward_and_backward_products_build_the_same_jacobian(dtype, shape):
    matrix = jax.random.normal(jax.random.key(0), shape).astype(dtype)
    linear = _linear(matrix, jnp.ones((3, shape[1]), dtype))
    both = dense_jacobian(linear)
    backward = dense_jacobian(
        _linear(matrix, jnp.ones((3, shape[1]), dtype), forward=False)
    )
    expected = jnp.broadcast_to(matrix[None], (3, *shape))
    # One term of each sum is not zero: no rounding at all.
    chex.assert_trees_all_equal(both, expected)
    chex.assert_trees_all_equal(backward, expected)


def test_jacobians_are_those_of_each_example():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    w = jax.random.normal(jax.random.key(1), (3, 2))

    def function(x):
        return jnp.tanh(x @ w)

    found = dense_jacobian(jacobian_map(function, (x,), coupled=False))
    expected = jax.vmap(jax.jacfwd(lambda x: function(x[None])[0]))(x)
    # The slope 1 - tanh^2 of a saturated unit is a difference of numbers near one.
    chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=2e-7)


def test_a_coupled_function_has_one_joint_jacobian():
    x = jax.random.normal(jax.random.key(0), (3, 2))

    def function(x):
        return x - jnp.mean(x, axis=0, keepdims=True)

    found = dense_jacobian(jacobian_map(function, (x,), coupled=True))
    expected = jax.jacfwd(function)(x).reshape(1, 6, 6)
    chex.assert_trees_all_close(found, expected, atol=1e-7)
    values = dense_spectrum(found, coupled=True).values
    # Subtracting the mean is a projection: four ones, two zeros.
    chex.assert_trees_all_close(values, np.array([[1.0, 1, 1, 1, 0, 0]]), atol=1e-6)


def test_inputs_and_outputs_may_differ_in_dtype():
    """As in mixed precision: float32 enters, bfloat16 leaves."""

    def function(x, y):
        return x.astype(jnp.bfloat16) + 2 * y

    data = (jnp.ones((2, 3)), jnp.ones((2, 3), jnp.bfloat16))
    for forward in (True, False):
        linear = jacobian_map(function, data, coupled=False, forward=forward)
        found = dense_jacobian(linear).astype(jnp.float32)
        expected = jnp.concatenate([jnp.eye(3), 2 * jnp.eye(3)], axis=1)
        chex.assert_trees_all_equal(found, jnp.stack([expected] * 2))


def test_products_forward_and_backward_are_adjoint():
    w = jax.random.normal(jax.random.key(0), (3, 5))
    x, v, u = (
        jax.random.normal(jax.random.key(i), shape)
        for i, shape in enumerate([(2, 3), (2, 3), (2, 5)], start=1)
    )
    linear = jacobian_map(lambda x: jnp.sin(x @ w), (x,), coupled=False)
    left = jnp.sum(u * linear.matvec(v), axis=1)
    right = jnp.sum(linear.rmatvec(u) * v, axis=1)
    chex.assert_trees_all_close(left, right, rtol=1e-5)


def test_only_the_first_examples_are_kept():
    linear = _linear(jnp.eye(3), jnp.ones((5, 3)))
    chex.assert_shape(dense_jacobian(linear, num_examples=2), (2, 3, 3))


def test_a_dense_jacobian_survives_jit():
    w = jax.random.normal(jax.random.key(0), (3, 3))

    def build(x):
        return dense_jacobian(jacobian_map(lambda x: x @ w, (x,), coupled=False))

    x = jnp.ones((2, 3))
    chex.assert_trees_all_close(jax.jit(build)(x), build(x), rtol=1e-6)


def test_arrays_of_jax_are_decomposed_as_those_of_numpy():
    jacobians = np.random.default_rng(0).standard_normal((3, 4, 5), np.float32)
    found = dense_spectrum(jnp.asarray(jacobians))
    np.testing.assert_array_equal(found.values, dense_spectrum(jacobians).values)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e-30, 1e30, 1e200, 1e300])
def test_the_stable_rank_does_not_depend_on_the_size_of_the_jacobian(size):
    matrices = np.random.default_rng(0).standard_normal((3, 6, 5))
    one = dense_spectrum(matrices)
    found = dense_spectrum(matrices * size)
    for name in ("value", "low", "high"):
        expected = getattr(one.stable_rank, name)
        chex.assert_trees_all_close(getattr(found.stable_rank, name), expected)
    values = np.linalg.svd(matrices, compute_uv=False)
    expected = np.sum(values**2, axis=1) / values[:, 0] ** 2
    chex.assert_trees_all_close(found.stable_rank.value, expected, rtol=1e-12)


def test_a_zero_jacobian_has_stable_rank_zero():
    assert dense_spectrum(np.zeros((1, 3, 4))).stable_rank.value == 0
