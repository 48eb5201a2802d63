"""Few numbers are written elsewhere, they are the right ones, and each is explained."""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from gradstab.watch import METRICS, TensorBoard, WeightsAndBiases, show_metrics
from gradstab.watch.history_metrics import SCALARS, as_markdown

DOCUMENT = pathlib.Path(gs.__file__).parent.parent / "docs" / "metrics.md"


def _loss(p, x):
    return jnp.mean((jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["head"]) ** 2)


@pytest.fixture(scope="module")
def some():
    """Statistics of twelve steps."""

    @jax.jit
    def step(scale):
        params = {"a": scale * jnp.eye(3), "b": jnp.eye(3), "head": jnp.ones((3, 2))}
        (_, stats), _ = gs.value_and_grad(_loss, level="full")(params, jnp.ones((4, 3)))
        return stats.with_updates(params, params)

    return [step(0.5 + 0.1 * (i % 5)) for i in range(12)]


class Kept:
    """A writer of a user."""

    def __init__(self, layers=()):
        self.layers, self.rows, self.closed = layers, [], False

    def write(self, step, numbers):
        self.rows.append((step, numbers))

    def close(self):
        self.closed = True


def test_ten_numbers_are_written_and_those_that_are_asked_for(tmp_path, some):
    few, more = Kept(), Kept(["gradient_norm", "share"])
    with gs.History(tmp_path, writers=[few, more]) as history:
        for i, stats in enumerate(some):
            history.append(i, stats)
        history.append(12, some[0], lr=0.5)
    assert few.closed
    assert more.closed
    assert [step for step, _ in few.rows] == list(range(13))
    assert len(SCALARS) == 10
    assert set(few.rows[11][1]) == set(SCALARS)
    assert set(few.rows[12][1]) == {*SCALARS, "lr"}
    names = few.rows[0][1].keys() | {"loss_z"}
    assert names == set(SCALARS)
    layers = {f"{m}/{x}" for m in more.layers for x in history.names}
    assert set(more.rows[11][1]) == {*SCALARS, *layers}
    for name in SCALARS:
        written = [numbers.get(name, np.nan) for _, numbers in few.rows]
        np.testing.assert_allclose(history[name], written, err_msg=name)


def test_what_is_computed_is_what_statistics_say(tmp_path, some):
    history = gs.History(tmp_path)
    for i, stats in enumerate(some):
        history.append(i, stats)
    for i, stats in enumerate(some):
        for name in ("share", "gain", "radial_norm", "update_ratio", "global_norm"):
            expected = getattr(stats, name)
            np.testing.assert_allclose(history[name][i], expected, rtol=1e-5)
        np.testing.assert_allclose(
            history["largest_share"][i], max(stats.share), rtol=1e-5
        )
        row = int(history["largest_share_layer"][i])
        assert stats.share[row] == max(stats.share)
        np.testing.assert_allclose(
            history["smallest_gain"][i], np.nanmin(stats.gain), rtol=1e-5
        )
    assert (history["loss"] == history.value).all()
    assert (history["nonfinite"] == 0).all()
    assert history["largest_update_ratio"][0] == 1


def test_a_metric_of_what_was_not_measured_is_nan(tmp_path):
    (tmp_path / "run.jsonl").write_text('{"_step": 0, "loss": 1}\n')
    history = gs.History.read(tmp_path / "run.jsonl")
    for metric in METRICS:
        if metric.name != "loss":
            assert np.isnan(history[metric.name]).all(), metric.name


def test_steps_of_a_scan_are_written_one_by_one(tmp_path, some):
    one, all_at_once = Kept(), Kept()
    for i, stats in enumerate(some):
        gs.History(tmp_path / "one", writers=[one]).append(i, stats)
    several = jax.tree.map(lambda *x: jnp.stack(x), *some)
    gs.History(tmp_path / "all", writers=[all_at_once]).append(0, several)
    # Also where a process goes on with a history: what it compares with is read.
    for a, b in zip(one.rows, all_at_once.rows, strict=True):
        assert a == b
    assert "loss_z" in one.rows[11][1]


def test_every_metric_is_explained():
    for metric in METRICS:
        assert metric.formula
        assert metric.level
        assert metric.reading
        assert metric.healthy
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert DOCUMENT.read_text().endswith(as_markdown())


def test_the_table_of_metrics_is_printed(capsys):
    show_metrics()
    assert "update_ratio" in capsys.readouterr().out


def test_event_files_hold_what_was_written(tmp_path, some):
    pytest.importorskip("tensorboard")
    pytest.importorskip("tensorboardX")
    board = TensorBoard(tmp_path / "board", layers=["gradient_norm"])
    with gs.History(tmp_path / "run", writers=[board]) as history:
        for i, stats in enumerate(some):
            history.append(i, stats, lr=0.1)
    again = gs.History.read(tmp_path / "board")
    # TensorBoard has no brackets in names.
    assert again.names[:3] == history.names[:3]
    assert again.steps.tolist() == history.steps.tolist()
    np.testing.assert_allclose(again.value, history.value, rtol=1e-6)
    for name in ("gradient_norm", "global_norm"):
        np.testing.assert_allclose(again[name], history[name], rtol=1e-5)
    assert "watch/lr" in again.scalars


@pytest.mark.slow
def test_wandb_writes_to_the_disk_when_it_is_offline(tmp_path, some):
    pytest.importorskip("wandb")
    there = WeightsAndBiases(mode="offline", project="x", dir=str(tmp_path))
    with gs.History(tmp_path / "run", writers=[there]) as history:
        history.append(0, some[0])
    (file,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert b"watch/global_norm" in file.read_bytes()


def test_a_run_of_wandb_that_is_given_is_not_finished(tmp_path, some):
    class Run:
        def log(self, numbers, step):
            self.logged = step, numbers

        def finish(self):
            raise AssertionError

    run = Run()
    with gs.History(tmp_path, writers=[WeightsAndBiases(run)]) as history:
        history.append(4, some[0])
    step, numbers = run.logged
    assert step == 4
    assert len(numbers) <= 10
    assert all(name.startswith("watch/") for name in numbers)


def test_what_is_no_writer_is_refused(tmp_path, monkeypatch):
    with pytest.raises(TypeError, match="a writer has write"):
        gs.History(tmp_path, writers=["tensorboard"])
    with pytest.raises(ValueError, match="layers must be"):
        WeightsAndBiases(object(), layers=["loss"])
    for name, make in (
        ("wandb", lambda: WeightsAndBiases(mode="offline")),
        ("tensorboardX", lambda: TensorBoard(tmp_path)),
    ):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ModuleNotFoundError, match="gradstab"):
            make()
