"""What a line of a history holds: the numbers of a step, as short as they can be."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from gradstab import _json
from gradstab.errors import UserTypeError, UserValueError
from gradstab.watch.history_rows import LOSS, Rows
from gradstab.watch.statistics import Statistics

# All that a step measured of every layer; measures of level full are no curves, nor are
# the parts that make up a row.
_NO_CURVES = ("value", "measures", "details")
COLUMNS = tuple(
    field.name
    for field in dataclasses.fields(Statistics)
    if not field.metadata.get("static") and field.name not in _NO_CURVES
)
_TAKEN = ("step", "steps", "level", "names", LOSS, *COLUMNS)


def as_lines(step, stats, scalars, /) -> list[dict]:
    """The lines of a step or of several, JSON values.

    Raises:
        ValueError: what was given is not of steps, or has names that are taken.
        TypeError: it is no statistics, or a scalar is no number.
    """
    if not isinstance(stats, Statistics):
        raise UserTypeError(
            f"append(step, stats) takes gs.Statistics, got {type(stats).__name__}"
        )
    if taken := [name for name in scalars if name in _TAKEN]:
        raise UserValueError(f"{taken[0]} is a name of the statistics: choose another")
    columns = {name: getattr(stats, name) for name in (LOSS, *COLUMNS)}
    columns = {name: c for name, c in columns.items() if c is not None}
    given = step, columns, scalars
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given)):
        raise UserValueError(
            "append writes to the disk: return the statistics from jit first"
        )
    step, columns, scalars = jax.device_get(given)
    value = columns[LOSS]
    if value.ndim > 1:
        raise UserValueError(
            f"these statistics have the leading axes {value.shape}: give those of "
            "steps, and of the others one, jax.tree.map(lambda x: x[:, 0], stats)"
        )
    if not value.ndim:
        columns = {name: column[None] for name, column in columns.items()}
    num = len(columns[LOSS])
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


def as_rows(names, lines, /) -> Rows:
    """The numbers that are in lines."""
    rows = Rows(names)
    for line in lines:
        rows.add(*numbers(line))
    return rows


def numbers(line: dict, /) -> tuple[int, dict, dict]:
    """The number of a step, its columns and its scalars."""
    columns = {
        name: np.array(value, float)
        for name, value in line.items()
        if name not in ("step", "level", "scalars", LOSS)
    }
    scalars = {name: float(value) for name, value in line["scalars"].items()}
    return int(line["step"]), columns, {LOSS: float(line[LOSS])} | scalars
