"""A step of a run, taken again: bitwise, with all that can be seen of it."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _checked
from gradstab._files import as_path
from gradstab.errors import UserValueError
from gradstab.training import checkpoints as ckpt
from gradstab.training import results
from gradstab.training.batches import batches_from, splits
from gradstab.training.kept_step import read_failed
from gradstab.training.losses import cross_entropy
from gradstab.training.nonfinite import locate
from gradstab.training.schedule import make_schedule
from gradstab.training.step import (
    State,
    graphdefs,
    initial_state,
    make_steps,
    objective_of,
)
from gradstab.training.watching import Watch
from gradstab.watch import NonFinite, Origin, Statistics, find_origin

# What a step is recognised by, if it was measured.
_COMPARED = ("loss", "update_norm", "pre_norm", "post_norm")


@dataclasses.dataclass(frozen=True)
class Replay:
    """What a step showed when it was taken again.

    Attributes:
        step: its number, from 1.
        found: what it measures: ``loss``, ``update_norm``, the metrics.
        before: what it measured in the run.
        differences: of these the names that are not the same, bit for bit.
        stats: its statistics, of level ``"full"``.
        place: the first layer that is not finite; None if all are.
        origin: the operation in which numbers stop being finite, with the line where it
            is written; None if loss and gradient are finite.
        other: what it ran with that is not the same now: versions, device, precision.
    """

    step: int
    found: dict[str, float]
    before: dict[str, float]
    differences: tuple[str, ...]
    stats: Statistics
    place: NonFinite | None
    origin: Origin | None
    other: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Whether all that was measured in the run is the same, bit for bit."""
        return bool(self.before) and not self.differences

    def __str__(self):
        found = f"loss {self.found['loss']:g}, update {self.found['update_norm']:g}"
        lines = [f"step {self.step}: {found}"]
        if not self.before:
            lines.append("what it measured in the run is not known")
        elif self.is_same:
            lines.append("bitwise what it was in the run")
        else:
            pairs = (
                f"{name} {self.found[name]!r} (it was {self.before[name]!r})"
                for name in self.differences
            )
            lines.append(f"not what it was in the run: {', '.join(pairs)}")
        if self.other:
            lines.append(f"it ran with other {', '.join(self.other)}")
        lines += [str(each) for each in (self.place, self.origin) if each is not None]
        lost = not np.isfinite(self.found["update_norm"])
        if lost and self.place is None and self.origin is None:
            lines.append("loss and gradient are finite, but not the optimiser's update")
        return "\n".join(lines)


def replay(
    directory: str | pathlib.Path,
    model: Any,
    /,
    *,
    optimizer,
    loss: Callable = cross_entropy,
    metrics: dict[str, Callable] | None = None,
    data=None,
    step: int | None = None,
) -> Replay:
    """Take a step of a run again, and look at it closely; the run is not changed.

    Of a step that failed the run has kept the state before it, its batch and its random
    keys. Any other step is come to from the checkpoint before it, by the batches that
    the run has drawn.

    Args:
        directory: the run's folder.
        model: the one that `fit` was given, or one of the same structure.
        optimizer: that of the run.
        loss: that of the run.
        metrics: those of the run.
        data: those of the run; needed for another step than the one that failed.
        step: which one, from 1; None for the one that failed.

    Returns:
        A `Replay`. The cost is that of the steps from the checkpoint on, of the step
        with statistics of level ``"full"``, and, if something is not finite, of an
        evaluation an operation at a time.

    Raises:
        FileNotFoundError: there is no such run, no step of it has failed, or there is
            no checkpoint to come from.
        ValueError: no such step; a step without ``data``; another model.
        TypeError: the optimiser is none.
    """
    _checked.transformation(optimizer, "optimizer")
    folder = as_path(directory, "directory")
    content = results.read_config(folder)
    if content is None:
        raise FileNotFoundError(
            f"{folder} is no folder of a run: it has no config.json"
        )
    graphdef, _ = graphdefs(model)
    make = {"loss": loss, "metrics": metrics}
    bare = make_steps(graphdef, optimizer, **make)
    start = initial_state(model, optimizer)
    if step is None:
        ready = _failed(folder, start, content)
    else:
        ready = _come_to(folder, start, content, bare, data, step)
    state, x, y, plan, before, environment = ready
    stop = int(state.step) + 1
    _, records = bare(_copy(state), x, y, plan, stop)
    found = {name: column[0] for name, column in jax.device_get(records).items()}
    full = Watch(level="full").value_and_grad
    watched = make_steps(graphdef, optimizer, value_and_grad=full, **make)
    _, _, stats = watched(_copy(state), x, y, plan[:1], stop)
    stats = jax.tree.map(lambda a: a[0], stats)
    batch = x[plan[0]], y[plan[0]]
    objective = objective_of(graphdef, loss, state.model_state, *batch)
    place, origin = stats.nonfinite(), None
    if place is not None:
        place = _exact(place, locate(graphdef, loss, state, *batch))
        both = jax.value_and_grad(lambda params: objective(params)[0])
        origin = find_origin(both, state.params)
    return Replay(
        step=stop,
        found={name: value.item() for name, value in found.items()},
        before=before,
        differences=tuple(
            name
            for name in _COMPARED
            if name in before and not _same(found[name], before[name])
        ),
        stats=stats,
        place=place,
        origin=origin,
        other=tuple(_changed(environment, results.environment())),
    )


class _Ready(NamedTuple):
    """A step that is ready to be taken."""

    state: State
    x: Any
    y: Any
    plan: np.ndarray
    before: dict[str, float]
    environment: dict


def _failed(folder, start: State, content) -> _Ready:
    kept = read_failed(folder, start)
    # As long as a dispatch of the run: its program is the same but for its data.
    plan = np.zeros((content["settings"]["steps_per_dispatch"], len(kept.x)), np.int32)
    plan[0] = np.arange(len(kept.x))
    x, y = jax.device_put((kept.x, kept.y))
    return _Ready(kept.state, x, y, plan, kept.found, kept.environment)


def _come_to(folder, start: State, content, bare, data, step: int) -> _Ready:
    settings = content["settings"]
    if data is None or type(step) is not int or step < 1:
        raise UserValueError(
            f"step={step!r} needs data=, those of the run, and a number from 1"
        )
    steps = [number for number in ckpt.all_steps(folder) if number < step]
    state = start
    if steps:
        state = ckpt.restore_state(folder, start, step=max(steps))
    elif settings["init_from"] is not None or (folder / results.PRETRAINING).exists():
        raise FileNotFoundError(
            f"{folder} has no checkpoint before step {step}, and did not start from "
            "the model that is given"
        )
    length = settings["steps_per_dispatch"]
    schedule = make_schedule(step, length)
    batches = batches_from(
        splits(data).train,
        batch_size=settings["batch_size"],
        seed=settings["seed"],
        steps_per_dispatch=length,
        first_step=int(state.step),
    )
    while True:
        first = int(state.step)
        x, y, plan = batches(first, schedule.stop(first))
        if schedule.stop(first) == step:
            break
        state, _ = bare(state, x, y, plan, schedule.stop(first))
        _expect_taken(state, schedule.stop(first))
    state, _ = bare(state, x, y, plan, step - 1)
    _expect_taken(state, step - 1)
    rows = results.read_metrics(folder, gaps=True)
    before = next((row for row in rows if row["step"] == step), {})
    before = {n: np.nan if v is None else v for n, v in before.items()}
    # The rows of the plan that were taken are not needed any more.
    return _Ready(state, x, y, np.roll(plan, first - step + 1, axis=0), before, content)


def _expect_taken(state: State, number: int):
    if int(state.step) < number:
        raise UserValueError(
            f"step {int(state.step) + 1} fails, so that none after it can be taken"
        )


def _exact(place: NonFinite, found) -> NonFinite | None:
    """Where NaN and infinities begin; statistics count what has no square as well."""
    if found is None or found == (place.layer, place.part):
        return place if found is not None else None
    return NonFinite(*found)


def _copy(state: State):
    return jax.tree.map(jnp.copy, state)


def _same(value, before) -> bool:
    """Whether a number is the one that was written; not finite ones are all alike."""
    if not np.isfinite(value):
        return not np.isfinite(before)
    return value == np.asarray(before, np.asarray(value).dtype)


def _changed(before, now):
    for name in ("versions", "python", "device", "platform", "precision"):
        if name in before and before[name] != now[name]:
            yield name
