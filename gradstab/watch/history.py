"""The statistics of a run on the disk, step by step."""

import dataclasses
import itertools
import pathlib
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from gradstab import _files, _json
from gradstab.errors import UserKeyError, UserTypeError, UserValueError
from gradstab.watch import history_file
from gradstab.watch.attribution import Attribution, attribute
from gradstab.watch.history_rows import Rows
from gradstab.watch.readers import read_run
from gradstab.watch.statistics import Statistics

# All that a step measured of every layer. The measures of level full are no curves.
COLUMNS = tuple(
    field.name
    for field in dataclasses.fields(Statistics)
    if not field.metadata.get("static") and field.name not in ("value", "measures")
)
_LOSS = "value"
_TAKEN = ("step", "steps", "level", "names", _LOSS, *COLUMNS)


class History:
    """The statistics of the steps of a run, written as they come.

    In the folder is ``history.jsonl``: one line of JSON that names the layers, then one
    for each step. When `append` returns the operating system has the whole line, so
    that a process which is killed loses none but the one that it was writing (when a
    machine loses its power some seconds may be missing). What such a process left of a
    line is cut off when the history is opened again; reading changes nothing, also
    while the run goes on.

    A folder that holds a history is gone on with. A run that is resumed from a
    checkpoint repeats the steps that it lost: from a step that is not beyond the last
    one on the history is what is appended now, and what was written of that step and of
    later ones is left out on reading, though the file keeps it.

    Nothing is kept in memory but what was asked for. Numbers are written as the
    shortest decimals that are these numbers in their own precision: cast to float32,
    what is read is bitwise what a float32 program measured.

    Of several processes of one program (`jax.process_index`) the first one writes.

    Args:
        directory: a folder, which is made if need be.

    Attributes:
        notes: sentences on what a run that was made elsewhere does not have.

    Raises:
        ValueError: the file there is no history.
        OSError: the folder cannot be made, or written into.

    Examples:
        >>> import tempfile, jax, jax.numpy as jnp
        >>> import gradstab as gs
        >>> watched = jax.jit(gs.value_and_grad(lambda w, x: jnp.mean(x @ w)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     history = gs.History(folder)
        ...     for step in range(3):
        ...         (_, stats), _ = watched(2.0**step * jnp.eye(2), jnp.eye(2))
        ...         history.append(step, stats, learning_rate=0.1)
        ...     again = gs.History.read(folder)
        >>> again.steps.tolist(), again.names, again["forward_rms"][:, 0].tolist()
        ([0, 1, 2], ('params', '(elsewhere)'), [0.707..., 1.414..., 2.828...])
        >>> again["learning_rate"].tolist()
        [0.1, 0.1, 0.1]
    """

    def __init__(self, directory):
        folder = _files.as_path(directory, "directory")
        _files.make_folder(folder)
        self._lines = history_file.Lines(folder / history_file.NAME)
        self._rows, self._end, self._is_open = Rows(), 0, True
        self.notes: tuple[str, ...] = ()
        if jax.process_index() == 0:
            self._lines.repair()
        self._read_on(most=1)  # the names; steps are read when they are asked for

    @classmethod
    def read(cls, path, *, pattern: str | None = None) -> "History":
        """The history that is in a folder, as far as it is written.

        Runs that were made elsewhere are read too: event files of TensorBoard (with the
        extra ``gradstab[tensorboard]``), W&B's ``run.history()`` as ``.csv``, and its
        lines as ``.jsonl``. The norms of layers are found by their tags, such as
        ``grad_norm/head``, ``grad/norm/head`` of Levanter, ``grad_2.0_norm/head`` of
        Lightning, and ``gradients/head``; the loss likewise. What is not there is NaN,
        and `notes` say so.

        Args:
            path: the folder, or the file. Nothing there is changed.
            pattern: of another run, a regular expression that is looked for in its
                tags; its group ``layer`` names the layer whose gradient has this norm.

        Returns:
            A history that is only read: it stays what it was when it was read.

        Raises:
            FileNotFoundError: there is none.
            ValueError: the file is none, or no tag matches.
            ModuleNotFoundError: event files without the package that reads them.
        """
        path = _files.as_path(path, "path")
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}")
        history = cls.__new__(cls)
        file = path / history_file.NAME if path.is_dir() else path
        history._lines, history._rows = history_file.Lines(file), Rows()
        history._end, history._is_open, history.notes = 0, True, ()
        if history_file.is_history(file):
            history._read_on()
        else:
            history._rows, history.notes = read_run(path, pattern)
            history._lines = history_file.Lines(path)
        history._is_open = False
        return history

    @property
    def path(self) -> pathlib.Path:
        """The file."""
        return self._lines.path

    def append(self, step, stats: Statistics, /, **scalars) -> None:
        """Write the statistics of a step, or of several.

        What is on a device is fetched at once, and waited for.

        Args:
            step: its number; of several steps, as `jax.lax.scan` stacks them, that of
                the first, or an array ``(steps,)`` of all.
            stats: from `gradstab.value_and_grad`.
            **scalars: other numbers of the step, such as the learning rate; of several
                steps one for all, or ``(steps,)``.

        Raises:
            ValueError: the statistics are of other layers than before, or are not of
                steps; a name is taken; it is called inside of jit.
            TypeError: they are no statistics, or a scalar is no number.
            OSError: it cannot be written; the history is as it was.
        """
        if not self._is_open:
            raise UserValueError(
                "this history was read, and is not written to: gs.History(folder) "
                "goes on with one"
            )
        rows = _rows(step, stats, scalars)
        names = self.names
        if names and names != stats.names:
            raise UserValueError(
                f"this history is of {', '.join(names)}; these statistics are of "
                f"{', '.join(stats.names)}. Write them to another folder"
            )
        if jax.process_index() == 0:
            self._lines.append(stats.names, rows)
            self._rows.names = stats.names

    @property
    def names(self) -> tuple[str, ...]:
        """The layers, in depth order, and one more for what belongs to none."""
        return self._rows.names

    @property
    def steps(self) -> np.ndarray:
        """The numbers of the steps, ``(steps,)``, ascending."""
        return np.array(self._read_on().steps, int)

    @property
    def value(self) -> np.ndarray:
        """The loss of every step, ``(steps,)``."""
        return self._read_on().scalar(_LOSS)

    @property
    def global_norm(self) -> np.ndarray:
        """The norm of the whole gradient of every step, ``(steps,)``."""
        norms = self["gradient_norm"]
        largest = np.max(norms, axis=1, initial=0)
        scale = np.where(np.isfinite(largest) & (largest > 0), largest, 1)
        return scale * np.linalg.norm(norms / scale[:, None], axis=1)

    @property
    def columns(self) -> tuple[str, ...]:
        """What was measured of the layers; of other columns of statistics is NaN."""
        return self._read_on().columns()

    @property
    def scalars(self) -> tuple[str, ...]:
        """The names of the other numbers of the steps."""
        return tuple(name for name in self._read_on().scalars() if name != _LOSS)

    def __getitem__(self, name: str) -> np.ndarray:
        """Numbers of all steps; NaN where a step has none.

        Args:
            name: of a column of `Statistics`, for ``(steps, names)``; ``"value"`` for
                the loss, or what was handed to `append` by name, for ``(steps,)``.

        Raises:
            KeyError: there is nothing of that name.
        """
        rows = self._read_on()
        if name in COLUMNS or name in rows.columns():
            return rows.column(name)
        known = {_LOSS: None, **dict.fromkeys(rows.scalars())}
        if name not in known:
            listed = ", ".join([*COLUMNS, *known])
            raise UserKeyError(f"a history has no {name!r}; it has: {listed}")
        return rows.scalar(name)

    def attribute(
        self, *, since: int | None = None, until: int | None = None
    ) -> Attribution:
        """Which layers drive the growth of the global norm, since when, at what rate.

        Printed, it is a sentence for each of them.

        Args:
            since: the first step that is looked at: after a warm-up, for instance.
            until: the last one.

        Returns:
            An `Attribution`. It takes some 30 ms for each layer.

        Raises:
            ValueError: there are fewer than eight steps with finite gradients, or it
                has none of layers.

        Examples:
            >>> import tempfile, jax, jax.numpy as jnp
            >>> import gradstab as gs
            >>> watched = jax.jit(gs.value_and_grad(lambda w, x: jnp.sum(x @ w)))
            >>> history = gs.History(tempfile.mkdtemp())
            >>> for step in range(20):
            ...     (_, stats), _ = watched(jnp.eye(2), jnp.ones((4, 2)))
            ...     history.append(step, stats)
            >>> print(history.attribute())
            no layer drives it: the norm does not grow beyond its noise (...)
        """
        if "gradient_norm" not in self.columns:
            raise UserValueError(
                "this history has no norms of the gradients of layers"
                + "".join(f"; {note}" for note in self.notes)
            )
        steps = self.steps
        kept = np.ones(len(steps), bool)
        if since is not None:
            kept &= steps >= since
        if until is not None:
            kept &= steps <= until
        columns = (self["gradient_norm"], self["gradient_cosine"], self.value)
        return attribute(self.names, steps[kept], *(c[kept] for c in columns))

    def __len__(self):
        return len(self._read_on().steps)

    def __repr__(self):
        steps = self.steps
        of = f"steps {steps[0]} .. {steps[-1]}" if len(steps) else "no steps yet"
        return f"History({str(self.path)!r}: {of}, {len(self.names)} names)"

    def _read_on(self, most: int | None = None) -> Rows:
        """All steps; what was written since they were last asked for is read."""
        if not self._is_open or not self.path.exists():
            return self._rows
        for end, line in itertools.islice(self._lines.read(self._end), most):
            try:
                if "gradstab_history" in line:
                    self._rows.names = tuple(map(str, line["names"]))
                else:
                    self._rows.add(*_numbers(line))
            except (ValueError, KeyError, TypeError) as error:
                raise UserValueError(
                    f"{self.path} is no history of gradstab: {error!r} in a line"
                ) from error
            self._end = end
        return self._rows


def _rows(step, stats, scalars) -> list[dict]:
    """What is written of each step."""
    if not isinstance(stats, Statistics):
        raise UserTypeError(
            f"append(step, stats) takes gs.Statistics, got {type(stats).__name__}"
        )
    if taken := [name for name in scalars if name in _TAKEN]:
        raise UserValueError(f"{taken[0]} is a name of the statistics: choose another")
    columns = {name: getattr(stats, name) for name in (_LOSS, *COLUMNS)}
    columns = {name: c for name, c in columns.items() if c is not None}
    given = step, columns, scalars
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given)):
        raise UserValueError(
            "append writes to the disk: return the statistics from jit first"
        )
    step, columns, scalars = jax.device_get(given)
    value = columns[_LOSS]
    if value.ndim > 1:
        raise UserValueError(
            f"these statistics have the leading axes {value.shape}: give those of "
            "steps, and of the others one, jax.tree.map(lambda x: x[:, 0], stats)"
        )
    if not value.ndim:
        columns = {name: column[None] for name, column in columns.items()}
    num = len(columns[_LOSS])
    steps = _step_numbers(step, num)
    scalars = {name: _each(name, value, num) for name, value in scalars.items()}
    return [
        {"step": steps[i], "level": stats.level}
        | _encoded(columns, i)
        | {"scalars": _encoded(scalars, i)}
        for i in range(num)
    ]


def _encoded(arrays, i):
    """What was measured of a step; a column of nothing but NaN was not."""
    found = {name: np.asarray(array[i]) for name, array in arrays.items()}
    return {
        name: _short(array)
        for name, array in found.items()
        if not array.ndim or not np.isnan(array).all()
    }


def _step_numbers(step, num) -> list[int]:
    numbers = np.asarray(step)
    if numbers.dtype.kind not in "iu" or numbers.shape not in ((), (num,)):
        words = f"{num} whole numbers, or the first" if num > 1 else "a whole number"
        raise UserValueError(f"step must be {words}, got {step!r}")
    numbers = numbers + np.arange(num) if not numbers.ndim else numbers
    if np.any(numbers < 0) or np.any(np.diff(numbers) <= 0):
        raise UserValueError(f"step must be ascending numbers from 0, got {step!r}")
    return numbers.tolist()


def _each(name, value, num) -> np.ndarray:
    """A scalar of every step."""
    array = np.asarray(value)
    is_number = array.dtype.kind in "biuf" or array.dtype.name == "bfloat16"
    if not is_number or array.shape not in ((), (num,)):
        raise UserTypeError(
            f"{name} must be a number of the step (of {num} steps: {num} of them), "
            f"got {value!r}"
        )
    return np.broadcast_to(array, num)


def _short(array: np.ndarray) -> Any:
    """Numbers, as few digits as tell them from their neighbours in their precision."""
    if array.dtype.kind not in "biu" and array.dtype != np.float64:
        array = array.astype(np.float32).astype(str).astype(np.float64)
    # All but a few are numbers that JSON has.
    return array.tolist() if np.isfinite(array).all() else _json.encoded(array)


def _numbers(line):
    """The number of a step, its columns and its scalars."""
    columns = {
        name: np.array(value, float)
        for name, value in line.items()
        if name not in ("step", "level", "scalars", _LOSS)
    }
    scalars = {name: float(value) for name, value in line["scalars"].items()}
    return int(line["step"]), columns, {_LOSS: float(line[_LOSS])} | scalars
