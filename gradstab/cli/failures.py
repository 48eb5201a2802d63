"""One line on standard error for what went wrong, and the exit status."""

import os
import pathlib
import site
import sys
import sysconfig
import traceback

from gradstab._text import printable

_PACKAGE = pathlib.Path(__file__).parents[1]
_MISUSE, _RAISED = 2, 3


def report(error: Exception, options, /) -> int:
    """Say what went wrong: what the user can mend, what his code raised, or the rest.

    Args:
        error: what was raised.
        options: of the command; with ``verbose`` the traceback is printed before.

    Returns:
        The exit status.
    """
    if options.verbose:
        traceback.print_exception(error)
    if _is_message(error):
        _say(_text(error))
        return _MISUSE
    if _no_backend(error) and options.platform is not None:
        _say(no_platform(options.platform))
        return _MISUSE
    frame = _own_frame(error)
    kind = f"{type(error).__name__}: {_text(error)}".rstrip(": ")
    if frame is not None:
        place = f"{pathlib.Path(frame.filename).name}, line {frame.lineno}"
        kind += f" ({place}, in {frame.name})"
    hint = "" if options.verbose else "; --verbose prints the traceback"
    _say(f"{kind}{hint}")
    return _RAISED


def no_platform(name: str, /) -> str:
    """What to do where there is no such accelerator."""
    import jax

    os.environ.pop("JAX_PLATFORMS", None)
    jax.config.update("jax_platforms", None)
    there = sorted({device.platform for device in jax.devices()})
    extra = {"gpu": "cuda13", "cuda": "cuda13", "tpu": "tpu"}.get(name)
    hint = (
        f"; pip install 'gradstab[{extra}]' adds what a {name} needs" if extra else ""
    )
    known = "" if extra or name == "cpu" else " (cpu, gpu and tpu are known)"
    return f"there is no {name!r} here{known}; jax finds: {', '.join(there)}{hint}"


def _say(text):
    print(f"gradstab: {text}", file=sys.stderr)


def _text(error):
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}"
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(lines[0]) if lines else ""


def _is_message(error):
    """Whether the error says what the user can mend, and not that a program is wrong.

    That is so if a ``raise`` in gradstab made it, or a file could not be used.
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    ours = _PACKAGE in pathlib.Path(last.filename).parents
    raised = (last.line or "").startswith("raise ")
    return isinstance(error, OSError) or (ours and raised)


def _no_backend(error):
    text = str(error)
    backend = "backend" in text or isinstance(error, AssertionError)
    return backend and any(
        "xla_bridge" in frame.filename
        for frame in traceback.extract_tb(error.__traceback__)
    )


def _own_frame(error):
    """The innermost line of code that belongs to the user; None if there is none."""
    paths = sysconfig.get_paths()
    installed = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed += [*site.getsitepackages(), site.getusersitepackages(), str(_PACKAGE)]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith("<"):
            continue
        if not any(frame.filename.startswith(folder) for folder in installed):
            return frame
    return None
