"""Reports as JSON files: everything, with the version of the schema."""

import dataclasses
import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from gradstab import records

SCHEMA = 1
_RECORDS = {
    cls.__name__: cls
    for cls in (
        records.Estimate,
        records.Growth,
        records.Layer,
        records.Recurrence,
        records.Spectrum,
    )
}
# JSON has no numbers for these.
_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


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
    temporary.write_text(json.dumps(encode_report(report), indent=1) + "\n")
    temporary.replace(path)


def load(path, /):
    """Read a report that `Report.save` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no report, or of a newer schema.
    """
    path = pathlib.Path(path)
    try:
        data = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(data, dict) or "schema" not in data or "layers" not in data:
        raise ValueError(f"{path} is not a report of gradstab")
    if data["schema"] > SCHEMA:
        raise ValueError(
            f"{path} has schema {data['schema']}, this gradstab reads up to {SCHEMA}; "
            f"it was written by gradstab {data['made'].get('gradstab')}: upgrade"
        )
    return decode_report(data)


def encode_report(report, /) -> dict[str, Any]:
    """The report as JSON values."""
    fields = {
        field.name: _encode(getattr(report, field.name))
        for field in dataclasses.fields(report)
    }
    return {"schema": SCHEMA, **fields}


def decode_report(data, /):
    """The report that `encode_report` encoded."""
    from gradstab.report.report import GrowthPair, Report

    fields = {f.name: _decode(data[f.name]) for f in dataclasses.fields(Report)}
    fields["growth"] = GrowthPair(*fields["growth"])
    return Report(**fields)


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
        return {
            "array": _encode(array.ravel().tolist()),
            "shape": list(array.shape),
            "dtype": str(array.dtype),
        }
    if isinstance(value, float) and not math.isfinite(value):
        return next(
            name
            for name, special in _SPECIAL.items()
            if special == value or (math.isnan(special) and math.isnan(value))
        )
    return value


def _decode(value):
    if isinstance(value, dict) and "array" in value and "dtype" in value:
        items = np.array(_decode(value["array"]), value["dtype"])
        return items.reshape(value["shape"])
    if isinstance(value, dict) and value.get("record") in _RECORDS:
        cls = _RECORDS[value["record"]]
        return cls(**{f.name: _decode(value[f.name]) for f in dataclasses.fields(cls)})
    if isinstance(value, dict):
        return {key: _decode(item) for key, item in value.items()}
    if isinstance(value, list):
        return tuple(_decode(item) for item in value)
    return _SPECIAL.get(value, value) if isinstance(value, str) else value
