"""The largest and the median entry, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.network.extremes import largest, typical
from gradstab.network.underflow import num_clear_steps, underflow_step


def _normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_they_are_those_of_numpy_over_all_parts():
    parts = _normal(3, 5), _normal(4, 2, 2)
    magnitudes = np.abs(np.concatenate([part.ravel() for part in parts]))
    assert float(largest(*parts)) == magnitudes.max()
    assert float(typical(*parts)) == np.sort(magnitudes)[magnitudes.size // 2]


def test_zeros_of_a_rectifier_do_not_lower_the_median():
    x = np.maximum(_normal(101), 0)
    alive = np.sort(x[x > 0])
    assert float(typical(x)) == alive[alive.size // 2]
    assert float(typical(np.zeros(5, np.float32))) == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64"])
def test_other_dtypes_are_widened(dtype):
    x = jnp.asarray([3.0, -4.0, 1.0]).astype(dtype)
    assert float(largest(x)) == 4
    assert largest(x).dtype == jnp.float32
    assert float(typical(x)) == 3


def test_an_empty_array_is_zero_and_nan_stays():
    empty = np.zeros((0, 3), np.float32)
    assert float(largest(empty)) == float(typical(empty)) == 0
    assert np.isnan(largest(np.float32([1, np.nan])))


def test_the_sample_of_a_large_array_looks_at_all_channels():
    """A spacing with a factor of the channels' number would see one of them."""
    x = np.tile(np.float32([1, 1, 1, 9, 9, 9, 9, 9]), 2**14) * (
        1 + 0.01 * _normal(2**17)
    )
    assert float(jax.jit(typical)(x)) > 8


def test_a_zero_after_what_is_tiny_in_its_dtype_is_underflow():
    assert underflow_step([1.0, 1e-20, 1e-37, 0, 0], "float32") == 3
    assert underflow_step([1.0, 1e-20, 1e-37, 0, 0], "float64") is None
    assert underflow_step([1.0, 1e-5, 0, 0], "float16") == 2
    assert underflow_step([1.0, 1e-5, 0, 0], "float32") is None
    assert underflow_step([1.0, 0.5, 0.2], "float32") is None
    assert num_clear_steps([1.0, 1e-20, 1e-31, 1e-37, 0], "float32") == 2
    assert num_clear_steps([1.0, 1e-31, 1.0], "float32") == 3
