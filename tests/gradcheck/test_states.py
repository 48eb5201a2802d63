"""States are members to the code, and sentences to whoever reads or loads them."""

import json
import pickle

import jax
import pytest

from gradstab.gradcheck import Finding, views
from gradstab.gradcheck.conclusion import conclude, unsettled
from gradstab.gradcheck.states import Answer, Outcome
from gradstab.gradcheck.story import Story

NUMBERS = 1e-9, 1e-12, 1e-8, 1e-3


def finding(state):
    return Finding(*NUMBERS, state, False, "x", "reverse", "central differences")


def result(state):
    fields = {"rtol": 1e-6, "precision": "float64", "evaluations": 1, "seed": 0}
    story = Story((finding(state),), moved=(("farther", Answer.RIGHT),))
    return conclude(story, **fields)


@pytest.mark.parametrize("state", Outcome)
def test_files_and_tables_show_the_sentence(state):
    plain = json.loads(json.dumps(views.as_json(result(state))))
    (written,) = plain["findings"]
    assert written["state"] == state.value
    assert plain["moved"] == [["farther", "right"]]
    assert type(views.as_json(state)) is str
    assert str(finding(state)).endswith(f": {state.value}")
    assert f"{state}" == str(state) == state.value


@pytest.mark.parametrize("state", Outcome)
def test_what_was_pickled_with_words_is_judged_alike(state):
    old, new = (pickle.loads(pickle.dumps(finding(s))) for s in (state.value, state))
    assert old == new
    assert (old.agrees, old.differs) == (new.agrees, new.differs)
    assert unsettled([old]) is unsettled([new])
    assert str(result(state.value)) == str(result(state))
    assert views.html(result(state.value)) == views.html(result(state))


def test_a_result_is_a_pytree_of_its_numbers():
    whole = result(Outcome.SLIGHT)
    leaves, tree = jax.tree.flatten(whole)
    assert leaves == [*NUMBERS, whole.resolution]
    assert str(jax.tree.unflatten(tree, leaves)) == str(whole)
    assert "SLIGHT" in repr(finding(Outcome.SLIGHT))


def test_each_state_has_a_sentence_of_its_own():
    for kind in (Outcome, Answer):
        assert len(set(kind)) == len(kind.__members__)


def test_what_files_hold_stays():
    assert (Outcome.AGREES, Outcome.DIFFERS) == ("agrees", "differs")
    assert list(Answer) == [
        "right",
        "wrong",
        "undecided",
        "not defined",
        "not converged",
    ]
