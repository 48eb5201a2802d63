"""The training loop on the host: dispatch, and meanwhile read what the last one did."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx

from gradstab.training import checkpoints as ckpt
from gradstab.training.batches import Batches
from gradstab.training.interruption import Interruption
from gradstab.training.kept_step import keep_failed
from gradstab.training.metrics_log import MetricsLog
from gradstab.training.nonfinite import nonfinite_loss_error
from gradstab.training.schedule import Schedule
from gradstab.training.step import State
from gradstab.training.watching import Part, Watcher, joined


class Dispatch(NamedTuple):
    """Steps that the device was asked for."""

    first: int  # steps taken before
    stop: int  # steps to have been taken after
    batches: Batches
    parts: list[Part]  # by what was measured, perhaps not computed yet


@dataclasses.dataclass(frozen=True)
class Loop:
    """The tools of a run; see `fit`."""

    graphdef: nnx.GraphDef
    steps: Callable  # from `parted`
    batches: Callable[[int, int], Batches]
    schedule: Schedule
    loss: Callable
    validation: Callable[[State], dict[str, float]]
    log: MetricsLog
    watcher: Watcher
    checkpoints: ckpt.Checkpoints | None
    advance: Callable[[int, float], Any]
    interruption: Interruption

    def run(self, state: State, /) -> State:
        """Take the steps that are left, or those until it is interrupted.

        Raises:
            NonFiniteLossError: a step could not be taken; its ``state`` is saved.
        """
        step, pending = int(state.step), None
        while step < self.schedule.num_steps and not self.interruption:
            stop = self.schedule.stop(step)
            try:
                batches = self.batches(step, stop)
            except (Exception, KeyboardInterrupt):  # the data's fault: lose no step
                self._pause(state, pending)
                raise
            state, parts = self.steps(state, *batches, stop, step)
            if pending is not None:
                self._read(state, pending)  # of the dispatch before; the device is busy
            pending = Dispatch(step, stop, batches, parts)
            saves = self.schedule.saves(step, stop)
            validates = self.schedule.validates(step, stop)
            if saves or validates:
                self._pause(state, pending, validates=validates, saves=saves)
                pending = None
            step = stop
        self._pause(state, pending)
        return state

    def _pause(
        self, state: Any, pending, *, validates: bool = False, saves: bool = True
    ):
        """Read, validate, save: a step's line is written before its checkpoint."""
        if pending is not None:
            self._read(state, pending, self.validation if validates else None)
        if saves:
            self._save(state)

    def _read(self, state: Any, dispatch, validation=None):
        val = validation(state) if validation else {}
        records = joined(dispatch.parts)
        num, loss = self.log.write(dispatch.first, records, val)
        failed = dispatch.first + num < dispatch.stop
        for part in dispatch.parts:
            self.watcher.write(part, dispatch.first + num + failed)
        self.advance(dispatch.first + num, loss)
        if failed:
            kept = self._save(state)
            x, y, plan = dispatch.batches
            batch = x[plan[num]], y[plan[num]]
            if self.checkpoints is not None:
                row = {name: column[num] for name, column in records.items()}
                folder = self.checkpoints.directory.parent
                kept = f"{kept} {keep_failed(folder, state, *batch, row)}"
            raise nonfinite_loss_error(
                self.graphdef,
                self.loss,
                state,
                *batch,
                value=float(records["loss"][num]),
                kept=kept,
            )

    def _save(self, state: Any) -> str:
        if self.checkpoints is None:
            return "Nothing was saved: the run has no directory."
        self.log.sync()  # never older than a checkpoint
        ckpt.save(self.checkpoints, state)
        return f"The state before it is saved in {self.checkpoints.directory}."
