"""From findings to a verdict and its text."""

import dataclasses

import pytest

from gradstab.gradcheck import Finding, Identity, Location, Verdict
from gradstab.gradcheck.conclusion import conclude, unsettled
from gradstab.gradcheck.findings import BODY, ROUNDING
from gradstab.gradcheck.story import Story

FIELDS = {
    "rtol": 1e-6,
    "precision": "float64",
    "evaluations": 1,
    "seed": 0,
    "notes": (),
}
RIGHT = Finding(
    error=1e-12,
    bar=1e-11,
    resolution=1e-10,
    step=0.1,
    state="agrees",
    absolute=False,
    leaf="args[0]",
    mode="reverse",
    oracle="central differences in float64",
)
WRONG = dataclasses.replace(RIGHT, error=0.1, state="differs")
VAGUE = dataclasses.replace(RIGHT, resolution=1.0, state="noise hides smaller errors")
PLACE = Location(0.5, 1.0, 1e-9, "args[0]", "reverse", (3, 0), 1, 64, "a factor of 2")


def of(finding, **changes):
    return dataclasses.replace(finding, **changes)


def verdict(*findings, **parts):
    return conclude(Story(findings, **parts), **FIELDS)


@pytest.mark.parametrize("oracle", ["autodiff of the reference", ROUNDING])
def test_one_oracle_that_accuses_is_enough(oracle):
    result = verdict(RIGHT, of(WRONG, oracle=oracle))
    assert result.verdict is Verdict.FAIL
    assert "args[0]" in result.reason


def test_the_body_of_a_rule_accuses_no_one_and_is_no_obstacle():
    body = of(WRONG, oracle=BODY)
    assert verdict(RIGHT, body).verdict is Verdict.PASS
    doubtful = verdict(VAGUE, body)
    assert doubtful.verdict is Verdict.INCONCLUSIVE
    assert all(g.state != "differs" for g in doubtful.findings)


def test_one_oracle_that_acquits_is_enough_unless_it_knows_rounding_only():
    assert verdict(VAGUE, of(RIGHT, oracle=BODY)).verdict is Verdict.PASS
    only_rounding = verdict(VAGUE, of(RIGHT, oracle=ROUNDING))
    assert only_rounding.verdict is Verdict.INCONCLUSIVE
    assert only_rounding.resolution == 1.0


def test_every_leaf_and_every_mode_must_be_acquitted():
    for other in ({"leaf": "args[1]"}, {"mode": "forward"}):
        assert verdict(RIGHT, of(VAGUE, **other)).verdict is Verdict.INCONCLUSIVE
    assert verdict(RIGHT, of(RIGHT, resolution=1e-7, leaf="b")).resolution == 1e-7


def test_a_broken_law_fails_and_is_named():
    law = Identity(0.1, 1e-9, "zero cotangent", "args[2]", False, "is not zero")
    result = verdict(RIGHT, identities=(law, of(law, holds=True, name="other")))
    assert result.verdict is Verdict.FAIL
    assert result.reason == "broken law: zero cotangent (args[2]): is not zero"


def test_without_findings_nothing_passes():
    result = verdict(trouble="f is not finite at the point")
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reason == "f is not finite at the point"


def test_the_reason_names_modes_leaves_and_points():
    forward = of(WRONG, mode="forward")
    assert verdict(WRONG, forward).reason == (
        "wrong forward and reverse derivative in args[0]"
    )
    elsewhere = of(WRONG, point="with signs changed")
    assert verdict(RIGHT, elsewhere).reason.endswith("args[0], with signs changed")


def test_findings_are_unsettled_if_none_accuses_and_one_does_not_acquit():
    assert unsettled([RIGHT, of(VAGUE, leaf="b")])
    assert not unsettled([RIGHT, of(VAGUE, oracle=BODY)])
    assert not unsettled([WRONG, of(VAGUE, leaf="b")])
    assert not unsettled([VAGUE], settling=("agrees", VAGUE.state))


def test_the_text_names_place_values_bar_and_hint_in_fifteen_lines():
    many = [of(WRONG, leaf=f"args[{i}]") for i in range(30)]
    notes = tuple(f"note {i}" for i in range(9))
    story = Story(tuple(many), locations=(PLACE,))
    text = str(conclude(story, **{**FIELDS, "notes": notes}))
    assert len(text.splitlines()) == 15
    assert "args[0][3, 0] (reverse): the rule says 0.5, expected 1 +- 1.0e-09" in text
    assert "1 of 64 entries are wrong" in text
    assert "likely cause: a factor of 2" in text
    assert "more findings, none worse" in text
    assert "more notes" in text


def test_what_was_not_judged_at_the_point_given_is_not_said_to_be_right_there():
    moved = of(WRONG, mode="forward", point="moved at random")
    assert verdict(RIGHT, of(RIGHT, mode="forward"), moved).notes == (
        'nothing is wrong at the point given: at="given" looks only there',
    )
    # As that of sqrt(relu(x)) at 0, where its JVP is 0 * inf.
    assert verdict(RIGHT, moved).notes == (
        "the forward derivative in args[0] was not judged at the point given: "
        'at="given" looks only there',
    )
