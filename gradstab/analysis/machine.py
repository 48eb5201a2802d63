"""What the machine at hand can do: how fast it is, how much memory it has left."""

import functools
import os
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat
from gradstab.network.work import Work
from gradstab.spectra import num_workers, one_blas_thread

_ROWS = 512  # rows of the product that is measured
_ENTRIES = 2**20  # of the array
_CALLS = 12
# Seconds to start an operation inside of a compiled program.
_CALL = 2e-6

_CGROUP = pathlib.Path("/sys/fs/cgroup")
_MEMINFO = pathlib.Path("/proc/meminfo")


class Speed(NamedTuple):
    """Seconds that one unit of each kind of work takes, see `Work`."""

    flop: float
    byte: float
    function: float
    call: float

    def seconds(self, work: Work, /) -> float:
        """The time that some work takes."""
        return sum(a * b for a, b in zip(work, self, strict=True))


@functools.cache
def speed(wide: bool, /) -> Speed:
    """Of programs in float64 or float32, measured once per process.

    Args:
        wide: whether in float64.

    Cost: three small programs, a quarter of a second.
    """
    with _compat.float64(wide):
        dtype = jnp.float64 if wide else jnp.float32
        matrix, array = jnp.ones((_ROWS, _ROWS), dtype), jnp.ones(_ENTRIES, dtype)
        product = _seconds(lambda a: a @ a, matrix)
        plain = _seconds(lambda a: a * 2 + 1, array)
        function = _seconds(jnp.exp, array)
    return Speed(
        flop=product / (2 * _ROWS**3),
        byte=plain / (2 * array.nbytes),
        function=max(function - plain, plain / 4) / _ENTRIES,
        call=_CALL,
    )


@functools.cache
def decompositions() -> float:
    """Operations per second of small decompositions on all cores."""
    size = 192
    matrix = np.random.default_rng(0).standard_normal((size, size))
    with one_blas_thread():
        seconds = _fastest(lambda: np.linalg.eigvalsh(matrix @ matrix.T))
    return (2 + 4 / 3) * size**3 / seconds * num_workers()


def memory_at_hand() -> float:
    """Bytes that the process may still take: of the machine, container or device."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        limit, used = stats.get("bytes_limit"), stats.get("bytes_in_use", 0)
        return float("inf") if limit is None else float(limit - used)
    found = [_available(), _of_container()]
    return min(found)


def memory_in_use() -> float:
    """Bytes of this process that are resident now; 0 where that is not known."""
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def _available():
    try:
        lines = _MEMINFO.read_text().splitlines()
        kib = {line.split(":")[0]: line.split()[1] for line in lines if ":" in line}
        return 1024.0 * int(kib["MemAvailable"])
    except (OSError, KeyError, ValueError, IndexError):
        pass
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError, AttributeError):
        return float("inf")


def _of_container():
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        return float(limit - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no container, or no limit
        return float("inf")


def _seconds(function, argument):
    program = jax.jit(function)
    jax.block_until_ready(program(argument))
    return _fastest(lambda: jax.block_until_ready(program(argument)))


def _fastest(call):
    """The time of the fastest call: on a busy machine most of them are interrupted."""
    found = []
    for _ in range(_CALLS):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)
