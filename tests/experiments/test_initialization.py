"""Gradients follow the initialiser's variance, for every activation."""

import pytest
from held import broken, measured

from experiments import initialization

TINY = {"width": 6, "depth": 3, "seeds": 2, "examples": 2, "activations": ("identity",)}
SMALL = {"width": 200, "depth": 12, "activations": ("identity", "relu", "tanh")}


@pytest.mark.slow
def test_initialization_runs_when_tiny():
    assert measured(initialization, **TINY)


@pytest.mark.slow
def test_the_rates_are_those_of_the_stated_variance():
    assert not broken(measured(initialization, **SMALL))
    claims = measured(initialization, **SMALL, scale=0.95)
    assert len(broken(claims, "rate of")) == 3
    assert len(broken(claims, "variance per layer")) == 1
    assert len(broken(claims, "variance behind")) == 3
