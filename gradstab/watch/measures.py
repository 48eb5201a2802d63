"""What is measured of an array: numbers that add up over its parts.

A sum over examples, iterations or devices of these numbers is that of the whole array,
so that every rule of JAX that sums cotangents sums them rightly.
"""

import enum
import math

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree

# Of float32 the biased exponent; the last bin holds what is not finite.
NUM_BINS = 256
_EXPONENT_BIAS = 127


class Level(enum.Enum):
    """How much is measured."""

    LIGHT = "light"
    """Entries and sums of squares."""
    FULL = "full"
    """Sums, zeros and the histogram of exponents too."""


# Places in a vector of measures; for the squares see `squares`.
ENTRIES = 0
SQUARES = slice(1, 3)
SUM, ZEROS, OVER_E4M3 = 3, 4, 5
BINS = slice(6, 6 + NUM_BINS)
_SIZES = {Level.LIGHT: 3, Level.FULL: 6 + NUM_BINS}
# The largest number of float8 with four bits of exponent.
_LARGEST_E4M3 = 448.0


def num_measures(level: Level, /) -> int:
    """The length of a vector of measures."""
    return _SIZES[level]


def accumulator(dtype, /):
    """The dtype in which an array of this dtype is measured."""
    return _tree.widest(jnp.float32, _tree.real_dtype(dtype))


def measure(x, level: Level, turn: int = 0, /) -> jax.Array:
    """The measures of an array, ``(num_measures,)``.

    Args:
        x: real or complex, of any floating dtype; a complex entry is two real ones.
        level: how much.
        turn: a different one for each array of a program, see `squares`.
    """
    wide = accumulator(x.dtype)
    # Second derivatives of the loss do not go through what is only looked at.
    x = jax.lax.stop_gradient(_tree.real_view(x).astype(wide))
    every = tuple(range(x.ndim))
    sums = squares(x, every, turn)
    if level is Level.LIGHT:
        return jnp.concatenate([jnp.full((1,), x.size, wide), sums])
    above = _count(jnp.isfinite(x) & (jnp.abs(x) > _LARGEST_E4M3), wide)
    more = [jnp.sum(x), _count(x == 0, wide), above]
    entries = jnp.full((1,), x.size, wide)
    return jnp.concatenate([entries, sums, jnp.stack(more), _histogram(x).astype(wide)])


def squares(x, axes, turn: int = 0, /) -> jax.Array:
    r"""Sums of squares that keep the norm of what is very small.

    They are :math:`\sum x^2` and :math:`\sum (x s)^2` for a power of two :math:`s`,
    2^63 in float32, so that nothing is rounded: squares of entries below 1e-19 are 0.
    Plain sums of squares are what XLA has its fastest loops for; one pass that finds a
    scale, or looks at every entry, costs several times as much on a CPU. There both
    are one sum over two copies that are never written, as XLA would read the array
    twice for two sums; on other devices it makes one pass of them by itself.

    Args:
        x: real, in an accumulator's dtype.
        axes: to sum over.
        turn: a different one for each array of a program, see `_factors`.

    Returns:
        ``(..., 2)``, of the axes that are not summed over.
    """
    sums = scaled_squares(x, axes, turn)
    return sums * freed(x.dtype, turn).reshape(*[1] * (sums.ndim - 1), 2)


def scaled_squares(x, axes, turn: int, /) -> jax.Array:
    """What `squares` gives times what `freed` frees it of."""
    factors = _factors(x.dtype, turn)
    if jax.default_backend() == "cpu":
        both = x[None] * factors.reshape(2, *[1] * x.ndim)
        sums = jnp.sum(jnp.square(both), axis=[axis + 1 for axis in axes])
        sums = jnp.moveaxis(sums, 0, -1)
    else:
        parts = [jnp.sum(jnp.square(x * factor), axis=axes) for factor in factors]
        sums = jnp.stack(parts, axis=-1)
    return sums


def freed(dtype, turn: int, /) -> np.ndarray:
    """What `scaled_squares` are to be multiplied with, ``(2,)``."""
    return np.square(_factors(dtype, 0) / _factors(dtype, turn))


def _factors(dtype, turn):
    """What the two sums are scaled by: of turn 0 by what `squares` says.

    XLA keeps an array of a constant that several sums of one shape are scaled with, and
    fuses one that is used once: so there are many, all powers of two.

    What lies on the border between both sums, 2^-63 in float32, has a norm of 2^-31.5.
    Scaled by 2^63 and 31 times 2 its square is 2^125, and no sum of such overflows;
    halved 15 times its square is 2^-93, and what is 2^-32 of it is still there.
    """
    plain = 0.5 ** (turn // _NUM_RAISED % _NUM_LOWERED)
    up = 2.0 ** (turn % _NUM_RAISED)
    return np.array([plain, _scale(dtype) * up], dtype)


def norm(sums, /) -> jax.Array:
    """The norm of what `squares` summed.

    Args:
        sums: ``(..., 2)``.

    Returns:
        ``(...)``. Infinite or NaN if an entry is, and infinite where a square of one
        is: beyond 1.8e19 in float32.
    """
    border = 2.0 ** (jnp.finfo(sums.dtype).minexp // 2)
    small = jnp.sqrt(sums[..., 1]) / _scale(sums.dtype)
    return jnp.where(sums[..., 0] < border, small, jnp.sqrt(sums[..., 0]))


# See `_factors`.
_NUM_RAISED, _NUM_LOWERED = 32, 16


def _scale(dtype):
    """See `squares`: with it the smallest normal number, 2^-126, has a square."""
    return 2.0 ** (-int(jnp.finfo(dtype).minexp) // 2)


def _count(truths, dtype):
    # As integers: a float32 that is counted up by one stays at 2^24.
    return jnp.sum(truths, dtype=jnp.int32).astype(dtype)


def _histogram(x):
    """How many entries have each exponent of float32, zeros among the smallest."""
    limits = jnp.finfo(jnp.float32)
    if x.dtype != jnp.float32:
        inside = jnp.clip(jnp.abs(x), 0, float(limits.max))
        x = jnp.where(jnp.isfinite(x), inside, jnp.inf).astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    # Of the dtype of the bits also where integers are of 64 bits.
    exponents = jax.lax.shift_right_logical(bits, jnp.int32(23))
    bins = jnp.bitwise_and(exponents, jnp.int32(NUM_BINS - 1))
    return jnp.zeros(NUM_BINS, jnp.int32).at[bins.reshape(-1)].add(1)


def shares_outside(measures, dtype, /) -> tuple[jax.Array, jax.Array]:
    """The shares of entries below and above the range of another dtype.

    Of the entries that are finite and not zero: those that are less than its smallest
    normal number, and those that are more than its largest number, both by exponents:
    the largest number is taken as the next power of two, but for float8_e4m3fn.

    Args:
        measures: full ones, ``(..., num_measures)``.
        dtype: float16, bfloat16, float8_e4m3fn or float8_e5m2.
    """
    limits = jnp.finfo(dtype)
    bins = measures[..., BINS]
    zeros, lost = measures[..., ZEROS], bins[..., -1]
    number = jnp.maximum(measures[..., ENTRIES] - zeros - lost, 1)
    first = int(math.log2(float(limits.smallest_normal))) + _EXPONENT_BIAS
    last = math.ceil(math.log2(float(limits.max))) + _EXPONENT_BIAS
    below = jnp.sum(bins[..., :first], axis=-1) - zeros
    above = jnp.sum(bins[..., last : NUM_BINS - 1], axis=-1)
    if jnp.dtype(dtype) == jnp.float8_e4m3fn:
        above = measures[..., OVER_E4M3]
    return below / number, above / number
