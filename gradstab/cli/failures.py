"""What is said on standard error of what went wrong, and the exit status.

What the user can change is one line; what the user's own code raised is one line with
its place; what remains is a mistake in gradstab or below it, and shown whole.
"""

import os
import pathlib
import site
import sys
import sysconfig
import traceback

from gradstab._text import printable
from gradstab.errors import UserError, call_of_user, kind

_PACKAGE = pathlib.Path(__file__).parents[1]
_TESTING = _PACKAGE / "testing"
_MISUSE, _RAISED = 2, 3

_OURS = "this is a mistake in gradstab or in a library below it"
_NOBODYS = "if the lines above show no mistake of yours, it is one of gradstab's"
_REPORT = "please report it, with the lines above and what `gradstab doctor` prints"


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
    if _no_backend(error) and options.platform is not None:
        _say(no_platform(options.platform))
        return _MISUSE
    of_user, place = _origin(error)
    # A file that gradstab could not use was named by the user.
    if isinstance(error, UserError) or (isinstance(error, OSError) and not of_user):
        _say(f"{_text(error)}{place}")
        return _MISUSE
    said = f"{kind(error)}: {_text(error)}".removesuffix(": ") + place
    if of_user:
        _say(said if options.verbose else f"{said}; --verbose prints the traceback")
    elif _out_of_memory(error):
        _say(f"there is not enough memory: {said}")
    else:
        if not options.verbose:
            traceback.print_exception(error)
        # The rules of derivatives of a target are called by JAX, out of sight.
        whose = _NOBODYS if getattr(options, "target", None) else _OURS
        _say(f"{said}; {whose}: {_REPORT}")
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


def _say(text: str):
    print(f"gradstab: {text}", file=sys.stderr)


def _text(error):
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}"
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(lines[0]) if lines else ""


def _no_backend(error):
    text = str(error)
    backend = "backend" in text or isinstance(error, AssertionError)
    return backend and any(
        "xla_bridge" in frame.filename
        for frame in traceback.extract_tb(error.__traceback__)
    )


def _out_of_memory(error):
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _origin(error):
    """Whether the user's code raised it, and the innermost line of that on its way."""
    of_user, place = False, ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        code, path = frame.f_code, pathlib.Path(frame.f_code.co_filename)
        if code is call_of_user.__code__:
            of_user = True
        elif path.is_relative_to(_PACKAGE) and not path.is_relative_to(_TESTING):
            of_user = False
        elif not (_is_installed(path) or code.co_filename.startswith("<")):
            of_user, place = True, f" ({path.name}, line {line}, in {code.co_name})"
    if isinstance(error, UserError) and error.__cause__ is not None and not place:
        _, place = _origin(error.__cause__)
    return of_user, place


def _is_installed(path):
    """Whether a file is of Python or of an installed package, gradstab's own too."""
    folders = [sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib")]
    folders += [sysconfig.get_paths()[name] for name in ("purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages(), _PACKAGE]
    return any(map(path.is_relative_to, folders))
