"""`gradstab analyze module:make` takes whatever `gradstab.analyze` takes."""

import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradstab as gs
from gradstab.cli import main
from gradstab.cli.prepare import load_target
from gradstab.cli.targets import TargetError, keywords, selector

X = jnp.ones((4, 5))
DENSE = nn.Dense(3)
VARIABLES = {"params": {"kernel": jnp.ones((5, 3)), "bias": jnp.zeros(3)}}
W = jnp.ones((5, 3))


def _apply(w, x, scale=1.0):
    return scale * jnp.tanh(x @ w)


class _Callable:
    def __call__(self, w, x):
        return x @ w


def _loss(output):
    return jnp.mean(output**2)


MADE = {
    "function": (_apply, W, X),
    "jit": (jax.jit(_apply), W, X),
    "bound method": (DENSE.apply, VARIABLES, X),
    "partial": (functools.partial(_apply, scale=2.0), W, X),
    "callable object": (_Callable(), W, X),
    "pair": ((DENSE, VARIABLES), X),
    "pytree": (jax.tree_util.Partial(_apply, W), X),
    "nnx": (nnx.Linear(5, 3, rngs=nnx.Rngs(0)), X),
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE.keys())
@pytest.mark.parametrize("loss", [(), (_loss,)], ids=["no loss", "loss"])
def test_what_is_made_is_sorted_into_model_inputs_and_loss(made, loss, monkeypatch):
    monkeypatch.setattr("gradstab.cli.prepare.call", lambda _: made + loss)
    arguments, found = load_target("module:make")
    assert len(arguments) == len(made)
    assert all(a is b for a, b in zip(arguments, made, strict=True))
    assert found is (loss[0] if loss else None)


@pytest.mark.parametrize("made", [(_apply, X), (_apply, X, _loss)])
def test_a_function_without_its_parameters_is_named(made, monkeypatch):
    monkeypatch.setattr("gradstab.cli.prepare.call", lambda _: made)
    with pytest.raises(ValueError, match="a function without its parameters"):
        load_target("module:make")


def test_a_path_selects_entries_and_attributes():
    result = (1, {"logits": [np.ones(2), 3]})
    assert selector("1.logits.-1")(result) == 3
    assert selector("1.logits.0.shape")(result) == (2,)
    with pytest.raises(TargetError, match="has 2 parts"):
        selector("5")(result)
    with pytest.raises(TargetError, match="no part 'mean'"):
        selector("0.mean")(result)


def test_keyword_arguments_are_literals_or_text():
    found = keywords(["train=False", "rate=0.1", "mode=same"])
    assert found == {"train": False, "rate": 0.1, "mode": "same"}
    with pytest.raises(TargetError, match="name=value"):
        keywords(["train"])


MODULE = """
import jax, jax.numpy as jnp
def apply(w, x, scale=1.0):
    return {"aux": jnp.sum(x), "out": scale * (x @ w)}
def make():
    return jax.jit(apply, static_argnames="scale"), jnp.eye(3), jnp.ones((4, 3))
"""


@pytest.mark.slow
def test_output_keywords_and_single_examples_from_the_command_line(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("target_of_test.py").write_text(MODULE)
    line = (
        "analyze target_of_test:make --output out --no-batched --apply-kwargs scale=3.0"
    )
    assert (
        main([*line.split(), "--json", "r.json", "--no-theory", "--no-progress"]) == 0
    )
    (layer,) = gs.load("r.json").layers
    assert layer.jacobian is not None
    np.testing.assert_allclose(layer.jacobian.values, np.full((4, 3), 3.0))


def test_options_of_a_target_need_one(capsys):
    assert main(["analyze", "--no-batched"]) != 0
    assert "--no-batched: of a target" in capsys.readouterr().err
