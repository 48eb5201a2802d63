"""The bound on a recurrent Jacobian holds; clipping by norm keeps the direction."""

import pytest
from held import broken, measured

from experiments import norm_clipping

TINY = {"gains": (0.5, 2.0), "steps": 5, "units": 4, "networks": 2}


@pytest.mark.slow
def test_it_holds_when_tiny():
    assert not broken(measured(norm_clipping, **TINY), "bound")


@pytest.mark.slow
def test_clipping_by_value_keeps_neither_norm_nor_direction():
    assert not broken(measured(norm_clipping))
    claims = measured(norm_clipping, by="value")
    assert len(broken(claims)) == 2


@pytest.mark.slow
def test_a_matrix_that_is_not_orthogonal_breaks_the_bound_of_its_scale():
    claims = measured(norm_clipping, orthogonal=False)
    assert len(broken(claims, "bound")) == 2
