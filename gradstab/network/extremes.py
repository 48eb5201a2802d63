"""The largest and the typical magnitude among the entries of arrays.

They decide where a narrow dtype ends: one entry above its largest number is infinite,
and a signal is lost when most of its entries have been rounded to zero.
"""

import math

import jax
import jax.numpy as jnp

from gradstab import _tree

# The median of so many entries of a sample is within 1 % of the quantile of the whole.
_SAMPLE = 2**13


def largest(*parts) -> jax.Array:
    """The largest magnitude of all entries together.

    Args:
        parts: arrays of any floating dtypes.

    Returns:
        A scalar in float32 or wider; 0 without entries, NaN if one is NaN.
    """
    parts = tuple(map(_tree.real_view, parts))
    wide = _tree.widest(jnp.float32, *(part.dtype for part in parts))
    tops = [jnp.max(jnp.abs(part), initial=0).astype(wide) for part in parts]
    return jnp.max(jnp.stack(tops))


def typical(*parts) -> jax.Array:
    """The median magnitude of the entries that are not zero.

    Zeros are left out because a rectifier makes them at any scale.

    Args:
        parts: arrays of any floating dtypes.

    Returns:
        A scalar in float32 or wider; 0 if all entries are zero. Of more than 2^13
        entries of a part the median is that of so many, evenly spaced, at a distance
        that is prime to the sizes of all axes.

    Cost: a sort of the entries of the sample.
    """
    parts = tuple(map(_tree.real_view, parts))
    wide = _tree.widest(jnp.float32, *(part.dtype for part in parts))
    sample = [jnp.abs(_spaced(part)).astype(wide) for part in parts]
    ordered = jnp.sort(jnp.concatenate([jnp.zeros(1, wide), *sample]))
    zeros = jnp.sum(ordered == 0)
    return ordered[jnp.minimum(zeros + (ordered.size - zeros) // 2, ordered.size - 1)]


def _spaced(part):
    distance = -(-part.size // _SAMPLE)
    while distance > 1 and math.gcd(distance, part.size) > 1:
        distance += 1
    return part.reshape(-1)[:: max(distance, 1)]
