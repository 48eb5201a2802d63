"""Reports as JSON files: everything, with the version of the schema.

An array is ``{"array": [...], "shape": [...], "dtype": "..."}`` with the strings NaN,
Infinity and -Infinity among its entries; a single such number ``{"number": "NaN"}``.
"""

import dataclasses
import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from gradstab import records
from gradstab.report import ensembles

SCHEMA = 2
# What a file without them cannot be.
_NEEDED = {"schema", "layers", "made"}
_RECORDS = {
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
# JSON has no numbers for these; Python's `float` reads them back.
_SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def save(report, path, /, *, overwrite=False) -> None:
    """Write a report to a JSON file, whole or not at all.

    Raises:
        FileExistsError: if the file exists and ``overwrite`` is not set.
    """
    path = pathlib.Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or overwrite=True")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(encode_report(report), indent=1, allow_nan=False)
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def read(path, /) -> dict[str, Any]:
    """The fields of a report that `save` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no report, damaged, or of a newer schema.
    """
    path = pathlib.Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(data, dict) or not data.keys() >= _NEEDED:
        raise ValueError(f"{path} is not a report of gradstab")
    if data["schema"] != SCHEMA:
        raise ValueError(
            f"{path} has schema {data['schema']}, this gradstab reads {SCHEMA}; it was "
            f"written by gradstab {data['made'].get('gradstab')}: use that version"
        )
    try:
        return {name: _decode(value) for name, value in data.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error


def encode_report(report, /) -> dict[str, Any]:
    """The report as JSON values."""
    fields = {
        field.name: _encode(getattr(report, field.name))
        for field in dataclasses.fields(report)
    }
    return {"schema": SCHEMA, **fields}


def _encode(value):
    if type(value).__name__ in _RECORDS:
        fields = dataclasses.fields(value)
        encoded = {field.name: _encode(getattr(value, field.name)) for field in fields}
        return {"record": type(value).__name__, **encoded}
    if isinstance(value, dict):
        return {key: _encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if hasattr(value, "dtype"):
        array = np.asarray(value)
        items = [_SPECIAL.get(str(x), x) for x in array.ravel().tolist()]
        return {"array": items, "shape": list(array.shape), "dtype": str(array.dtype)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": _SPECIAL[str(value)]}
    return value


def _is_needed(field):
    return field.default is field.default_factory is dataclasses.MISSING


def _decode(value):
    if isinstance(value, dict) and "array" in value and "dtype" in value:
        items = [float(x) if isinstance(x, str) else x for x in value["array"]]
        return np.array(items, value["dtype"]).reshape(value["shape"])
    if isinstance(value, dict) and value.keys() == {"number"}:
        return float(value["number"])
    if isinstance(value, dict) and value.get("record") in _RECORDS:
        cls = _RECORDS[value["record"]]
        value = _recurrence_of_now(value) if cls is records.Recurrence else value
        # What a record has learnt since the file was written has a default.
        return cls(
            **{
                field.name: _decode(value[field.name])
                for field in dataclasses.fields(cls)
                if field.name in value or _is_needed(field)
            }
        )
    if isinstance(value, dict):
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    return value


def _recurrence_of_now(value):
    """One whose exponents are of a finite time: there were no others, and no errors."""
    if "finite_time_exponents" in value:
        return value
    old, errors = value["exponents"], value["exponents_error"]
    unknown = old | {"array": ["NaN"] * len(old["array"])}
    note = "saved before Lyapunov exponents were told from those of a finite time"
    return value | {
        "exponents": unknown,
        "exponents_error": unknown,
        "finite_time_exponents": old,
        "finite_time_errors": errors,
        "note": f"{value['note']}; {note}" if value["note"] else note,
    }
