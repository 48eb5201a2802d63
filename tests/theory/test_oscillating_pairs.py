"""Activations that oscillate many times within a standard deviation of their input."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.theory import mean_field, pairs
from gradstab.theory.quadrature import expectations


def _sine_pair(q, other, gap):
    """E sin u sin v, E cos u cos v: the law of the cosine of a Gaussian."""
    covariance = (1 - gap) * math.sqrt(q * other)
    apart = math.exp(-(q + other - 2 * covariance) / 2)
    joined = math.exp(-(q + other + 2 * covariance) / 2)
    squares = sum((1 - math.exp(-2 * v)) / 2 for v in (q, other))
    product = (apart - joined) / 2
    return product, squares / 2 - product, (apart + joined) / 2


@pytest.mark.slow
@pytest.mark.parametrize(("q", "other"), [(5000.0, 5000.0), (400.0, 300.0)])
@pytest.mark.parametrize("gap", [1e-6, 1e-4, 1e-3, 0.1, 1.0, 1.5])
def test_pairs_of_a_fast_sine_follow_the_law_of_a_gaussian_cosine(q, other, gap):
    pair = expectations(jnp.sin).pair(q, other, gap)
    np.testing.assert_allclose(pair, _sine_pair(q, other, gap), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [10.0, 100.0])
def test_a_sine_comes_to_rest_at_half_of_large_weights(scale):
    """q = sigma_w^2 (1 - exp(-2 q)) / 2, and E sin u sin v is zero without biases."""
    field = mean_field(jnp.sin, sigma_w=scale)
    np.testing.assert_allclose(field.q_star, scale**2 / 2, rtol=1e-12)
    np.testing.assert_allclose(field.chi, scale**2 / 2, rtol=1e-12)
    assert abs(field.c_star) < 1e-12


@pytest.mark.slow
def test_with_biases_the_correlations_of_a_fast_sine_follow_its_recursion():
    """C(c) = (sigma_w^2 E sin u sin v + sigma_b^2) / q."""
    field = mean_field(jnp.sin, sigma_w=60.0, sigma_b=50.0)
    q = field.q_star
    np.testing.assert_allclose(q, 60.0**2 * (1 - math.exp(-2 * q)) / 2 + 2500.0)
    c = 0.5
    for _ in range(200):
        c = (60.0**2 * _sine_pair(q, q, 1 - c)[0] + 2500.0) / q
    np.testing.assert_allclose(field.c_star, c, rtol=1e-9)


def _triangle(x):
    return jnp.abs(x - 4 * jnp.round(x / 4)) - 1


WAVES = {
    "triangle": _triangle,
    "square wave": lambda x: jnp.sign(jnp.sin(3 * x)),
    "rectified sine": lambda x: jnp.abs(jnp.sin(3 * x)),
    "relu and cosine": lambda x: jax.nn.relu(x) + jnp.cos(4 * x),
}


@pytest.mark.slow
@pytest.mark.parametrize("gap", [1e-3, 0.2, 1.2])
@pytest.mark.parametrize("activation", WAVES.values(), ids=WAVES.keys())
def test_kinks_and_jumps_that_repeat_are_averaged_as_by_the_whole_integral(
    activation, gap
):
    q, other = 6.0, 4.0
    averages = expectations(activation)
    edges, kinks = averages.panels(np.sqrt(q))
    whole = averages.compiled(pairs._pair)(edges, kinks, q, other, gap)
    size = averages.moments(q).slope_square + averages.moments(q).square
    smoothed = pairs._smoothed(averages, edges, q, other, gap)
    np.testing.assert_allclose(smoothed, whole, rtol=0, atol=1e-12 * size / gap)
    window = pairs._window(edges, np.sqrt(gap * (2 - gap) * other))
    near = averages.compiled(pairs._within(window))(edges, kinks, q, other, gap)
    np.testing.assert_allclose(near, whole, rtol=0, atol=1e-14 * size)


def test_what_would_take_minutes_is_refused_and_says_so(monkeypatch):
    monkeypatch.setattr(pairs, "_MOST", 1e5)
    with pytest.raises(ValueError, match=r"oscillates less"):
        expectations(lambda x: jnp.sin(8 * x)).pair(30.0, 30.0, 1e-3)


def _snake(x):
    return x + jnp.sin(x) ** 2


@pytest.mark.slow
@pytest.mark.parametrize("sigma_w", [1.0, 1.3])
def test_lengths_that_grow_for_ever_have_no_fixed_point(sigma_w):
    # E x sin(x)^2 is zero, so that E phi^2 is q + 3/8 and E phi'^2 is 3/2 in the limit.
    found = mean_field(_snake, sigma_w=sigma_w, sigma_b=0.3)
    assert found.q_star == np.inf
    assert found.chi == pytest.approx(1.5 * sigma_w**2, rel=1e-9)
    growth = 2 * np.log(sigma_w)
    assert found.xi_q == pytest.approx(-1 / growth if growth else np.inf, rel=1e-9)
    # What is not known is not said: correlations move ever slower, or stay.
    assert np.isnan(found.c_star)
    assert np.isnan(found.xi_c)


def test_a_fixed_point_beyond_what_is_resolved_is_refused():
    with pytest.raises(ValueError, match=r"oscillates too often"):
        mean_field(jnp.sin, sigma_w=2000.0)
    with pytest.raises(ValueError, match=r"oscillates too often"):
        mean_field(jnp.sin, sigma_w=1.0).chis(2, q0=1e8)


@pytest.mark.parametrize(
    "activation",
    [
        lambda x: jnp.where(x > 0.5, 1.0, -0.5),
        lambda x: jnp.where(x > 0, x + 0.5, 0.0),
        jnp.tanh,
    ],
    ids=["step", "relu with a jump", "tanh"],
)
def test_the_depth_scale_of_lengths_is_that_of_the_recursion(activation):
    found = mean_field(activation, sigma_w=1.0, sigma_b=0.3)
    apart = np.abs(found.lengths(7) - found.q_star)[3:]
    rates = -np.log(apart[1:] / apart[:-1])
    assert 1 / rates[-1] == pytest.approx(found.xi_q, rel=0.02)
