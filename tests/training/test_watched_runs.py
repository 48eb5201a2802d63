"""A run that is watched is the run that is not, and leaves a history."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from rich.console import Console

import gradstab as gs
from gradstab import clipping, training
from gradstab.training.alarms import Alarms
from gradstab.training.heat_map import HeatMap
from gradstab.training.step import graphdefs
from gradstab.training.watching import Watch, parted
from gradstab.watch.indicators import ALARMS

LAYERS = ("first", "last", "(elsewhere)")


def same(ours, others):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(others), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def columns(run):
    return {name: c for name, c in run.history.items() if name != "time"}


@pytest.mark.slow
@pytest.mark.parametrize("watch", [True, 4, Watch(every=9, level="full")])
def test_a_watched_run_is_bitwise_the_run_without(
    watch, network, blobs, settings, arrays, tmp_path
):
    plain = training.fit(network, blobs, **settings)
    run = training.fit(network, blobs, watch=watch, directory=tmp_path, **settings)
    assert same(arrays(run.state), arrays(plain.state))
    assert same(columns(run), columns(plain))
    history = gs.History.read(tmp_path)
    every = {True: range(1, 23), 4: range(1, 23, 4)}.get(watch, [1, 13, 21])
    assert history.steps.tolist() == list(every)
    assert history.names == LAYERS
    rows = history.steps - 1
    measured = {"loss": history.value, "pre_norm": history["pre_norm"]}
    for name, values in measured.items():
        expected = run.history[name][rows]
        np.testing.assert_array_equal(values.astype(np.float32), expected)
    np.testing.assert_allclose(history.global_norm, run.history["pre_norm"][rows], 1e-5)
    updates = np.linalg.norm(history["update_norm"], axis=1)
    np.testing.assert_allclose(updates, run.history["update_norm"][rows], rtol=1e-5)


@pytest.mark.slow
def test_a_watched_run_that_is_resumed_has_the_history_of_one_that_was_not_stopped(
    network, blobs, settings, arrays, tmp_path
):
    options = settings | {"watch": True}
    short = options | {"num_steps": 8, "directory": tmp_path / "two"}
    training.fit(network, blobs, **short)
    resumed = training.fit(
        network, blobs, **options, directory=tmp_path / "two", resume=True
    )
    whole = training.fit(network, blobs, **options, directory=tmp_path / "one")
    assert same(arrays(resumed.state), arrays(whole.state))
    one, two = (gs.History.read(tmp_path / name) for name in ("one", "two"))
    assert one.steps.tolist() == two.steps.tolist() == list(range(1, 23))
    for name in ("value", "gradient_norm", "backward_rms", "update_norm", "pre_norm"):
        np.testing.assert_array_equal(one[name], two[name])


def test_steps_that_are_not_watched_are_taken_by_the_program_of_a_run_without(network):
    graphdef, _ = graphdefs(network)
    make = (graphdef, optax.sgd(0.1))
    bare = training.make_steps(*make, loss=training.cross_entropy)
    again = training.make_steps(*make, loss=training.cross_entropy)
    assert bare is again
    taken = []

    def program(name, more=()):
        def steps(state, x, y, plan, stop):
            taken.append((name, len(plan)))
            return state, {}, *more

        return steps

    steps = parted(program("bare"), program("watched", [None]), Watch(every=8))
    plan = np.zeros((4, 2), np.int32)
    for first in (0, 4, 8):
        steps(None, None, None, plan, 12, first)
    assert taken == [
        *(("watched", 1), ("bare", 3), ("bare", 4), ("watched", 1), ("bare", 3))
    ]
    taken.clear()
    parted(program("bare"), program("watched", [None]), Watch())(
        *(None, None, None, plan, 12, 4)
    )
    parted(program("bare"), None, None)(None, None, None, plan, 12, 4)
    assert taken == [("watched", 4), ("bare", 4)]


@pytest.mark.slow
def test_the_step_that_fails_is_the_last_of_the_history(tmp_path):
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    x = np.ones((6, 4, 2), np.float32)
    x[4, 1] = np.inf
    batches = [(each, np.ones((4, 1), np.float32)) for each in x]
    with pytest.raises(training.NonFiniteLossError):
        training.fit(
            model,
            batches,
            optimizer=optax.sgd(0.1),
            loss=training.mean_squared_error,
            num_steps=6,
            steps_per_dispatch=3,
            watch=True,
            directory=tmp_path,
            progress=False,
        )
    history = gs.History.read(tmp_path)
    assert history.steps.tolist() == [1, 2, 3, 4, 5]
    assert np.isfinite(history.value).tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("watch", [0, -1, "often", 1.5])
def test_what_is_no_way_to_watch_is_refused(watch, network, blobs, settings):
    with pytest.raises((ValueError, TypeError), match=r"every|watch"):
        training.fit(network, blobs, watch=watch, **settings)


# What is seen of it


def test_the_map_tells_layers_and_steps_apart():
    seen = HeatMap(("low", "high"))
    for step in range(1, 11):
        seen.add(step, np.array([1e-6, 10.0 ** (step - 8)]))
    low, high, scale = (line.plain for line in seen.lines(10, 10))
    assert low[21:31] == " " * 10 or set(low[21:31]) == {low[21]}
    shades = [" .░▒▓█".index(c) for c in high[21:31]]
    assert shades == sorted(shades)
    assert shades[0] < shades[-1] == 5
    assert high.rstrip().endswith("1.00e+02")
    assert "1 .. 10" in scale


def test_a_value_that_is_not_finite_is_marked_and_hides_no_other():
    seen = HeatMap(("a", "b"))
    for value in (1.0, np.inf, 100.0):
        seen.add(1, np.array([value, 1.0]))
    first, second, _ = (line.plain for line in seen.lines(3, 10))
    assert first[21:24] == " x█"
    assert second[21:24] == "   "


def test_many_steps_and_many_layers_are_drawn_in_little_room():
    seen = HeatMap(tuple(f"blocks.{i}" for i in range(300)))
    for step in range(1, 1001):
        seen.add(step, np.full(300, float(step)))
    lines = seen.lines(40, 12)
    assert len(lines) == 13
    assert all(len(line.plain) <= 20 + 1 + 40 + 10 for line in lines[:-1])
    assert lines[0].plain.startswith("blocks.0.. blocks.24 ")
    console = Console(file=io.StringIO(), width=60, height=20, color_system=None)
    console.print(seen)
    shown = console.file.getvalue().splitlines()
    assert len(shown) < 20
    assert max(map(len, shown)) <= 60


class Step:
    """Statistics of a step, as alarms see them."""

    names = ("a", "b", "(elsewhere)")

    def __init__(self, norms=(1.0, 1.0), back=(8, 8), place=None, gain=1.0, ratio=1e-3):
        self.gradient_norm = np.array([*norms, 0.0])
        self.forward_entries = np.array([8, 8, 0])
        self.backward_entries = np.array([*back, 0])
        self.backward_rms = np.array([gain, 1.0, np.nan])
        self.param_norm = np.array([2.0, 3.0, 0.0])
        self.update_norm = np.array([2e-3, 3 * ratio, 0.0])
        self._place = place

    def nonfinite(self):
        return self._place


def said(steps, records=()):
    alarms = Alarms()
    records = records or [{}] * len(steps)
    pairs = zip(steps, records, strict=True)
    return [text for i, pair in enumerate(pairs) for text in alarms.look(i, *pair)]


def test_a_spike_is_said_with_its_layer_and_once():
    healthy = [Step((1.0 + 0.3 * (i % 3), 1.0)) for i in range(30)]
    assert said(healthy) == []
    (text,) = said([*healthy, Step((1.0, 40.0)), Step((1.0, 40.0))])
    assert text.startswith("step 30: the gradient norm is 40")
    assert "b has 100% of its square" in text
    assert said([*healthy, Step((1.0, 6.0))]) == []


def test_a_gain_that_changes_either_way_is_said_with_its_layer():
    healthy = [Step(gain=2.0 + 0.1 * (i % 3)) for i in range(30)]
    assert said(healthy) == []
    for odd in (16.0, 0.25):
        (text,) = said([*healthy, Step(gain=odd)])
        assert text.startswith(f"step 30: the gain of b is {odd:g}, a factor of")
    assert said([*healthy, Step(gain=5.0)]) == []


def test_an_update_as_long_as_no_healthy_one_is_said_at_once():
    (text,) = said([Step(ratio=0.1)] * 3)
    assert text.startswith("step 0: the update of b is 0.1 of its parameters")


def test_every_threshold_is_said_with_its_false_alarms():
    healthy = [Step()] * 30
    texts = said([*healthy, Step((1.0, 40.0), gain=9.0, ratio=0.1)])
    assert len(texts) == len(ALARMS)
    for alarm, text in zip(ALARMS, texts, strict=True):
        assert text.endswith(
            f"(false alarm in {alarm.false} of {alarm.healthy} healthy runs of 400 "
            "steps)"
        )


def test_a_run_without_norms_of_updates_has_the_other_alarms():
    steps = [Step() for _ in range(31)]
    for step in steps:
        step.param_norm = step.update_norm = np.full(3, np.nan)
    steps[-1].gradient_norm = np.array([50.0, 1.0, 0.0])
    (text,) = said(steps)
    assert "a has 100% of its square" in text


def test_steady_growth_is_no_spike():
    assert said([Step((1.01**i, 1.0)) for i in range(800)]) == []


def test_a_layer_without_a_gradient_is_said_once():
    (text,) = said([Step(back=(0, 8))] * 300)
    assert text == "step 0: no gradient comes to the output of a"


def test_a_clip_that_is_always_on_is_said_with_a_threshold():
    records = [{"clipped": True, "pre_norm": 1.0 + i / 100} for i in range(150)]
    (text,) = said([Step()] * 150, records)
    assert text.startswith("step 99: all of the last 100 watched steps were clipped")
    assert "a threshold of 1.89 clips one step in ten" in text
    records[80] = {"clipped": False, "pre_norm": 0.1}
    assert said([Step()] * 150, records) == []


def history_of(threshold, clip=clipping.clip_by_global_norm):
    tx = clipping.recorded(clip(threshold))

    def step(state, size):
        _, state = tx.update(jnp.array([3.0, 4.0]) * size / 5, state)
        return state, state._asdict() | {"inner": None}

    sizes = jnp.arange(1.0, 21.0)
    _, found = jax.jit(lambda: jax.lax.scan(step, tx.init(jnp.zeros(2)), sizes))()
    return {name: np.asarray(a) for name, a in found.items() if a is not None}


def test_a_threshold_that_does_nothing_or_everything_is_said_with_another():
    never = training.clipping_summary(history_of(100.0))
    always = training.clipping_summary(history_of(0.1))
    assert never.startswith("none of 20 steps was clipped: the threshold does nothing")
    assert always.startswith("100.0% of 20 steps were clipped: the threshold, and not")
    for text in (never, always):
        assert "median 10.5 and the 90 % quantile 18.1" in text
    suggested = history_of(18.1)
    assert training.clipping_summary(suggested) == (
        "10.0% of 20 steps were clipped, in their own direction"
    )


def test_a_change_of_direction_is_said_in_degrees():
    text = training.clipping_summary(history_of(6.0, clipping.clip_by_value))
    assert text.startswith("65.0% of 20 steps were clipped, and turned by")


def test_a_run_without_a_recorded_clipper_has_no_summary():
    with pytest.raises(KeyError, match="records no clipping"):
        training.clipping_summary({"loss": np.ones(3)})
