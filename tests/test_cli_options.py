"""Every option of the command changes the answer."""

import json
import pathlib
import shlex

import pytest

import gradstab as gs
from gradstab.cli import main

pytestmark = pytest.mark.slow  # a dozen short training runs

SMALL = "--depth 2 --width 8 --activation tanh --batch-size 32"
TRAIN = f"{SMALL} --steps 4 --steps-per-dispatch 2 --learning-rate 0.5 --num-train 200"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def in_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


def train(options, name):
    assert main(shlex.split(f"train {TRAIN} {options} --out {name} --overwrite")) == 0
    lines = pathlib.Path(name, "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def analyze(options, name):
    line = f"analyze {SMALL} --examples 3 {options} --json {name}.json --overwrite"
    assert main(shlex.split(line)) == 0
    return gs.load(f"{name}.json")


def losses(rows):
    return [row["loss"] for row in rows]


@pytest.fixture(scope="module")
def plain(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return train("", "plain")


@pytest.mark.parametrize(
    "options",
    [
        "--l1 0.1",
        "--l2 0.1",
        "--optimizer momentum",
        "--seed 1",
        "--clip global-norm --clip-threshold 1e-6",
        "--pretrain-steps 3",
    ],
)
def test_the_option_changes_the_losses(options, plain):
    # The third loss follows two updates: the first one of momentum is a plain step.
    assert losses(train(options, "changed"))[2] != losses(plain)[2]


def test_auxiliary_heads_add_their_weighted_losses():
    light, heavy = (
        losses(train(f"--aux-heads 0 --aux-weight {weight}", "aux"))[0]
        for weight in (0.3, 3.0)
    )
    # One head at its start has a loss near ln 10, times the difference of the weights.
    assert heavy - light == pytest.approx(2.7 * 2.3, rel=0.2)


def test_a_threshold_below_every_gradient_clips_every_step():
    train("--clip value --clip-threshold 1e-9", "clipped")
    result = json.loads(pathlib.Path("clipped/result.json").read_text())
    assert result["clipped"] == 1


def test_epochs_are_passes_over_the_training_data():
    line = f"train {SMALL} --epochs 3 --num-train 100 --out epochs"
    assert main(shlex.split(line)) == 0
    rows = pathlib.Path("epochs/metrics.jsonl").read_text().splitlines()
    assert len(rows) == 3 * (100 // 32)


def test_the_result_holds_the_last_validation():
    rows = train("--validate-every 2", "validated")
    result = json.loads(pathlib.Path("validated/result.json").read_text())
    found = [row["val_loss"] for row in rows if "val_loss" in row]
    assert len(found) == 2
    assert result["validation"]["loss"] == found[-1] != found[0]


def test_a_run_starts_from_the_parameters_of_another(plain):
    first = train("--init-from plain", "continued")
    assert losses(first)[0] < min(losses(plain)[:2])


def test_a_mode_is_that_of_the_model():
    layers = {
        mode: analyze(f"--norm batch --mode {mode}", mode).layers[0]
        for mode in ("train", "eval")
    }
    assert layers["train"].coupled
    assert not layers["eval"].coupled


def test_examples_and_batch_size_are_those_asked_for():
    report = analyze("", "sizes")
    assert len(report.layers[0].jacobian.values) == 3
    assert report.made["batch"][0][0] == 32
    assert len(report.layers[0].gradient_norm) == 32


def test_precision_is_that_asked_for():
    assert analyze("--precision own", "own").made["precision"] == "float32"
    assert analyze("", "wide").made["precision"] == "float64"


def test_a_plot_is_drawn_to_the_file(folder):
    analyze("--plot drawn.png", "plotted")
    assert (folder / "drawn.png").stat().st_size > 1000


def test_a_generated_task_has_the_time_steps_asked_for():
    report = analyze("--model rnn --data adding --time-steps 7", "steps")
    assert len(report.recurrences[0].state_rms) == 7
