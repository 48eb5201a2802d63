"""``gradstab compare-gradients``: two checkpoints, or two ways to run one of them."""

import json
import shlex

import jax
import numpy as np
import pytest

from gradstab._tree import is_key
from gradstab.cli import compare_gradients, main
from gradstab.watch import GradientComparison, Sameness

pytestmark = pytest.mark.slow


def gradstab(line):
    return main(shlex.split(line))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with dropout and batch statistics, and checkpoints at steps 10 and 20."""
    folder = tmp_path_factory.mktemp("runs")
    line = (
        "train --model mlp --depth 3 --width 16 --norm batch --dropout 0.2 --steps 20 "
        f"--batch-size 32 --checkpoint-every 10 --no-progress --out {folder}/one"
    )
    assert gradstab(line) == 0
    other = line.replace("--width 16", "--width 12").replace("/one", "/other")
    assert gradstab(other) == 0
    return folder


def compared(folder, line, capsys):
    status = gradstab(f"compare-gradients {folder}/one {line} --json - --batches 6")
    printed, said = capsys.readouterr()
    path = folder / "found.json"
    path.write_text(printed)
    return status, GradientComparison.read(path), said


def test_a_run_against_itself_is_bitwise_equal(folder, capsys):
    status, found, said = compared(folder, f"{folder}/one --fail-on differs", capsys)
    assert (status, found.is_bitwise, found.num_batches) == (0, True, 6)
    assert [x.layer for x in found.layers] == ["input", "blocks.0", "blocks.1", "head"]
    assert "at step 20" in found.made["A"]
    assert "4 layers: 4 bitwise equal" in said


def test_two_checkpoints_of_a_run_are_no_longer_the_same(folder, capsys):
    line = "--step-b 10 --fail-on differs unknown"
    status, found, said = compared(folder, line, capsys)
    assert status == 1
    assert not found.is_bitwise
    assert all(layer.each > 0.01 for layer in found.layers)
    assert "at step 10" in said


def test_the_precision_of_a_run_is_changed_for_one_of_them(folder, capsys):
    status, found, _ = compared(folder, "--with-b dtype=bfloat16", capsys)
    assert status == 0
    for layer in found.layers:
        # Both draw the same masks: what is left is rounding to eight bits.
        assert 2**-11 < layer.each < 0.1
        assert layer.verdict in (Sameness.SAME, Sameness.DIFFERS)
    assert "dtype=bfloat16" in found.made["B"]


def test_without_dropout_the_gradient_is_another(folder, capsys):
    _, found, _ = compared(folder, "--with-b dropout=0.0", capsys)
    assert all(layer.each > 0.1 for layer in found.layers)


def test_masks_are_others_in_every_batch_and_the_same_in_both(folder):
    one = compare_gradients._side("a", folder / "one", None, None)
    other = compare_gradients._side("b", folder / "one", 10, ("dtype=bfloat16",))
    x, y = one.data.x_train[:32], one.data.y_train[:32]
    first, second, again = (float(one.loss(one.params, x, y, n)) for n in (0, 1, 0))
    assert first != second
    assert first == again
    keys = [
        [jax.random.key_data(x) for x in jax.tree.leaves(side.model.state) if is_key(x)]
        for side in (one, compare_gradients._with_keys(other, one))
    ]
    assert len(keys[0]) > 0
    assert all(map(np.array_equal, *keys))


def test_a_comparison_is_written_where_it_is_asked_for(folder, capsys):
    line = f"compare-gradients {folder}/one --step-b 10 --batches 4 --quiet"
    path = folder / "kept.json"
    assert gradstab(f"{line} --json {path}") == 0
    assert capsys.readouterr().out == ""
    values = json.loads(path.read_text())["values"]
    assert np.array(values).shape == (4, 2)
    assert gradstab(f"{line} --json {path}") == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "A and B are the same"),
        ("{}/other", "do not have the same parameters: blocks.dense.bias is (2, 16)"),
        ("--with-b width=3", "other parameters than the run's: blocks.dense.bias"),
        ("--with-b widht=3", "there is no such option; known: dtype"),
        ("--with-b activation=3", "expected str | None, got int"),
        ("--with-b devices=99", "devices must be a whole number from 1 to"),
        ("--with-b matmul_precision=low", "matmul_precision must be 'default'"),
        ("--with-b dtype", "not of the form name=value"),
        ("--step-b 3", "has no checkpoint of step 3"),
        ("nowhere", "nowhere has no config.json"),
        ("{}/one --batches 1", "--batches must be a whole number from 2"),
        ("{}/one --batch-size 5000", "is more than the"),
        ("{}/one --fail-on worse", "--fail-on must be 'differs' or 'unknown'"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_line(folder, line, words, capsys):
    text = f"compare-gradients {folder}/one {line.format(folder)}"
    assert gradstab(text) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
