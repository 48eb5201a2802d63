"""Where a command writes: checked before the work begins, filled before it is shown."""

import os
import pathlib
import sys

from rich.console import Console

from gradstab._files import new_results_folder
from gradstab.errors import UserValueError

STANDARD_OUTPUT = pathlib.Path("-")


class _Screen(Console):
    """A console whose reader may go: what is written to files is not lost with it."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        # Python would write the rest at its exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console(*, quiet: bool = False, stderr: bool = False) -> Console:
    """For what is printed; what the terminal cannot encode is replaced.

    Args:
        quiet: print nothing.
        stderr: print to standard error, as standard output is a file's.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    return _Screen(quiet=quiet, stderr=stderr)


def prepared(path: pathlib.Path | None, /, *, overwrite: bool) -> pathlib.Path | None:
    """The path, if a file can be written there; its folder is made.

    Raises:
        FileExistsError: if there is one, and it is not to be replaced.
        OSError: if the folder cannot be made or written to.
    """
    if path is None or path == STANDARD_OUTPUT:
        return path
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; choose another name or --overwrite")
    made = next(folder for folder in path.absolute().parents if folder.exists())
    if not made.is_dir():
        raise NotADirectoryError(f"{path}: {made.name} is a file and no folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(f"{path.parent} cannot be written to; choose another")
    return path


def prepared_figure(path: pathlib.Path | None, /, *, overwrite: bool):
    """The path of a figure, if it can be written there in the format of its suffix.

    Raises:
        ValueError: for a suffix that is no format of a figure.
        OSError: see `prepared`.
    """
    if path is None:
        return None
    import matplotlib.figure
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    known = sorted(
        FigureCanvasAgg(matplotlib.figure.Figure()).get_supported_filetypes()
    )
    if path.suffix.removeprefix(".").lower() not in known:
        raise UserValueError(
            f"--plot {path}: figures are written as .{', .'.join(known)}, not as "
            f"{path.suffix or 'a file without a suffix'}"
        )
    return prepared(path, overwrite=overwrite)


def folder_of(
    out: pathlib.Path | None, verb: str, /, *, options: str = "--out or --json"
) -> pathlib.Path:
    """The results folder that was named, or a new numbered one.

    Args:
        out: what was named.
        verb: of the command.
        options: those that name a place, for the message.

    Raises:
        OSError: if it cannot be made, or its place cannot be written to.
    """
    if out is None:
        try:
            return new_results_folder("results", verb)
        except OSError as error:
            raise type(error)(
                f"no results folder can be made here ({error.strerror or error}); "
                f"choose a place with {options}"
            ) from error
    return out
