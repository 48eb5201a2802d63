"""Coordinate checks on disk: a file of one, and runs kept while it goes on."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from gradstab import _files, _json
from gradstab.errors import UserValueError
from gradstab.scaling.coordinates import Transfer
from gradstab.scaling.measuring import Measured, Trial
from gradstab.scaling.roles import Role

KIND = "gradstab transfer"
SCHEMA = 1
_ARRAYS = tuple(f.name for f in dataclasses.fields(Transfer) if not f.metadata)


def save(transfer: Transfer, path: Any, /, *, overwrite: bool = False) -> None:
    """Write a coordinate check to a JSON file, whole or not at all.

    Raises:
        FileExistsError: if the file exists and ``overwrite`` is not set.
        OSError: if it cannot be written.
    """
    path = _files.as_path(path, "path")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or overwrite=True")
    data = {"kind": KIND, "schema": SCHEMA, **_json.encoded(transfer)}
    _files.make_folder(path.parent)
    _files.write(path, _json.dumps(data, indent=1) + "\n", overwrite=overwrite)


def load(path: Any, /) -> Transfer:
    """Read a coordinate check that `Transfer.save` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none, damaged, or of a newer schema.
    """
    path = _files.as_path(path, "path")
    text = path.read_text()
    try:
        data = _json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(data, dict) or data.get("kind") != KIND:
        raise UserValueError(f"{path} is no coordinate check of gradstab")
    if data["schema"] > SCHEMA:
        raise UserValueError(
            f"{path} has schema {data['schema']}, and this gradstab reads {SCHEMA}: it "
            "was written by a newer one"
        )
    try:
        return _decoded(data)
    except (KeyError, TypeError, ValueError) as error:
        raise UserValueError(f"{path} is damaged: {error}") from error


def _decoded(data: dict[str, Any]) -> Transfer:
    values = {field.name: data[field.name] for field in dataclasses.fields(Transfer)}
    for name in _ARRAYS:
        values[name] = _numbers(values[name])
    values["roles"] = tuple(map(Role, values["roles"]))
    for name in ("sizes", "layer_names", "parameter_names", "matrices", "notes"):
        values[name] = tuple(values[name])
    return Transfer(**values)


def _numbers(nested: Any) -> np.ndarray:
    # Strings among them are the names of numbers that JSON does not have.
    return np.array(nested, dtype=object).astype(np.float64)


class Trials:
    """Finished runs of a check in a folder, so that it can go on after it was killed.

    Args:
        folder: where; None keeps nothing.
        settings: of the check, as JSON values; the folder is for these alone.

    Raises:
        ValueError: the folder holds runs of another check.
    """

    def __init__(self, folder: Any, settings: dict[str, Any]) -> None:
        self._folder: pathlib.Path | None = None
        if folder is None:
            return
        self._folder = _files.as_path(folder, "folder")
        _files.make_folder(self._folder)
        path = self._folder / "settings.json"
        if not path.exists():
            _files.write(path, _json.dumps(settings) + "\n", overwrite=False)
        elif (held := _json.loads(path.read_text())) != settings:
            differ = ", ".join(k for k in settings if held.get(k) != settings[k])
            raise UserValueError(
                f"{self._folder} holds runs of another check: {differ} differ; choose "
                "another folder"
            )

    def get(self, size: int, seed: int, measure: Callable[[], Measured]) -> Measured:
        """A run from the folder, or a new one, which is kept there."""
        if self._folder is None:
            return measure()
        path = self._folder / f"size-{size}-seed-{seed}.json"
        if path.exists():
            data = _json.loads(path.read_text())
            trial = {name: _numbers(data["trial"][name]) for name in Trial._fields}
            names = tuple(data["layers"]), tuple(data["parameters"])
            return Measured(Trial(**trial), *names, data["normalises"])
        made = measure()
        trial = {k: _json.encoded(v) for k, v in made.trial._asdict().items()}
        data = made._asdict() | {"trial": trial}
        _files.write(path, _json.dumps(_json.encoded(data)) + "\n", overwrite=False)
        return made
