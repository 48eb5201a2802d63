"""Clipping matters where gradients explode, and by value it changes their direction."""

import pytest
from held import broken, measured

from experiments import clipping

TINY = {"hidden": 4, "time_steps": 4, "steps": 3, "batch_size": 2, "num_seeds": 1}
MODERATE = {"num_seeds": 1, "seed": 5}


@pytest.mark.slow
def test_descents_on_a_quartic_diverge_where_they_must():
    claims = measured(clipping, **TINY)
    assert not broken(claims, "x^4")
    assert not broken(claims, "only signs")


@pytest.mark.slow
def test_what_is_said_of_clipping_holds():
    assert not broken(measured(clipping, **MODERATE))


@pytest.mark.slow
def test_a_threshold_beyond_every_gradient_is_noticed():
    claims = measured(clipping, **MODERATE, norm=1e30)
    assert "recurrent network, by norm: share that learns" in broken(claims)
    assert "recurrent network, by norm: least clip rate" in broken(claims)
    assert not broken(claims, "value")
