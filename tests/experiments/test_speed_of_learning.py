"""The layers of a deep sigmoid network learn at speeds that fall with depth."""

import pytest
from held import broken, measured

from experiments import speed_of_learning

NOISE = {"images": "noise", "examples": 100, "epochs": 130, "trained": 2}


@pytest.mark.slow
def test_it_trains_when_tiny():
    tiny = {"initialisations": 4, "examples": 8, "epochs": 130, "trained": 2}
    claims = measured(speed_of_learning, images="digits", **tiny)
    assert not broken(claims, "in the order of speed")


@pytest.mark.slow
def test_the_ratios_are_those_of_theory_without_any_images():
    claims = measured(speed_of_learning, **NOISE)
    assert not broken(claims, "speed of hidden layer")
    assert not broken(claims, "at the start")


@pytest.mark.slow
def test_larger_weights_make_other_ratios():
    claims = measured(speed_of_learning, **NOISE, sigma_w=4.0)
    assert len(broken(claims, "over that of")) == 3
