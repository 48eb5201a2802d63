import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.theory import critical_sigma_w, mean_field
from gradstab.theory.quadrature import expectations

pytestmark = pytest.mark.cases

# tanh, sigma_b^2 = 0.05: sigma_w^2, q*, chi, c*, xi_q, xi_c, xi_grad, rounded to the
# digits shown; computed apart from this package.
TANH = [
    (0.5, 0.08758, 0.43199, 1, 1.009, 1.191, 1.191),
    (1.0, 0.19359, 0.75903, 1, 1.748, 3.627, 3.627),
    (1.3, 0.31532, 0.88016, 1, 1.785, 7.834, 7.834),
    (1.5, 0.41804, 0.93864, 1, 1.683, 15.79, 15.79),
    (1.7, 0.53308, 0.98674, 1, 1.558, 74.9, 74.9),
    (2.0, 0.72176, 1.04767, 0.74408, 1.388, 25.21, -21.48),
    (2.5, 1.06396, 1.13352, 0.44680, 1.180, 11.80, -7.979),
    (3.0, 1.42801, 1.20893, 0.29932, 1.041, 9.051, -5.270),
    (4.0, 2.19549, 1.34240, 0.16506, 0.873, 6.980, -3.396),
]
CRITICAL_RELU = 2**0.5


def softsign(x):
    return x / (1 + jnp.abs(x))


def leaky_sine(x):
    return jnp.maximum(x, 0.1 * x) + 0.5 * jnp.sin(x)


@pytest.mark.parametrize("row", TANH, ids=lambda row: f"{row[0]}")
def test_tanh_has_the_tabulated_fixed_points_and_depth_scales(row):
    field = mean_field(jnp.tanh, row[0] ** 0.5, 0.05**0.5)
    fixed = [field.q_star, field.chi, field.c_star]
    np.testing.assert_allclose(fixed, row[1:4], rtol=0, atol=5.1e-6)
    scales = [field.xi_q, field.xi_c, field.xi_grad]
    np.testing.assert_allclose(scales, row[4:], rtol=6e-4)
    assert field.phase == ("ordered" if row[2] < 1 else "chaotic")


@pytest.mark.parametrize(
    ("sigma_w", "q_star", "chi", "c_star"),
    [
        (1.3, 0.60705, 0.93981, 1.0),
        (2.5, 4.07912, 1.58524, 0.12210),
        # SciPy's; too few Gauss-Hermite nodes give 12.60152, 2.38799, 0.02977.
        (4.0, 12.604149, 2.367261, 0.029696),
    ],
)
def test_poole_panels_are_reproduced(sigma_w, q_star, chi, c_star):
    field = mean_field(jnp.tanh, sigma_w, 0.3)
    fixed = [field.q_star, field.chi, field.c_star]
    # The source's Gauss-Hermite rule errs by 1e-5 in chi at q = 4.
    np.testing.assert_allclose(fixed, [q_star, chi, c_star], rtol=2e-5, atol=5.1e-6)


@pytest.mark.parametrize(
    ("sigma_w", "sigma_b", "q_star", "chi"),
    [(1.0, 0.0, 0.264687, 0.055721), (1.0, 1.0, 1.302134, 0.041960)],
)
def test_sigmoid_has_its_tabulated_fixed_points(sigma_w, sigma_b, q_star, chi):
    field = mean_field(jax.nn.sigmoid, sigma_w, sigma_b)
    np.testing.assert_allclose([field.q_star, field.chi], [q_star, chi], atol=6e-7)


def test_selu_normalises_lengths_and_explodes_gradients():
    field = mean_field(jax.nn.selu, 1.0)
    np.testing.assert_allclose(field.q_star, 1.0, rtol=1e-12)
    np.testing.assert_allclose(field.chi, 1.071575, atol=6e-7)
    np.testing.assert_allclose(field.gradient_rate, np.log(field.chi) / 2, rtol=1e-14)
    np.testing.assert_allclose(field.c_star, 0.0, atol=1e-12)


def test_correlations_under_relu_follow_the_arc_cosine_recursion():
    correlations = mean_field(jax.nn.relu, CRITICAL_RELU).correlations(51)
    chex.assert_shape(correlations, (51,))
    c = 0.0
    for measured in correlations:
        np.testing.assert_allclose(measured, c, rtol=0, atol=1e-12)
        c = (np.sqrt(1 - c**2) + (np.pi - np.arccos(c)) * c) / np.pi
    tabulated = [0.31831, 0.49373, 0.73595, 0.87154, 0.94843, 0.98786]
    np.testing.assert_allclose(
        correlations[[1, 2, 5, 10, 20, 50]], tabulated, atol=5.1e-6
    )


@pytest.mark.slow
def test_the_recursions_converge_to_the_fixed_point():
    field = mean_field(jnp.tanh, 2.0, 0.05**0.5)
    chex.assert_shape((field.lengths(3), field.chis(3)), (3,))
    left = np.exp(-80 / field.xi_c)  # of a deviation of at most two
    np.testing.assert_allclose(field.lengths(80)[-1], field.q_star, rtol=1e-12)
    np.testing.assert_allclose(field.chis(80)[-1], field.chi, rtol=1e-12)
    near, far = field.correlations(80, c0=0.9), field.correlations(80, q0=3, other_q0=1)
    np.testing.assert_allclose(near[-1], field.c_star, rtol=0, atol=2 * left)
    np.testing.assert_allclose(far[-1], field.c_star, rtol=0, atol=2 * left)


def test_correlations_leave_the_fixed_point_at_the_rate_that_chi_says():
    # The slope of the correlation map at c = 1 is chi.
    field = mean_field(leaky_sine, 1.1, 0.3)
    gap = 1e-9
    correlation = field.correlations(10, c0=1.0, q0=2.0)
    np.testing.assert_allclose(correlation, 1.0, rtol=0, atol=1e-12)
    first = 1 - gap
    covariance = (field.q_star * first - 0.09) / 1.21
    q0 = (field.q_star - 0.09) / 1.21
    second = field.correlations(2, c0=covariance / q0, q0=q0)
    ratio = (1 - second[1]) / (1 - second[0])
    # 1 - c has eps / gap of relative rounding.
    np.testing.assert_allclose(ratio, field.chi, rtol=1e-5)


def simulate(activation, sigma_w, sigma_b, inputs, depth, rng):
    """Variance, correlation and squared gain per layer of one wide network."""
    width = inputs.shape[1]
    h, rows, u = inputs, [], np.zeros(width)
    for layer in range(depth + 1):
        w = sigma_w * rng.standard_normal((width, width)) / np.sqrt(width)
        if layer:
            rows[-1].append(np.mean((u @ w) ** 2))
        z = h @ w + sigma_b * rng.standard_normal(width)
        (q, covariance), (_, other) = z @ z.T / width
        rows.append([q, covariance / np.sqrt(q * other)])
        z = jnp.asarray(z, jnp.float32)
        h, slope = map(np.asarray, jax.jvp(activation, (z,), (jnp.ones_like(z),)))
        u = slope[0] * rng.choice([-1, 1], width)
    return np.array(rows[:-1]).T


@pytest.mark.parametrize(
    ("activation", "sigma_w", "sigma_b"),
    [(softsign, 2.5, 0.3), (leaky_sine, 1.0, 0.2)],
    ids=["softsign", "leaky sine"],
)
def test_wide_networks_of_activations_in_no_table_agree(activation, sigma_w, sigma_b):
    width, depth = 2000, 4
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((2, width))
    inputs /= np.sqrt(np.mean(inputs**2, axis=1, keepdims=True))
    c0 = inputs[0] @ inputs[1] / width
    measured = simulate(activation, sigma_w, sigma_b, inputs, depth, rng)
    field = mean_field(activation, sigma_w, sigma_b)
    expected = [
        field.lengths(depth),
        field.correlations(depth, c0=c0),
        field.chis(depth),
    ]
    # A mean square of n Gaussians errs by sqrt(2 / n) of itself, and so does what is
    # handed on by each layer before; a correlation by 1 / sqrt(n) at most.
    layers = np.arange(1, depth + 1)
    error = np.sqrt(2 * layers / width)
    for ours, theirs in zip(measured, expected, strict=True):
        assert np.all(np.abs(ours - theirs) < 4 * error * np.maximum(theirs, 0.7))


MISTAKES = {
    "slope not squared": lambda m, w, b: w**2 * np.sqrt(m.slope_square),
    "sigma_w not squared": lambda m, w, b: w * m.slope_square,
    "square of the activation": lambda m, w, b: w**2 * m.square,
    "bias added": lambda m, w, b: w**2 * m.slope_square + b**2,
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_the_table_tells_a_wrong_chi_from_the_right_one(mistake):
    errors = [
        mistake(expectations(jnp.tanh).moments(q_star), weights**0.5, 0.05**0.5) - chi
        for weights, q_star, chi, *_ in TANH
    ]
    assert max(map(abs, errors)) > 0.04


@pytest.mark.parametrize(
    ("activation", "scales", "expected"),
    [
        (jax.nn.relu, (2**0.5, 0.0), (2.0, 1.0, 1.0, np.inf, np.inf, np.inf)),
        (jax.nn.relu, (2**0.5, 0.1), (np.inf, 1.0, 1.0, np.inf, np.inf, np.inf)),
        (jax.nn.relu, (2.0, 0.1), (np.inf, 2, 1, -1.4427, np.inf, -1.4427)),
        (jax.nn.relu, (1.0, 0.0), (0, 0.5, 1, 1.4427, np.inf, 1.4427)),
        (jax.nn.relu, (1.0, 1.0), (2, 0.5, 1, 1.4427, 1.4427, 1.4427)),
        (jnp.tanh, (0.5, 0.0), (0, 0.25, 1, 0.72135, np.inf, 0.72135)),
        (jnp.tanh, (1.0, 0.0), (0, 1, 1, np.inf, np.inf, np.inf)),
        (jnp.tanh, (0.0, 1.0), (1, 0, 1, 0, 0, 0)),
        (jnp.tanh, (0.0, 0.0), (0, 0, 1, 0, 0, 0)),
        (jnp.positive, (1.0, 0.0), (1, 1, 1, np.inf, np.inf, np.inf)),
        (jnp.positive, (1.0, 0.5), (np.inf, 1, 1, np.inf, np.inf, np.inf)),
        (jnp.positive, (0.5, 0.5), (1 / 3, 0.25, 1, 0.72135, 0.72135, 0.72135)),
        (jnp.zeros_like, (1.0, 0.0), (0, 0, 1, 0, 0, 0)),
        (jnp.exp, (1.0, 0.0), (np.inf, np.inf, np.nan, 0, np.nan, 0)),
    ],
)
def test_degenerate_networks_have_their_limits(activation, scales, expected):
    field = mean_field(activation, *scales)
    measured = [field.q_star, field.chi, field.c_star]
    measured += [field.xi_q, field.xi_c, field.xi_grad]
    np.testing.assert_allclose(measured, expected, rtol=1e-5)


def test_recursions_survive_overflow_and_underflow():
    exploding, vanishing = mean_field(jax.nn.relu, 1e3), mean_field(jax.nn.relu, 1e-3)
    assert exploding.lengths(60)[-1] == np.inf
    assert vanishing.lengths(60)[-1] == 0
    np.testing.assert_allclose(exploding.chis(60), 5e5, rtol=1e-12)
    np.testing.assert_allclose(vanishing.chis(60), 5e-7, rtol=1e-12)
    for field in (exploding, vanishing):
        assert np.all(np.isfinite(field.correlations(60)))


def test_of_several_fixed_points_that_of_the_inputs_counts():
    # x^2 has V(q) = 3 sigma_w^2 q^2: zero attracts below 1 / (3 sigma_w^2), infinity
    # above.
    assert mean_field(jnp.square, 0.5, q0=4.0).q_star == 0
    assert mean_field(jnp.square, 0.5, q0=6.0).q_star == np.inf


def test_a_field_passes_through_jit():
    field = mean_field(jnp.tanh, 1.5, 0.1)
    chi = jax.jit(lambda field: field.chi)(field)
    np.testing.assert_allclose(chi, field.chi, rtol=1e-6)


@pytest.mark.parametrize("scales", [(-1.0, 0.0), (1.0, -0.1), (np.nan, 0.0)])
def test_negative_scales_are_refused(scales):
    with pytest.raises(ValueError, match="must be a number from 0"):
        mean_field(jnp.tanh, *scales)


KINKED = {
    "clipped": lambda x: jnp.clip(x, -1, 1),
    "clipped on one side": lambda x: jnp.minimum(x, 0.7),
    "clipped relu": lambda x: jnp.clip(x, 0, 2),
}


@pytest.mark.parametrize("chi_less_one", [1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("activation", KINKED.values(), ids=KINKED)
def test_beside_a_kink_correlations_settle_in_twice_the_scale_of_gradients(
    activation, chi_less_one
):
    # 1 - c falls by 1 + (chi - 1) - k sqrt(1 - c) a layer. Where that is one its
    # derivative is 1 - (chi - 1) / 2, however small the fixed point is.
    sigma_w = critical_sigma_w(activation, sigma_b=0.5)
    field = mean_field(activation, sigma_w * (1 + chi_less_one), 0.5)
    assert field.chi > 1
    assert field.c_star <= 1
    assert field.xi_c == pytest.approx(2 / (field.chi - 1), rel=0.02)


@pytest.mark.parametrize("distance", [1e-2, 1e-4, 1e-6])
def test_in_the_ordered_phase_correlations_settle_as_squared_gradients(distance):
    sigma_w = critical_sigma_w(jnp.tanh, sigma_b=0.3) * (1 - distance)
    field = mean_field(jnp.tanh, sigma_w, 0.3)
    assert field.c_star == 1
    assert field.xi_c == pytest.approx(field.xi_grad, rel=1e-14)
