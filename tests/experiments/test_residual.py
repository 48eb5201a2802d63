"""With its input added, a block's Jacobian is I + F'."""

import pytest
from held import broken, measured

from experiments import residual

TINY = {"width": 8, "networks": 4, "deep": 6, "shallow": 3, "tanh_width": 8}
SMALL = {"width": 64, "networks": 96, "deep": 40, "tanh_width": 256}


@pytest.mark.slow
def test_it_runs_when_tiny_and_the_identities_are_exact():
    claims = measured(residual, **TINY)
    assert not broken(claims, "singular value")


@pytest.mark.slow
def test_without_the_identity_nothing_grows():
    assert not broken(measured(residual, **SMALL))
    without = measured(residual, **SMALL, identity=0.0)
    assert len(broken(without, "relu residual blocks")) == 2
    assert broken(without, "25 tanh residual blocks")
    assert broken(without, "exp-sqrt")
    assert not broken(without, "without the identity")


@pytest.mark.slow
def test_blocks_that_do_not_start_at_zero_are_not_the_identity():
    claims = measured(residual, **TINY, zero=False)
    assert len(broken(claims, "singular value")) == 2
