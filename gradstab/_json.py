"""JSON as gradstab writes and reads it, the only place that does; not for users.

JSON has no numbers for infinities and what is no number: they are written as their
names, which Python's `float` reads back.
"""

import dataclasses
import enum
import json
import math
from typing import Any

import numpy as np

from gradstab.errors import UserValueError

SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""The names of the numbers that JSON does not have."""

_NAMES = {str(number): name for name, number in SPECIAL.items()}


def dumps(value, /, *, strict: bool = True, **layout) -> str:
    """JSON values as text.

    Args:
        value: dictionaries with keys that are strings, lists, strings, numbers, None.
        strict: refuse numbers that JSON does not have; else they are written all the
            same, as what only Python reads.
        **layout: what `json.dumps` takes.

    Raises:
        TypeError: for a value that JSON does not have.
        ValueError: for such a number.
    """
    return json.dumps(value, allow_nan=not strict, **layout)


def loads(text: str | bytes, /, *, strict: bool = True) -> Any:
    """JSON values from text.

    Args:
        text: what a file holds.
        strict: refuse what JSON does not have, and names that are in an object twice.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    if not strict:
        return json.loads(text)
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)


def number(value, /):
    """A number, or its name if JSON does not have it; anything else as it is.

    >>> [number(value) for value in (0.5, float("-inf"), "text")]
    [0.5, '-Infinity', 'text']
    """
    if isinstance(value, float) and not math.isfinite(value):
        return _NAMES[str(value)]
    return value


def encoded(value, /) -> Any:
    """A record, an array or a container of these as JSON values.

    Arrays and tuples become lists, members of an enumeration their values, numbers that
    JSON does not have their names; complex ones have a ``real`` and an ``imag``.

    >>> encoded({"norms": np.array([1.0, np.inf]), "at": (2j,)})
    {'norms': [1.0, 'Infinity'], 'at': [{'real': 0.0, 'imag': 2.0}]}
    """
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: encoded(getattr(value, field.name)) for field in fields}
    if isinstance(value, dict):
        return {key: encoded(item) for key, item in value.items()}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [encoded(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return encoded(value.tolist())
    if isinstance(value, complex):
        return {"real": encoded(value.real), "imag": encoded(value.imag)}
    return number(value)


def _unique(pairs):
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise UserValueError(f"{double!r} is there twice in one object")
    return values


def _refuse(name):
    raise UserValueError(f"{name} is no JSON")
