"""Modes of a linear network are learnt along the curve on paper."""

import pytest
from held import broken, measured

from experiments import saxe

FAST = {"strengths": (3.0, 1.0), "start": 1e-2, "rate": 5e-3, "steps": 900}


def test_it_holds_when_tiny():
    assert len(broken(measured(saxe, **FAST))) == 0


@pytest.mark.slow
def test_random_weights_do_not_begin_on_the_curve():
    assert not broken(measured(saxe))
    assert len(broken(measured(saxe, aligned=False), "curve")) == 3
