import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special

from gradstab.theory.quadrature import expectations

# Rounding of a sum of a thousand terms.
ROUNDING = 1000 * np.finfo(np.float64).eps

LEAK = 0.2
ODD_KINK = 0.3141  # not a round number: bisection has to find it


def odd_kink(x):
    return jnp.maximum(x - ODD_KINK, LEAK * x)


def density(z):
    return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def adaptive(f, *points):
    """The Gaussian average by SciPy's adaptive quadrature, cut at the kinks."""
    value, error = integrate.quad(
        lambda z: f(z) * density(z),
        -12,
        12,
        points=points,
        epsabs=0,
        epsrel=1e-12,
        limit=500,
    )
    assert error < 1e-11 * max(1, abs(value))
    return value


@pytest.mark.parametrize("q", [1e-30, 0.1, 1.0, 30.0, 1e24])
def test_relu_averages_are_halves_at_every_scale(q):
    moments = expectations(jax.nn.relu).moments(q)
    np.testing.assert_allclose(moments.square / q, 0.5, rtol=ROUNDING)
    np.testing.assert_allclose(moments.slope_square, 0.5, rtol=ROUNDING)
    np.testing.assert_allclose(moments.growth, 0.5, rtol=ROUNDING)
    np.testing.assert_allclose(moments.mean, np.sqrt(q / 2 / np.pi), rtol=ROUNDING)


@pytest.mark.parametrize("q", [0.3, 8.0, 100.0])
def test_tanh_averages_equal_adaptive_quadrature_at_every_scale(q):
    moments = expectations(jnp.tanh).moments(q)
    root = np.sqrt(q)
    square = adaptive(lambda z: np.tanh(root * z) ** 2, 0.0)
    slope = adaptive(lambda z: np.cosh(root * z) ** -4.0, 0.0)
    np.testing.assert_allclose(moments.square, square, rtol=0, atol=1e-12)
    np.testing.assert_allclose(moments.slope_square, slope, rtol=0, atol=1e-12)


def test_a_kink_at_no_round_number_costs_no_accuracy():
    place = ODD_KINK / (1 - LEAK)
    averages = expectations(odd_kink)
    np.testing.assert_allclose(averages.panels(1.0)[1], [place], atol=1e-12)
    open_gates = special.ndtr(-place)
    expected = open_gates + LEAK**2 * (1 - open_gates)
    slopes = averages.moments(1.0).slope_square
    np.testing.assert_allclose(slopes, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("activation", "kinks"),
    [
        (jax.nn.relu6, [0.0, 6.0]),
        (jax.nn.hard_tanh, [-1.0, 1.0]),
        (jax.nn.hard_swish, [-3.0, 3.0]),
        (jnp.sign, [0.0]),
        (jnp.tanh, []),
    ],
)
def test_the_kinks_of_an_activation_are_found(activation, kinks):
    np.testing.assert_array_equal(expectations(activation).panels(1.0)[1], kinks)


@pytest.mark.parametrize("gap", [1e-6, 1e-3, 0.2, 1.0, 1.99])
def test_relu_pairs_follow_the_arc_cosine_kernels(gap):
    pair = expectations(jax.nn.relu).pair(1.0, 1.0, gap)
    angle = 2 * np.arcsin(np.sqrt(gap / 2))
    c, s = 1 - gap, np.sqrt(gap * (2 - gap))
    product = (s + (np.pi - angle) * c) / (2 * np.pi)
    np.testing.assert_allclose(pair.product, product, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(pair.slopes, 0.5 - angle / (2 * np.pi), atol=1e-12)
    # 1/2 - product loses its digits near c = 1: eps / gap of it.
    np.testing.assert_allclose(
        pair.half_gap, 0.5 - product, rtol=ROUNDING + 1e-15 / gap
    )


def test_erf_pairs_follow_the_arcsine_law():
    # Williams (1997), Computing with infinite networks: E erf(u) erf(v).
    pair = expectations(jax.scipy.special.erf).pair(1.3, 0.6, 0.4)
    covariance = 0.6 * np.sqrt(1.3 * 0.6)
    sine = 2 * covariance / np.sqrt((1 + 2 * 1.3) * (1 + 2 * 0.6))
    np.testing.assert_allclose(pair.product, 2 / np.pi * np.arcsin(sine), atol=1e-12)


def test_growth_is_the_derivative_of_the_square():
    averages = expectations(odd_kink)
    step = 1e-5
    difference = averages.moments(1 + step).square - averages.moments(1 - step).square
    # Truncation is of order step^2, rounding eps / step.
    np.testing.assert_allclose(
        averages.moments(1.0).growth, difference / (2 * step), atol=1e-9
    )


def test_an_activation_in_float32_is_averaged_to_its_own_precision():
    rounded = expectations(lambda x: jnp.tanh(x.astype(jnp.float32)))
    exact = expectations(jnp.tanh).moments(1.0)
    eps = np.finfo(np.float32).eps
    np.testing.assert_allclose(rounded.moments(1.0), exact, rtol=0, atol=10 * eps)


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (jax.nn.softmax, "each entry by itself"),
        (jnp.sum, "each entry by itself"),
        (lambda x: jnp.log(x + 1.5), "not a number|1e5 pieces|each entry"),
        (lambda x: jnp.sin(1e9 * x), "1e5 pieces"),
    ],
    ids=["softmax", "sum", "log", "noise"],
)
def test_what_has_no_length_map_is_refused(activation, message):
    with pytest.raises(ValueError, match=message):
        expectations(activation).moments(1.0)


def test_several_variances_and_a_mean_are_averaged_at_once():
    q, mean = np.array([0.2, 3.0, 40.0]), -0.7
    moments = expectations(jax.nn.relu).many(q, mean)
    # E max(0, m + s z) = m Phi(m / s) + s phi(m / s), and so on.
    root, share = np.sqrt(q), special.ndtr(mean / np.sqrt(q))
    spike = root * density(mean / root)
    expected = mean * share + spike, (mean**2 + q) * share + mean * spike, share
    found = moments.mean, moments.square, moments.slope_square
    # Of the largest entry: the smallest are what is left of larger ones.
    np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING * 40)


def test_a_rule_for_the_backward_direction_is_enough():
    @jax.custom_vjp
    def straight_through(x):
        return jnp.sign(x)

    straight_through.defvjp(lambda x: (jnp.sign(x), None), lambda _, g: (0.5 * g,))
    moments = expectations(straight_through).moments(2.0)
    np.testing.assert_allclose(moments.square, 1.0, rtol=ROUNDING)
    np.testing.assert_allclose(moments.slope_square, 0.25, rtol=ROUNDING)
