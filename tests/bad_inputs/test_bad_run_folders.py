"""Options of training that cannot be meant, and folders of runs that are not whole."""

import errno
import json
import os
import shutil

import pytest

from gradstab import training
from gradstab.cli import main

pytestmark = [pytest.mark.usefixtures("quick_compiler"), pytest.mark.cases]

SMALL = "--depth 1 --width 4 --num-train 64 --batch-size 16 --steps-per-dispatch 5"
LINE = f"train {SMALL} --steps 10 --checkpoint-every 5 --seed 3 --no-progress --out run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a run of ten steps."""
    folder = tmp_path_factory.mktemp("whole")
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert main(LINE.split()) == 0
    finally:
        os.chdir(before)
    return folder / "run"


@pytest.fixture
def run(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole, "run")
    return tmp_path / "run"


def files(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(capsys, line, *fragments):
    """The command says one line with all of these, and ends with status 2."""
    capsys.readouterr()
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert err.startswith("gradstab: "), err
    assert err.count("\n") == 1, err
    for fragment in fragments:
        assert fragment in err, err
    return out


OPTIONS = {
    "--keep 0": "--keep is 0; expected a whole number from 1",
    "--keep -3": "--keep is -3; expected a whole number from 1",
    "--steps 0": "--steps is 0; expected a whole number from 1",
    "--steps -5": "--steps is -5; expected a whole number from 1",
    "--epochs 0": "--epochs is 0; expected a whole number from 1",
    "--epochs 1 --steps 5": "give --steps or --epochs, but not both",
    "--batch-size 0": "--batch-size is 0; expected a whole number from 1",
    "--batch-size -5": "--batch-size is -5; expected a whole number from 1",
    "--batch-size 100000": "--batch-size is 100000; expected at most the 64 training",
    "--batch-size 65 --epochs 1": "--batch-size is 65; expected at most the 64",
    "--steps-per-dispatch 0": "--steps-per-dispatch is 0; expected a whole number",
    "--validate-every 0": "--validate-every is 0; expected a whole number from 1",
    "--checkpoint-every 0": "--checkpoint-every is 0; expected a whole number from 1",
    "--checkpoint-every -1": "--checkpoint-every is -1; expected a whole number",
    "--learning-rate -1": "--learning-rate is -1.0; expected a positive number",
    "--learning-rate 0": "--learning-rate is 0.0; expected a positive number",
    "--learning-rate nan": "--learning-rate is nan; expected a positive number",
    "--learning-rate inf": "--learning-rate is inf; expected a positive number",
    "--l1 -1": "--l1 is -1.0; expected a number from 0",
    "--l2 nan": "--l2 is nan; expected a number from 0",
    "--aux-weight -0.5": "--aux-weight is -0.5; expected a number from 0",
    "--clip value --clip-threshold -1": "--clip-threshold is -1.0; expected a positive",
    "--clip value": "give both or neither",
    "--clip-threshold 1": "give both or neither",
    "--clip magic --clip-threshold 1": "no way to clip named 'magic'",
    "--optimizer lion": "no optimiser named 'lion'",
    "--pretrain-steps -1": "--pretrain-steps is -1; expected a whole number from 0",
    "--pretrain-steps 5 --pretrain-corruption 1": "--pretrain-corruption is 1.0",
    "--pretrain-corruption 0.5": "--pretrain-corruption is of pre-training",
    "--model lstm --pretrain-steps 5": "pre-training is of an mlp, layer by layer, and",
    "--model rnn --pretrain-steps 5": "--model is rnn: leave out --pretrain-steps",
    "--model transformer --pretrain-steps 5": "pre-training is of an mlp",
    "--step 5": "--step 5 is of --resume",
    "--init-from nowhere": "nowhere has no checkpoint",
}


@pytest.mark.parametrize(("options", "said"), OPTIONS.items())
def test_an_option_that_cannot_be_meant_is_refused_before_a_folder_is_made(
    capsys, tmp_path, monkeypatch, options, said
):
    monkeypatch.chdir(tmp_path)
    line = f"train {SMALL} --no-progress {options}"
    refused(capsys, line, said)
    made = options.startswith("--init-from")
    assert made or os.listdir(tmp_path) == []


RESUMED = {
    "--depth 7": "--depth 7 (it was 1)",
    "--seed 9": "--seed 9 (it was 3)",
    "--learning-rate 123": "--learning-rate 123.0 (it was 0.01)",
    "--optimizer adam": "--optimizer adam (it was sgd)",
    "--data adding": "--data adding (it was digits)",
    "--batch-size 3": "--batch-size 3 (it was 16)",
    "--norm batch": "--norm batch (it was not given)",
    "--keep 1": "--keep 1 (it was not given)",
    "--out other": "--out other (it was run)",
    "--overwrite": "--overwrite True (it was False)",
    "--pretrain-steps 3": "--pretrain-steps 3 (it was 0)",
    "--init-from run": "--init-from run (it was not given)",
    "--depth 7 --seed 9 --width 2": "--width 2 (it was 4)",
    "--step 7": "run has no checkpoint of that step; it has those of steps: 5, 10",
    "--steps 5": "has taken 10 steps, more than num_steps=5",
    "--learning-rate -1": "--learning-rate is -1.0; expected a positive number",
}


@pytest.mark.parametrize(("options", "said"), RESUMED.items())
def test_an_option_that_a_resumed_run_does_not_take_is_named(
    capsys, run, options, said
):
    before = files(run)
    refused(capsys, f"train --resume run --no-progress {options}", said)
    assert files(run) == before


@pytest.mark.slow
def test_options_with_their_own_value_are_taken(capsys, run):
    line = "train --resume run --depth 1 --seed 3 --steps 10"
    assert main(line.split()) == 0
    # A default that was written, where the run had another value.
    with pytest.MonkeyPatch.context() as patch:
        line = "train --resume run --batch-size 128"
        patch.setattr("sys.argv", ["gradstab", *line.split()])
        refused(capsys, line, "--batch-size 128 (it was 16)")


def rewritten(run, change):
    path = run / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


FOLDERS = {
    "no folder": (lambda run: shutil.rmtree(run), "run has no config.json"),
    "a file": (
        lambda run: (shutil.rmtree(run), run.write_text("")),
        "run has no config.json",
    ),
    "an empty folder": (
        lambda run: (shutil.rmtree(run), run.mkdir()),
        "run has no config.json",
    ),
    "no config": (lambda run: (run / "config.json").unlink(), "has no config.json"),
    "empty config": (
        lambda run: (run / "config.json").write_text(""),
        "config.json is not valid JSON",
    ),
    "half a config": (
        lambda run: (run / "config.json").write_text('{"settings": {'),
        "config.json is not valid JSON",
    ),
    "bytes": (
        lambda run: (run / "config.json").write_bytes(b"\xff\xfe\x00"),
        "config.json is not valid JSON",
    ),
    "deep config": (
        lambda run: (run / "config.json").write_text("[" * 100_000),
        "config.json is not valid JSON",
    ),
    "a folder as config": (
        lambda run: ((run / "config.json").unlink(), (run / "config.json").mkdir()),
        "config.json cannot be read: Is a directory",
    ),
    "a list": (
        lambda run: (run / "config.json").write_text("[1]"),
        "config.json is not that of a run: it has no 'settings'",
    ),
    "no settings": (
        lambda run: rewritten(run, lambda c: c.pop("settings")),
        "is not that of a run: it has no 'settings'",
    ),
    "no options": (
        lambda run: rewritten(run, lambda c: c.pop("config")),
        "is not that of a run: it has no 'config'",
    ),
    "options of a list": (
        lambda run: rewritten(run, lambda c: c.update(config=[1])),
        "is not that of a run: it has no 'config'",
    ),
    "an unknown option": (
        lambda run: rewritten(run, lambda c: c["config"].update(colour="red")),
        "config.json has options that this version does not know: colour",
    ),
    "a setting lost": (
        lambda run: rewritten(run, lambda c: c["settings"].pop("seed")),
        "config.json in",
    ),
    "another seed": (
        lambda run: rewritten(run, lambda c: c["config"].update(seed=4)),
        "was made with seed=3 (now 4)",
    ),
    "another width": (
        lambda run: rewritten(run, lambda c: c["config"].update(width=5)),
        "the checkpoint is of another structure",
    ),
    "another optimiser": (
        lambda run: rewritten(run, lambda c: c["config"].update(optimizer="adam")),
        "the checkpoint is of another structure (opt_state)",
    ),
    "a text as depth": (
        lambda run: rewritten(run, lambda c: c["config"].update(depth="deep")),
        "its option depth is 'deep', expected int | None",
    ),
    "a text as rate": (
        lambda run: rewritten(run, lambda c: c["config"].update(learning_rate="x")),
        "its option learning_rate is 'x', expected float",
    ),
    "null as seed": (
        lambda run: rewritten(run, lambda c: c["config"].update(seed=None)),
        "its option seed is None, expected int",
    ),
    "a list as model": (
        lambda run: rewritten(run, lambda c: c["config"].update(model=["mlp"])),
        "its option model is ('mlp',), expected str",
    ),
    "no checkpoints": (
        lambda run: shutil.rmtree(run / "checkpoints"),
        "has lost its checkpoints, though 10 steps were taken. Put the folder",
    ),
    "empty checkpoints": (
        lambda run: (shutil.rmtree(run / "checkpoints"), (run / "checkpoints").mkdir()),
        "has lost its checkpoints",
    ),
    "a file as checkpoints": (
        lambda run: (
            shutil.rmtree(run / "checkpoints"),
            (run / "checkpoints").write_text(""),
        ),
        "has lost its checkpoints",
    ),
    "all checkpoints damaged": (
        lambda run: [p.write_bytes(b"") for p in run.rglob("manifest.ocdbt")],
        "checkpoint 10 is damaged",
    ),
    "a folder as metrics": (
        lambda run: ((run / "metrics.jsonl").unlink(), (run / "metrics.jsonl").mkdir()),
        "metrics.jsonl cannot be read: Is a directory",
    ),
}


@pytest.mark.parametrize(("change", "said"), FOLDERS.values(), ids=FOLDERS)
def test_a_run_that_is_not_whole_is_told_in_one_line_and_nothing_of_it_is_lost(
    capsys, run, change, said
):
    change(run)
    before = files(run)
    refused(capsys, "train --resume run --steps 20 --no-progress", said)
    assert files(run) == before


METRICS = {
    "none": (lambda path: path.unlink(), "lost 1 to 10 of the 10 steps"),
    "empty": (lambda path: path.write_text(""), "lost 1 to 10 of the 10 steps"),
    "cut": (
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        "lost 10 of the 10 steps",
    ),
    "binary": (lambda path: path.write_bytes(b"\xff\0" * 50), "lost 1 to 10"),
    "deep": (lambda path: path.write_bytes(b"[" * 100_000), "lost 1 to 10"),
    "texts": (lambda path: path.write_bytes(b'{"step": "1"}\n'), "lost 1 to 10"),
    "odd steps": (lambda path: path.write_bytes(b'{"step": -1}\n'), "lost 1 to 10"),
    "a list": (lambda path: path.write_bytes(b"[1, 2]\n"), "lost 1 to 10"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("change", "said"), METRICS.values(), ids=METRICS)
def test_bad_metrics_are_told_in_one_line_and_the_run_goes_on(
    capsys, run, change, said
):
    change(run / "metrics.jsonl")
    assert main(["train", "--resume", "run", "--steps", "15", "--no-progress"]) == 0
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("gradstab: ")
    assert said in line
    assert training.latest(run) == 15
    assert "steps: 15" in out


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_in_one_line_and_the_run_goes_on(capsys, run):
    for path in (run / "checkpoints" / "10").rglob("manifest.ocdbt"):
        path.write_bytes(b"")
    assert main(["train", "--resume", "run", "--steps", "15", "--no-progress"]) == 0
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert len(lines) == 2, err
    assert lines[0].startswith("gradstab: checkpoint 10 is damaged (")
    assert lines[0].endswith("going on from 5")
    assert lines[1] == "gradstab: going on from 5; kept beside it: 10.aside-1"
    assert training.latest(run) == 15


@pytest.mark.slow
def test_a_step_is_gone_on_from_by_the_command(capsys, run):
    assert main(["train", "--resume", "run", "--step", "5", "--no-progress"]) == 0
    assert "kept beside it: 10.aside-1" in capsys.readouterr().err
    assert training.latest(run) == 10


@pytest.mark.slow
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_is_told_in_one_line(capsys, run, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        line = "train --resume run --steps 20 --no-progress"
        if call == "replace":
            patch.setattr("pathlib.Path.replace", full)
        refused(capsys, line, "was not written: No space left on device", "saved at")
    assert not list(run.rglob("*.tmp"))
    assert main(line.split()) == 0
    assert training.latest(run) == 20


def test_an_existing_run_is_refused_by_the_names_of_options(capsys, run):
    before = files(run)
    said = "--resume run, delete it by --overwrite, or choose another --out"
    refused(capsys, LINE, "run exists and is not empty", said)
    assert files(run) == before
