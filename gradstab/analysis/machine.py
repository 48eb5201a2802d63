"""How fast the machine at hand is."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat
from gradstab.program.work import Work
from gradstab.spectra import num_workers, one_blas_thread

# Rows of the product that is measured, and the sums in each of its entries.
_ROWS, _SUMS = 1024, 128
_ENTRIES = _ROWS**2  # of the array, which is as large as the product
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

    Cost: one small program, a quarter of a second.
    """
    with _compat.float64(wide):
        dtype = np.float64 if wide else np.float32
        matrix = jax.device_put(np.ones((_ROWS, _SUMS), dtype))
        array = jax.device_put(np.ones((_ROWS, _ROWS), dtype))
        product, plain, function = (
            _fastest(lambda kind=kind: _work()(kind, matrix, array))
            for kind in map(np.int32, range(3))
        )
    return Speed(
        flop=product / (2 * _ROWS**2 * _SUMS),
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


def _of_batch(matrices: jax.Array) -> jax.Array:
    return jnp.linalg.eigvalsh(matrices @ jnp.swapaxes(matrices, 1, 2))


@functools.cache
def _work() -> Callable[..., Any]:
    """A product, the plainest function and a dear one: one program of all of them."""

    def run(kind: jax.Array, matrix: jax.Array, array: jax.Array) -> jax.Array:
        branches = (
            lambda: matrix @ matrix.T,
            lambda: array * 2 + 1,
            lambda: jnp.exp(array),
        )
        return jax.lax.switch(kind, branches)

    program = jax.jit(run)
    return lambda *arguments: jax.block_until_ready(program(*arguments))


def _seconds(function: Callable[[jax.Array], jax.Array], argument: jax.Array) -> float:
    program = jax.jit(function)
    return _fastest(lambda: jax.block_until_ready(program(argument)))


def _fastest(call: Callable[[], object]) -> float:
    """The time of the fastest call, as if nothing else ran here.

    Most calls are interrupted on a busy machine, and all where it is busy all along.
    There the processor's time says more, which counts this process only.
    """
    call()
    found = []
    for _ in range(_CALLS):
        began = time.perf_counter(), time.process_time()
        call()
        found.append(time.perf_counter() - began[0])
        if jax.default_backend() == "cpu":
            found.append(time.process_time() - began[1])
    return min(found)
