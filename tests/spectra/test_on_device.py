"""Singular values by the programs of an accelerator, against LAPACK on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.device_spectra import KINDS, SHAPES, Config, exact, matrices, outside
from gradstab.spectra import dense, dense_spectrum
from gradstab.spectra.dense import decompose
from gradstab.spectra.on_device import decompose_on_device
from gradstab.spectra.placement import on_device

FEW = Config(cases=2)
ONE, *OTHERS = [(12, 70), *(shape for shape in SHAPES if shape != (12, 70))]


@pytest.mark.parametrize("wide", [True, False], ids=["in float64", "in float32"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "shapes", [[ONE], pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["one", "all"]
)
def test_values_agree_with_lapack_to_their_stated_errors(shapes, dtype, wide):
    for kind in KINDS:
        for shape in shapes:
            wrong, _, ratio = outside(matrices(kind, shape, dtype, FEW), wide)
            assert wrong == 0, (kind, shape)
            assert ratio < 1


def test_small_values_are_lost_if_the_gram_matrix_is_one_of_float32():
    """Why a device without float64 decomposes the matrices themselves."""
    given = matrices("Gaussian", (64, 64), "float32", FEW)
    true = exact(given)
    lost = np.linalg.eigvalsh(given @ given.swapaxes(1, 2))[:, ::-1]
    lost = np.sqrt(np.maximum(lost, 0))
    found = decompose_on_device(given, wide=False)
    assert np.max(np.abs(lost - true) / true) > 20 * np.max(
        np.abs(found.values - true) / true
    )
    assert found.method == "svd"


@pytest.mark.parametrize("wide", [True, False])
def test_leading_vectors_are_those_of_the_host(wide):
    rng = np.random.default_rng(0)
    given = rng.standard_normal((3, 12, 70)).astype(np.float32)
    given[1] = 0
    for one in (given, given.swapaxes(1, 2)):
        ours = decompose_on_device(one, vectors=True, wide=wide)
        theirs = decompose(one, vectors=True, spectra_on="host")
        for side in ("left", "right"):
            cosines = np.abs(
                np.sum(getattr(ours, side) * getattr(theirs, side), axis=1)
            )
            np.testing.assert_allclose(cosines[[0, 2]], 1, atol=1e-5)
            assert np.isnan(cosines[1])


def test_subnormal_numbers_that_a_device_takes_for_zero_are_in_the_error():
    given = np.full((1, 4, 4), 1e-40, np.float32)
    found = decompose_on_device(jnp.asarray(given), wide=True)
    distance = np.abs(found.values - exact(given))
    assert np.all(distance <= found.errors)
    assert np.all(found.errors < 1e-36)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.complex64])
def test_other_numbers_are_those_of_the_host(dtype):
    given = jax.random.normal(jax.random.key(0), (3, 5, 4)).astype(dtype)
    if dtype == jnp.complex64:
        given = given + 1j * jnp.flip(given, 2)
    ours = dense_spectrum(given, spectra_on="device")
    theirs = dense_spectrum(given, spectra_on="host")
    np.testing.assert_allclose(ours.values, theirs.values, rtol=1e-12)
    np.testing.assert_allclose(ours.errors, theirs.errors, rtol=1e-12)
    assert ours.shape == theirs.shape
    assert ours.method == theirs.method


def test_double_precision_is_decomposed_where_the_gram_matrix_would_lose_values():
    given = matrices("wide spread", (40, 12), "float64", FEW)
    found = decompose_on_device(given)
    assert found.method == "svd"
    assert np.all(found.errors[:, -1] < 1e-13 * found.values[:, 0])


def test_a_cpu_takes_the_host_and_an_accelerator_itself_but_for_small_ones(monkeypatch):
    assert not on_device("auto", 16, (512, 512))
    assert on_device("device", 1, (1, 1))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert on_device("auto", 16, (512, 512))
    assert not on_device("auto", 16, (10, 10))
    assert not on_device("host", 16, (512, 512))
    # A long one is no small transfer.
    assert on_device("auto", 16, (10, 2**20))


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_double_precision_is_rounded_within_the_range_of_the_device(size):
    with jax.enable_x64(True):
        given = jnp.asarray(matrices("Gaussian", (5, 5), "float64", FEW) * size)
        found = decompose_on_device(given, wide=False)
    assert np.all(np.abs(found.values - exact(np.asarray(given))) <= found.errors)
    assert np.all(found.errors < 1e-5 * found.values[:, :1])


def test_only_the_host_uses_its_lapack(monkeypatch):
    def refuse(*_):
        raise AssertionError("a Jacobian went to LAPACK on the host")

    monkeypatch.setattr(dense, "over_matrices", refuse)
    given = matrices("Gaussian", (12, 70), "float32", FEW)
    found = dense_spectrum(given, spectra_on="device")
    assert np.all(np.abs(found.values - exact(given)) <= found.errors)
    with pytest.raises(AssertionError, match="went to LAPACK"):
        dense_spectrum(given, spectra_on="host")


def test_another_place_is_refused():
    with pytest.raises(ValueError, match="spectra_on must be 'auto', 'device' or 'hos"):
        dense_spectrum(np.eye(2)[None], spectra_on="gpu")
