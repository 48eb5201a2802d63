"""Norms beyond the range of their dtype, and the rescaling of arrays by them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstab._tree import floating_leaves, is_floating, power_of_two_near


class ScaledNorm(NamedTuple):
    """A norm as ``scale * ratio``, with the scale a power of two."""

    scale: jax.Array
    ratio: jax.Array
    finite: jax.Array  # whether every entry is

    @property
    def value(self) -> jax.Array:
        """The norm; infinite beyond the largest float, NaN if an entry is."""
        return self.scale * self.ratio


class Factor(NamedTuple):
    """The number ``first * second`` to multiply with where ``clips``.

    Two numbers, as 1e38 clipped to 0.1 needs a factor below the least normal float.
    """

    clips: jax.Array
    first: jax.Array
    second: jax.Array  # a power of two


def wide_dtype(tree: Any, /) -> jnp.dtype:
    """The real dtype in which norms of the tree are computed: float32 or float64."""
    bits = [jnp.finfo(jnp.result_type(x)).bits for x in floating_leaves(tree)]
    return jnp.dtype(jnp.float64 if 64 in bits else jnp.float32)


def widen(x: jax.Array, /) -> jax.Array:
    """The array in float32, or as it is if its parts have 32 bits or more."""
    x = jnp.asarray(x)
    return x if jnp.finfo(x.dtype).bits >= 32 else x.astype(jnp.float32)


def scaled_norm(leaves: Sequence[Any], axes, /) -> ScaledNorm:
    """The Euclidean norm of some arrays together, each reduced over its own axes.

    Args:
        leaves: floating arrays, complex ones included, whose dtypes may differ.
        axes: one tuple of axes per leaf; what remains must have the same shape.
    """
    wide = wide_dtype(leaves)
    parts = [
        (p.astype(wide), a)
        for x, a in zip(leaves, axes, strict=True)
        for p in _real_parts(x)
    ]
    largest = jnp.zeros((), wide)
    for part, a in parts:
        # `initial` gives arrays without entries a norm: zero.
        top = jnp.max(jnp.abs(part), axis=a, initial=0)
        largest = jnp.maximum(jnp.broadcast_to(largest, top.shape), top)
    scale = power_of_two_near(largest)
    total = jnp.zeros_like(scale)
    for part, a in parts:
        total += jnp.sum(jnp.square(part / jnp.expand_dims(scale, a)), axis=a)
    # The derivative of sqrt is infinite at zero, and would turn meta-gradients to NaN.
    positive = total > 0
    ratio = jnp.where(positive, jnp.sqrt(jnp.where(positive, total, 1)), total)
    return ScaledNorm(scale, ratio, jnp.isfinite(largest))


def global_norm(tree: Any, /) -> ScaledNorm:
    """The norm of all floating leaves of a tree together; zero if there are none."""
    leaves = [jnp.asarray(leaf) for leaf in floating_leaves(tree)]
    return scaled_norm(leaves, [all_axes(leaf) for leaf in leaves])


def all_axes(leaf: Any, /) -> tuple[int, ...]:
    """The axes of an array."""
    return tuple(range(jnp.ndim(leaf)))


def clip_factor(
    norm: ScaledNorm, bound, /, *, finite: jax.typing.ArrayLike = True
) -> Factor:
    """What takes arrays of this norm down to the bound; clips nothing at or below it.

    Args:
        norm: of the arrays to be rescaled.
        bound: the largest norm allowed: a scalar, or of the shape of the norm.
        finite: whether the rest of the gradient is finite.
    """
    bound = jnp.asarray(bound, norm.ratio.dtype)
    clips = norm.finite & jnp.asarray(finite) & (norm.value > bound)
    quotient = jnp.where(clips, bound, 1) / jnp.where(clips, norm.ratio, 1)
    # quotient / scale, half of its exponent in each number. Exact and, unlike frexp's
    # mantissa, differentiable in the quotient.
    exponent = _exponent(norm.scale)
    half = (_exponent(quotient) + exponent) // 2
    one = jnp.ones_like(quotient)
    return Factor(
        clips, quotient * jnp.ldexp(one, -half), jnp.ldexp(one, half - exponent)
    )


def rescale(leaf: Any, factor: Factor, axes, /) -> jax.Array:
    """The leaf times the factor, rounded once; the same bits where nothing clips.

    Args:
        leaf: a floating array.
        factor: of the shape of the leaf without the axes.
        axes: the axes over which the factor's norm was taken.
    """
    leaf = jnp.asarray(leaf)
    clips, first, second = (jnp.expand_dims(part, axes) for part in factor)
    wide = widen(leaf)
    shrunk = wide * first.astype(wide.dtype) * second.astype(wide.dtype)
    return jnp.where(clips, shrunk.astype(leaf.dtype), leaf)


def rescale_tree(updates: Any, factor: Factor, /):
    """All floating leaves of a tree times one scalar factor."""

    def one(leaf: Any):
        return rescale(leaf, factor, all_axes(leaf)) if is_floating(leaf) else leaf

    return jax.tree.map(one, updates)


def _real_parts(x: jax.Array):
    return [x.real, x.imag] if jnp.iscomplexobj(x) else [x]


def _exponent(x: jax.Array):
    """The integer e such that 2**e <= x < 2**(e + 1)."""
    return jnp.frexp(x)[1] - 1
