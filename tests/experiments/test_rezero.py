"""Residual blocks whose branches begin at zero are isometries."""

import pytest
from held import broken, measured

from experiments import rezero

TINY = {"width": 4, "depth": 3, "examples": 2}


@pytest.mark.slow
def test_no_direction_grows_or_shrinks_while_the_factors_are_zero():
    assert not broken(measured(rezero, **TINY))


@pytest.mark.slow
def test_a_factor_of_a_millionth_is_seen():
    assert broken(measured(rezero, **TINY, alpha=1e-6))
