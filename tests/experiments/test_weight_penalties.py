"""Penalties keep weights small; they are no cure for an explosion."""

import pytest
from held import broken, measured

from experiments import weight_penalties

TINY = {"depth": 3, "width": 4, "steps": 2, "batch_size": 4, "explosion": 0}


def test_without_a_gradient_weights_follow_the_laws_of_the_penalties():
    config = weight_penalties.Config()
    errors = weight_penalties.laws(config, weight_penalties.penalties(config))
    assert errors["law of L1"] <= 1e-5 + config.learning_rate * config.l1
    assert errors["law of L2"] <= 1e-5


@pytest.mark.slow  # four analyses and three trainings to compile
def test_it_trains_when_tiny():
    assert not broken(measured(weight_penalties, **TINY), "from the law")


@pytest.mark.slow
def test_what_is_said_of_penalties_holds():
    assert not broken(measured(weight_penalties, seed=3))


@pytest.mark.slow
def test_penalties_of_almost_nothing_do_nothing():
    claims = measured(weight_penalties, explosion=0, l1=1e-7, l2=1e-7, steps=300)
    assert "factor, L1, largest" in broken(claims)
    assert "factor, L2, largest" in broken(claims)
    assert not broken(claims, "from the law")
