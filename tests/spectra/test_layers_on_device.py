"""Spectra of whole networks with ``spectra_on='device'``: the host's, without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from gradstab.spectra import dense, of_layers

pytestmark = pytest.mark.usefixtures("quick_compiler")


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def dense_network():
    def apply(params, x):
        for w in params:
            x = jnp.tanh(x @ w)
        return x

    return apply, [normal(i, 6, 6) / 6**0.5 for i in range(3)], normal(9, 5, 6)


def convolutions():
    def apply(params, x):
        for w in params:
            x = jnp.tanh(
                jax.lax.conv_general_dilated(
                    x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )
            )
        return x

    return apply, [normal(i, 3, 3, 2, 2) / 4 for i in range(2)], normal(9, 3, 8, 8, 2)


def coupled():
    def apply(params, x):
        for w in params:
            x = x @ w
            x = jnp.tanh(x - jnp.mean(x, axis=0, keepdims=True))
        return x

    return apply, [normal(i, 4, 4) for i in range(2)], normal(9, 5, 4)


def recurrent():
    model = gs.models.build(
        "lstm", in_shape=(8, 3), num_outputs=2, depth=1, width=4, seed=0
    )
    return model, normal(9, 5, 8, 3)


def _report(made, **options):
    return gs.analyze(*made(), progress=False, **options)


def _close(ours, theirs):
    # Beside the largest, values are as exact as float32 keeps the Jacobian's entries.
    size = {"rtol": 1e-6, "atol": 1e-7 * np.max(theirs.values)}
    np.testing.assert_allclose(ours.values, theirs.values, **size)
    assert ours.method == theirs.method
    assert np.all(np.abs(ours.values - theirs.values) <= ours.errors + theirs.errors)


@pytest.mark.slow
@pytest.mark.parametrize("made", [dense_network, convolutions, coupled, recurrent])
@pytest.mark.parametrize("precision", ["float64", "own"])
def test_an_analysis_is_the_same_on_the_device(made, precision, monkeypatch):
    theirs = _report(made, precision=precision, spectra_on="host")

    def refuse(*_):
        raise AssertionError("a Jacobian went to LAPACK on the host")

    monkeypatch.setattr(dense, "over_matrices", refuse)
    ours = _report(made, precision=precision, spectra_on="device")
    for one, other in zip(ours.layers, theirs.layers, strict=True):
        _close(one.jacobian, other.jacobian)
        if one.alignment is not None:
            np.testing.assert_allclose(one.alignment, other.alignment, atol=1e-4)
    tolerance = ours.exponent_errors + theirs.exponent_errors + 1e-6
    both = np.isfinite(theirs.exponents)
    np.testing.assert_array_equal(np.isfinite(ours.exponents), both)
    distance = np.abs(ours.exponents[both] - theirs.exponents[both])
    assert np.all(distance <= tolerance[both])
    for one, other in zip(ours.recurrences, theirs.recurrences, strict=True):
        np.testing.assert_allclose(one.exponents, other.exponents, rtol=1e-4, atol=1e-6)
        for here, there in zip(one.jacobians, other.jacobians, strict=True):
            _close(here, there)
    assert (ours.verdict, ours.made["spectra_on"]) == (theirs.verdict, "device")


@pytest.mark.slow
def test_the_sum_of_squares_by_colours_is_the_same_on_the_device(monkeypatch):
    options = {"max_dense": 1, "layers": [0], "precision": "own"}
    theirs = _report(convolutions, spectra_on="host", **options).layers[0].jacobian
    called = []
    original = of_layers.square_sums

    def counted(*args):
        called.append(args)
        return original(*args)

    monkeypatch.setattr(of_layers, "square_sums", counted)
    ours = _report(convolutions, spectra_on="device", **options).layers[0].jacobian
    assert called
    assert isinstance(called[0][0], jax.Array)
    for name in ("value", "low", "high"):
        np.testing.assert_allclose(
            getattr(ours.frobenius_square, name),
            getattr(theirs.frobenius_square, name),
            rtol=1e-5,
        )


def test_another_place_is_refused_before_any_work():
    with pytest.raises(ValueError, match="spectra_on must be 'auto', 'device' or 'hos"):
        _report(dense_network, spectra_on="tpu")
