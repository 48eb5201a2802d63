"""Values of a file as the fields of records, each verified against its type."""

import dataclasses
import functools
import math
import sys
import types
import typing
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from gradstab import records
from gradstab._json import SPECIAL
from gradstab._text import one_line
from gradstab.errors import UserValueError
from gradstab.report import ensembles
from gradstab.report.shapes import disagreement

RECORDS = {
    cls.__name__: cls
    for cls in (
        ensembles.Ensemble,
        records.Estimate,
        records.Growth,
        records.Layer,
        ensembles.OverSeeds,
        records.Prediction,
        records.Range,
        records.Recurrence,
        records.Spectrum,
    )
}
LAWS = ("constant", "power", "exp-sqrt", "exponential", "unknown")
_WORDS = {
    "Growth.law": LAWS,
    "Growth.compatible": LAWS,
    "Range.direction": ("forward", "backward"),
    "Range.end": ("underflow", "overflow", ""),
    "Spectrum.method": ("svd", "gram", "golub-kahan"),
}
# Of the numbers that a file may hold, apart from floating ones.
_LARGEST = 2**64


class DamagedError(UserValueError):
    """A value that is not what its field holds; the message names the field."""


def decode(value: Any, kind: Any, where: str, /) -> Any:
    """A value of a file as what a field of a record holds.

    Args:
        value: from JSON.
        kind: the type of the field, as it is annotated.
        where: path of the field, for the message.

    Raises:
        DamagedError: the value is of another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return _anything(value, where)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (kind,) = (each for each in arguments if each is not type(None))
        return decode(value, kind, where)
    if origin is tuple:
        return _several(value, arguments, where)
    if origin is dict:
        _expect(isinstance(value, dict), where, "an object", value)
        return {k: decode(v, Any, f"{where}.{k}") for k, v in value.items()}
    if kind in RECORDS.values():
        return _record(value, kind, where)
    if issubclass(kind, tuple):  # a NamedTuple
        return kind(*_several(value, tuple(_hints(kind).values()), where))
    if kind is np.ndarray:
        _expect(_is_array(value), where, "an array", value)
        return _array(value, where)
    return _single(value, kind, where)


def _record(value: Any, cls: type, where: str) -> Any:
    name = cls.__name__
    right = isinstance(value, dict) and value.get("record") == name
    _expect(right, where, f"a record {name}", value)
    value = _recurrence_of_now(value, where) if cls is records.Recurrence else value
    found = {}
    for field in dataclasses.fields(cls):
        place = f"{where}.{field.name}"
        if field.name in value:
            # What a record has learnt since the file was written has a default.
            found[field.name] = decode(
                value[field.name], _hints(cls)[field.name], place
            )
            expect_word(found[field.name], _WORDS.get(f"{name}.{field.name}"), place)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise DamagedError(f"field {place} is missing")
    made = cls(**found)
    expect_shapes(made, where)
    return made


def strangers(value: Any, where: str, /) -> Iterator[str]:
    """Paths of all fields in a file that no record has.

    Args:
        value: from JSON.
        where: path of the value.
    """
    if isinstance(value, list):
        for i, item in enumerate(value):
            yield from strangers(item, f"{where}.{i}")
    if not isinstance(value, dict):
        return
    cls = RECORDS.get(value["record"]) if _is_record(value) else None
    known = _hints(cls).keys() | {"record"} if cls else value.keys()
    yield from (f"{where}.{name}" for name in value.keys() - known)
    for name, item in value.items():
        yield from strangers(item, f"{where}.{name}")


def expect_word(value: Any, words: Collection[str] | None, where: str, /) -> None:
    """Raise unless a word, or each of several, is among those that a field may be."""
    for word in value if isinstance(value, tuple) else (value,):
        expected = f"one of {', '.join(repr(each) for each in words or ())}"
        _expect(words is None or word in words, where, expected, word)


def expect_shapes(record: object, where: str, /) -> None:
    """Raise if arrays or tuples of a record are not of shapes that fit together."""
    found = disagreement(record)
    if found is not None:
        name, text = found
        raise DamagedError(f"field {where}.{name}: {text}")


def _single(value: Any, kind: type, where: str) -> float | str:
    if _is_array(value):  # a NumPy scalar
        array = _array(value, where)
        _expect(array.ndim == 0 and type(array.item()) is kind, where, _NOUNS[kind],
                value)  # fmt: skip
        return array.item()
    if kind is float and _is_special(value):
        return _special(value["number"], where)
    if kind is float:
        right = type(value) in (int, float) and abs(value) <= sys.float_info.max
    elif kind is int:
        right = type(value) is int and 0 <= value < _LARGEST
    else:
        right = isinstance(value, kind)
    _expect(right, where, _NOUNS[kind], value)
    return value if isinstance(value, str) else kind(value)


_NOUNS = {
    float: "a number",
    int: "a whole number from 0",
    str: "a text",
    bool: "true or false",
}


def _several(value: Any, kinds: tuple, where: str) -> tuple:
    _expect(isinstance(value, list), where, "a list", value)
    if len(kinds) == 2 and kinds[1] is ...:
        kinds = kinds[:1] * len(value)
    _expect(len(kinds) == len(value), where, f"{len(kinds)} values", value)
    return tuple(
        decode(item, kind, f"{where}.{i}")
        for i, (item, kind) in enumerate(zip(value, kinds, strict=True))
    )


def _anything(value: Any, where: str) -> Any:
    """Of how a report was made: what JSON holds, and arrays."""
    if _is_array(value):
        return _array(value, where)
    if isinstance(value, dict):
        if _is_special(value):
            return _special(value["number"], where)
        return decode(value, dict[str, Any], where)
    if isinstance(value, list):
        return tuple(_anything(item, f"{where}.{i}") for i, item in enumerate(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        large = isinstance(value, int) and abs(value) >= _LARGEST
        _expect(not large and math.isfinite(value), where, "a number", value)
    return value


def _is_record(value: Any) -> bool:
    return isinstance(value.get("record"), str)


def _is_array(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() >= {"array", "shape", "dtype"}


def _array(value: Any, where: str) -> np.ndarray:
    items, shape, name = value["array"], value["shape"], value["dtype"]
    _expect(isinstance(items, list), where, "a list of numbers", items)
    right = isinstance(shape, list) and all(
        type(length) is int and 0 <= length < _LARGEST for length in shape
    )
    _expect(right, f"{where}.shape", "a list of whole numbers", shape)
    _expect(len(items) == math.prod(shape) and len(shape) <= 64, f"{where}.shape",
            f"that of {len(items)} entries", shape)  # fmt: skip
    dtype = _dtype(name, where)
    numbers = [
        _special(item, where) if isinstance(item, str) else item for item in items
    ]
    try:
        array = np.array(numbers, dtype)
        right = array.ndim == 1 and _is_kept(array, numbers)
    except (TypeError, ValueError, OverflowError):
        right = False
    if not right:
        kinds = {"b": (bool,), "i": (int,), "u": (int,)}.get(dtype.kind, (int, float))
        for item, number in zip(items, numbers, strict=True):
            _expect(type(number) in kinds, where, f"entries of dtype {name}", item)
        raise DamagedError(f"field {where}: an entry is out of the range of {name}")
    return array.reshape(shape)


def _is_kept(array: np.ndarray, numbers: list) -> bool:
    """Whether the entries are of the dtype of the array, and in its range."""
    truth = sum(type(number) is bool for number in numbers)
    if array.dtype.kind == "b" or truth:
        return array.dtype.kind == "b" and truth == len(numbers)
    if array.dtype.kind in "iu":
        return array.tolist() == numbers
    return all(
        math.isfinite(item) or not math.isfinite(number)
        for item, number in zip(array.tolist(), numbers, strict=True)
    )


def _dtype(name: str, where: str) -> np.dtype:
    try:
        dtype = np.dtype(name) if isinstance(name, str) else None
    except TypeError:
        dtype = None
    right = dtype is not None and (dtype.kind in "biuf" or dtype.name == "bfloat16")
    _expect(right, f"{where}.dtype", "the name of a dtype of numbers", name)
    return typing.cast(np.dtype, dtype)


def _is_special(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"number"}


def _special(name: str, where: str) -> float:
    known = isinstance(name, str) and name in SPECIAL
    _expect(known, where, f"a number or one of {', '.join(SPECIAL)}", name)
    return SPECIAL[name]


def _expect(right: bool, where: str, expected: str, value: Any) -> None:
    if not right:
        text = one_line(repr(value), length=60) if _is_short(value) else _kind(value)
        raise DamagedError(f"field {one_line(where)}: expected {expected}, got {text}")


def _is_short(value: Any) -> bool:
    if isinstance(value, str | list):
        return len(value) < 60 and not _is_nested(value)
    if isinstance(value, int):
        return abs(value) < _LARGEST
    return not isinstance(value, dict)


def _is_nested(value: Any) -> bool:
    return isinstance(value, list) and any(
        isinstance(item, list | dict) for item in value
    )


def _kind(value: Any) -> str:
    if isinstance(value, dict) and _is_record(value):
        return f"a record {one_line(value['record'], length=60)}"
    names = {dict: "an object", list: "a list", str: "a long text", int: "a huge one"}
    return names[type(value)]


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _recurrence_of_now(value: Any, where: str) -> dict[str, Any]:
    """One whose exponents are of a finite time: there were no others, and no errors."""
    if "finite_time_exponents" in value:
        return value
    needed = {"exponents", "exponents_error", "note"} - value.keys()
    if needed or not _is_array(value["exponents"]):
        return value  # which is damaged
    old, errors, note = (value[n] for n in ("exponents", "exponents_error", "note"))
    decode(note, str, f"{where}.note")
    decode(old, np.ndarray, f"{where}.exponents")
    unknown = old | {"array": ["NaN"] * len(old["array"])}
    why = "saved before Lyapunov exponents were told from those of a finite time"
    return value | {
        "exponents": unknown,
        "exponents_error": unknown,
        "finite_time_exponents": old,
        "finite_time_errors": errors,
        "note": f"{note}; {why}" if note else why,
    }
