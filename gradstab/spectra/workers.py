"""Work on many matrices at once: one BLAS thread for each, several at a time."""

import concurrent.futures
import functools
import os
from collections.abc import Callable
from typing import Any

import threadpoolctl

# More threads than this would need the memory of as many matrices.
_MOST = 16


def over_matrices(function: Callable[..., Any], items, /) -> list:
    """``[function(item) for item in items]``, on as many threads as there are cores.

    LAPACK lets go of Python's lock, so threads work side by side. A second BLAS thread
    for one matrix of a few hundred rows does not help, and contention for cores can
    cost a hundredfold.
    """
    with one_blas_thread():
        if len(items) < 2 or num_workers() < 2:
            return [function(item) for item in items]
        return list(_pool().map(function, items))


def one_blas_thread():
    """A context in which BLAS uses one thread for each call."""
    return _controller().limit(limits=1, user_api="blas")


@functools.cache
def _controller():
    # To look for the libraries takes milliseconds.
    return threadpoolctl.ThreadpoolController()


@functools.cache
def _pool():
    return concurrent.futures.ThreadPoolExecutor(min(num_workers(), _MOST))


def num_workers() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
