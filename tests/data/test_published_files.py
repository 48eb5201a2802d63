"""The real MNIST and Fashion-MNIST, where the machine has them."""

import functools

import chex
import numpy as np
import pytest

from gradstab.data import load

# Class counts of the 10,000 test images: the published ones of MNIST; Fashion-MNIST is
# balanced by construction.
TEST_COUNTS = {
    "mnist": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
    "fashion-mnist": [1000] * 10,
}


@functools.cache
def load_here(name):
    try:
        return load(name, may_download=False)
    except FileNotFoundError as error:
        return error


@pytest.fixture(params=TEST_COUNTS)
def published(request):
    data = load_here(request.param)
    if isinstance(data, FileNotFoundError):
        pytest.skip(f"{request.param} is in neither GRADSTAB_DATA_DIR nor the cache")
    return data


def test_the_published_files_have_the_known_sizes_and_counts(published):
    chex.assert_shape(published.x_train, (55_000, 784))
    chex.assert_shape(published.x_val, (5_000, 784))
    chex.assert_shape(published.x_test, (10_000, 784))
    assert np.bincount(published.y_test).tolist() == TEST_COUNTS[published.name]
    assert (published.x_train.min(), published.x_train.max()) == (0, 1)


def test_mnist_begins_with_a_five_and_a_zero():
    data = load_here("mnist")
    if isinstance(data, FileNotFoundError):
        pytest.skip("mnist is in neither GRADSTAB_DATA_DIR nor the cache")
    assert data.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    # Not all classes are alike, so the entropy is a little below ln 10 = 2.3026.
    assert 2.300 < data.baseline < 2.302
