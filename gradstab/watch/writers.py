"""Where else the numbers of a run are written: TensorBoard and Weights & Biases."""

import importlib
import pathlib
from collections.abc import Collection
from typing import Any, Protocol

import numpy as np

from gradstab import _checked
from gradstab.errors import UserModuleNotFoundError, UserTypeError
from gradstab.watch.history_metrics import DERIVED, METRICS, SCALARS
from gradstab.watch.history_rows import LOSS, Rows
from gradstab.watch.scalars import WINDOW, z_score

_GROUP = "watch"
_PER_LAYER = tuple(metric.name for metric in METRICS if metric.per_layer)


class Writer(Protocol):
    """What `History` hands numbers to; anything with these two will do.

    It may have ``layers`` too: the names of metrics that it wants of every layer.
    """

    def write(self, step: int, numbers: dict[str, float], /) -> None:
        """Write the numbers of a step."""

    def close(self) -> None:
        """Write what has not been written."""


class TensorBoard:
    """Writes event files: ten scalars, those that are appended, and what is asked for.

    Args:
        directory: a folder for the files.
        layers: metrics that are written for every layer, ``("gradient_norm",)``.

    Raises:
        ModuleNotFoundError: without the extra ``gradstab[tensorboard]``.
        ValueError: there is no such metric of layers.
    """

    def __init__(self, directory, *, layers: Collection[str] = ()):
        try:
            import tensorboardX  # an optional package
        except ModuleNotFoundError as error:
            raise UserModuleNotFoundError(
                "event files are written by tensorboardX: "
                "pip install 'gradstab[tensorboard]'"
            ) from error
        self.layers = _known(layers)
        self._folder = pathlib.Path(directory)
        self._new: Any = tensorboardX.SummaryWriter
        self._board: Any = None

    def write(self, step: int, numbers: dict[str, float], /) -> None:
        """Write the numbers of a step; the first one replaces those that come later."""
        if self._board is None:
            self._board = self._new(str(self._folder), purge_step=step)
        for name, number in numbers.items():
            self._board.add_scalar(f"{_GROUP}/{name}", number, step)

    def close(self) -> None:
        """Write what has not been written, and close the file."""
        if self._board is not None:
            self._board.close()
            self._board = None


class WeightsAndBiases:
    """Logs to a run of W&B: ten scalars, those that are appended, what is asked for.

    Args:
        run: what ``wandb.init`` returned; by default a new run, at the first step.
        layers: metrics that are written for every layer, ``("gradient_norm",)``.
        **options: of a new run, what ``wandb.init`` takes: ``project="x"``,
            ``mode="offline"`` to write to the disk only.

    Raises:
        ModuleNotFoundError: without the extra ``gradstab[wandb]``.
        ValueError: there is no such metric of layers.
    """

    def __init__(self, run: Any = None, /, *, layers: Collection[str] = (), **options):
        self.layers = _known(layers)
        self._run, self._is_ours = run, run is None
        if run is None:
            try:
                wandb = importlib.import_module("wandb")
            except ModuleNotFoundError as error:
                raise UserModuleNotFoundError(
                    "runs of W&B need wandb: pip install 'gradstab[wandb]'"
                ) from error
            self._run = wandb.init(**options)

    def write(self, step: int, numbers: dict[str, float], /) -> None:
        """Log the numbers of a step; W&B leaves out steps that come again."""
        tagged = {f"{_GROUP}/{name}": number for name, number in numbers.items()}
        self._run.log(tagged, step=step)

    def close(self) -> None:
        """Finish the run, if it is ours."""
        if self._is_ours:
            self._run.finish()


class Sinks:
    """The writers of a history, and what they need of the steps before.

    Args:
        writers: they are handed the numbers of every step that is appended.
    """

    def __init__(self, writers: Collection[Writer]):
        for writer in writers:
            if not all(hasattr(writer, name) for name in ("write", "close")):
                raise UserTypeError(
                    f"a writer has write(step, numbers) and close(), got {writer!r}"
                )
        self._writers = tuple(writers)
        self._steps, self._losses = np.zeros(0, int), np.zeros(0)

    def __bool__(self):
        return bool(self._writers)

    def remember(self, steps, losses) -> None:
        """Take losses of steps for those that the next ones are compared with."""
        steps = np.asarray(steps, int)
        before = self._steps < (steps[0] if len(steps) else np.inf)
        self._steps = np.append(self._steps[before], steps)[-WINDOW:]
        self._losses = np.append(self._losses[before], losses)[-WINDOW:]

    def write(self, rows: Rows) -> None:
        """Hand over the numbers of steps that were appended."""
        steps, losses = rows.steps, rows.scalar(LOSS)
        before = self._losses[self._steps < steps[0]]
        z_scores = z_score(np.append(before, losses))[len(before) :]
        self.remember(steps, losses)
        scalars = {name: _metric(rows, name) for name in SCALARS}
        scalars |= {"loss_z": z_scores}
        scalars |= {name: rows.scalar(name) for name in rows.scalars() if name != LOSS}
        for writer in self._writers:
            wanted = scalars | _of_layers(rows, getattr(writer, "layers", ()))
            for i, step in enumerate(steps):
                numbers = {name: float(array[i]) for name, array in wanted.items()}
                writer.write(step, {k: x for k, x in numbers.items() if x == x})

    def close(self) -> None:
        """Close all of them."""
        for writer in self._writers:
            writer.close()


def _metric(rows, name):
    return DERIVED[name](rows.number) if name in DERIVED else rows.column(name)


def _of_layers(rows, names):
    """By tag the metrics of every layer."""
    return {
        f"{name}/{layer}": column
        for name in names
        for layer, column in zip(rows.names, _metric(rows, name).T, strict=True)
    }


def _known(names):
    return tuple(_checked.one_of(name, "layers", _PER_LAYER) for name in names)
