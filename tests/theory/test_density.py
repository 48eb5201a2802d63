"""Densities of singular values: laws known on paper, and their own moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab import theory

LINEAR = theory.mean_field(lambda x: x, sigma_w=1.0)


def test_one_linear_layer_has_the_quarter_circle_law():
    values = np.linspace(0.05, 1.95, 20)
    found = theory.singular_value_density(LINEAR, 1, values)
    np.testing.assert_allclose(found, np.sqrt(4 - values**2) / np.pi, rtol=2e-3)


def test_there_is_nothing_beyond_the_edge():
    edge = theory.singular_values(LINEAR, 3).largest
    found = theory.singular_value_density(LINEAR, 3, edge * np.array([0.99, 1.01]))
    assert found[0] > 100 * found[1]


@pytest.mark.parametrize(
    ("activation", "sigma_w", "depth", "orthogonal", "mass"),
    [
        (jax.nn.relu, 2**0.5, 1, False, 0.5),
        pytest.param(jnp.tanh, 1.3, 4, False, 1.0, marks=pytest.mark.slow),
        pytest.param(jnp.tanh, 1.05, 6, True, 1.0, marks=pytest.mark.slow),
    ],
    ids=["relu", "tanh", "tanh, orthogonal"],
)
def test_its_moments_are_those_of_the_theory(
    activation, sigma_w, depth, orthogonal, mass
):
    field = theory.mean_field(activation, sigma_w, 0.1 * (mass == 1))
    moments = theory.singular_values(field, depth, orthogonal=orthogonal)
    s = np.geomspace(1e-3, 1.1, 400) * moments.largest
    density = theory.singular_value_density(field, depth, s, orthogonal=orthogonal)
    second = np.trapezoid(density * s**2, s)
    fourth = np.trapezoid(density * s**4, s)
    np.testing.assert_allclose(second, moments.mean_square, rtol=0.01)
    np.testing.assert_allclose(fourth / second**2 - 1, moments.variance, rtol=0.03)
    if depth == 1:
        np.testing.assert_allclose(np.trapezoid(density, s), mass, rtol=0.02)


def test_what_has_no_spectrum_is_refused():
    with pytest.raises(ValueError, match="positive"):
        theory.singular_value_density(LINEAR, 0, [1.0])
    with pytest.raises(ValueError, match="positive"):
        theory.singular_value_density(LINEAR, 1, [0.0])
