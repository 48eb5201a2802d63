"""Narrow relu networks follow their exact law, and no other."""

import pytest
from held import broken, measured

from experiments import finite_width

TINY = {"depth": 3, "networks": 40, "wide": 6, "shallow": 2, "products": 8, "ranks": 0}
SMALL = {"networks": 6000, "wide": 20, "shallow": 4, "products": 400, "ranks": 1}


@pytest.mark.slow
def test_finite_width_runs_when_tiny():
    assert not broken(measured(finite_width, **TINY), "alive")


@pytest.mark.slow
def test_narrow_networks_follow_the_law_of_their_weights_and_no_other():
    assert not broken(measured(finite_width, **SMALL))
    # Nearly the right scale: means are off, everything about ranks and gates is not.
    claims = measured(finite_width, **SMALL, weights=1.9)
    assert len(broken(claims, "mean of the log")) == 2
    assert len(broken(claims, "p of exact law")) == 2
    assert not broken(claims, "variance of the log")
    assert not broken(claims, "linear")
    assert not broken(claims, "rank")
