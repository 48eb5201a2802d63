"""How much memory there is. For use inside of gradstab."""

import os
import pathlib

import jax

_CGROUP = pathlib.Path("/sys/fs/cgroup")
_MEMINFO = pathlib.Path("/proc/meminfo")


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
    if not hasattr(os, "sysconf"):
        return float("inf")
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):
        return float("inf")


def _of_container():
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        return float(limit - int((_CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):  # no container, or no limit
        return float("inf")
