"""Activations that jump, and lengths that grow slower and slower without an end."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.theory import critical_sigma_w, mean_field
from gradstab.theory.fixed_points import root


def _step(x):
    return jnp.where(x > 0, 1.0, 0.0)


def _step_and_line(x):
    return 1.3 * _step(x) + 0.1 * x


@pytest.mark.slow
def test_correlations_under_a_sign_come_to_rest_below_one():
    """c = (2 / pi asin c + sigma_b^2) / (1 + sigma_b^2)."""
    field = mean_field(jnp.sign, sigma_w=1.0, sigma_b=0.3)
    c = 0.5
    for _ in range(200):
        c = (2 / math.pi * math.asin(c) + 0.09) / 1.09
    np.testing.assert_allclose(field.c_star, c, rtol=1e-12)
    slope = 2 / math.pi / math.sqrt(1 - c**2) / 1.09
    np.testing.assert_allclose(field.xi_c, -1 / math.log(slope), rtol=1e-8)
    assert field.chi == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "sigma_w", "sigma_b"),
    [
        (_step, 1.5, 0.1),
        (_step_and_line, 2.0, 0.5),
        (jnp.round, 0.9, 0.2),
        (jnp.floor, 0.7, 0.2),
    ],
)
def test_the_fixed_point_is_where_the_recursion_ends(activation, sigma_w, sigma_b):
    field = mean_field(activation, sigma_w, sigma_b)
    for c0 in (0.1, 0.99):
        end = field.correlations(150, c0=c0)[-1]
        np.testing.assert_allclose(field.c_star, end, atol=1e-9)
    assert 0 < field.c_star < 1
    assert field.xi_c > 0


def _squareplus(x):
    return (x + jnp.sqrt(x * x + 4)) / 2


@pytest.mark.slow
@pytest.mark.parametrize("activation", [jax.nn.softplus, _squareplus, jax.nn.elu])
def test_a_smooth_rectifier_is_critical_at_infinity_where_relu_is(activation):
    field = mean_field(activation, sigma_w=2**0.5)
    assert math.isinf(field.q_star)
    assert field.phase == "critical"
    # Without biases elu is critical at length zero as well, and that is nearer.
    expected = 1.0 if activation is jax.nn.elu else 2**0.5
    np.testing.assert_allclose(critical_sigma_w(activation), expected, rtol=1e-6)


def test_a_zero_at_an_end_is_found_whatever_its_sign():
    assert root(lambda x: x - 1 + 1e-15, 1.0, 2.0) == 1.0
    np.testing.assert_allclose(root(lambda x: x**2 - 2, 0.0, 2.0), 2**0.5)
