"""Of the defaults, tanh alone survives; with other weights it does not."""

import pytest
from held import broken, measured

from experiments import default_initializers

TINY = {
    **{"width": 8, "depth": 12, "seeds": 2, "examples": 2, "repeats": 2},
    "activations": ("tanh",),
}
SMALL = {"width": 256, "other_width": 100, "other_depth": 30, "seeds": 4, "repeats": 1}


@pytest.mark.slow
def test_default_initializers_run_when_tiny():
    assert measured(default_initializers, **TINY)


@pytest.mark.slow
def test_tanh_follows_a_power_law_only_at_its_critical_weights():
    small = SMALL | {"activations": ("tanh", "relu")}
    claims = measured(default_initializers, **small)
    assert not broken(claims, "tanh: power and critical")
    assert not broken(claims, "relu")
    claims = measured(default_initializers, **small, scale=0.8)
    assert broken(claims, "tanh: power and critical")
    assert broken(claims, "log-log slope")
    assert broken(claims, "relu: squared gain")
    assert not broken(claims, "relu: exponential and vanishing")
