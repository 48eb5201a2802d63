"""Norms, products and names of pytrees of arrays."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import DTypeLike


def num_entries(tree: Any, /) -> int:
    """The number of array entries in the tree."""
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree))


def is_floating(leaf: Any, /) -> bool:
    """Whether the leaf is a real or complex floating array."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def is_complex(leaf: Any, /) -> bool:
    """Whether the leaf, an array or what has its dtype, is complex."""
    return jnp.issubdtype(leaf.dtype, jnp.complexfloating)


def real_dtype(dtype: DTypeLike, /):
    """The dtype of the real and the imaginary part; a real one is its own."""
    return jnp.finfo(dtype).dtype


def real_size(leaf: Any, /) -> int:
    """How many real numbers an array, or what has its shape and dtype, holds."""
    return math.prod(leaf.shape) * (2 if is_complex(leaf) else 1)


def real_view(array, /) -> jax.Array:
    """A complex array as real numbers: real and imaginary part on a last axis of two.

    A real array is returned as it is. In the whole package this is what an entry of a
    complex array means: two real ones.

    >>> real_view(jnp.array([1 + 2j, 3.0])).tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """
    return jnp.stack([array.real, array.imag], -1) if is_complex(array) else array


def from_real(numbers, like, /) -> jax.Array:
    """The array of which `real_view` makes these numbers, in any shape.

    Args:
        numbers: a real array of ``real_size(like)`` entries.
        like: an array, or what has its shape and dtype.
    """
    if not is_complex(like):
        return numbers.reshape(like.shape).astype(like.dtype)
    pairs = numbers.reshape(*like.shape, 2).astype(real_dtype(like.dtype))
    return jax.lax.complex(pairs[..., 0], pairs[..., 1])


def is_key(leaf: Any, /) -> bool:
    """Whether the leaf is a typed PRNG key."""
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def is_on_host(leaf: Any, /) -> bool:
    """Whether NumPy can look at the leaf without copying it from a device."""
    if not isinstance(leaf, jax.Array):
        return True
    # Keys have a dtype that NumPy does not know.
    if isinstance(leaf, Tracer) or not isinstance(leaf.dtype, np.dtype):
        return False
    devices = list(leaf.devices())
    return len(devices) == 1 and devices[0].platform == "cpu"


def fresh_keys(tree: Any, /):
    """The tree with its PRNG keys cloned, to repeat what was drawn with them."""
    return jax.tree.map(lambda x: jax.random.clone(x) if is_key(x) else x, tree)


def widest(*dtypes):
    """The dtype to which all of these promote, also where promotion is strict."""
    with jax.numpy_dtype_promotion("standard"):
        return functools.reduce(jnp.promote_types, dtypes)


def floating_leaves(tree: Any, /) -> list:
    """The leaves of the tree that have a gradient."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_floating(leaf)]


def all_finite(tree: Any, /) -> jax.Array:
    """Whether every entry of every floating leaf is finite: a boolean scalar."""
    checks = [jnp.all(jnp.isfinite(leaf)) for leaf in floating_leaves(tree)]
    return jnp.all(jnp.stack(checks)) if checks else jnp.array(True)


def safe_norm(tree: Any, /, *, axes=None) -> jax.Array:
    r"""The Euclidean norm of all floating leaves together, without overflow.

    Computes :math:`m \sqrt{\sum_i (x_i / m)^2}` with :math:`m` a power of two near
    :math:`\max_i |x_i|`, in float32 (float64 if a leaf is float64). The squares
    of float16 entries above 255 and of float32 entries above 1.8e19 overflow; here
    only a norm that is itself out of range does. Dividing by a power of two is exact.

    Args:
        tree: arrays of any floating dtypes; other leaves are ignored.
        axes: if given, every leaf is reduced over these axes and the result keeps the
            remaining ones, which all leaves must share.

    Returns:
        A scalar (or an array over the remaining axes). Zero for a tree without
        floating entries; NaN if an entry is NaN, infinite if one is infinite.
    """
    leaves = floating_leaves(tree)
    if not leaves:
        return jnp.zeros((), jnp.float32)
    wide = widest(jnp.float32, *(real_dtype(jnp.result_type(x)) for x in leaves))
    magnitudes = [jnp.abs(leaf).astype(wide) for leaf in leaves]
    largest = _reduce(
        jnp.maximum, [jnp.max(m, axis=axes, initial=0) for m in magnitudes]
    )
    scale = power_of_two_near(largest)
    over = (lambda s: s) if axes is None else (lambda s: jnp.expand_dims(s, axes))
    total = sum(jnp.sum(jnp.square(m / over(scale)), axis=axes) for m in magnitudes)
    return jnp.where(jnp.isfinite(largest), scale * jnp.sqrt(total), largest)


def power_of_two_near(x, /) -> jax.Array:
    """A power of two within a factor 4 of ``x``, its inverse normal too; 1 for 0."""
    ok = jnp.isfinite(x) & (x > 0)
    _, exponent = jnp.frexp(jnp.where(ok, x, 1))
    limits = jnp.finfo(x.dtype)
    # XLA divides by multiplying with the inverse, and flushes a subnormal one to zero.
    exponent = jnp.clip(exponent, limits.minexp, limits.maxexp - 2)
    return jnp.where(ok, jnp.ldexp(jnp.ones_like(x), exponent), 1)


def paths(tree: Any, /, *, is_leaf=None) -> list[str]:
    """Dotted names of the leaves, in the order of `jax.tree.leaves`.

    >>> paths({"head": {"bias": 0, "kernel": 1}, "blocks": [2, 3]})
    ['blocks.0', 'blocks.1', 'head.bias', 'head.kernel']
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_leaf)
    return [jax.tree_util.keystr(p, simple=True, separator=".") for p, _ in flat]


def _reduce(f, items):
    first, *rest = items
    for item in rest:
        first = f(first, item)
    return first


def nodes_of(tree: Any, kind: type, /) -> list:
    """All nodes of a class, however deep; none of those inside of another.

    >>> nodes_of({"a": (1, [2, 3]), "b": [4]}, list)
    [[2, 3], [4]]
    """

    def is_one(node):
        return isinstance(node, kind)

    return [node for node in jax.tree.leaves(tree, is_leaf=is_one) if is_one(node)]
