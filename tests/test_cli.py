import json
import pathlib
import shlex

import numpy as np
import pytest

import gradstab as gs
from gradstab.cli import main

SMALL = "--depth 2 --width 8 --activation tanh --batch-size 32"
QUICK = f"{SMALL} --examples 2 --no-theory"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRADSTAB_DATA_DIR", str(tmp_path / "nothing"))


def gradstab(line):
    return main(shlex.split(line))


@pytest.mark.slow
def test_the_default_network_vanishes_and_the_rate_is_named(capsys):
    assert gradstab("analyze") == 0
    printed = capsys.readouterr().out
    assert "verdict: vanishing" in printed
    report = gs.load("results/analyze-1/report.json")
    assert [layer.name for layer in report.layers[:2]] == ["input", "blocks.0"]
    assert len(report.layers) == 21
    # Mean field at sigma_w = 1, zero bias: 0.23605 (Schoenholz et al. 2017); the
    # standard error over 19 steps of width 100 is within a few per cent of it.
    factor = 1 / report.growth.backward.factor
    assert f"{factor:.4g} per layer" in printed
    np.testing.assert_allclose(factor, 0.236, rtol=0.05)


@pytest.mark.slow
def test_bare_commands_write_fresh_numbered_folders():
    for number in (1, 2):
        assert gradstab(f"analyze {QUICK}") == 0
        assert pathlib.Path(f"results/analyze-{number}/report.json").exists()


@pytest.mark.slow
def test_a_report_is_not_overwritten_unless_asked(capsys):
    line = f"analyze {QUICK} --json report.json"
    assert gradstab(line) == 0
    before = pathlib.Path("report.json").read_text()
    assert gradstab(f"{line} --seed 1") == 2
    assert "report.json exists" in capsys.readouterr().err
    assert pathlib.Path("report.json").read_text() == before
    assert gradstab(f"{line} --seed 1 --overwrite") == 0
    assert pathlib.Path("report.json").read_text() != before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--model mpl", "mlp, resnet, lstm, rnn, transformer"),
        ("--activation rleu", "relu"),
        ("--init he_norml", "he_normal"),
        ("--norm bach", "batch"),
        ("--data digit", "digits, mnist"),
        ("--data mnist", "train-images-idx3-ubyte"),
        ("--causal True", "has no option causal"),
        ("--mode test", "'train' or 'eval'"),
        ("nothing.there:make", "no module"),
        ("json:nothing", "has no 'nothing'"),
        ("json", "package.module:function"),
        ("--checkpoint nowhere", "nowhere has no config.json"),
    ],
)
def test_bad_input_is_named_with_what_is_known(line, message, capsys, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", _no_network)
    assert gradstab(f"analyze {line}") == 2
    assert message in capsys.readouterr().err


def _no_network(*_, **__):
    raise OSError("no network")


@pytest.mark.slow
def test_a_function_of_the_user_is_analysed(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import jax.numpy as jnp\n"
        "def make():\n"
        "    apply = lambda params, x: jnp.tanh(x @ params['first']) @ params['last']\n"
        "    params = {'first': jnp.eye(3), 'last': jnp.ones((3, 1))}\n"
        "    return apply, params, jnp.ones((4, 3)), lambda y: (y**2).sum()\n"
    )
    assert gradstab("analyze mine:make --json mine.json") == 0
    report = gs.load("mine.json")
    assert [layer.name for layer in report.layers] == ["first", "last"]
    assert report.layers[0].param_gradient_norm > 0


def test_a_mistake_in_a_function_of_the_user_is_named_with_its_line(tmp_path, capsys):
    (tmp_path / "wrong.py").write_text("def make():\n    raise ValueError('mine')\n")
    assert gradstab("analyze wrong:make") == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: mine (wrong.py, line 2, in make)" in line
    assert gradstab("analyze wrong:make --verbose") == 3
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_every_checkpoint_of_a_training_run_can_be_analysed(capsys):
    line = f"train {SMALL} --steps 40 --checkpoint-every 20 --steps-per-dispatch 10"
    assert gradstab(f"{line} --learning-rate 0.5") == 0
    assert "test: accuracy" in capsys.readouterr().out
    for step in (20, 40):
        line = "analyze --checkpoint results/train-1 --examples 2 --no-theory"
        assert gradstab(f"{line} --step {step} --json {step}.json") == 0
    reports = [gs.load(f"{step}.json") for step in (20, 40)]
    assert reports[0].layers[0].param_norm != reports[1].layers[0].param_norm
    assert gradstab("analyze --checkpoint results/train-1 --step 30") == 2
    assert "20, 40" in capsys.readouterr().err


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_its_options():
    line = f"train {SMALL} --out run --checkpoint-every 10 --steps-per-dispatch 10"
    assert gradstab(f"{line} --steps 10") == 0
    assert gradstab("train --resume run --steps 30") == 0
    assert gradstab(f"{line} --steps 30") == 2
    metrics = pathlib.Path("run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in metrics] == list(range(1, 31))


@pytest.mark.slow
def test_an_exploding_run_stops_with_the_step_and_the_layer(capsys):
    line = f"train {SMALL} --init normal:1e30 --steps 20 --data adding --model rnn"
    status = gradstab(f"{line.replace('--activation tanh', '--activation relu')}")
    assert status == 1
    # Weights of 1e30 in two layers: the product exceeds float32 in the second.
    assert "step 1" in (printed := capsys.readouterr().out)
    assert "'blocks' (forward)" in printed
    assert "look at that step: gradstab replay" in printed
    assert gradstab("replay results/train-1") == 0
    printed = capsys.readouterr().out
    assert "bitwise what it was in the run" in printed
    assert "'blocks' (forward)" in printed
    assert "the first operation that is not finite is" in printed
    assert "recurrent.py:" in printed
    assert gradstab("replay results") == 2
    assert gradstab("replay results/train-1 --step 3") == 2


@pytest.mark.slow
def test_a_watched_run_leaves_a_history_and_says_what_its_clip_does(capsys):
    line = f"train {SMALL} --steps 20 --steps-per-dispatch 10 --clip global-norm"
    assert gradstab(f"{line} --clip-threshold 1e6 --watch --out run") == 0
    printed = capsys.readouterr().out
    assert "none of 20 steps was clipped" in printed
    assert "clips one step in ten" in printed
    history = gs.History.read("run")
    assert history.steps.tolist() == list(range(1, 21))
    assert history.names == ("input", "blocks", "head", "(elsewhere)")
    assert gradstab("train --resume run --steps 40 --watch-every 10") == 0
    assert gs.History.read("run").steps.tolist() == [*range(1, 22), 31]
    line = f"train {SMALL} --watch-level much --out other"
    assert gradstab(line) == 2
    assert "'light' or 'full'" in capsys.readouterr().err
