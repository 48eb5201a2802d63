"""Where an equation was written: the use of JAX's record of tracebacks; internal."""

import site
import sysconfig
from typing import Any

from jax._src import source_info_util


def source_line(eqn: Any, /) -> str:
    """The line that an equation comes from, as ``file:line (function)``; or empty.

    The innermost line that is not of an installed package; of code that is all
    installed, the innermost one that is not of JAX.
    """
    traceback = eqn.source_info.traceback
    frames = [] if traceback is None else list(source_info_util.user_frames(traceback))
    own = [frame for frame in frames if not frame.file_name.startswith(_installed())]
    frame = next(iter((*own, *frames)), None)
    if frame is None:
        return ""
    return f"{frame.file_name}:{frame.start_line} ({frame.function_name})"


def _installed() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    named = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return (*named, *site.getsitepackages())
