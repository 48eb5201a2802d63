import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.theory import critical_sigma_w, mean_field, singular_values

HE = 2**0.5
DEPTHS = [8, 16, 32]


def edge(depth):
    """Linear Gaussian networks: (L+1)^(L+1) / L^L, a Fuss-Catalan edge, rooted."""
    return ((depth + 1) ** (depth + 1) / depth**depth) ** 0.5


@pytest.mark.parametrize("depth", DEPTHS)
def test_linear_gaussian_networks_have_the_fuss_catalan_edge(depth):
    spectrum = singular_values(mean_field(jnp.positive, 1.0), depth)
    np.testing.assert_allclose(spectrum.largest, edge(depth), rtol=1e-9)
    np.testing.assert_allclose(spectrum.variance, depth, rtol=1e-12)
    np.testing.assert_allclose(spectrum.mean_square, 1.0, rtol=1e-12)


@pytest.mark.parametrize("depth", DEPTHS)
def test_orthogonal_relu_networks_are_no_isometry(depth):
    spectrum = singular_values(mean_field(jax.nn.relu, HE), depth, orthogonal=True)
    np.testing.assert_allclose(spectrum.largest, edge(depth - 1), rtol=1e-9)
    np.testing.assert_allclose(spectrum.variance, depth, rtol=1e-12)


@pytest.mark.parametrize(
    ("depth", "largest"), [(8, 6.5992), (16, 9.3281), (32, 13.1903)]
)
def test_gaussian_relu_networks_have_the_tabulated_edge(depth, largest):
    spectrum = singular_values(mean_field(jax.nn.relu, HE), depth)
    np.testing.assert_allclose(spectrum.largest, largest, rtol=0, atol=5.1e-5)
    np.testing.assert_allclose(spectrum.variance, 2 * depth, rtol=1e-12)


@pytest.mark.parametrize(
    ("biases", "spread"),
    [(2.01e-5, 0.00427), (1e-3, 0.04405), (0.05, 0.34226), (0.5, 1.02871)],
)
def test_orthogonal_tanh_networks_approach_isometry_as_biases_vanish(biases, spread):
    sigma_w = critical_sigma_w(jnp.tanh, biases**0.5)
    field = mean_field(jnp.tanh, sigma_w, biases**0.5)
    orthogonal = singular_values(field, 50, orthogonal=True)
    gaussian = singular_values(field, 50)
    np.testing.assert_allclose(orthogonal.variance / 50, spread, rtol=0, atol=5.1e-6)
    np.testing.assert_allclose(gaussian.variance - orthogonal.variance, 50, rtol=1e-9)
    assert orthogonal.largest < gaussian.largest


def test_an_orthogonal_linear_network_is_an_isometry():
    spectrum = singular_values(mean_field(jnp.positive, 1.0), 50, orthogonal=True)
    np.testing.assert_allclose(spectrum.variance, 0.0, atol=1e-10)
    # The search stops at a relative distance of 1e-6 above the edge.
    np.testing.assert_allclose(spectrum.largest, 1.0, atol=1e-4)


def test_random_matrices_of_a_tanh_network_follow_the_moments():
    width, depth, trials = 200, 6, 20
    rng = np.random.default_rng(0)
    sigma_b2 = 0.05
    sigma_w = critical_sigma_w(jnp.tanh, sigma_b2**0.5)
    field = mean_field(jnp.tanh, sigma_w, sigma_b2**0.5)
    q, spreads, tops = field.q_star, [], []
    for _ in range(trials):
        product = np.eye(width)
        for _ in range(depth):
            weights, _ = np.linalg.qr(rng.standard_normal((width, width)))
            slopes = np.cosh(np.sqrt(q) * rng.standard_normal(width)) ** -2.0
            product = sigma_w * weights @ (slopes[:, None] * product)
        squares = np.linalg.svd(product, compute_uv=False) ** 2
        spreads.append(np.mean(squares**2) / np.mean(squares) ** 2 - 1)
        tops.append(squares[0] ** 0.5)
    spectrum = singular_values(field, depth, orthogonal=True)
    error = np.std(spreads) / np.sqrt(trials)
    # Corrections of relative order depth / width, besides the error of the mean.
    slack = 4 * error + spectrum.variance * depth / width
    np.testing.assert_allclose(np.mean(spreads), spectrum.variance, rtol=0, atol=slack)
    # Edges fluctuate on the scale width^(-2/3).
    np.testing.assert_allclose(
        np.mean(tops), spectrum.largest, rtol=2 * 200 ** (-2 / 3)
    )


def test_a_network_without_gradients_has_no_spectrum():
    with pytest.raises(ValueError, match="has no spectrum"):
        singular_values(mean_field(jnp.sign, 1.0), 3)
    with pytest.raises(ValueError, match="at least one layer"):
        singular_values(mean_field(jnp.tanh, 1.0), 0)
