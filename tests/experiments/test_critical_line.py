"""The solver finds the published critical points, of tanh and of nothing else."""

import pytest
from held import broken, measured

from experiments import critical_line


@pytest.mark.slow
def test_critical_line_holds_where_there_are_few_points():
    assert not broken(measured(critical_line, points=1))


@pytest.mark.slow
def test_all_points_are_those_of_tanh_and_not_of_a_function_one_per_cent_steeper():
    assert not broken(measured(critical_line))
    claims = measured(critical_line, stretch=1.01)
    assert len(broken(claims, "tanh, chi = 1: sigma_w^2")) == 1
    assert len(broken(claims, "tanh, sigma_b^2 = 0.05: chi")) == 1
    assert not broken(claims, "half-stable")
