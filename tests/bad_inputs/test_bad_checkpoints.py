"""Damaged checkpoints are never read in silence; an older whole one is gone on from."""

import os
import shutil
import warnings
from pathlib import Path

import chex
import numpy as np
import optax
import pytest
from clear_lines import assert_clear, refused
from flax import nnx

from gradstab import training
from gradstab.training import checkpoint_files, checkpoints

pytestmark = pytest.mark.cases

STEPS = (4, 8)


@pytest.fixture(scope="module")
def state():
    return training.initial_state(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), optax.adam(0.1))


@pytest.fixture(scope="module")
def whole(state, tmp_path_factory):
    """A run's folder with two checkpoints, whose biases are their steps."""
    folder = tmp_path_factory.mktemp("run")
    with checkpoints.Checkpoints(folder) as manager:
        for step in STEPS:
            params = dict(state.params) | {"bias": np.full(2, step, np.float32)}
            now = training.State(
                params, state.model_state, state.opt_state, np.int32(step), state.failed
            )
            checkpoints.save(manager, now)
    return folder


@pytest.fixture
def run(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def files(folder):
    """Kinds of files of a checkpoint, each with one of its kind."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        place = path.relative_to(folder)
        kind = "/".join(part if len(part) < 30 else "*" for part in place.parts)
        found.setdefault(kind, place)
    return found


def flipped(content):
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 4
    return bytes(changed)


DAMAGES = {
    "deleted": lambda content: None,
    "emptied": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "one bit": flipped,
    "longer": lambda content: content + b"\0",
    "zeros": lambda content: bytes(len(content)),
}
KINDS = (
    "_CHECKPOINT_METADATA",
    "params/_METADATA",
    "params/d/*",
    "params/manifest.ocdbt",
    "params/ocdbt.process_0/d/*",
    "params/ocdbt.process_0/manifest.ocdbt",
    "rest/_METADATA",
    "rest/d/*",
    "rest/manifest.ocdbt",
    "sha256.json",
)


def damage(path, how):
    content = DAMAGES[how](path.read_bytes())
    path.unlink()
    if content is not None:
        path.write_bytes(content)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_named_and_an_older_checkpoint_is_read(run, state, kind, how):
    newest = run / "checkpoints" / "8"
    found = files(newest)
    if kind not in found:
        pytest.skip(f"this Orbax writes no {kind}")
    if (kind, how) == ("sha256.json", "deleted"):
        # As checkpoints of older versions, which have none.
        restored = checkpoints.restore_state(run, state)
        assert restored.params["bias"].tolist() == [8, 8]
        return
    damage(newest / found[kind], how)
    with pytest.warns(training.DamageWarning) as said:
        restored = checkpoints.restore_state(run, state)
    (line,) = (str(each.message) for each in said)
    assert line.startswith("checkpoint 8 is damaged ("), line
    assert line.endswith("), going on from 4"), line
    # A digest may be damaged itself: then it is that of another file.
    assert kind == "sha256.json" or str(found[kind]) in line
    assert "\n" not in line
    assert restored.params["bias"].tolist() == [4, 4]
    with refused(ValueError, "checkpoint 8 is damaged (", "those of steps: 4"):
        checkpoints.restore_state(run, state, step=8)
    assert checkpoints.restore_state(run, state, step=4).params["bias"][0] == 4


@pytest.mark.parametrize("how", ["deleted", "emptied", "cut", "zeros"])
@pytest.mark.parametrize("kind", ["params/_METADATA", "params/d/*", "rest/d/*"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_of_a_checkpoint_without_digests_too_the_reader_is_not_heard(
    run, state, kind, how
):
    """Checkpoints of older versions have none, and the reader's errors are long."""
    newest = run / "checkpoints" / "8"
    (newest / "sha256.json").unlink()
    place = files(newest)[kind]
    for path in newest.glob(str(place.parent / "*")) if "*" in kind else [place]:
        damage(newest / path, how)
    with pytest.warns(training.DamageWarning, match="checkpoint 8 is damaged"):
        restored = checkpoints.restore_state(run, state)
    assert restored.params["bias"].tolist() == [4, 4]


def test_no_flipped_bit_of_80_is_read_in_silence(run, state):
    rng, newest = np.random.default_rng(0), run / "checkpoints" / "8"
    paths = sorted(path for path in newest.rglob("*") if path.is_file())
    silent = 0
    for _ in range(80):
        path = paths[rng.integers(len(paths))]
        content = path.read_bytes()
        if not content:
            continue
        changed = bytearray(content)
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
        path.write_bytes(changed)
        try:
            checkpoints.restore_state(run, state, step=8)
        except training.DamagedCheckpointError as error:
            assert_clear(error)
        else:
            silent += 1
        path.write_bytes(content)
    assert silent == 0
    assert checkpoints.restore_state(run, state).params["bias"][0] == 8


def test_when_all_are_damaged_each_is_named_with_what_to_do(run, state):
    for step in STEPS:
        damage(run / "checkpoints" / str(step) / "params" / "manifest.ocdbt", "cut")
    with refused(
        ValueError,
        str(run),
        "checkpoint 8 is damaged (params/manifest.ocdbt has changed)",
        "checkpoint 4 is damaged",
        "delete its sha256.json",
    ):
        checkpoints.restore_state(run, state)


ODD = {
    "a file": lambda folder: (folder / "12").write_text(""),
    "an empty folder": lambda folder: (folder / "12").mkdir(),
    "another step": lambda folder: shutil.copytree(folder / "4", folder / "12"),
    "digests of a list": lambda folder: (
        shutil.copytree(folder / "4", folder / "12"),
        (folder / "12" / "sha256.json").write_text("[1]"),
    ),
    "digests of numbers": lambda folder: (
        shutil.copytree(folder / "4", folder / "12"),
        (folder / "12" / "sha256.json").write_text('{"params": 3}'),
    ),
    "no parameters": lambda folder: (
        shutil.copytree(folder / "4", folder / "12"),
        (folder / "12" / "sha256.json").unlink(),
        shutil.rmtree(folder / "12" / "params"),
    ),
    "a deep nest": lambda folder: (
        shutil.copytree(folder / "4", folder / "12"),
        (folder / "12" / "sha256.json").write_text("[" * 100_000),
    ),
}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_what_is_no_checkpoint_but_has_the_name_of_one_is_passed_over(run, state, make):
    make(run / "checkpoints")
    with pytest.warns(training.DamageWarning, match=r"^checkpoint 12 is damaged \("):
        restored = checkpoints.restore_state(run, state)
    assert restored.params["bias"].tolist() == [8, 8]


OTHERS = (
    *("08", "8.writing", "8.writing.orbax-checkpoint-tmp", "8.deleting"),
    *("8.aside-1", "notes", "-8", "²"),
)


@pytest.mark.parametrize("name", OTHERS)
def test_other_names_are_no_checkpoints(run, name):
    shutil.copytree(run / "checkpoints" / "4", run / "checkpoints" / name)
    assert training.all_steps(run) == [4, 8]
    with checkpoints.Checkpoints(run):
        pass
    left = sorted(os.listdir(run / "checkpoints"))
    # What a killed run was writing or deleting is cleared away, and nothing else.
    mine = name.startswith(("8.writing", "8.deleting"))
    assert left == sorted({"4", "8"} | (set() if mine else {name}))


def test_parameters_and_models_fall_back_too(run):
    damage(next((run / "checkpoints" / "8" / "params" / "d").iterdir()), "one bit")
    with pytest.warns(training.DamageWarning, match="going on from 4"):
        assert training.load_params(run)["bias"].tolist() == [4, 4]
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(1))
    with pytest.warns(training.DamageWarning, match="going on from 4"):
        assert training.restore(run, model).bias[...].tolist() == [4, 4]


def fail_to_write(monkeypatch, path_part):
    """Let the disk be full for files of this kind, and count the attempts."""
    original = checkpoint_files._ocp().save_checkpointables

    def full(path, items):
        original(path, items)
        if path_part == "orbax":
            raise ValueError(
                "RESOURCE_EXHAUSTED: writing x\n[OS error 28: ENOSPC No space left]"
            )

    monkeypatch.setattr(checkpoint_files._ocp(), "save_checkpointables", full)
    if path_part != "orbax":
        monkeypatch.setattr(
            checkpoint_files._files, "write", lambda *a, **k: os.write(1000, b"")
        )


@pytest.mark.parametrize("path_part", ["orbax", "digests"])
def test_a_checkpoint_that_cannot_be_written_leaves_nothing_and_is_told(
    run, state, monkeypatch, path_part
):
    before = sorted(os.listdir(run / "checkpoints"))
    now = training.State(*(getattr(state, n) for n in ("params", "model_state",
                         "opt_state")), np.int32(12), state.failed)  # fmt: skip
    with monkeypatch.context() as patch:
        fail_to_write(patch, path_part)
        cause = "No space left" if path_part == "orbax" else "Bad file descriptor"
        with (
            refused(OSError, "checkpoint 12 was not written", cause, "it has 8"),
            checkpoints.Checkpoints(run) as manager,
        ):
            checkpoints.save(manager, now)
    assert sorted(os.listdir(run / "checkpoints")) == before
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with checkpoints.Checkpoints(run) as manager:
            checkpoints.save(manager, now)
    assert training.all_steps(run) == [4, 8, 12]


def test_a_deletion_that_was_killed_leaves_no_damaged_checkpoint(
    run, state, monkeypatch
):
    def half(path, **_):
        if "deleting" in Path(path).name:
            next(Path(path).rglob("manifest.ocdbt")).unlink()
            raise OSError(5, "as if it was killed here")

    monkeypatch.setattr(shutil, "rmtree", half)
    now = training.State(*(getattr(state, n) for n in ("params", "model_state",
                         "opt_state")), np.int32(12), state.failed)  # fmt: skip
    manager = checkpoints.Checkpoints(run, keep=2)
    checkpoints.save(manager, now)
    manager.wait()
    assert training.all_steps(run) == [8, 12]
    chex.assert_trees_all_equal(checkpoints.restore_state(run, state).step.item(), 12)
