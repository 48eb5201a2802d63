"""A sigmoid loses what theory says, and a steeper one less."""

import pytest
from held import broken, measured

from experiments import sigmoid_factor

TINY = {
    **{"width": 6, "depth": 4, "seeds": 2, "factors": 1},
    **{"dropout_depth": 2, "dropout_networks": 4},
}
SMALL = {"width": 128, "depth": 12, "seeds": 40, "dropout_networks": 300}


@pytest.mark.slow
def test_sigmoid_factor_runs_when_tiny():
    claims = measured(sigmoid_factor, **TINY)
    assert not broken(claims, "slope")
    assert not broken(claims, "widest window")


@pytest.mark.slow
def test_the_factors_are_those_of_the_sigmoid_and_not_of_a_steeper_one():
    assert not broken(measured(sigmoid_factor, **SMALL))
    claims = measured(sigmoid_factor, **SMALL, steepness=1.1)
    assert len(broken(claims, "slope")) == 1
    assert not broken(claims, "widest window")
    assert len(broken(claims, "weight of it")) == 1
    assert len(broken(claims, "gradient factor")) == 3
    assert not broken(claims, "dropout")
