"""Compiled programs that are kept on the disk for other processes."""

import hashlib
import os
import pathlib
import platform

import jax

# Bytes on the disk; of more, the programs that were not used for longest go.
_MOST = 2**30


def use_compilation_cache(folder: os.PathLike | str | None = None, /) -> str | None:
    """Keep what JAX compiles on the disk, so that another process need not do it again.

    What was switched on before, by ``JAX_COMPILATION_CACHE_DIR`` for instance, stays as
    it is, and ``JAX_ENABLE_COMPILATION_CACHE=false`` switches it off. To be called
    before anything is compiled. Programs are kept apart by processor, as they use what
    it can do; they take at most 1 GiB.

    Args:
        folder: where to; by default in the user's folder of caches.

    Returns:
        The folder; None if it is off, or cannot be written to.

    >>> folder = use_compilation_cache()  # at the head of a script or notebook
    """
    if not jax.config.values.get("jax_enable_compilation_cache", True):
        return None
    known: str | None = jax.config.values.get("jax_compilation_cache_dir")
    if known is not None:
        return known
    path = pathlib.Path(folder or _user_folder()) / _processor()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(path, os.W_OK):
        return None
    for name, value in {
        "jax_compilation_cache_dir": str(path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_compilation_cache_max_size": _MOST,
    }.items():
        jax.config.update(name, value)
    return str(path)


def _user_folder():
    """The folder of caches of the system's user, and there gradstab's own."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(root).expanduser() / "gradstab" / "compiled"


def _processor():
    """A name for what the processor can do."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    able = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    digest = hashlib.sha256((able or lines[0]).encode()).hexdigest()[:12]
    return f"{platform.machine()}-{digest}"
