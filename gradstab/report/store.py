"""Reports as JSON files: everything, with the version of the schema and a digest.

An array is ``{"array": [...], "shape": [...], "dtype": "..."}`` with the strings NaN,
Infinity and -Infinity among its entries; a single such number ``{"number": "NaN"}``.
The digest is the SHA-256 of all else: of the JSON with sorted keys and without blanks.
"""

import dataclasses
import hashlib
import math
import pathlib
import typing
from collections.abc import Collection
from importlib import metadata
from typing import Any

import numpy as np

from gradstab import _files, _json
from gradstab._text import one_line
from gradstab.errors import UserValueError
from gradstab.report import fields

SCHEMA = 2
# What a file without them cannot be.
_NEEDED = {"schema", "layers", "made"}


def save(report, path: str | pathlib.Path, /, *, overwrite: bool = False) -> None:
    """Write a report to a JSON file, whole or not at all.

    Raises:
        FileExistsError: if the file exists and ``overwrite`` is not set.
        OSError: if it cannot be written.
    """
    path = _files.as_path(path, "path")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or overwrite=True")
    # As it is read back: with keys that are strings, in lists and not tuples.
    data = _json.loads(_json.dumps(encode_report(report)))
    data = {"schema": SCHEMA, "digest": _digest(data), **data}
    text = _json.dumps(data, indent=1)
    _files.make_folder(path.parent)
    _files.write(path, text + "\n", overwrite=overwrite)


def read(
    path: str | pathlib.Path, kind: type, words: Collection[str], /
) -> dict[str, Any]:
    """The fields of a report that `save` wrote.

    Args:
        path: the file.
        kind: the record of all that a report holds.
        words: those that its verdict may be.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no report, damaged, or of a newer schema.
    """
    path = _files.as_path(path, "path")
    data = _data(path)
    old = "digest" not in data
    digest = data.pop("digest", None)
    try:
        found = _fields(data, kind, words)
        if old:
            _refuse_strangers(data, found)
        elif digest != _digest(data):
            raise fields.DamagedError(
                "its content is not what its digest says. If it was edited, delete "
                "the line 'digest' in it"
            )
    except fields.DamagedError as error:
        raise UserValueError(f"{path} is damaged: {error}") from error
    except RecursionError as error:
        raise UserValueError(f"{path} is damaged: it is nested too deeply") from error
    return found


def _data(path: pathlib.Path) -> dict[str, Any]:
    """What JSON is in the file, if that is a report."""
    if path.is_dir():
        raise UserValueError(f"{path} is a folder; give the report in it, a JSON file")
    try:
        data = _json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    except OSError as error:
        raise type(error)(f"{path} cannot be read: {_files.reason(error)}") from error
    except RecursionError as error:
        raise UserValueError(f"{path} is damaged: it is nested too deeply") from error
    except ValueError as error:
        raise UserValueError(f"{path} is not a JSON file: {one_line(error)}") from error
    if not isinstance(data, dict) or not data.keys() >= _NEEDED:
        raise UserValueError(f"{path} is not a report of gradstab")
    schema, made = data["schema"], data["made"]
    if type(schema) is not int:
        raise UserValueError(
            f"{path} is damaged: field schema: expected a whole number, "
            f"got {one_line(repr(schema), length=60)}"
        )
    if schema != SCHEMA:
        by = made.get("gradstab") if isinstance(made, dict) else None
        by = one_line(by, length=40) if isinstance(by, str) else "another version"
        raise UserValueError(
            f"{path} has schema {str(schema)[:20]}, this gradstab "
            f"({metadata.version('gradstab')}) reads {SCHEMA}; it was "
            f"written by gradstab {by}: use that version"
        )
    return data


def _fields(data: dict[str, Any], kind: type, words: Collection[str]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    missing = [field.name for field in dataclasses.fields(kind)]
    missing = [name for name in missing if name not in data]
    if missing:
        raise fields.DamagedError(f"it has no {', '.join(missing)}")
    found = {name: fields.decode(data[name], hints[name], name) for name in hints}
    fields.expect_word(found["verdict"], words, "verdict")
    report = kind(**found)
    fields.expect_shapes(report, "report")
    _expect_names(report)
    return found


def _expect_names(report) -> None:
    """Layers that are spoken of are there."""
    names = {layer.name for layer in report.layers}
    spoken = {
        "growth.forward.layers": report.growth.forward.layers,
        "growth.backward.layers": report.growth.backward.layers,
        "theory.names": report.theory.names if report.theory else (),
        "ensemble.names": report.ensemble.names if report.ensemble else (),
    }
    for field, listed in spoken.items():
        strangers = [name for name in listed if name not in names]
        if strangers:
            raise fields.DamagedError(
                f"field {field}: there is no layer {one_line(strangers[0])!r}"
            )


def _digest(data: dict[str, Any]) -> str:
    text = _json.dumps(data, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _refuse_strangers(data: dict[str, Any], found: dict[str, Any]) -> None:
    """With a digest they would be what a newer gradstab has learnt."""
    places = list(data.keys() - found.keys() - {"schema"})
    for name in found.keys() - {"made"}:
        places += fields.strangers(data[name], name)
    if places:
        raise fields.DamagedError(f"no report has a field {one_line(min(places))}")


def encode_report(report, /) -> dict[str, Any]:
    """The report as JSON values."""
    values = {
        field.name: _encode(getattr(report, field.name))
        for field in dataclasses.fields(report)
    }
    return {"schema": SCHEMA, **values}


def _encode(value: Any) -> Any:
    if type(value).__name__ in fields.RECORDS:
        names = [field.name for field in dataclasses.fields(value)]
        encoded = {name: _encode(getattr(value, name)) for name in names}
        return {"record": type(value).__name__, **encoded}
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if hasattr(value, "dtype"):
        array = np.asarray(value)
        items = [_json.number(item) for item in array.ravel().tolist()]
        return {"array": items, "shape": list(array.shape), "dtype": str(array.dtype)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": _json.number(value)}
    return value
