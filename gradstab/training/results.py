"""A run's folder: who may write there, its settings, one line of metrics per step."""

import importlib.metadata
import json
import math
import os
import pathlib
import platform
import re
import shlex
import shutil
import sys

import jax
import numpy as np

CONFIG, METRICS, CHECKPOINTS, TENSORBOARD = (
    "config.json",
    "metrics.jsonl",
    "checkpoints",
    "tensorboard",
)


def new_results_folder(root="results", name="run", /) -> pathlib.Path:
    """Make the next free folder ``root/name-1``, ``root/name-2``, ...

    Two programs that ask at the same time get different folders.

    Args:
        root: the folder of all results; it is made when missing.
        name: what kind of result.

    Returns:
        The path of a new, empty folder.

    Examples:
        >>> import tempfile
        >>> root = tempfile.mkdtemp()
        >>> [new_results_folder(root, "train").name for _ in range(2)]
        ['train-1', 'train-2']
    """
    root = pathlib.Path(root)
    root.mkdir(parents=True, exist_ok=True)
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    taken = [pattern.fullmatch(path.name) for path in root.iterdir()]
    number = 1 + max((int(match[1]) for match in taken if match), default=0)
    while True:
        folder = root / f"{name}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:  # another program was faster
            number += 1
        else:
            return folder


def open_folder(directory, /, *, resume: bool, overwrite: bool) -> pathlib.Path:
    """The folder of a run, made or emptied as asked.

    Args:
        directory: path of the folder.
        resume: keep what is there.
        overwrite: delete what an earlier run wrote there, and nothing else.

    Raises:
        FileExistsError: the folder is not empty and neither was asked for.
        ValueError: both were asked for.
    """
    folder = pathlib.Path(directory).absolute()
    if resume and overwrite:
        raise ValueError(
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
            for name in (CONFIG, METRICS):
                (folder / name).unlink(missing_ok=True)
            for name in (CHECKPOINTS, TENSORBOARD):
                shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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
        text = json.dumps(content, indent=2)
    except TypeError as error:
        raise TypeError(
            f"the settings cannot be written as JSON ({error}); config= takes strings, "
            "numbers, booleans, None, and lists and dictionaries of these."
        ) from error
    if jax.process_index() == 0:
        _replace(folder / CONFIG, text + "\n")


def read_config(folder, /) -> dict | None:
    """The content of ``config.json``, or None where no run has written one.

    Raises:
        ValueError: the file is not JSON.
    """
    path = pathlib.Path(folder) / CONFIG
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error


def read_metrics(folder, /, *, last_step: int | None = None) -> list[dict]:
    """The lines of ``metrics.jsonl`` up to a step, one dictionary per step.

    A number that was not finite is None. What follows ``last_step`` is not read: it may
    be the broken line of a killed run.

    Raises:
        ValueError: a line is broken or a step is missing or doubled.
    """
    path = pathlib.Path(folder) / METRICS
    lines = path.read_text().splitlines()[:last_step] if path.exists() else []
    try:
        rows = [json.loads(line) for line in lines]
        numbers = [row["step"] for row in rows]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} has a line without a step ({error}).") from error
    expected = len(rows) if last_step is None else last_step
    if numbers != list(range(1, expected + 1)):
        raise ValueError(
            f"{path} should have one line for each of the steps 1 to {expected}, in "
            f"order; it has {len(rows)}, the last of step {numbers[-1:] or 'none'}."
        )
    return rows


def truncate_metrics(folder: pathlib.Path, last_step: int, /) -> list[dict]:
    """Drop the lines after a step from ``metrics.jsonl`` and return the others."""
    rows = read_metrics(folder, last_step=last_step)
    if jax.process_index() == 0:
        _replace(folder / METRICS, "".join(map(metrics_line, rows)))
    return rows


def metrics_line(row: dict, /) -> str:
    r"""One line of ``metrics.jsonl``; numbers that are not finite become null.

    >>> metrics_line({"step": 1, "loss": 0.5, "pre_norm": float("inf")})
    '{"step": 1, "loss": 0.5, "pre_norm": null}\n'
    """
    return json.dumps({name: _finite(value) for name, value in row.items()}) + "\n"


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


def _replace(path, text):
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)
