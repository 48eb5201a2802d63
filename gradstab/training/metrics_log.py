"""What every step of a run measured: in memory, in a file, in TensorBoard."""

import contextlib
import os
import pathlib
import time

import jax
import numpy as np

from gradstab import _files
from gradstab.errors import UserModuleNotFoundError
from gradstab.training.results import METRICS, TENSORBOARD, histories, metrics_line


class MetricsLog:
    """Keeps the records of all steps, and writes them to the run's folder.

    Args:
        folder: the run's folder, or None to write nothing.
        rows: what earlier parts of the run wrote, from `recover_metrics`.
        tensorboard: also write TensorBoard's files there.

    Raises:
        ModuleNotFoundError: TensorBoard without its package.
    """

    def __init__(
        self, folder: pathlib.Path | None, rows: list[dict], tensorboard: bool
    ):
        self._chunks = [histories(rows)] if rows else []
        self._start = time.perf_counter() - (rows[-1].get("time") or 0 if rows else 0)
        self._file = self._board = None
        if folder is not None and jax.process_index() == 0:
            if tensorboard:
                self._board = _summary_writer(
                    folder / TENSORBOARD, rows[-1]["step"] if rows else 0
                )
            self._file = (folder / METRICS).open("a")

    def write(self, first_step: int, records: dict, val: dict, /) -> tuple[int, float]:
        """Write the steps of a dispatch that were taken.

        Args:
            first_step: how many steps were taken before.
            records: arrays ``(num_steps,)`` by name, and ``taken``.
            val: loss and metrics on the validation set after the last of them.

        Returns:
            How many steps were taken, and the loss of the last step asked for.
        """
        chunk = dict(records)
        num, loss = int(chunk.pop("taken").sum()), float(chunk["loss"][-1])
        chunk = {name: column[:num] for name, column in chunk.items()}
        chunk = {"step": np.arange(first_step + 1, first_step + num + 1)} | chunk
        chunk["time"] = np.full(num, round(time.perf_counter() - self._start, 4))
        if num:
            after = {f"val_{name}": float(value) for name, value in val.items()}
            try:
                self._write_rows(chunk, after)
            except OSError as error:
                raise self._not_written(error) from error
            unknown = np.full(num - 1, np.nan)
            chunk |= {name: np.append(unknown, value) for name, value in after.items()}
            self._chunks.append(chunk)
        return num, loss

    def sync(self) -> None:
        """Have all that was written on the disk, and not on its way there.

        Raises:
            OSError: it cannot be.
        """
        if self._file is not None:
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                raise self._not_written(error) from error

    def history(self) -> dict[str, np.ndarray]:
        """One array ``(steps,)`` per name; NaN where a step measured no such thing.

        Steps whose lines were lost are not among them.
        """
        names = dict.fromkeys(name for chunk in self._chunks for name in chunk)
        return {
            name: np.concatenate(
                [
                    chunk.get(name, np.full(len(chunk["step"]), np.nan))
                    for chunk in self._chunks
                ]
            )
            for name in names
        }

    def close(self) -> None:
        """Close the files."""
        for sink in (self._file, self._board):
            if sink is not None:
                with contextlib.suppress(OSError):  # what there was has been flushed
                    sink.close()

    def _not_written(self, error):
        return _files.not_written(error, self._file.name if self._file else METRICS)

    def _write_rows(self, chunk, after):
        if self._file is None:
            return
        columns = [column.tolist() for column in chunk.values()]
        rows = [
            dict(zip(chunk, row, strict=True)) for row in zip(*columns, strict=True)
        ]
        rows[-1] |= after
        self._file.write("".join(map(metrics_line, rows)))
        self._file.flush()
        if self._board is not None:
            for row in rows:
                step = row.pop("step")
                for name, value in row.items():
                    self._board.add_scalar(name, value, step)


def _summary_writer(folder: pathlib.Path, purge_step):
    try:
        import tensorboardX  # an optional package
    except ModuleNotFoundError as error:
        raise UserModuleNotFoundError(
            "tensorboard=True needs tensorboardX: pip install 'gradstab[tensorboard]'."
        ) from error
    return tensorboardX.SummaryWriter(str(folder), purge_step=purge_step)
