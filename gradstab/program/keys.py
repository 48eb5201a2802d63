"""Random keys by NumPy: a program that makes them takes longer to compile than to run.

References:
    Salmon et al. (2011), Parallel random numbers: as easy as 1, 2, 3, for Threefry.
"""

import jax
import numpy as np
from numpy.typing import ArrayLike

from gradstab.program.compiling import quick_jit

# Threefry-2x32: by how much the second word is turned in each of four rounds, in turn.
_TURNS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)
_KIND = "threefry2x32"


def keys_of(seed: int, num: int, /, *, apart: int) -> list[jax.Array]:
    """As many keys from a seed of 32 bits, apart from those that others make of it.

    Args:
        seed: the seed.
        num: how many keys.
        apart: what tells these keys from other ones of the same seed.
    """
    if not (_splits_as_here() and jax.config.values["jax_default_prng_impl"] == _KIND):
        return _keys_of(np.uint32(seed), num=num, apart=apart)
    (folded,) = _threefry([0, seed], [apart])
    return _split_words(folded, num)


def split_key(key: jax.Array, num: int, /) -> list[jax.Array]:
    """The same as `jax.random.split`, as a list."""
    if not (_splits_as_here() and jax.random.key_impl(key) == _KIND):
        return _split(key, num=num)
    return _split_words(np.asarray(jax.random.key_data(key)), num)


def _splits_as_here() -> bool:
    """Whether JAX splits keys so that each depends on its own number only."""
    return jax.config.values["jax_threefry_partitionable"]


def _split_words(words: np.ndarray, num: int) -> list[jax.Array]:
    return [
        jax.random.wrap_key_data(row, impl=_KIND)
        for row in _threefry(words, np.arange(num))
    ]


def _threefry(key: ArrayLike, counts: ArrayLike) -> np.ndarray:
    """The two words that Threefry makes of each count, (counts, 2)."""
    first, second = np.asarray(key, np.uint32)
    keys = first, second, first ^ second ^ _PARITY
    low = np.asarray(counts, np.uint32) + second
    high = np.zeros_like(low) + first
    for group in range(5):
        for turn in _TURNS[group % 2]:
            high = high + low
            low = high ^ ((low << np.uint32(turn)) | (low >> np.uint32(32 - turn)))
        high = high + keys[(group + 1) % 3]
        low = low + keys[(group + 2) % 3] + np.uint32(group + 1)
    return np.stack([high, low], axis=1)


def _of_seed(seed: int, num: int, apart: int) -> list[jax.Array]:
    return list(jax.random.split(jax.random.fold_in(jax.random.key(seed), apart), num))


def _list(key: jax.Array, num: int) -> list[jax.Array]:
    return list(jax.random.split(key, num))


_keys_of = quick_jit(_of_seed, static=("num", "apart"))
_split = quick_jit(_list, static=("num",))
