import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.theory import critical_sigma_w, depth_scale, half_stable_point, mean_field

pytestmark = pytest.mark.cases

# tanh: sigma_b^2, sigma_w^2, q*, xi_q. The last row of the source was made with too
# few Gauss-Hermite nodes for q = 3 (3.443207, 3.036393); these digits are SciPy's.
TANH = [
    (0.0, 1.0, 0.0, np.inf),
    (2.01e-5, 1.049996, 0.025919, 20.245),
    (1e-4, 1.086026, 0.045709, 11.864),
    (1e-3, 1.189190, 0.107292, 5.5165),
    (0.02, 1.544193, 0.371240, 2.0508),
    (0.05, 1.760955, 0.570048, 1.5211),
    (0.1, 1.986073, 0.805799, 1.2162),
    (0.2, 2.285152, 1.164496, 0.9753),
    (0.3, 2.505127, 1.461169, 0.8588),
    (0.5, 2.843167, 1.971031, 0.7333),
    (1.0, 3.443211, 3.036396, 0.5952),
]


def gelu(x):
    return jax.nn.gelu(x, approximate=False)


@pytest.mark.parametrize("row", TANH, ids=lambda row: f"{row[0]}")
def test_the_critical_line_of_tanh_is_the_tabulated_one(row):
    biases, weights, q_star, xi_q = row
    sigma_w = critical_sigma_w(jnp.tanh, biases**0.5)
    field = mean_field(jnp.tanh, sigma_w, biases**0.5)
    np.testing.assert_allclose(sigma_w**2, weights, rtol=0, atol=1e-6)
    np.testing.assert_allclose(field.q_star, q_star, rtol=0, atol=1e-6)
    np.testing.assert_allclose(field.xi_q, xi_q, rtol=1e-4)
    assert field.phase == "critical"


@pytest.mark.parametrize(
    ("activation", "sigma_b"),
    [
        (jax.nn.elu, 0.0),
        (jax.nn.elu, 0.5),
        (jax.nn.sigmoid, 0.0),
        (jax.nn.hard_tanh, 0.5),
        (jnp.sin, 0.3),
        (gelu, 0.5),
        (jax.nn.silu, 1.0),
    ],
)
def test_networks_at_the_critical_scale_are_critical(activation, sigma_b):
    field = mean_field(activation, critical_sigma_w(activation, sigma_b), sigma_b)
    assert field.phase == "critical"


@pytest.mark.parametrize("sigma_b", [0.0, 0.3])
@pytest.mark.parametrize(
    ("activation", "leak"), [(jax.nn.relu, 0), (jax.nn.leaky_relu, 0.01), (abs, 1)]
)
def test_leaky_relu_is_critical_at_the_scale_of_he(activation, leak, sigma_b):
    sigma_w = critical_sigma_w(activation, sigma_b)
    np.testing.assert_allclose(sigma_w, (2 / (1 + leak**2)) ** 0.5, rtol=1e-12)


@pytest.mark.parametrize(
    ("activation", "weights", "biases", "q_star"),
    [
        (gelu, 1.98305826, 0.17292239, (3 + 17**0.5) / 2),
        (jax.nn.silu, 1.98800468, 0.55514317, 14.3201736),
    ],
    ids=["gelu", "silu"],
)
def test_half_stable_points_are_those_of_the_book(activation, weights, biases, q_star):
    point = half_stable_point(activation)
    scales = [point.sigma_w**2, point.sigma_b**2]
    np.testing.assert_allclose(scales, [weights, biases], rtol=0, atol=1e-8)
    np.testing.assert_allclose(point.q_star, q_star, rtol=1e-8)


def test_larger_inputs_come_to_rest_at_the_half_stable_point():
    point = half_stable_point(gelu)
    field = mean_field(gelu, point.sigma_w, point.sigma_b, q0=3.0)
    # The length map touches the diagonal there: V(q) = q to 1e-8 holds within 1e-2.
    np.testing.assert_allclose(field.q_star, point.q_star, rtol=1e-2)


@pytest.mark.parametrize("activation", [gelu, jnp.square])
def test_where_only_unstable_points_are_critical_the_error_says_so(activation):
    with pytest.raises(ValueError, match="no sigma_w makes this activation critical"):
        critical_sigma_w(activation, 0.0)


def test_an_activation_without_half_stable_point_is_refused():
    with pytest.raises(ValueError, match="no half-stable"):
        half_stable_point(jnp.tanh)


def test_negative_biases_are_refused():
    with pytest.raises(ValueError, match="at least 0"):
        critical_sigma_w(jnp.tanh, -1.0)


@pytest.mark.parametrize(
    ("slope", "scale"),
    [(np.exp(-0.1), 10.0), (-np.exp(-0.1), 10.0), (np.exp(0.5), -2.0), (1.0, np.inf)],
)
def test_a_depth_scale_is_the_layers_for_a_factor_e(slope, scale):
    np.testing.assert_allclose(depth_scale(slope), scale, rtol=1e-12)
