"""The statistics of a run on the disk, step by step."""

import itertools
import pathlib
from collections.abc import Collection
from typing import Any

import jax
import numpy as np

from gradstab import _files
from gradstab.errors import UserKeyError, UserValueError
from gradstab.watch import history_file, history_plot
from gradstab.watch.attribution import Attribution, attribute
from gradstab.watch.history_lines import COLUMNS, as_lines, as_rows, numbers
from gradstab.watch.history_metrics import DERIVED
from gradstab.watch.history_rows import LOSS, Rows
from gradstab.watch.readers import read_run
from gradstab.watch.statistics import Statistics
from gradstab.watch.writers import Sinks, Writer


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
        writers: where else the numbers of every step are written: ten scalars, those
            that are appended by name, and of every layer what a writer asks for:
            `gradstab.watch.TensorBoard`, `gradstab.watch.WeightsAndBiases`, or anything
            with their two methods.

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

    def __init__(self, directory, *, writers: Collection[Writer] = ()):
        folder = _files.as_path(directory, "directory")
        _files.make_folder(folder)
        self._lines = history_file.Lines(folder / history_file.NAME)
        self._rows, self._end, self._is_open = Rows(), 0, True
        self.notes: tuple[str, ...] = ()
        self._sinks = Sinks(writers)
        if jax.process_index() == 0:
            self._lines.repair()
        self._rows.names = self._lines.names()
        if self._sinks:
            self._sinks.remember(self.steps, self.value)

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
        history._sinks = Sinks(())
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
        lines = as_lines(step, stats, scalars)
        names = self.names
        if names and names != stats.names:
            raise UserValueError(
                f"this history is of {', '.join(names)}; these statistics are of "
                f"{', '.join(stats.names)}. Write them to another folder"
            )
        if jax.process_index() == 0:
            self._lines.append(stats.names, lines)
            self._rows.names = stats.names
            if self._sinks:
                self._sinks.write(as_rows(stats.names, lines))

    def close(self) -> None:
        """Close the writers; what is in the file is there anyway."""
        self._sinks.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

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
        return self._read_on().scalar(LOSS)

    @property
    def global_norm(self) -> np.ndarray:
        """The norm of the whole gradient of every step, ``(steps,)``."""
        return self["global_norm"]

    @property
    def columns(self) -> tuple[str, ...]:
        """What was measured of the layers; of other columns of statistics is NaN."""
        return self._read_on().columns()

    @property
    def scalars(self) -> tuple[str, ...]:
        """The names of the other numbers of the steps."""
        return tuple(name for name in self._read_on().scalars() if name != LOSS)

    def __getitem__(self, name: str) -> np.ndarray:
        """Numbers of all steps; NaN where a step has none.

        Args:
            name: of a column of `Statistics`, or of one of `gradstab.watch.METRICS`
                that has a number for each layer, for ``(steps, names)``; of one of the
                others, ``"value"`` for the loss, or what was handed to `append` by
                name, for ``(steps,)``.

        Raises:
            KeyError: there is nothing of that name.
        """
        rows = self._read_on()
        if name in COLUMNS or name in rows.columns():
            return rows.column(name)
        if name == LOSS or name in rows.scalars():
            return rows.scalar(name)
        if name in DERIVED:
            return DERIVED[name](rows.number)
        known = dict.fromkeys([*COLUMNS, LOSS, *rows.scalars(), *DERIVED])
        raise UserKeyError(f"a history has no {name!r}; it has: {', '.join(known)}")

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

    def plot(self, *, kind: str | None = None, ax: Any = None):
        """Draw a map of the layers' gradient norms, and the curves that matter.

        The loss; the global norm and the layers with the largest shares of it, with the
        step since which it grows; the ends of the gains and of the update ratios. Of
        many steps groups are drawn: of the map the largest, of a curve the range.

        Args:
            kind: the panel to draw: 'map', 'loss', 'norms' or 'extremes'; by default
                all that there is something for, or the first of them if axes are given.
            ax: matplotlib axes for one panel; by default a new figure.

        Returns:
            The matplotlib figure; save it with ``savefig``.

        Raises:
            ValueError: if there is no such panel, or nothing to draw.
        """
        return history_plot.plot(self, kind=kind, ax=ax)

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
                    self._rows.add(*numbers(line))
            except (ValueError, KeyError, TypeError) as error:
                raise UserValueError(
                    f"{self.path} is no history of gradstab: {error!r} in a line"
                ) from error
            self._end = end
        return self._rows
