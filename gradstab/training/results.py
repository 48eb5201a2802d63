"""A run's folder: who may write there, its settings, one line of metrics per step."""

import importlib.metadata
import math
import pathlib
import platform
import shlex
import shutil
import sys

import jax
import numpy as np

from gradstab import _files, _json
from gradstab._files import new_results_folder as new_results_folder
from gradstab._text import one_line
from gradstab.errors import UserTypeError, UserValueError
from gradstab.training.damage import warn

CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
HISTORY = "history.jsonl"
FAILED, STEP = "failed", "step.json"
CHECKPOINTS, TENSORBOARD, PRETRAINING = "checkpoints", "tensorboard", "pretraining"

# In the settings of a run: whether it has ever had a checkpoint.
SAVED = "has_checkpoints"


def open_folder(
    directory: str | pathlib.Path, /, *, resume: bool, overwrite: bool
) -> pathlib.Path:
    """The folder of a run, made or emptied as asked.

    Args:
        directory: path of the folder.
        resume: keep what is there.
        overwrite: delete what an earlier run wrote there, and nothing else.

    Raises:
        FileExistsError: the folder is not empty and neither was asked for, or another
            run is writing into the one to be emptied.
        ValueError: both were asked for.
    """
    folder = _files.as_path(directory, "directory").absolute()
    if resume and overwrite:
        raise UserValueError(
            "resume=True keeps the run in the folder and overwrite=True deletes it; "
            "ask for one of them."
        )
    if folder.is_dir() and any(folder.iterdir()) and not resume:
        if not overwrite:
            raise FileExistsError(
                f"{folder} exists and is not empty. Pass resume=True to go on with the "
                "run in it, overwrite=True to delete that run, or another directory."
            )
        if jax.process_index() == 0:
            with _files.alone_in(folder):
                _delete_run(folder)
    _files.make_folder(folder)
    return folder


def _delete_run(folder: pathlib.Path):
    for name in (CONFIG, METRICS, RESULT, HISTORY):
        (folder / name).unlink(missing_ok=True)
    for name in (CHECKPOINTS, TENSORBOARD, PRETRAINING, FAILED):
        shutil.rmtree(folder / name, ignore_errors=True)


def environment() -> dict:
    """What a number may depend on besides the settings: versions, device, command."""
    packages = ("gradstab", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "python": platform.python_version(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "platform": jax.default_backend(),
        "precision": str(jax.config.values["jax_default_matmul_precision"]),
        "command": shlex.join(sys.argv),
    }


def write_config(folder: pathlib.Path, content: dict, /) -> None:
    """Write ``config.json``, whole or not at all.

    Raises:
        TypeError: the content is not made of what JSON knows.
    """
    try:
        text = _json.dumps(content, strict=False, indent=2)
    except TypeError as error:
        raise UserTypeError(
            f"the settings cannot be written as JSON ({error}); config= takes strings, "
            "numbers, booleans, None, and lists and dictionaries of these."
        ) from error
    if jax.process_index() == 0:
        _files.write(folder / CONFIG, text + "\n", overwrite=True)


def read_config(folder: pathlib.Path, /) -> dict | None:
    """The content of ``config.json``, or None where no run has written one.

    Raises:
        ValueError: the file is not JSON, or not that of a run.
    """
    path = pathlib.Path(folder) / CONFIG
    try:
        content = _json.loads(path.read_bytes(), strict=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise type(error)(f"{path} cannot be read: {_files.reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UserValueError(
            f"{path} is not valid JSON ({one_line(error)})."
        ) from error
    for name in ("settings", "config"):
        if not isinstance(content, dict) or not isinstance(content.get(name), dict):
            raise UserValueError(f"{path} is not that of a run: it has no {name!r}.")
    return content


def read_metrics(
    folder: pathlib.Path, /, *, last_step: int | None = None, gaps: bool = False
) -> list[dict]:
    """The lines of ``metrics.jsonl`` up to a step, one dictionary per step.

    A number that was not finite is None. What follows ``last_step`` is not read: it may
    be the broken line of a killed run.

    Args:
        folder: of the run.
        last_step: the last one to read; all if None.
        gaps: whether steps may be missing and lines broken, which are left out then.

    Raises:
        ValueError: a line is broken or a step is missing or doubled.
    """
    path = pathlib.Path(folder) / METRICS
    lines = _lines(path)
    rows = [_row(line) for line in lines[:last_step]]
    if gaps:
        return _in_order(map(_row, lines), last_step)
    if None in rows:
        raise UserValueError(
            f"{path}: line {rows.index(None) + 1} is broken; gaps=True leaves it out."
        )
    numbers = [row["step"] for row in rows if row is not None]
    expected = len(rows) if last_step is None else last_step
    if numbers != list(range(1, expected + 1)):
        raise UserValueError(
            f"{path} should have one line for each of the steps 1 to {expected}, in "
            f"order; it has {len(rows)}, the last of step {numbers[-1:] or 'none'}. "
            "gaps=True reads it all the same."
        )
    return [row for row in rows if row is not None]


def recover_metrics(folder: pathlib.Path, last_step: int, /) -> list[dict]:
    """Drop the lines after a step from ``metrics.jsonl`` and return the others.

    A `DamageWarning` says which steps before it are missing.

    Raises:
        OSError: the file cannot be written.
    """
    path = folder / METRICS
    rows = read_metrics(folder, last_step=last_step, gaps=True)
    missing = sorted(set(range(1, last_step + 1)) - {row["step"] for row in rows})
    if jax.process_index() == 0:
        kept = ""
        if missing and None in map(_row, _lines(path)):
            kept = f"; a copy of what was there is {_copy(path).name}"
        _files.write(path, "".join(map(metrics_line, rows)), overwrite=True)
        if missing:
            warn(
                f"{path} has lost {_spans(missing)} of the {last_step} steps taken: "
                f"they are missing in the history, and nowhere else{kept}"
            )
    return rows


def _lines(path):
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise type(error)(f"{path} cannot be read: {_files.reason(error)}") from error


def _row(line):
    """What a line says of a step; None if it is broken."""
    try:
        row = _json.loads(line, strict=False)
    except (ValueError, RecursionError):
        return None
    plain = isinstance(row, dict) and all(
        value is None or isinstance(value, int | float) for value in row.values()
    )
    return row if plain and type(row.get("step")) is int else None


def _in_order(rows, last_step: int | None):
    by_step = {}
    for row in rows:
        if row and row["step"] >= 1 and (last_step is None or row["step"] <= last_step):
            by_step.setdefault(row["step"], row)
    return [by_step[step] for step in sorted(by_step)]


def _copy(path):
    number = 1
    while (copy := path.with_name(f"metrics.damaged-{number}.jsonl")).exists():
        number += 1
    _files.write(copy, path.read_bytes(), overwrite=False)
    return copy


def _spans(numbers):
    """Runs of numbers, the first few of them.

    >>> _spans([1, 2, 3, 7])
    '1 to 3, 7'
    """
    ends = []
    for number in numbers:
        if ends and ends[-1][1] == number - 1:
            ends[-1][1] = number
        else:
            ends.append([number, number])
    shown = [f"{a} to {b}" if a < b else f"{a}" for a, b in ends[:3]]
    return ", ".join(shown) + (", ..." if len(ends) > 3 else "")


def metrics_line(row: dict, /) -> str:
    r"""One line of ``metrics.jsonl``; numbers that are not finite become null.

    >>> metrics_line({"step": 1, "loss": 0.5, "pre_norm": float("inf")})
    '{"step": 1, "loss": 0.5, "pre_norm": null}\n'
    """
    return _json.dumps({name: _finite(value) for name, value in row.items()}) + "\n"


def histories(rows: list[dict], /) -> dict[str, np.ndarray]:
    """Columns from rows; NaN where a row has no such number.

    >>> histories([{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}])
    {'step': array([1, 2]), 'loss': array([0.5, nan])}
    """
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return {
        name: np.array([math.nan if value is None else value for value in column])
        for name, column in columns.items()
    }


def _finite(value):
    return value if not isinstance(value, float) or math.isfinite(value) else None
