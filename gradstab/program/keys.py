"""Random keys, all by one small program: each step by itself would be compiled."""

import jax
import numpy as np

from gradstab.program.compiling import quick_jit


def keys_of(seed: int, num: int, /, *, apart: int) -> list[jax.Array]:
    """As many keys from a seed of 32 bits, apart from those that others make of it.

    Args:
        seed: the seed.
        num: how many keys.
        apart: what tells these keys from other ones of the same seed.
    """
    return _keys_of(np.uint32(seed), num=num, apart=apart)


def split_key(key: jax.Array, num: int, /) -> list[jax.Array]:
    """The same as `jax.random.split`, as a list."""
    return _split(key, num=num)


def _of_seed(seed, num, apart):
    return list(jax.random.split(jax.random.fold_in(jax.random.key(seed), apart), num))


def _list(key, num):
    return list(jax.random.split(key, num))


_keys_of = quick_jit(_of_seed, static=("num", "apart"))
_split = quick_jit(_list, static=("num",))
