"""Checkpoints as folders: whole, verified, and as many as are wanted.

A checkpoint is the folder ``checkpoints/STEP`` of a run. Beside what Orbax writes it
has ``sha256.json``, the digest of each of its files. What is being written has a longer
name until it is whole and on the disk.
"""

import contextlib
import errno
import functools
import gc
import hashlib
import logging
import os
import pathlib
import re
import shutil
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import jax

from gradstab import _files, _json
from gradstab._attempt import Refusal, attempt
from gradstab._text import one_line
from gradstab.errors import UserValueError
from gradstab.training.damage import warn
from gradstab.training.results import CHECKPOINTS

DIGESTS = "sha256.json"
_WRITING, _DELETING = "writing", "deleting"


class DamagedCheckpointError(UserValueError):
    """A checkpoint that cannot be read as it was written; the message says why."""


class Checkpoints:
    """Writes the checkpoints of a run, one at a time, in the background.

    Args:
        folder: the run's folder.
        keep: how many of the newest to keep; None keeps all.
        on_saved: called after each, once it is whole.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        /,
        keep: int | None = None,
        on_saved: Callable[[], object] | None = None,
    ):
        self.directory = folder_of(folder)
        self._keep, self._on_saved = keep, on_saved
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        _files.make_folder(self.directory)
        self._remove_leftovers()
        _ocp()  # loaded here, and not in the thread

    def save(self, step: int, items: dict[str, Any], /) -> None:
        """Begin to write a checkpoint; one that is there already is kept.

        Raises:
            OSError: the one before could not be written.
        """
        self.wait()
        if step in all_steps(self.directory.parent):
            return
        self._thread = threading.Thread(target=self._write, args=(step, items))
        self._thread.start()

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            OSError: it could not be.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, Exception):
            with contextlib.suppress(OSError):  # the first error is what matters
                self.wait()
        else:
            self.wait()

    def _write(self, step: int, items):
        path = self.directory / str(step)
        partial = self.directory / f"{step}.{_WRITING}"
        with _quiet():
            try:
                _ocp().save_checkpointables(partial, items)
                if jax.process_index() == 0:
                    content = _json.dumps(_digests(partial), indent=1)
                    _files.write(partial / DIGESTS, content + "\n", overwrite=True)
                    partial.rename(path)
                    _sync(self.directory)
            except BaseException as error:
                self._error = self._not_written(step, error)
            if self._error is not None:
                gc.collect()  # what was left half done is heard when it is collected
                self._remove_leftovers()
                return
        with contextlib.suppress(OSError):  # it is there; the next one tries again
            if self._on_saved is not None:
                self._on_saved()
            self._delete_oldest()

    def _not_written(self, step: int, error):
        newest = max(all_steps(self.directory.parent), default=None)
        before = "there is none before it" if newest is None else f"it has {newest}"
        number = _error_number(error)
        cause = _files.reason(error) if number is None else os.strerror(number)
        # Without its cause, which is of several pages and holds what it was doing.
        own = OSError(
            f"checkpoint {step} was not written in {self.directory}: {cause}; {before}"
            ". Make room there, and resume the run"
        )
        own.errno = number or errno.EIO
        return own

    def _delete_oldest(self):
        steps = all_steps(self.directory.parent)
        for step in steps[: -self._keep] if self._keep else ():
            # In two steps: half of a checkpoint must not have the name of one.
            doomed = self.directory / f"{step}.{_DELETING}"
            (self.directory / str(step)).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _remove_leftovers(self):
        """Of what was being written or deleted when a run was killed."""
        if jax.process_index() == 0:
            pattern = re.compile(
                rf"\d+(\.({_WRITING}|{_DELETING}))?(\.orbax-checkpoint-tmp.*)?"
            )
            for path in self.directory.iterdir():
                if pattern.fullmatch(path.name) and not path.name.isdecimal():
                    _files.remove_tree(path)


def folder_of(directory: str | pathlib.Path, /) -> pathlib.Path:
    """Where the checkpoints of a run lie, given the run's folder."""
    return pathlib.Path(directory).absolute() / CHECKPOINTS


def all_steps(directory: str | pathlib.Path, /) -> list[int]:
    """The steps of which a run's folder has a checkpoint, in ascending order.

    >>> all_steps("no/such/folder")
    []
    """
    folder = folder_of(directory)
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.name.isdecimal()]
    return sorted(int(name) for name in names if str(int(name)) == name)


def read(
    directory: str | pathlib.Path, step: int | None, /, *items: str
) -> tuple[int, dict[str, Any]]:
    """The items of a checkpoint, verified; of the newest that is whole.

    Args:
        directory: the run's folder.
        step: which checkpoint; if None, damaged ones are passed over with a
            `DamageWarning`.
        *items: their names.

    Returns:
        The checkpoint's step and its items.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        DamagedCheckpointError: it is damaged; or, of several, all are.
    """
    steps = all_steps(directory)
    if not steps or (step is not None and step not in steps):
        raise FileNotFoundError(
            f"{directory} has no checkpoint{'' if step is None else f' of step {step}'}"
            f"; it has those of steps: {', '.join(map(str, steps)) or 'none'}. "
            f"Give the folder of a run, the one that holds {CHECKPOINTS!r}."
        )
    damaged = []
    for candidate in reversed(steps) if step is None else (step,):
        try:
            found = _read(folder_of(directory) / str(candidate), candidate, items)
        except DamagedCheckpointError as error:
            damaged.append(f"checkpoint {candidate} is damaged ({error})")
        else:
            if damaged:
                warn(f"{', '.join(damaged)}, going on from {candidate}")
            return candidate, found
    others = [str(s) for s in steps if s != step]
    if step is None or not others:
        rest = f"it has no whole one. To read one all the same delete its {DIGESTS}"
    else:
        rest = f"it has also those of steps: {', '.join(others)}"
    raise DamagedCheckpointError(f"{directory}: {', '.join(damaged)}; {rest}")


def set_aside(directory: str | pathlib.Path, step: int, /) -> list[str]:
    """Rename the checkpoints after a step, so that others can take their place.

    Returns:
        Their new names.
    """
    folder, names = folder_of(directory), []
    for later in all_steps(directory):
        if later > step and jax.process_index() == 0:
            number = 1
            while (folder / f"{later}.aside-{number}").exists():
                number += 1
            names.append(f"{later}.aside-{number}")
            (folder / str(later)).rename(folder / names[-1])
    return names


def _read(path, step: int, items):
    if not path.is_dir():
        raise DamagedCheckpointError("it is no folder")
    _verify(path)
    with _quiet(), warnings.catch_warnings():
        # Of coroutines that were begun and not awaited.
        warnings.simplefilter("ignore", RuntimeWarning)
        found = _loaded(path, items)
        if found is None:
            gc.collect()  # what was left half done is heard when it is collected
            raise DamagedCheckpointError("its arrays cannot be read")
    for name in items:
        if not isinstance(found.get(name), dict):
            raise DamagedCheckpointError(f"it has no {name}")
    if "rest" in items and int(found["rest"].get("step", -1)) != step:
        raise DamagedCheckpointError("it is not of that step")
    return found


def _loaded(path, items):
    found = attempt(_ocp().load_checkpointables, path, dict.fromkeys(items))
    if not isinstance(found, Refusal):
        return found
    if isinstance(found.error, MemoryError):
        raise found.error
    return None


def _verify(path):
    """Raise if a file is not as it was written; old checkpoints do not say."""
    try:
        digests = _json.loads((path / DIGESTS).read_bytes())
        if not isinstance(digests, dict):
            raise DamagedCheckpointError(f"{DIGESTS} cannot be read")
        for name, digest in digests.items():
            if _digest(path / name) != digest:
                raise DamagedCheckpointError(f"{one_line(name)} has changed")
    except FileNotFoundError as error:
        if (path / DIGESTS).exists():
            name = pathlib.Path(error.filename).relative_to(path)
            raise DamagedCheckpointError(f"{one_line(name)} is missing") from error
    except DamagedCheckpointError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"{DIGESTS} cannot be read") from error


def _digests(path):
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): _digest(file) for file in files}


def _digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: pathlib.Path):
    """Have the names in a folder on the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@functools.cache
def _ocp() -> Any:
    """Orbax, which takes as long to load as JAX: whoever saves nothing need not wait.

    Its second interface is called v1 until, from 1.0 on, the package itself is it.
    """
    import orbax.checkpoint

    return getattr(orbax.checkpoint, "v1", orbax.checkpoint)


@contextlib.contextmanager
def _quiet():
    """Without what Orbax's tasks log of a failure besides the error that is raised."""
    loggers = [logging.getLogger(name) for name in ("asyncio", "absl")]
    for logger in loggers:
        logger.addFilter(_is_of_another)
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for logger in loggers:
            logger.removeFilter(_is_of_another)


def _is_of_another(log):
    text = f"{log.getMessage()} {log.exc_info}".lower()
    return not any(word in text for word in ("ocdbt", "orbax", "zarr", "checkpoint"))


def _error_number(error):
    """What the system said, somewhere in the chain of errors."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        said = re.search(r"(?:\[OS error |os_error_code=')(\d+)", str(error))
        if said:
            return int(said[1])
        error = error.__cause__ or error.__context__
    return None
