"""A history loses no line, and gives back what was measured."""

import dataclasses
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs

FILE = "history.jsonl"


def _loss(p, x):
    return jnp.mean((jnp.tanh(x @ p["a"]) @ p["head"]) ** 2)


@pytest.fixture(scope="module")
def some():
    """Statistics of three steps."""
    step = jax.jit(gs.value_and_grad(_loss, level="full"))
    params = [
        {"a": w * np.eye(3, dtype=np.float32), "head": np.ones((3, 2), np.float32)}
        for w in np.float32([0.1, 0.5, 1.0])
    ]
    return [step(p, np.ones((4, 3), np.float32))[0][1] for p in params]


def _stacked(some):
    return jax.tree.map(lambda *x: jnp.stack(x), *some)


def test_what_is_appended_is_read_back(tmp_path, some):
    history = gs.History(tmp_path / "new" / "run")
    history.append(3, some[0], learning_rate=0.1)
    assert history.steps.tolist() == [3]
    history.append(5, some[1])
    again = gs.History.read(tmp_path / "new" / "run")
    for found in (history, again, gs.History.read(again.path)):
        assert found.steps.tolist() == [3, 5]
        assert len(found) == 2
        assert found.names == ("a", "head", "(elsewhere)")
        assert found.scalars == ("learning_rate",)
        assert np.isnan(found["learning_rate"][1])
        np.testing.assert_allclose(found["learning_rate"][0], 0.1)
        for i, stats in enumerate(some[:2]):
            assert np.float32(found.value[i]) == stats.value
            for name in ("forward_rms", "gradient_norm", "forward_nonfinite"):
                column = found[name][i].astype(np.float32)
                np.testing.assert_array_equal(column, getattr(stats, name))
            np.testing.assert_allclose(
                found.global_norm[i], stats.global_norm, rtol=1e-6
            )
    assert "3 names" in repr(again)
    assert "steps 3 .. 5" in repr(again)


def test_every_array_of_statistics_is_a_column(tmp_path, some):
    history = gs.History(tmp_path)
    history.append(0, some[0])
    arrays = {
        field.name
        for field in dataclasses.fields(some[0])
        if not isinstance(getattr(some[0], field.name), tuple)
        and np.shape(getattr(some[0], field.name)) == (3,)
    }
    assert len(arrays) > 10
    for name in arrays:
        assert history[name].shape == (1, 3)
    # Nothing but NaN is not written.
    assert set(history.columns) == arrays - {"update_norm"}
    assert "update_norm" not in (tmp_path / FILE).read_text()
    assert np.isnan(history["update_norm"]).all()


def test_steps_that_a_scan_stacked_have_a_line_each(tmp_path, some):
    history = gs.History(tmp_path)
    several = _stacked(some)
    history.append(7, several, learning_rate=jnp.array([1, 2, 3]), clipped=False)
    history.append(np.array([20, 30, 50]), several)
    assert history.steps.tolist() == [7, 8, 9, 20, 30, 50]
    assert history["learning_rate"][:3].tolist() == [1, 2, 3]
    assert history["clipped"][:3].tolist() == [0, 0, 0]
    for row in range(6):
        one = history["backward_rms"][row].astype(np.float32)
        np.testing.assert_array_equal(one, several.backward_rms[row % 3])


def test_decimals_are_few_and_the_same_number(tmp_path, some):
    stats = some[0]
    draw = np.random.default_rng(0).normal(size=(300, 3)) * 1e-30
    draw = draw.astype(np.float32)
    several = jax.tree.map(lambda x: np.broadcast_to(x, (300, *x.shape)), stats)
    several = dataclasses.replace(several, gradient_norm=draw)
    history = gs.History(tmp_path)
    history.append(0, several)
    np.testing.assert_array_equal(history["gradient_norm"].astype(np.float32), draw)
    text = (tmp_path / FILE).read_text()
    assert "0.30000000000000004" not in text
    assert max(map(len, text.replace(",", " ").split())) < 30


def test_numbers_that_json_does_not_have_are_kept(tmp_path, some):
    history = gs.History(tmp_path)
    lost = dataclasses.replace(some[0], value=jnp.float32(jnp.nan))
    history.append(0, lost, lr=jnp.inf)
    lost = dataclasses.replace(some[0], param_norm=jnp.array([1.0, jnp.inf, 0.0]))
    history.append(1, lost, lr=float("nan"))
    again = gs.History.read(tmp_path)
    assert np.isnan(again.value[0])
    assert np.isinf(again["param_norm"][1, 1])
    np.testing.assert_array_equal(again["lr"], [np.inf, np.nan])


# Lines that are cut, and runs that come again


@pytest.mark.parametrize("kept", [1, 20, 0.3, 0.7])
def test_an_unfinished_line_is_cut_off_by_who_writes_only(tmp_path, some, kept):
    history = gs.History(tmp_path)
    for step in range(3):
        history.append(step, some[0])
    data = (tmp_path / FILE).read_bytes()
    last = data.rstrip().rfind(b"\n") + 1
    length = int(kept * (len(data) - last)) if kept < 1 else len(data) - last - kept
    torn = data[: last + length]
    (tmp_path / FILE).write_bytes(torn)
    assert gs.History.read(tmp_path).steps.tolist() == [0, 1]
    assert (tmp_path / FILE).read_bytes() == torn
    again = gs.History(tmp_path)
    assert (tmp_path / FILE).read_bytes() == data[:last]
    again.append(7, some[1])
    assert again.steps.tolist() == [0, 1, 7]
    assert gs.History.read(tmp_path).steps.tolist() == [0, 1, 7]


def test_what_another_process_left_unfinished_is_not_glued_to(tmp_path, some):
    history = gs.History(tmp_path)
    history.append(0, some[0])
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"step": 1, "val' + b"x" * 200_000)
    history.append(1, some[1])
    assert gs.History.read(tmp_path).steps.tolist() == [0, 1]


def test_a_first_line_that_is_unfinished_is_written_again(tmp_path, some):
    (tmp_path / FILE).write_bytes(b'{"gradstab_hist')
    assert len(gs.History.read(tmp_path)) == 0
    history = gs.History(tmp_path)
    history.append(0, some[0])
    assert gs.History.read(tmp_path).names == some[0].names


def test_a_resumed_run_replaces_the_steps_that_it_lost(tmp_path, some):
    history = gs.History(tmp_path)
    for step in range(10):
        history.append(step, some[0])
    again = gs.History(tmp_path)
    again.append(6, _stacked(some[1:]))
    for found in (again, gs.History.read(tmp_path), gs.History(tmp_path)):
        assert found.steps.tolist() == [*range(8)]
        values = [some[0].value] * 6 + [some[1].value, some[2].value]
        np.testing.assert_array_equal(found.value.astype(np.float32), values)
    assert (tmp_path / FILE).read_bytes().count(b"\n") == 1 + 10 + 2


def test_what_was_read_stays_while_the_run_goes_on(tmp_path, some):
    history = gs.History(tmp_path)
    history.append(0, some[0])
    found = gs.History.read(tmp_path)
    history.append(1, some[0])
    assert len(found) == 1
    assert len(history) == 2
    with pytest.raises(ValueError, match="goes on with one"):
        found.append(2, some[0])


def test_a_line_that_cannot_be_written_leaves_nothing(tmp_path, some, monkeypatch):
    history = gs.History(tmp_path)
    history.append(0, some[0])
    whole = (tmp_path / FILE).read_bytes()
    write, given = os.write, []

    def full(file, data):
        if given:
            raise OSError(28, "No space left on device")
        given.append(write(file, data[:50]))
        return 50

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="was not written: No space left"):
        history.append(1, some[1])
    monkeypatch.undo()
    assert given
    assert (tmp_path / FILE).read_bytes() == whole
    history.append(1, some[2])
    assert np.float32(gs.History.read(tmp_path).value[1]) == some[2].value


def test_one_transfer_fetches_all_that_a_step_needs(tmp_path, some, monkeypatch):
    history = gs.History(tmp_path)
    get, calls = jax.device_get, []
    monkeypatch.setattr(jax, "device_get", lambda x: calls.append(x) or get(x))
    with jax.transfer_guard_device_to_host("allow"):
        history.append(0, some[0], lr=jnp.float32(0.1), other=2)
    assert len(calls) == 1


_WRITER = """
import jax, jax.numpy as jnp, sys
import gradstab as gs
watched = gs.value_and_grad(lambda w, x: jnp.mean((x @ w) ** 2))
(_, stats), _ = jax.jit(watched)(jnp.eye(3), jnp.ones((4, 3)))
several = jax.tree.map(lambda x: jnp.stack([x] * 3), stats)
for run in range(10**6):
    history = gs.History(f"{sys.argv[1]}/{run}")
    print("open", flush=True)
    for step in range(0, 10**6, 3):
        history.append(step, several)
        print(step, flush=True)
"""


@pytest.mark.slow
def test_a_process_killed_at_any_moment_loses_no_line(tmp_path):
    """Twenty times, each time at another moment of its writing."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", _WRITER]
    wait = np.random.default_rng(0)
    for trial in range(20):
        folder, said = tmp_path / str(trial), []
        with subprocess.Popen(
            [*command, str(folder)], stdout=subprocess.PIPE, env=environment
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            enough = wait.integers(1, 60)
            for line in process.stdout:
                said.append(int(line))
                if len(said) == enough:
                    break
            # Somewhere in one of the next lines.
            signal.sigtimedwait([], wait.uniform(0, 2e-3))
            process.send_signal(signal.SIGKILL)
            said += [int(line) for line in process.stdout if line.endswith(b"\n")]
        steps = gs.History(folder / "0").steps
        np.testing.assert_array_equal(steps, np.arange(len(steps)))
        assert len(steps) >= said[-1] + 3


# What is refused


def test_what_is_no_history_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no"):
        gs.History.read(tmp_path / "none")
    with pytest.raises(ValueError, match="is no history of one run"):
        gs.History.read(tmp_path)
    for text in ("{}\n", "[]\n", "step,loss\n", '{"step": 0}\n', "\xff\n"):
        (tmp_path / FILE).write_text(text)
        for opened in (gs.History, gs.History.read):
            with pytest.raises(ValueError, match="no history of gradstab"):
                opened(tmp_path)
    (tmp_path / FILE).write_text('{"gradstab_history": 99, "names": []}\n')
    with pytest.raises(ValueError, match="of version 99"):
        gs.History(tmp_path)
    with pytest.raises(TypeError, match="must name a file or a folder"):
        gs.History(3)


def test_a_line_in_the_middle_that_is_broken_is_said(tmp_path, some):
    history = gs.History(tmp_path)
    history.append(0, _stacked(some))
    lines = (tmp_path / FILE).read_text().splitlines()
    for broken in (lines[2][:40], '{"step": 1}', '{"step": 1, "value": "x"}'):
        text = "\n".join([*lines[:2], broken, lines[3], ""])
        (tmp_path / FILE).write_text(text)
        with pytest.raises(ValueError, match="no history of gradstab"):
            gs.History.read(tmp_path)


def test_statistics_of_other_layers_are_refused(tmp_path, some):
    history = gs.History(tmp_path)
    history.append(0, some[0])
    other = jax.jit(gs.value_and_grad(lambda w, x: jnp.mean((x @ w) ** 2)))
    (_, stats), _ = other(jnp.eye(3), jnp.ones((4, 3)))
    with pytest.raises(ValueError, match="this history is of a, head"):
        history.append(1, stats)
    with pytest.raises(TypeError, match="got dict"):
        history.append(1, {})
    with pytest.raises(ValueError, match="return the statistics"):
        jax.jit(lambda stats: history.append(2, stats))(some[0])
    with pytest.raises(KeyError, match="a history has no 'accuracy'"):
        history["accuracy"]
    assert history.steps.tolist() == [0]


@pytest.mark.parametrize(
    ("step", "several", "scalars", "error"),
    [
        (1.0, False, {}, "step must be a whole number"),
        (-1, False, {}, "from 0"),
        ("1", False, {}, "step must be"),
        ([1, 2], True, {}, "3 whole numbers, or the first"),
        ([1, 3, 2], True, {}, "ascending"),
        (1, False, {"lr": "high"}, "lr must be a number"),
        (1, False, {"lr": [1.0, 2.0]}, "lr must be a number"),
        (1, True, {"lr": [1.0, 2.0]}, "of 3 steps: 3 of them"),
        (1, False, {"lr": 1j}, "lr must be a number"),
        (1, False, {"param_norm": 1.0}, "is a name of the statistics"),
        (1, False, {"value": 1.0}, "is a name of the statistics"),
    ],
)
def test_what_is_no_step_or_no_number_is_refused(
    tmp_path, some, step, several, scalars, error
):
    history = gs.History(tmp_path)
    stats = _stacked(some) if several else some[0]
    with pytest.raises((ValueError, TypeError), match=error):
        history.append(step, stats, **scalars)
    assert not (tmp_path / FILE).exists()


def test_statistics_of_examples_of_steps_are_refused(tmp_path, some):
    stats = jax.tree.map(lambda x: x[None], _stacked(some))
    with pytest.raises(ValueError, match="leading axes"):
        gs.History(tmp_path).append(0, stats)


def test_a_history_attributes_its_growth(tmp_path, some):
    grow = np.float32(np.exp(0.1 * np.arange(40.0))[:, None] * [0.1, 1, 0])
    stats = jax.tree.map(lambda x: np.broadcast_to(x, (40, *x.shape)), some[0])
    stats = dataclasses.replace(
        stats, gradient_norm=grow, gradient_cosine=np.full((40, 3), 0.9)
    )
    history = gs.History(tmp_path)
    history.append(100, stats)
    (driver,) = history.attribute(since=110, until=135).drivers
    assert driver.layer == "head"
    np.testing.assert_allclose(driver.trend.rate, 0.1, rtol=1e-3)
    assert driver.trend.since == 110
    assert "radial (81 %): the loss does not see it" in str(history.attribute())
    with pytest.raises(ValueError, match="8 steps"):
        history.attribute(since=135)
