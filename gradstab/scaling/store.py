"""Coordinate checks on disk: a file of one, and runs kept while it goes on."""

import hashlib
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradstab import _files, _json, _tree
from gradstab._text import one_line
from gradstab.errors import UserValueError
from gradstab.scaling.measuring import Measured, Trial

KIND = "gradstab transfer"
# By kind; 2 of a check: what blocks add.
SCHEMAS = {KIND: 2}


def save(
    measured: Any, path: Any, /, *, kind: str = KIND, overwrite: bool = False
) -> None:
    """Write a record to a JSON file, whole or not at all.

    Raises:
        FileExistsError: if the file exists and ``overwrite`` is not set.
        OSError: if it cannot be written.
    """
    path = _files.as_path(path, "path")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or overwrite=True")
    data = {"kind": kind, "schema": SCHEMAS.get(kind, 1), **_json.encoded(measured)}
    _files.make_folder(path.parent)
    _files.write(path, _json.dumps(data, indent=1) + "\n", overwrite=overwrite)


def read(
    path: Any, names: Sequence[str], arrays: Sequence[str], /, *, kind: str = KIND
) -> dict[str, Any]:
    """The fields of a record that `save` wrote.

    Args:
        path: the file.
        names: of all fields.
        arrays: of those that are arrays.
        kind: of the record.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none, damaged, or of another schema.
    """
    path = _files.as_path(path, "path")
    text = path.read_text()
    try:
        data = _json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(data, dict) or data.get("kind") != kind:
        raise UserValueError(f"{path} holds no {kind}")
    schema, own = data.get("schema"), SCHEMAS.get(kind, 1)
    if isinstance(schema, int) and schema != own:
        age = "a newer" if schema > own else "an older"
        raise UserValueError(
            f"{path} has schema {schema}, and this gradstab reads {own}: it was "
            f"written by {age} one"
        )
    try:
        values = {name: data[name] for name in names}
        return values | {name: _numbers(values[name]) for name in arrays}
    except (KeyError, TypeError, ValueError) as error:
        raise UserValueError(f"{path} is damaged: {one_line(error)}") from error


def _numbers(nested: Any) -> np.ndarray:
    # Strings among them are the names of numbers that JSON does not have.
    return np.array(nested, dtype=object).astype(np.float64)


def digest(program: Any = None, /, *, inputs: Any = ()) -> str:
    """A digest of a program with its constants, and of arrays."""
    # Addresses of objects differ from process to process.
    text = re.sub("0x[0-9a-f]+", "", str(program and program.jaxpr))
    arrays = [*(program.consts if program else ()), *jax.tree.leaves(inputs)]
    found = hashlib.sha256(text.encode())
    for array in arrays:
        plain = jax.random.key_data(array) if _tree.is_key(array) else array
        found.update(np.asarray(plain).tobytes())
    return found.hexdigest()


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
