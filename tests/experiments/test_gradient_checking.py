"""The error of central differences, and what the checker says of textbook cases."""

import pytest
from held import broken, measured

from experiments import gradient_checking


@pytest.mark.slow
def test_the_slopes_hold_when_tiny():
    claims = measured(gradient_checking, sizes=(2, 3), networks=4, cases=())
    assert not broken(claims, "slope")
    assert not broken(claims, "theta^2")


@pytest.mark.slow
def test_differences_to_one_side_do_not_have_the_slope_of_central_ones():
    tiny = {"sizes": (2, 3), "networks": 4, "cases": ()}
    claims = measured(gradient_checking, **tiny, one_sided=True)
    assert len(broken(claims, "slope")) == 2


@pytest.mark.slow
def test_what_is_said_of_checking_gradients_holds():
    assert not broken(measured(gradient_checking, networks=8))


@pytest.mark.slow
def test_a_bug_that_is_none_is_not_found():
    cases = "right", "planted bug"
    claims = measured(gradient_checking, networks=8, cases=cases, mistake=0.0)
    found = ["ratio at 1e-7, planted bug", "planted bug is FAIL"]
    assert broken(claims) == found
