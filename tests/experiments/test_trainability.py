"""A tanh network learns up to six depth scales of the correlation, and no deeper."""

import pytest
from held import broken, measured

from experiments import trainability

DIGITS = {"data": "digits", "examples": 1000, "batch_size": 32}
TINY = DIGITS | {"depths": (3,), "squares": (1.3,), "width": 8, "steps": 4}
DEEP = DIGITS | {"depths": (60,), "squares": (1.3,), "width": 100}


@pytest.mark.slow
def test_it_trains_when_tiny():
    (claim,) = measured(trainability, **TINY)
    assert 0 <= claim.measured <= 1
    assert "(0.4 xi_c)" in claim.text


@pytest.mark.slow
def test_a_network_of_more_than_six_depth_scales_does_not_learn():
    assert not broken(measured(trainability, **DEEP))


@pytest.mark.slow
def test_with_identity_connections_it_learns_all_the_same():
    assert broken(measured(trainability, **DEEP, skip=True))
