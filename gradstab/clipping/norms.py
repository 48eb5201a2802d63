"""Clipping by value, by global norm and by block RMS."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradstab._tree import all_finite, is_floating
from gradstab.clipping._arguments import check_number
from gradstab.clipping._scaled import (
    all_axes,
    clip_factor,
    global_norm,
    rescale,
    rescale_tree,
    scaled_norm,
)
from gradstab.clipping._transformations import stateless


def clip_by_value(max_delta: float) -> optax.GradientTransformationExtraArgs:
    r"""Force every entry into range: :math:`g_i \to \min(\max(g_i, -d), d)`.

    Changes the direction of the gradient. Of complex entries, the real and the
    imaginary part are clipped separately.

    Args:
        max_delta: the bound :math:`d \ge 0`, in units of the gradient.

    Raises:
        ValueError: if the bound is negative or NaN.

    References:
        Mikolov (2012), Statistical language models based on neural networks.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = clip_by_value(1.0)
        >>> tx.update(jnp.array([0.5, -7.0]), tx.init(None))[0]
        Array([ 0.5, -1. ], dtype=float32)
    """
    check_number("max_delta", max_delta)

    def clip(updates: Any, params: Any):
        del params
        finite = all_finite(updates)

        def one(leaf: Any):
            if not is_floating(leaf):
                return leaf
            return jnp.where(finite, _clip_parts(leaf, max_delta), leaf)

        return jax.tree.map(one, updates)

    return stateless(clip)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformationExtraArgs:
    r"""Shorten the gradient: :math:`g \to g \min(1, c / \|g\|_2)`, over all leaves.

    Keeps the direction. Exact where `optax.clip_by_global_norm` returns zeros because
    the square of the norm overflows. One more pass over the gradient than that.

    Args:
        max_norm: the bound :math:`c \ge 0`, in units of the gradient.

    Raises:
        ValueError: if the bound is negative or NaN.

    References:
        Pascanu, Mikolov and Bengio (2013), On the difficulty of training recurrent
        neural networks, algorithm 1.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = clip_by_global_norm(1.0)
        >>> clipped, _ = tx.update(jnp.array([3e20, 4e20]), tx.init(None))
        >>> [f"{entry:.4f}" for entry in clipped]
        ['0.6000', '0.8000']
    """
    check_number("max_norm", max_norm)

    def clip(updates: Any, params: Any):
        del params
        return rescale_tree(updates, clip_factor(global_norm(updates), max_norm))

    return stateless(clip)


def clip_by_block_rms(threshold: float) -> optax.GradientTransformationExtraArgs:
    r"""Bound the root mean square of each array of the tree by itself.

    A block is one leaf: :math:`g \to g \min(1, r \sqrt{n} / \|g\|_2)` for its
    :math:`n` entries.

    Args:
        threshold: the bound :math:`r \ge 0`, in units of the gradient.

    Raises:
        ValueError: if the bound is negative or NaN.

    References:
        Shazeer and Stern (2018), Adafactor, section 6 (update clipping).

    Example:
        >>> import jax.numpy as jnp
        >>> tx = clip_by_block_rms(1.0)
        >>> tx.update({"a": jnp.full(4, 5.0), "b": jnp.ones(4)}, tx.init(None))[0]
        {'a': Array([1., 1., 1., 1.], dtype=float32),
         'b': Array([1., 1., 1., 1.], dtype=float32)}
    """
    check_number("threshold", threshold)

    def clip(updates: Any, params: Any):
        del params
        finite = all_finite(updates)

        def one(leaf: Any):
            if not is_floating(leaf):
                return leaf
            leaf, axes = jnp.asarray(leaf), all_axes(leaf)
            norm = scaled_norm([leaf], [axes])
            # sqrt(n) divides the norm, as the product with the bound may overflow.
            rms = norm._replace(ratio=norm.ratio / max(leaf.size, 1) ** 0.5)
            return rescale(leaf, clip_factor(rms, threshold, finite=finite), axes)

        return jax.tree.map(one, updates)

    return stateless(clip)


def _clip_parts(leaf: Any, bound):
    leaf = jnp.asarray(leaf)
    if jnp.iscomplexobj(leaf):
        parts = (_clip_parts(leaf.real, bound), _clip_parts(leaf.imag, bound))
        return jax.lax.complex(*parts)
    bound = jnp.asarray(bound, leaf.dtype)
    return jnp.clip(leaf, -bound, bound)
