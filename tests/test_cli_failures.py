"""Whose a failure is: the user's input, the user's code, or gradstab's own."""

import builtins
import pathlib
import pickle
import shlex
import sys

import pytest

import gradstab as gs
from gradstab import errors
from gradstab.cli import main

MODULE = """
import jax, jax.numpy as jnp, flax.linen as nn, gradstab as gs
from gradstab.testing import assert_grads
from flax import nnx
X = jnp.ones((4, 3))
def linen(): return (nn.Dense(3), {"params": {"kernel": jnp.ones((7, 3))}}), X
def nnx_module(): return nnx.Linear(7, 3, rngs=nnx.Rngs(0)), X
def method(): return nn.Dense(3).apply, {"params": {"kernel": jnp.ones((7, 3))}}, X
def loss(): return lambda p, x: x @ p, jnp.eye(3), X, jnp.linalg.inv
def typed(): return lambda p, x: x @ p, jnp.eye(3), X, lambda y: y @ "a"
def no_model(): return gs.models.build("mpl", in_shape=(3,), num_outputs=2), X
def no_room(): return gs.nowhere, X
def no_file(): return open("nowhere.npz"), X
def no_report(): return gs.load("nowhere.json"), X
@jax.custom_vjp
def rule(x): return x
rule.defvjp(lambda x: (x, None), lambda _, w: (w, w))
def wrong_rule(): return lambda p, x: rule(x @ p), jnp.eye(3), X
def wrong_gradient():
    assert_grads(jnp.sqrt, 1.0, rtol=1e-30, progress=False)
"""

# What is typed, the exit status, and a part of what is said.
SAID = """
user:linen | 3 | ScopeParamShapeError
user:nnx_module | 3 | TypeError: dot_general requires
user:method | 3 | ScopeParamShapeError
user:loss | 3 | ValueError: Argument to inv must have shape
user:typed | 2 | loss(output): TypeError
user:no_model | 2 | lstm, rnn, transformer. (user.py, line 11, in no_model)
user:no_room | 2 | gradstab has no 'nowhere'
user:no_file | 3 | No such file or directory (user.py, line 13, in no_file)
user:no_report | 2 | nowhere.json does not exist (user.py, line 14, in no_report)
user:wrong_gradient | 3 | AssertionError: INCONCLUSIVE
"""


def _rows(table):
    return [line.split(" | ") for line in table.strip().splitlines()]


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Runs a command; returns its status and the lines on standard error."""
    (tmp_path / "user.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "user", raising=False)

    def said(line):
        status = main(shlex.split(line))
        out, err = capsys.readouterr()
        assert out == ""
        return status, err.splitlines()

    return said


@pytest.mark.cases
@pytest.mark.parametrize(("target", "status", "words"), _rows(SAID))
def test_what_was_given_is_a_line_with_its_place(target, status, words, said):
    found, lines = said(f"analyze {target}")
    (line,) = lines
    assert words in line
    assert "please report" not in line
    assert found == int(status)


def _ours(source):
    """A function whose code lies in gradstab."""
    path = pathlib.Path(gs.__file__).with_name("made_up.py")
    names = {"UserValueError": errors.UserValueError}
    exec(compile(source, path, "exec"), names)
    return names["made_up"]


OURS = {
    "raised by us": "raise ValueError('no number')",
    "raised by Python": "int('no number')",
    "raised below us": "import json; json.loads('no number')",
}


@pytest.mark.parametrize("body", OURS.values(), ids=OURS.keys())
def test_a_mistake_of_ours_is_shown_whole_and_to_be_reported(body, said, monkeypatch):
    mistaken = _ours(f"def made_up(*_, **__):\n    {body}")
    monkeypatch.setattr("gradstab.cli.analyze.analyze", mistaken)
    for options in ("", "--verbose"):
        status, lines = said(f"analyze --depth 1 {options}")
        assert status == 3
        (first, *_, last) = lines
        assert first == "Traceback (most recent call last):"
        assert lines.count(first) == 1
        assert last.startswith("gradstab: ")
        assert "Error: " in last
        assert "please report it" in last
        assert "gradstab doctor" in last


def test_a_mistake_that_may_be_of_the_user_is_shown_whole_too(said):
    status, (first, *_, last) = said("analyze user:wrong_rule")
    assert status == 3
    assert first == "Traceback (most recent call last):"
    assert "if the lines above show no mistake of yours" in last


def test_a_message_is_known_by_its_class_and_not_by_the_line_that_raises(
    said, monkeypatch
):
    thrown = "(_ for _ in ()).throw(UserValueError('give less'))"
    refusing = _ours(f"def made_up(*_, **__):\n    {thrown}")
    monkeypatch.setattr("gradstab.cli.analyze.analyze", refusing)
    assert said("analyze --depth 1") == (2, ["gradstab: give less"])


@pytest.mark.parametrize(
    "body",
    ["raise MemoryError", "raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory')"],
)
def test_memory_that_ran_out_is_nobodys_mistake(body, said, monkeypatch):
    monkeypatch.setattr(
        "gradstab.cli.analyze.analyze", _ours(f"def made_up(*_, **__):\n    {body}")
    )
    status, (line,) = said("analyze --depth 1")
    assert status == 3
    assert line.startswith("gradstab: there is not enough memory: ")


@pytest.mark.parametrize("name", [n for n in dir(errors) if n.startswith("User")])
def test_an_error_of_ours_is_caught_as_that_of_python(name):
    own = getattr(errors, name)
    assert issubclass(own, errors.UserError)
    if own is not errors.UserError:
        assert issubclass(own, getattr(builtins, name.removeprefix("User")))
    copy = pickle.loads(pickle.dumps(own("text")))
    assert (type(copy), str(copy)) == (own, "text")
