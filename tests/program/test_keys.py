"""Keys that NumPy makes, against those of JAX."""

import jax
import numpy as np
import pytest

from gradstab.program.keys import keys_of, split_key


def words(keys):
    return np.stack([jax.random.key_data(key) for key in keys])


@pytest.mark.parametrize("seed", [0, 17, 2**32 - 1])
@pytest.mark.parametrize("num", [1, 5])
def test_keys_of_a_seed_are_those_that_jax_folds_and_splits(seed, num):
    apart = 123456789
    expected = jax.random.split(
        jax.random.fold_in(jax.random.key(np.uint32(seed)), apart), num
    )
    keys = keys_of(seed, num, apart=apart)
    np.testing.assert_array_equal(words(keys), jax.random.key_data(expected))
    assert keys[0].dtype == expected.dtype


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_a_key_is_split_as_jax_splits_it(kind):
    key = jax.random.key(3, impl=kind)
    expected = jax.random.key_data(jax.random.split(jax.random.clone(key), 4))
    np.testing.assert_array_equal(words(split_key(key, 4)), expected)


def test_keys_that_are_split_otherwise_are_left_to_jax():
    with jax.threefry_partitionable(False):
        key = jax.random.key(3)
        expected = jax.random.key_data(jax.random.split(jax.random.clone(key), 4))
        np.testing.assert_array_equal(words(split_key(key, 4)), expected)
