"""Files that are written whole or not at all; not for users."""

import contextlib
import os
import pathlib
import re
import shutil
import time
import uuid

from gradstab._text import one_line
from gradstab.errors import UserTypeError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None


def write(path, content: str | bytes, /, *, overwrite: bool) -> None:
    """Write a file, so that at any moment there is all of it or what was there before.

    Of several programs that write the same new file at once exactly one succeeds.
    Nothing else is left in its folder, whatever happens. The content is on the disk,
    and not on its way there, when this returns.

    Args:
        path: where to; its folder must exist.
        content: the bytes, or text to be written as UTF-8.
        overwrite: replace a file of that name.

    Raises:
        FileExistsError: there is one, and ``overwrite`` is not set.
        OSError: it could not be written; the message says so in one line.
    """
    path = pathlib.Path(path)
    content = content.encode() if isinstance(content, str) else content
    # A short name: that of the file may be as long as names can be.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            _move_to_new(temporary, path)
    except OSError as error:
        raise not_written(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_folder(folder, /) -> None:
    """Make a folder and those above it, if need be.

    Raises:
        OSError: it cannot be made; the message says so in one line.
    """
    try:
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(f"{folder} is a file and no folder") from error
    except OSError as error:
        own = type(error)(f"the folder {folder} cannot be made: {reason(error)}")
        own.errno = error.errno
        raise own from error


def new_results_folder(
    root: str | pathlib.Path = "results", name: str = "run", /
) -> pathlib.Path:
    """Make the next free folder ``root/name-1``, ``root/name-2``, ...

    Two programs that ask at the same time get different folders.

    Args:
        root: the folder of all results; it is made when missing.
        name: what kind of result.

    Returns:
        The path of a new, empty folder.

    Examples:
        >>> import tempfile
        >>> root = tempfile.mkdtemp()
        >>> [new_results_folder(root, "train").name for _ in range(2)]
        ['train-1', 'train-2']
    """
    root = pathlib.Path(root)
    make_folder(root)
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    taken = [pattern.fullmatch(path.name) for path in root.iterdir()]
    number = 1 + max((int(match[1]) for match in taken if match), default=0)
    while True:
        folder = root / f"{name}-{number}"
        try:
            folder.mkdir()
        except FileExistsError:  # another program was faster
            number += 1
        except OSError as error:
            raise not_written(error, folder) from error
        else:
            return folder


@contextlib.contextmanager
def alone_in(folder, /):
    """Be the only process that writes into a folder, for as long as this lasts.

    The kernel keeps the lock and drops it with the process, however that ends; nothing
    is written. Where a file system has no locks there is none.

    Raises:
        FileExistsError: another process is in it, or another call of this one.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileExistsError(
                f"{folder} is in use: another run is writing into it. Wait for its "
                "end, or choose another directory"
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def turn(handle: int, /):
    """Wait until no other process has its turn with an open file, and have it.

    The kernel ends a turn with the process. Where a file system has no locks nobody
    waits.
    """
    if fcntl is None:
        yield
        return
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)


def remove_tree(path, /, *, patience: float = 2.0) -> None:
    """Delete a folder in which somebody may still be writing, if it can be deleted.

    Args:
        path: the folder.
        patience: seconds for which it is tried again; what is left then stays.
    """
    end = time.monotonic() + patience
    while True:
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path) or time.monotonic() > end:
            return
        time.sleep(0.05)


def as_path(value, name: str, /) -> pathlib.Path:
    """What names a file or a folder, as a path.

    >>> as_path(3, "path")
    Traceback (most recent call last):
    gradstab.errors.UserTypeError: path must name a file or a folder: a string ...
    """
    if not isinstance(value, (str, os.PathLike)):
        raise UserTypeError(
            f"{name} must name a file or a folder: a string or a path, got {value!r}"
        )
    return pathlib.Path(value)


def not_written(error: OSError, path, /) -> OSError:
    """The same error, of the same type, about the file that was wanted."""
    if isinstance(error, FileExistsError):
        text = f"{path} exists; choose another name or overwrite=True"
    else:
        text = f"{path} was not written: {reason(error)}"
    own = type(error)(text)
    own.errno = error.errno
    return own


def reason(error: BaseException, /) -> str:
    """Why something failed, in one line and without names of temporary files."""
    if isinstance(error, OSError) and error.errno and error.strerror:
        return one_line(error.strerror)
    return one_line(error) or type(error).__name__


def _move_to_new(temporary, path):
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        # A file system without links: take the name first.
        with path.open("xb"):
            pass
        try:
            temporary.replace(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
