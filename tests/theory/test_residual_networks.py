import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.theory import residual


def test_relu_blocks_double_the_squared_norm_exactly():
    network = residual(jax.nn.relu, 10, 1.0, sigma_v=2**0.5)
    chex.assert_shape(network.lengths, (11,))
    np.testing.assert_allclose(network.gains, 2.0, rtol=1e-12)
    np.testing.assert_allclose(network.lengths, 2.0 ** np.arange(11), rtol=1e-12)


def test_a_branch_scaled_by_the_root_of_depth_keeps_growth_below_e():
    network = residual(jax.nn.relu, 100, 1.0, sigma_v=2**0.5, alpha=0.1)
    np.testing.assert_allclose(network.log_growth, 100 * np.log(1.01), rtol=1e-12)


def trapezoid(depth):
    """The recursion of x + tanh(W x) by the trapezoidal rule, apart from the library.

    It converges like exp(-2 pi a / h), a the distance of the nearest pole from the
    real axis; here a > 0.15.
    """
    h = 0.02
    z = np.arange(-10, 10, h)
    weights = h * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    p, log_growth = 1.0, 0.0
    for _ in range(depth):
        x = np.sqrt(p) * z
        log_growth += np.log1p(weights @ np.cosh(x) ** -4.0)
        p += weights @ np.tanh(x) ** 2
    return log_growth


@pytest.mark.parametrize("depth", [10, 25, 50, 100])
def test_reduced_tanh_blocks_follow_the_recursion(depth):
    network = residual(jnp.tanh, depth, 1.0)
    np.testing.assert_allclose(network.log_growth, trapezoid(depth), rtol=1e-10)


def test_reduced_tanh_blocks_grow_with_the_root_of_depth():
    depths = np.array([100, 400, 900])
    grown = [residual(jnp.tanh, depth, 1.0).log_growth for depth in depths]
    rates = np.diff(grown) / np.diff(np.sqrt(depths))
    errors = rates / (4 / 3 * np.sqrt(2 / np.pi)) - 1
    # Corrections fall like 1 over the root of depth.
    assert np.all(np.abs(errors) < 1 / np.sqrt(depths[:-1]))
    assert abs(errors[1]) < abs(errors[0])


def test_wide_reduced_blocks_gather_the_mean_of_the_activation():
    width, depth, sigma_w, alpha = 2000, 4, 0.9, 0.7
    rng = np.random.default_rng(2)
    x = rng.standard_normal(width)
    x = (x - x.mean()) / x.std()
    network = residual(jax.nn.softplus, depth, sigma_w, alpha=alpha)
    u, lengths, gains = rng.standard_normal(width), [], []
    for _ in range(depth):
        w = sigma_w * rng.standard_normal((width, width)) / np.sqrt(width)
        z = w @ x
        pushed = u + alpha * (w @ u) / (1 + np.exp(-z))
        gains.append(pushed @ pushed / (u @ u))
        x, u = x + alpha * np.logaddexp(0, z), rng.standard_normal(width)
        lengths.append(np.mean(x**2))
    # Means of squares over the width, handed on from layer to layer.
    error = 4 * np.sqrt(2 * depth / width)
    np.testing.assert_allclose(lengths, network.lengths[1:], rtol=error)
    np.testing.assert_allclose(gains, network.gains, rtol=error)


def test_forgetting_the_square_of_the_branch_factor_would_be_seen():
    right = residual(jax.nn.relu, 1, 1.0, sigma_v=2**0.5, alpha=0.5).gains[0]
    np.testing.assert_allclose(right, 1.25, rtol=1e-12)
    assert abs(right - (1 + 0.5)) > 0.1
