"""Kinks beside entries that are much larger than the length on which f bends."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import quick

from gradstab.gradcheck import Verdict, stages
from gradstab.gradcheck.examination import Examination
from gradstab.gradcheck.states import Outcome
from gradstab.gradcheck.story import Story
from gradstab.gradcheck.subject.problem import problem

pytestmark = [pytest.mark.cases, pytest.mark.usefixtures("quick_compiler")]


def laplace(x):
    return jnp.exp(-jnp.abs(x))


def bent(x):
    return jnp.where(x > 0, jnp.tanh(x), 2 * jnp.tanh(x))


def steep(x):
    return jnp.where(x > 0, x, 3 * jnp.expm1(x))


def sides(x):
    return jnp.where(x > 0, jnp.arctan(x), 3 * jnp.arctan(x))


KINKS = {
    "selu": (jax.nn.selu, [0.0, 1.0, -1.0]),
    "selu and 30": (jax.nn.selu, [0.0, 30.0]),
    "selu and many": (jax.nn.selu, [0.0, 0.0, 100.0, -100.0, 1e-3]),
    "exponential": (laplace, [0.0, 40.0]),
    "exponential and 1e4": (laplace, [0.0, 1e4]),
    "sum of exponentials": (lambda x: jnp.sum(laplace(10 * x)), [0.0, 0.5, 8.0]),
    "tanh": (bent, [0.0, 50.0]),
    "expm1": (steep, [0.0, 16.0, -16.0]),
    "expm1, two zeros": (steep, [0.0, 0.0, 8.0]),
    "arctan and 1e3": (sides, [0.0, 0.0, 1e3, -1e3]),
    "bump": (lambda x: jnp.abs(x) * jnp.exp(-(x**2)), [0.0, 20.0, 3.0]),
    "wave": (lambda x: jnp.abs(jnp.sin(50 * x)), [0.0, 10.0]),
}


@pytest.mark.parametrize("name", KINKS)
def test_a_kink_beside_large_entries_passes_with_a_note(name):
    f, x = KINKS[name]
    at = "both" if name in ("selu", "tanh", "exponential") else "given"
    result = quick(f, jnp.array(x), at=at)
    assert result.verdict is Verdict.PASS, str(result)
    assert any("f has a kink" in note for note in result.notes)


def test_a_kink_in_one_of_two_arguments_passes():
    x, y = jnp.array([0.0, 2.0]), jnp.array([40.0, 1.0])
    assert quick(lambda x, y: laplace(x) * y, x, y, at="given").verdict is Verdict.PASS


def with_factor(f, factor):
    """f with a rule that multiplies the gradient by a factor that depends on x."""
    rule = jax.custom_vjp(lambda x: f(x))
    rule.defvjp(lambda x: (f(x), x), lambda x, w: (factor(x) * jax.vjp(f, x)[1](w)[0],))
    return rule


@pytest.mark.parametrize("name", ["selu and many", "exponential", "arctan and 1e3"])
@pytest.mark.parametrize(
    "factor",
    [
        lambda x: jnp.where(x == 0, 4.0, 1.0).astype(x.dtype),
        lambda x: jnp.asarray(1.01, x.dtype),
        lambda x: jnp.where(jnp.abs(x) > 0, 1.02, 1.0).astype(x.dtype),
    ],
    ids=["at the kink", "everywhere", "beside it"],
)
def test_a_rule_that_is_wrong_at_or_beside_such_a_kink_fails(name, factor):
    f, x = KINKS[name]
    result = quick(with_factor(f, factor), jnp.array(x), at="given")
    assert result.verdict is Verdict.FAIL, str(result)


def accused(f, x):
    """An examination, and an accusation of a right rule."""
    seen = Examination(problem(f, (x,)), rtol=1e-6, max_bytes=2**28, seed=0)
    found = seen.look_twice(seen.problem.leaves).findings
    wrong = [dataclasses.replace(g, state="differs", error=0.5) for g in found]
    return seen, Story(tuple(wrong))


def test_an_accusation_without_a_wrong_entry_is_taken_back():
    seen, story = accused(jnp.tanh, jnp.linspace(-1.0, 2.0, 8))
    judged = stages.places(seen, story)
    assert not judged.locations
    assert {g.state for g in judged.findings} == {Outcome.UNPLACED}


def test_an_accusation_within_the_slopes_of_a_kink_is_taken_back():
    seen, story = accused(jax.nn.relu, jnp.array([0.0, 0.0, 1.0, -2.0]))
    # JAX's own rule says 0 there, which is no error.
    assert {g.state for g in stages.places(seen, story).findings} == {Outcome.KINK}


def test_an_accusation_at_a_moved_point_is_dropped():
    seen, story = accused(jnp.tanh, jnp.linspace(-1.0, 2.0, 8))
    where = "16 times as large"
    seen.places[where] = seen.problem.leaves
    moved = tuple(dataclasses.replace(g, point=where) for g in story.findings)
    story = Story(moved, moved=((where, "wrong"),))
    judged = stages.places(seen, story)
    assert not judged.findings
    assert judged.moved == ((where, "undecided"),)


def test_an_error_with_a_place_stands():
    rule = with_factor(jnp.tanh, lambda x: jnp.asarray(1.01, x.dtype))
    result = quick(rule, np.linspace(-1, 2, 8, dtype=np.float32), locate=True)
    assert result.verdict is Verdict.FAIL
    assert result.locations
