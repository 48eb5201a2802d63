"""The place of layer normalisation decides how gradients depend on depth."""

import pytest
from held import broken, measured

from experiments import pre_post_norm

TINY = {"depths": (1, 2), "width": 6, "examples": 2, "networks": 2}
SMALL = {"depths": (8, 16, 32), "width": 128, "examples": 16, "networks": 4}


@pytest.mark.slow
def test_it_runs_when_tiny():
    assert len(measured(pre_post_norm, **TINY)) == 2


@pytest.mark.slow
def test_without_normalisation_neither_slope_is_there():
    assert not broken(measured(pre_post_norm, **SMALL))
    assert len(broken(measured(pre_post_norm, **SMALL, norm=False))) == 2
