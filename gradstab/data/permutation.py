"""Permutations that are the same on every machine and with every NumPy."""

import functools

import numpy as np


# The dispatches of an epoch ask for the same order again and again.
@functools.lru_cache(maxsize=4)
def permutation(num: int, /, *, seed: int, stream: int = 0) -> np.ndarray:
    """A random order of ``0 .. num - 1``, a pure function of its arguments.

    The order that sorts the raw 64-bit output of PCG64. NumPy guarantees the raw
    output of its bit generators for ever, but not that of
    ``Generator.permutation`` (NEP 19). Two of the 64-bit words are equal with
    probability below ``num**2 / 2**65``, and then the sort is stable. Five times the
    time of ``Generator.permutation``: 3.5 ms for 55,000.

    Args:
        num: how many.
        seed: non-negative.
        stream: orders of one seed and different streams are independent.

    Returns:
        int32 array ``(num,)``, read-only.

    >>> [int(i) for i in permutation(8, seed=0)]
    [6, 3, 1, 4, 5, 2, 7, 0]
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(stream,))
    words = np.random.PCG64(sequence).random_raw(num)
    order = np.argsort(words, kind="stable").astype(np.int32)
    order.flags.writeable = False
    return order
