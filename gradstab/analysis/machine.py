"""How fast the machine at hand is."""

import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat
from gradstab.program.work import Work
from gradstab.spectra import num_workers, one_blas_thread

_ROWS = 512  # rows of the product that is measured
_ENTRIES = 2**20  # of the array
_CALLS = 6
# Rows of the matrices that are decomposed, and how many of them at once on a device.
SIDE = 192
_BATCH = 16
# Seconds to start an operation inside of a compiled program.
_CALL = 2e-6


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
def decompositions(on_device: bool = False, /) -> float:
    """Operations per second of small decompositions.

    Args:
        on_device: of a batch of them where JAX computes, instead of on all cores.
    """
    matrix = np.random.default_rng(0).standard_normal((SIDE, SIDE))
    operations = (2 + 4 / 3) * SIDE**3
    if on_device:
        batch = np.broadcast_to(matrix, (_BATCH, SIDE, SIDE))
        return _BATCH * operations / _seconds(_of_batch, jnp.asarray(batch))
    with one_blas_thread():
        seconds = _fastest(lambda: np.linalg.eigvalsh(matrix @ matrix.T))
    return operations / seconds * num_workers()


def _of_batch(matrices):
    return jnp.linalg.eigvalsh(matrices @ jnp.swapaxes(matrices, 1, 2))


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
