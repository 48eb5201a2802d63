"""The growth through equal matrices is that of their scale."""

import pytest
from held import broken, measured

from experiments import deep_linear

TINY = {"scales": (1.5, 0.5), "matrices": (6, 6), "width": 3}


@pytest.mark.slow
def test_it_holds_when_tiny():
    assert not broken(measured(deep_linear, **TINY))


def test_it_fails_if_the_exponent_is_off_by_one():
    config = deep_linear.Config(**TINY)
    arrays = deep_linear.run(config)
    wrong = deep_linear.Config(**TINY | {"matrices": (5, 5)})
    assert len(broken(deep_linear.claims(wrong, arrays))) == 4
