"""A claim holds inside of its interval only."""

import math

import pytest

from experiments._claims import claim, table


@pytest.mark.parametrize(
    ("tolerance", "inside", "outside"),
    [
        ({"within": 0.5}, 1.6, 1.4),
        ({"relative": 0.1}, 2.2, 2.3),
        ({"between": (1.0, 2.0)}, 1.0, 2.1),
    ],
)
def test_each_form_of_tolerance_has_its_interval(tolerance, inside, outside):
    assert claim("", inside, 2.0, source="", **tolerance).held
    assert not claim("", outside, 2.0, source="", **tolerance).held


def test_a_relative_tolerance_of_a_negative_number_is_an_interval():
    assert claim("", -2.1, -2.0, source="", relative=0.1).held


def test_nan_never_holds():
    assert not claim("", math.nan, 0.0, source="", within=math.inf).held


def test_a_claim_has_one_tolerance():
    with pytest.raises(TypeError, match="one of"):
        claim("", 0.0, 0.0, source="", within=1.0, relative=1.0)


def test_the_table_counts_what_held_and_marks_what_did_not():
    claims = [claim("a", x, 1.0, source="s", within=0.1) for x in (1.0, 2.0)]
    text = table(claims)
    assert "1 of 2 held" in text
    assert text.count("**no**") == 1
