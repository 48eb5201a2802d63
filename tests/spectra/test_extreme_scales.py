"""Jacobians whose squares leave the range of float64, and all that is made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from gradstab.records import Estimate, Spectrum, root_mean_square
from gradstab.spectra.dense import dense_spectrum

SIZES = (1e-200, 1e-155, 1e155, 1e200)

# Rounding of a decomposition and of a sum of some hundred squares.
ROUNDING = 1e-12


def _linear(weights, x):
    for w in weights:
        x = x @ w
    return x


def _analyzed(size, width, *, theory=False, **options):
    """Two layers: gains of a size, and the same gains over it."""
    rng = np.random.default_rng(0)
    first, second, x = rng.standard_normal((3, width, width))
    weights = [first * size, second / size]
    return gs.analyze(
        _linear,
        weights,
        x[:3],
        theory=theory,
        progress=False,
        loss=jnp.mean,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"width": 8}, {"width": 144, "top_k": 2}])
@pytest.mark.parametrize("size", SIZES)
def test_a_scale_of_the_weights_is_one_of_every_number(size, options):
    plain, scaled = _analyzed(1.0, **options), _analyzed(size, **options)
    for one, other, factor in zip(
        plain.layers, scaled.layers, (size, 1 / size), strict=True
    ):
        a, b = one.jacobian, other.jacobian
        assert a.method == b.method
        np.testing.assert_allclose(b.values / factor, a.values, rtol=1e-9)
        np.testing.assert_allclose(b.errors / factor, a.errors, rtol=0.1, atol=1e-9)
        for name, power in (
            ("stable_rank", 0),
            ("root_mean_square", 1),
            ("frobenius_norm", 1),
        ):
            found, expected = getattr(b, name), getattr(a, name)
            for end in ("value", "low", "high"):
                np.testing.assert_allclose(
                    getattr(found, end) / factor**power,
                    getattr(expected, end),
                    rtol=1e-9,
                )
        # Their product is in range: what leaves the network has the size that it had.
        for name in ("forward_rms", "param_norm"):
            assert np.isfinite(getattr(other, name))
            assert getattr(other, name) > 0
    np.testing.assert_allclose(scaled.exponents, plain.exponents, atol=1e-9)
    np.testing.assert_allclose(
        scaled.layers[0].gradient_norm * size, plain.layers[0].gradient_norm
    )


@pytest.mark.parametrize("size", SIZES)
def test_norms_of_a_spectrum_are_in_range_where_their_squares_are_not(size):
    spectrum = dense_spectrum(np.diag([3.0, 4.0])[None] * size)
    np.testing.assert_allclose(spectrum.frobenius_norm.value, 5 * size, rtol=ROUNDING)
    np.testing.assert_allclose(spectrum.root_mean_square.value, 12.5**0.5 * size)
    np.testing.assert_allclose(spectrum.stable_rank.value, 25 / 16, rtol=ROUNDING)
    assert spectrum.frobenius_norm.low < 5 * size * (1 + ROUNDING)
    assert spectrum.frobenius_norm.high > 5 * size * (1 - ROUNDING)


def test_a_spectrum_saved_without_a_relative_square_has_its_norms():
    square = Estimate.within(np.array([25.0]), np.array([1.0]))
    old = Spectrum(np.array([[4.0, 3.0]]), np.zeros((1, 2)), square, shape=(2, 2))
    np.testing.assert_allclose(old.frobenius_norm.value, 5)
    np.testing.assert_allclose(old.frobenius_norm.high, 26**0.5)


def test_a_zero_jacobian_has_zero_norms():
    spectrum = dense_spectrum(np.zeros((1, 2, 2)))
    found = (spectrum.frobenius_norm, spectrum.root_mean_square, spectrum.stable_rank)
    assert [float(one.value[0]) for one in found] == [0, 0, 0]


@pytest.mark.parametrize("size", SIZES)
def test_a_root_mean_square_has_the_scale_of_its_entries(size):
    rows = np.array([[3.0, 4.0], [0.0, 0.0]]) * size
    expected = np.array([12.5**0.5 * size, 0.0])
    np.testing.assert_allclose(root_mean_square(rows, 1), expected, rtol=ROUNDING)
    assert np.isnan(root_mean_square([1.0, np.nan]))
    assert np.isinf(root_mean_square([1.0, np.inf]))


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_a_state_of_any_size_has_its_size_along_time(size):
    """h' = h w with w a rotation keeps its norm."""
    turn = jnp.array([[0.8, -0.6], [0.6, 0.8]])

    def rotate(w, x):
        def step(h, u):
            return h @ w + 0 * u, None

        return jax.lax.scan(step, x[:, 0], x.swapaxes(0, 1))[0]

    x = np.random.default_rng(0).standard_normal((3, 6, 2)) * size
    report = gs.analyze(rotate, turn, x, theory=False, progress=False)
    (recurrence,) = report.recurrences
    expected = root_mean_square(x[:, 0])
    np.testing.assert_allclose(recurrence.state_rms, expected, rtol=1e-6)
    assert recurrence.forward.law == "constant"


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_theory_says_that_it_has_no_word_for_squares_out_of_range(size):
    report = _analyzed(size, 8, theory=True)
    assert report.theory is None
    assert any("out of range" in note for note in report.notes)
