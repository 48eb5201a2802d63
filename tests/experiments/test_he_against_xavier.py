"""A deep ReLU network learns with He's initialisation and not with Xavier's."""

import pytest
from held import broken, measured

from experiments import he_against_xavier

DIGITS = {"data": "digits", "width": 100, "steps": 300, "batch_size": 32}


@pytest.mark.slow
def test_it_trains_when_tiny():
    tiny = {"depths": (2, 3), "width": 6, "steps": 3, "batch_size": 4}
    assert len(measured(he_against_xavier, data="digits", **tiny)) == 2


@pytest.mark.slow
def test_he_learns_on_digits_and_xavier_does_not():
    assert not broken(measured(he_against_xavier, **DIGITS))


@pytest.mark.slow
def test_with_the_same_scale_they_do_the_same():
    same = {"he": 1.0, "xavier": 1.0}
    assert broken(measured(he_against_xavier, **DIGITS, **same)) == [
        "loss with He, depth 30"
    ]
