"""Gram matrices of Jacobians with common rows, and of those that only look like it."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.spectra.dense import decompose, dense_spectrum
from gradstab.spectra.shared_gram import _common, gram_matrices


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def scaled_rows(dtype, transposed=False, shape=(6, 9)):
    """diag(s_i) W, or W diag(s_i), rounded once."""
    factors, weights = normal(0, 5, shape[0]), normal(1, *shape)
    jacobians = (factors[:, :, None] * weights).astype(dtype)
    return jacobians.swapaxes(1, 2) if transposed else jacobians


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_common_rows_are_multiplied_once(dtype, transposed):
    jacobians = scaled_rows(dtype, transposed)
    common = _common(jacobians, transposed)
    assert common is not None
    gram_of = gram_matrices(jacobians)
    for matrix in jacobians:
        wide = matrix.astype(np.float64)
        flat, gram = gram_of(matrix, wide)
        assert flat.shape == (6, 9)
        size = np.sum(np.square(wide))
        np.testing.assert_allclose(
            gram, flat @ flat.T, atol=10 * np.finfo(dtype).eps * size
        )


@pytest.mark.parametrize("side", [False, True])
def test_a_square_jacobian_may_share_rows_or_columns(side):
    jacobians = scaled_rows(np.float64, side, shape=(7, 7))
    assert _common(jacobians, side) is not None
    assert _common(jacobians, not side) is None
    values = decompose(jacobians, vectors=True)
    left, expected, right = np.linalg.svd(jacobians)
    np.testing.assert_allclose(values.values, expected, rtol=1e-9)
    along = np.abs(np.sum(values.left * left[:, :, 0], axis=1))
    np.testing.assert_allclose(along, 1, atol=1e-9)
    along = np.abs(np.sum(values.right * right[:, 0], axis=1))
    np.testing.assert_allclose(along, 1, atol=1e-9)


def test_units_that_are_dead_in_some_examples_or_in_all_are_no_trouble():
    jacobians = scaled_rows(np.float32)
    jacobians[0, 2] = 0
    jacobians[:, 4] = 0
    assert _common(jacobians, False) is not None
    found = decompose(jacobians)
    expected = np.linalg.svd(jacobians.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(found.values[:, :4], expected[:, :4], rtol=1e-6)


@pytest.mark.parametrize("power", [-480, 480])
def test_sizes_whose_squares_leave_the_range_are_no_trouble(power):
    jacobians = np.ldexp(scaled_rows(np.float64), power)
    found = decompose(jacobians)
    expected = np.linalg.svd(np.ldexp(jacobians, -power), compute_uv=False)
    np.testing.assert_allclose(np.ldexp(found.values, -power), expected, rtol=1e-9)


def test_one_example_with_other_rows_is_multiplied_by_itself():
    jacobians = scaled_rows(np.float32)
    jacobians[2, 3, 1] *= np.float32(1 + 1e-5)  # a hundred times its rounding
    gram_of = gram_matrices(jacobians)
    wide = jacobians[2].astype(np.float64)
    _, gram = gram_of(jacobians[2], wide)
    np.testing.assert_array_equal(gram, wide @ wide.T)


def test_unrelated_jacobians_share_nothing():
    assert _common(normal(0, 4, 6, 6), False) is None
    jacobians = scaled_rows(np.float32)
    jacobians[0, 0, 0] = np.nan
    assert _common(jacobians, False) is None


def test_arrays_of_jax_are_decomposed_as_those_of_numpy():
    jacobians = scaled_rows(np.float32)
    found = dense_spectrum(jnp.asarray(jacobians))
    np.testing.assert_array_equal(found.values, dense_spectrum(jacobians).values)
