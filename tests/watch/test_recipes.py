"""Loops of all kinds are watched by changing three lines, and train to the same bits.

The recipes are those of ``docs/loops.md``: each is a program with its changes marked.
"""

import difflib
import pathlib
import re

import jax
import numpy as np
import pytest

import gradstab as gs

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "loops.md"
RECIPES = dict(re.findall(r"\n## (.*?)\n.*?```diff\n(.*?)```", DOCS.read_text(), re.S))
NEEDED = {"Haiku": "haiku", "Equinox": "equinox", "Haliax and Levanter": "haliax"}
LAYERS = {
    "Plain JAX": ("hidden.0", "hidden.1", "head"),
    "Flax NNX": ("first", "last"),
    "Flax linen": tuple(f"params.Dense_{i}" for i in range(3)),
    "Haiku": tuple(f"mlp/~/linear_{i}" for i in range(3)),
    "Equinox": tuple(f"layers.{i}" for i in range(4)),
    "Haliax and Levanter": tuple(f"stacked.{i}" for i in range(4)),
}


@pytest.fixture(autouse=True)
def as_users_have_it(monkeypatch, tmp_path):
    """Optax and Flax promote; results lie in a folder of the test."""
    monkeypatch.chdir(tmp_path)
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_key_reuse(False),
    ):
        yield


def versions(recipe):
    """The program before, and the one that watches."""
    lines = recipe.splitlines()
    assert {line[:1] for line in lines} <= {" ", "+", "-", ""}
    before, after = ([x[1:] for x in lines if x[:1] != mark] for mark in "+-")
    return before, after


def changed(before, after):
    """How many lines differ; a line that is replaced is one."""
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return sum(max(b - a, d - c) for kind, a, b, c, d in blocks if kind != "equal")


def ran(lines):
    names = {}
    exec(compile("\n".join(lines), "docs/loops.md", "exec"), names)
    return names


def test_a_count_of_changed_lines_sees_each_of_them():
    assert changed(list("abcd"), list("abcd")) == 0
    assert changed(list("abcd"), list("axyd")) == 2
    assert changed(list("abcd"), list("abxcdy")) == 2
    assert changed(list("abcd"), list("ad")) == 2


def test_there_is_a_recipe_for_each_kind_of_loop():
    assert set(RECIPES) == {*LAYERS, "Optax alone"}


@pytest.mark.parametrize("kind", RECIPES)
def test_a_recipe_changes_at_most_three_lines(kind):
    before, after = versions(RECIPES[kind])
    assert 0 < changed(before, after) <= 3
    assert "gradstab" not in "\n".join(before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECIPES)
def test_a_watched_loop_trains_to_the_same_bits(kind, capsys):
    pytest.importorskip(NEEDED.get(kind, "jax"))
    before, after = map(ran, versions(RECIPES[kind]))
    pairs = zip(
        *(jax.tree.leaves(run["trained"]) for run in (before, after)), strict=True
    )
    for ours, plain in pairs:
        if jax.dtypes.issubdtype(plain.dtype, jax.dtypes.prng_key):
            ours, plain = jax.random.key_data(ours), jax.random.key_data(plain)
        assert np.asarray(ours).tobytes() == np.asarray(plain).tobytes()
    said = capsys.readouterr().out.splitlines()
    if kind == "Optax alone":
        assert "'w': Array(" in said[-1]
        return
    history = gs.History.read("results/run")
    assert history.names == (*LAYERS[kind], "(elsewhere)")
    assert history.steps.tolist() == list(range(5))
    losses = [float(line.split()[1]) for line in said]
    np.testing.assert_array_equal(history.value.astype(np.float32), np.float32(losses))
    assert (history["backward_rms"][:, :-1] > 0).all()
    assert (history["gradient_norm"][:, -1] == 0).all()
