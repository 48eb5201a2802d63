"""The rate at which gradients grow: the recursion against networks of finite width."""

import numpy as np
import pytest

from experiments.mean_field_rates import ACTIVATIONS, POINTS, Config, compare
from gradstab import theory


def rates(config, name, scale, sigma_b):
    """By theory, measured, and its standard error."""
    activation = ACTIVATIONS[name]
    sigma_w = scale * theory.critical_sigma_w(activation, sigma_b)
    predicted, found = compare(config, activation, sigma_w, sigma_b)
    return predicted, np.mean(found), np.std(found, ddof=1) / np.sqrt(len(found))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "point"), [("tanh", POINTS[0]), ("arctan 2x - 0.5 sin x", POINTS[2])]
)
def test_small_networks_on_both_sides_of_criticality_follow_the_recursion(name, point):
    config = Config(width=128, depth=16, seeds=6, examples=4)
    predicted, found, error = rates(config, name, *point)
    # The mean logarithm is a quarter of the relative variance of the squared norm below
    # theory, (2 + 3 Var phi'^2 / (E phi'^2)^2) / width: 0.005 to 0.01 per layer here.
    assert abs(found - predicted) < 4 * error + 0.012
    assert error < 0.01
    # Both are far from the rate of a critical network, zero.
    assert abs(predicted) > 0.025
    assert np.sign(found) == np.sign(predicted)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_networks_of_width_512_follow_the_recursion_to_three_errors(name, point):
    predicted, found, error = rates(Config(), name, *point)
    assert error <= 0.005
    assert abs(found - predicted) <= max(3 * error, 0.006)
