"""Activations differ in what they do to gradients, and one of them loses units."""

import pytest
from held import broken, measured

from experiments import activations

TINY = {
    **{"names": ("relu", "elu"), "depth": 3, "width": 8, "networks": 2},
    **{"layers": 1, "units": 4, "steps": 3, "side": 8, "repeats": 2},
}
SMALL = {"names": ("tanh", "relu", "elu"), "width": 128, "side": 256}


@pytest.mark.slow
def test_it_runs_when_tiny_and_only_relu_has_dead_units():
    claims = measured(activations, **TINY)
    assert not broken(claims, "any other activation")


@pytest.mark.slow
def test_gains_are_those_of_the_variance_and_other_units_die_of_the_rate():
    whole = measured(activations, **SMALL)
    assert not broken(whole, "factor per layer") + broken(whole, "dead")
    changed = measured(activations, **SMALL, variance=2.0, rate=1.0)
    assert len(broken(changed, "factor per layer")) == 3
    assert broken(changed, "any other activation")
