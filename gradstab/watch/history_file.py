"""The file of a history: a line of JSON for what is watched, then one for each step.

Only a writer changes it: whoever reads takes the lines that are whole, so that a run
can be looked at while it goes on.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from gradstab import _files, _json
from gradstab.errors import UserValueError

NAME = "history.jsonl"
_SCHEMA = 1
_BLOCK = 1 << 16


def is_history(path: pathlib.Path, /) -> bool:
    """Whether a file is one of gradstab, by its name or its first line."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return path.name == NAME or file.read(20) == b'{"gradstab_history":'


class Lines:
    """The lines of a file.

    Args:
        path: of the file, which need not be there.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path

    def repair(self) -> None:
        """Cut off what a process that was killed while it wrote left of a line."""
        if self.path.exists():
            with self._mine() as file:
                _cut(file)

    def names(self) -> tuple[str, ...]:
        """What the first line names; nothing if there is none.

        Raises:
            ValueError: it is no first line.
        """
        if not self.path.exists():
            return ()
        for _, line in self.read():
            return tuple(map(str, line.get("names", ())))
        return ()

    def append(self, names, rows) -> None:
        """Write rows: all of them are with the operating system, or none is there.

        Args:
            names: of what is watched, for a file that is new.
            rows: JSON values.

        Raises:
            OSError: it cannot be written; the file is as it was.
        """
        first = {"gradstab_history": _SCHEMA, "names": list(names)}
        with self._mine() as file:
            size = _cut(file)
            lines = map(_json.dumps, rows if size else [first, *rows])
            _write(file, "".join(f"{line}\n" for line in lines).encode(), size)

    def read(self, start: int = 0) -> Iterator[tuple[int, dict]]:
        """The lines from a position on that are whole, each with where it ends.

        Raises:
            ValueError: there is a line that is no JSON object, or an unknown first one.
        """
        with self.path.open("rb") as file:
            file.seek(start)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                start += len(line)
                yield start, self._value(line, first=start == len(line))

    def _value(self, line, *, first):
        what = f"{self.path} is no history of gradstab"
        try:
            value = _json.loads(line)
        except (ValueError, RecursionError) as error:
            text = line[:60].decode(errors="replace").rstrip()
            raise UserValueError(f"{what}: a line of it is {text!r}") from error
        if not isinstance(value, dict) or (first and "gradstab_history" not in value):
            raise UserValueError(f"{what}: a line of it is {str(value)[:60]!r}")
        if first and value["gradstab_history"] != _SCHEMA:
            raise UserValueError(
                f"{self.path} is a history of version {value['gradstab_history']}; "
                f"this gradstab reads version {_SCHEMA}"
            )
        return value

    @contextlib.contextmanager
    def _mine(self):
        """The open file, while no other process writes into it."""
        try:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                with _files.turn(file):
                    yield file
            finally:
                os.close(file)
        except OSError as error:
            raise _files.not_written(error, self.path) from error


def _cut(file):
    """Cut off an unfinished last line; where the whole ones end."""
    size = end = os.fstat(file).st_size
    while end:
        start = max(end - _BLOCK, 0)
        found = os.pread(file, end - start, start).rfind(b"\n")
        end = start if found < 0 else start + found + 1
        if found >= 0:
            break
    if end < size:
        os.ftruncate(file, end)
    return end


def _write(file, data, size):
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except OSError:
        os.ftruncate(file, size)
        raise
