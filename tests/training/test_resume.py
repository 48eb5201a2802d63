"""A run that was killed ends where it would have ended."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import chex
import numpy as np
import pytest

from gradstab import training
from gradstab.training import checkpoints, loop

pytestmark = pytest.mark.cases


class Killed(BaseException):
    """Like SIGKILL, nothing handles it."""


def lines(folder):
    text = (folder / "metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    return [{k: v for k, v in row.items() if k != "time"} for row in rows]


@pytest.fixture
def saving(settings, tmp_path):
    return settings | {"checkpoint_every": 8, "directory": tmp_path / "run"}


@pytest.fixture
def reference(network, blobs, saving, tmp_path):
    """The same run, never interrupted."""
    return training.fit(network, blobs, **saving | {"directory": tmp_path / "whole"})


def kill_at_call(monkeypatch, owner, name, number, *, after):
    """Kill at the so-manieth call of a function, before or after its work."""
    original, calls = getattr(owner, name), []

    def killing(*args, **kwargs):
        calls.append(1)
        if len(calls) == number and not after:
            raise Killed
        result = original(*args, **kwargs)
        if len(calls) == number:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, killing)


@pytest.mark.parametrize(
    ("owner", "name", "number", "after"),
    [
        (loop.MetricsLog, "write", 1, False),
        (loop.MetricsLog, "write", 2, True),
        (loop.MetricsLog, "write", 3, True),
        (loop.MetricsLog, "write", 6, False),
        (checkpoints, "save", 1, False),
        (checkpoints, "save", 2, True),
        (checkpoints, "save", 3, False),
        (training.results, "write_config", 1, False),
    ],
)
def test_a_killed_run_resumes_bitwise(
    network, blobs, saving, reference, arrays, monkeypatch, owner, name, number, after
):
    with monkeypatch.context() as patch:
        kill_at_call(patch, owner, name, number, after=after)
        with pytest.raises(Killed):
            training.fit(network, blobs, **saving)
    with (saving["directory"] / "metrics.jsonl").open("a") as file:
        file.write('{"step": 99, "lo')  # a line that was being written
    run = training.fit(network, blobs, resume=True, **saving)
    chex.assert_trees_all_equal(arrays(run.state), arrays(reference.state))
    assert lines(run.directory) == lines(reference.directory)
    for column in ("loss", "update_norm", "accuracy"):
        np.testing.assert_array_equal(run.history[column], reference.history[column])


@pytest.mark.parametrize("seen", [2, 11])
def test_an_iterable_resumes_bitwise_after_its_batches_were_skipped(
    network, blobs, saving, arrays, tmp_path, monkeypatch, seen
):
    x, y = blobs
    batches = [(x[i::6], y[i::6]) for i in range(5)]
    settings = saving | {"batch_size": None}
    whole = training.fit(
        network, batches, **settings | {"directory": tmp_path / "whole"}
    )
    with monkeypatch.context() as patch:
        kill_at_call(patch, loop.MetricsLog, "write", 1 + seen // 4, after=True)
        with pytest.raises(Killed):
            training.fit(network, batches, **settings)
    run = training.fit(network, batches, resume=True, **settings)
    chex.assert_trees_all_equal(arrays(run.state), arrays(whole.state))


def interrupting(batches, at, number=signal.SIGINT):
    """Batches, with a signal while one of them is drawn."""
    for drawn, batch in enumerate(batches):
        if drawn == at:
            os.kill(os.getpid(), number)
        yield batch


@pytest.fixture
def listening():
    """What a shell starts in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_saves_the_end_of_the_dispatch_and_the_run_resumes_bitwise(
    network, blobs, saving, arrays, tmp_path
):
    x, y = blobs
    batches = [(x[i % 6 :: 6], y[i % 6 :: 6]) for i in range(22)]
    settings = saving | {"batch_size": None}
    whole = training.fit(
        network, batches, **settings | {"directory": tmp_path / "whole"}
    )
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        training.fit(network, interrupting(batches, at=9), **settings)
    assert signal.getsignal(signal.SIGINT) is handler
    # The end of the dispatch 8..12, where no checkpoint was due.
    assert training.latest(settings["directory"]) == 12
    assert len(lines(settings["directory"])) == 12
    run = training.fit(network, batches, resume=True, **settings)
    chex.assert_trees_all_equal(arrays(run.state), arrays(whole.state))


def test_broken_data_lose_no_step(network, blobs, saving):
    x, y = blobs
    good = [(x[::6], y[::6])] * 12
    settings = saving | {"batch_size": None, "checkpoint_every": None}
    with pytest.raises(TypeError, match="batch 12 must be a pair"):
        training.fit(network, [*good, None], **settings)
    assert training.latest(settings["directory"]) == 12
    assert len(lines(settings["directory"])) == 12


def test_a_longer_run_goes_on_from_a_finished_one(
    network, blobs, saving, reference, arrays
):
    training.fit(network, blobs, **saving | {"num_steps": 10})
    run = training.fit(network, blobs, resume=True, **saving)
    chex.assert_trees_all_equal(arrays(run.state), arrays(reference.state))
    # A finished run is loaded, not trained.
    again = training.fit(network, blobs, resume=True, **saving)
    chex.assert_trees_all_equal(arrays(again.state), arrays(reference.state))
    np.testing.assert_array_equal(again.history["loss"], reference.history["loss"])
    with pytest.raises(ValueError, match="has taken 22 steps, more than num_steps=10"):
        training.fit(network, blobs, resume=True, **saving | {"num_steps": 10})


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"batch_size": 4}, {"steps_per_dispatch": 2}]
)
def test_other_settings_are_not_resumed_with(network, blobs, saving, change):
    training.fit(network, blobs, **saving | {"num_steps": 4})
    (name,) = change
    with pytest.raises(ValueError, match=f"was made with {name}="):
        training.fit(network, blobs, resume=True, **saving | change)


def test_a_resumed_run_keeps_its_steps_per_dispatch(network, blobs, saving):
    training.fit(network, blobs, **saving | {"num_steps": 4})
    again = saving | {"num_steps": 8, "steps_per_dispatch": None}
    run = training.fit(network, blobs, resume=True, **again)
    assert training.read_config(run.directory)["settings"]["steps_per_dispatch"] == 4


def test_an_existing_run_is_never_lost_silently(network, blobs, saving):
    short = saving | {"num_steps": 4}
    training.fit(network, blobs, **short)
    with pytest.raises(FileExistsError, match="resume=True"):
        training.fit(network, blobs, **short)
    with pytest.raises(ValueError, match="ask for one"):
        training.fit(network, blobs, resume=True, overwrite=True, **short)
    notes = saving["directory"] / "notes.txt"
    notes.write_text("mine")
    training.fit(network, blobs, overwrite=True, **short | {"num_steps": 3})
    assert training.all_steps(saving["directory"]) == [3]
    assert len(lines(saving["directory"])) == 3
    assert notes.read_text() == "mine"


LOST = {
    "cut": (lambda lines: lines[:5], "6 to 8"),
    "gone": (lambda lines: None, "1 to 8"),
    "empty": (lambda lines: [], "1 to 8"),
    "one line less": (lambda lines: lines[:2] + lines[3:], "3"),
    "half a line": (lambda lines: [*lines[:-1], lines[-1][:9]], "8"),
    "no step": (lambda lines: [b'{"loss": 1}\n', *lines[1:]], "1"),
    "a text": (lambda lines: [b'{"step": 1, "loss": "x"}\n', *lines[1:]], "1"),
    "bytes": (lambda lines: [lines[0], b"\xff\x00\n", *lines[2:]], "2"),
}


@pytest.mark.parametrize(("damage", "steps"), LOST.values(), ids=LOST)
def test_lost_metrics_are_said_and_stop_nothing(
    network, blobs, saving, reference, arrays, damage, steps
):
    training.fit(network, blobs, **saving | {"num_steps": 8})
    path = saving["directory"] / "metrics.jsonl"
    content = path.read_bytes()
    left = damage(content.splitlines(keepends=True))
    path.unlink()
    if left is not None:
        path.write_bytes(b"".join(left))
    with pytest.warns(training.DamageWarning, match=f"lost {steps} of the 8") as said:
        run = training.fit(network, blobs, resume=True, **saving)
    assert len(said) == 1
    assert "\n" not in str(said[0].message)
    chex.assert_trees_all_equal(arrays(run.state), arrays(reference.state))
    whole = {int(step): loss for step, loss in zip(
        reference.history["step"], reference.history["loss"], strict=True)}  # fmt: skip
    assert run.history["step"][-1] == 22
    for step, loss in zip(run.history["step"], run.history["loss"], strict=True):
        assert loss == whole[step]
    read = training.read_metrics(run.directory, gaps=True)
    assert [row["step"] for row in read] == run.history["step"].tolist()
    # What was broken is kept, and nothing else is.
    copies = list(run.directory.glob("metrics.damaged-*"))
    broken = left and any(training.results._row(line) is None for line in left)
    assert len(copies) == bool(broken)
    assert not broken or copies[0].read_bytes() == b"".join(left)


@pytest.mark.parametrize("what", ["folder", "content"])
def test_a_run_that_has_lost_its_checkpoints_is_refused_and_kept(
    network, blobs, saving, what
):
    training.fit(network, blobs, **saving | {"num_steps": 8})
    folder = saving["directory"]
    shutil.rmtree(folder / "checkpoints")
    if what == "content":
        (folder / "checkpoints").mkdir()
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(FileNotFoundError, match="lost its checkpoints, though 8 steps"):
        training.fit(network, blobs, resume=True, **saving)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_run_goes_on_from_the_step_asked_for_and_keeps_the_later_ones(
    network, blobs, saving, reference, arrays
):
    training.fit(network, blobs, **saving | {"num_steps": 20})
    folder = saving["directory"]
    assert training.all_steps(folder) == [8, 16, 20]
    with pytest.raises(FileNotFoundError, match="of step 12; it has those of steps: 8"):
        training.fit(network, blobs, resume=True, resume_step=12, **saving)
    with pytest.warns(training.DamageWarning, match=r"16\.aside-1, 20\.aside-1"):
        run = training.fit(network, blobs, resume=True, resume_step=8, **saving)
    assert training.all_steps(folder) == [8, 16, 22]
    assert {"16.aside-1", "20.aside-1"} < set(os.listdir(folder / "checkpoints"))
    chex.assert_trees_all_equal(arrays(run.state), arrays(reference.state))
    assert lines(folder) == lines(reference.directory)
    with pytest.raises(ValueError, match="resume_step=8 needs resume=True"):
        training.fit(network, blobs, resume_step=8, **saving)


def test_sigterm_saves_and_ends_with_its_status(
    network, blobs, saving, reference, arrays
):
    x, y = blobs
    batches = [(x[i % 6 :: 6], y[i % 6 :: 6]) for i in range(22)]
    settings = saving | {"batch_size": None}
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as error:
        training.fit(
            network, interrupting(batches, at=9, number=signal.SIGTERM), **settings
        )
    assert error.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    assert training.latest(settings["directory"]) == 12
    run = training.fit(network, batches, resume=True, **settings)
    assert run.num_steps == 22


def test_a_sigterm_that_the_program_handles_is_left_to_it(network, blobs, saving):
    x, y = blobs
    batches, found = [(x[i % 6 :: 6], y[i % 6 :: 6]) for i in range(22)], []
    before = signal.signal(signal.SIGTERM, lambda *_: found.append(1))
    try:
        run = training.fit(
            network,
            interrupting(batches, at=9, number=signal.SIGTERM),
            **saving | {"batch_size": None},
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (run.num_steps, found) == (22, [1])


PROGRAM = """
import sys, jax, numpy as np, optax
from flax import nnx
from gradstab import training

class Network(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(16, 64, rngs=rngs)
        self.norm = nnx.BatchNorm(64, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)
        self.last = nnx.Linear(64, 4, rngs=rngs)
    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))

rng = np.random.default_rng(0)
data = rng.standard_normal((256, 16), np.float32), rng.integers(0, 4, 256, np.int32)
run = training.fit(
    Network(nnx.Rngs(0)), data, optimizer=optax.adam(1e-3), num_steps=20_000,
    batch_size=32, steps_per_dispatch=10, checkpoint_every=500,
    directory=sys.argv[1], resume=True,
)
np.savez(sys.argv[2], *jax.tree.leaves((run.state.params, run.state.opt_state)))
"""


@pytest.mark.slow
def test_a_process_killed_by_the_system_resumes_bitwise(tmp_path):
    def start(name):
        arguments = [tmp_path / name, tmp_path / f"{name}.npz"]
        return subprocess.Popen([sys.executable, "-c", PROGRAM, *map(str, arguments)])

    def wait_for_lines(num):
        path: pathlib.Path = tmp_path / "killed" / "metrics.jsonl"
        while not path.exists() or path.read_bytes().count(b"\n") < num:
            assert process.poll() is None, "the program ended before it was killed"
            time.sleep(0.01)

    for num in (1, 1700, 6200):
        process = start("killed")
        wait_for_lines(num)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start("killed").wait() == start("whole").wait() == 0
    with np.load(tmp_path / "killed.npz") as a, np.load(tmp_path / "whole.npz") as b:
        assert len(a) == len(b) > 10
        chex.assert_trees_all_equal(dict(a), dict(b))
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
