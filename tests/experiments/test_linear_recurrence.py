"""States of linear recurrent units are as large as their eigenvalues' ring says."""

import pytest
from held import broken, measured

from experiments import linear_recurrence

TINY = {"units": 64, "time_steps": 300, "analysed": 2}


@pytest.mark.slow
def test_states_and_exponents_are_those_of_the_ring():
    assert not broken(measured(linear_recurrence, **TINY))


@pytest.mark.slow
def test_eigenvalues_that_are_even_over_the_radius_give_other_states():
    changed = measured(linear_recurrence, **TINY, area=False)
    assert len(broken(changed, "E|h|^2")) >= 1
    assert not broken(changed, "exponents")
