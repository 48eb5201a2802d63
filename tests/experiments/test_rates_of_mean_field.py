"""Finite networks have the rates of mean-field theory, with the weights it was told."""

import pytest
from held import broken, measured

from experiments import mean_field_rates

TINY = {
    **{"width": 6, "depth": 4, "seeds": 2, "examples": 2, "networks": 1},
    **{"wide": 6, "deep": 8, "chis": 1},
}
SMALL = {"width": 300, "wide": 300, "depth": 20, "networks": 3, "chis": 2}


def test_mean_field_rates_run_when_tiny():
    assert measured(mean_field_rates, **TINY)


@pytest.mark.slow
def test_the_rates_are_those_of_the_weights_that_theory_knows():
    assert not broken(measured(mean_field_rates, **SMALL))
    claims = measured(mean_field_rates, **SMALL, scale=0.95)
    assert len(broken(claims, "rate of")) == SMALL["networks"]
    assert len(broken(claims, "chi of")) == SMALL["chis"]


@pytest.mark.slow
def test_networks_of_width_512_follow_the_recursion_to_three_errors():
    config = mean_field_rates.Config(chis=0)
    claims = mean_field_rates.claims(config, mean_field_rates.run(config))
    assert len(claims) == len(mean_field_rates.NETWORKS)
    assert not broken(claims)
    assert max(c.error for c in claims) <= 0.005
