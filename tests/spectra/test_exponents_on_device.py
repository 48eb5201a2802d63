"""Exponents by batched QR on the device, against those of the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.spectra.exponents import exponents
from gradstab.spectra.exponents_on_device import sweep_on_device
from gradstab.spectra.linear_map import LinearMap
from gradstab.spectra.lyapunov import lyapunov


def layers_of(kind, num=8, width=6, dtype=np.float64):
    rng = np.random.default_rng(0)
    found = rng.standard_normal((num, 2, width, width)) / width**0.5
    if kind == "graded":
        found = found * np.geomspace(1, 1e-3, width)
    elif kind == "tiny":
        found = found * (1e-200 if dtype == np.float64 else 1e-30)
    elif kind == "huge":
        found = found * (1e200 if dtype == np.float64 else 1e30)
    elif kind == "rank-deficient":
        found[3, 0, :, :2] = 0
    elif kind == "zero":
        found[:, 0] = 0
    elif kind == "NaN":
        found[2, 1, 0, 0] = np.nan
    return list(found.astype(dtype))


KINDS = ("Gaussian", "graded", "tiny", "huge", "rank-deficient", "zero", "NaN")


def _agree(ours, theirs, errors):
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    np.testing.assert_array_equal(np.isneginf(ours), np.isneginf(theirs))
    finite = np.isfinite(theirs)
    distance = np.abs(np.where(finite, ours, 0) - np.where(finite, theirs, 0))
    assert np.all(distance[finite] <= errors[finite])


@pytest.mark.parametrize("kind", KINDS)
def test_exponents_are_those_of_the_host(kind):
    layers = layers_of(kind)
    ours = exponents(layers, spectra_on="device")
    theirs = exponents(layers, spectra_on="host")
    _agree(ours.values, theirs.values, ours.errors + theirs.errors + 1e-9)
    np.testing.assert_allclose(ours.errors, theirs.errors, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_without_float64_they_are_within_their_stated_errors(kind, monkeypatch):
    monkeypatch.setattr(
        "gradstab.spectra.exponents_on_device.has_float64", lambda: False
    )
    layers = layers_of(kind, dtype=np.float32)
    ours = exponents(layers, spectra_on="device")
    theirs = exponents([np.asarray(one, np.float64) for one in layers])
    _agree(ours.values, theirs.values, ours.errors + 1e-9)
    # Of a direction that a layer shrinks a thousandfold four digits are left, and a
    # tenth of that after errors that add up; of others nearly all seven.
    most = 0.1 if kind == "graded" else 1e-3
    assert np.nanmax(np.where(np.isfinite(ours.errors), ours.errors, 0)) < most


def test_a_layer_that_is_known_by_products_is_followed_as_well():
    gains = jnp.asarray([[3.0, 1.0, 0.5], [2.0, 1.0, 0.0]])
    layer = LinearMap(lambda v: v * gains, lambda w: w * gains, 2, (3, 3))
    found = exponents([layer] * 5, spectra_on="device")
    with np.errstate(divide="ignore"):
        expected = np.log(np.asarray(gains, float))
    np.testing.assert_allclose(found.values, expected, atol=1e-6)


def test_lyapunov_exponents_are_those_of_the_host():
    steps = layers_of("Gaussian", num=64, width=4)
    ours = lyapunov(steps, num_values=3, spectra_on="device")
    theirs = lyapunov(steps, num_values=3, spectra_on="host")
    np.testing.assert_allclose(ours.values, theirs.values, rtol=1e-9)
    np.testing.assert_allclose(ours.errors, theirs.errors, rtol=1e-6)


def test_the_basis_stays_on_the_device_between_sweeps():
    layers = layers_of("Gaussian", num=2)
    start = np.broadcast_to(np.eye(6), (2, 6, 6))
    basis, (mantissa, exponent), noise = sweep_on_device(
        layers, start, backward=False, max_bytes=2**28
    )
    assert isinstance(basis, jax.Array)
    product = np.ldexp(mantissa, exponent[:, :, None].astype(np.int32))
    whole = np.asarray(basis) @ product
    np.testing.assert_allclose(whole, layers[1] @ layers[0], atol=1e-12)
    assert np.all(noise > 0)
