"""Clipping of every layer, and of every unit, by its own norm."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradstab._tree import all_finite, is_floating
from gradstab.clipping._arguments import check_number, find_stacked, named_leaves
from gradstab.clipping._scaled import clip_factor, rescale, scaled_norm
from gradstab.clipping._transformations import map_with_params, stateless
from gradstab.errors import UserValueError


def clip_by_layer_norm(
    max_norm: float,
    *,
    layer_of: Callable[[str], Hashable] | None = None,
    stacked: str | Callable[[str], bool] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Shorten the gradient of every layer: :math:`g_l \to g_l \min(1, c/\|g_l\|_2)`.

    A layer is the parameters of one module: the leaves whose paths agree up to the last
    key, such as ``blocks.0.dense.kernel`` and ``blocks.0.dense.bias``. (This clips by
    the norms of layers; it has nothing to do with layer normalisation.)

    Args:
        max_norm: the bound :math:`c \ge 0` for each layer, in units of the gradient.
        layer_of: instead of the above, a function from the dotted path of a parameter
            to its layer: parameters with equal results are clipped together.
        stacked: parameters that hold many layers along their leading axis, as those of
            a scan over layers do: a regular expression searched for in the dotted path,
            or a predicate of it. Each slice is a layer then.

    Raises:
        ValueError: if the bound is negative or NaN; on update, if `stacked` matches no
            parameter, or only a part of a layer, or lengths in a layer disagree.

    Example:
        >>> import jax.numpy as jnp
        >>> grads = {"dense": {"kernel": jnp.array([[3.0]]), "bias": jnp.array([4.0])},
        ...          "blocks": {"kernel": jnp.array([[5.0], [0.5]])}}
        >>> tx = clip_by_layer_norm(1.0, stacked="^blocks")
        >>> clipped, _ = tx.update(grads, tx.init(None))
        >>> clipped["dense"]["bias"], clipped["blocks"]["kernel"].ravel()
        (Array([0.8], dtype=float32), Array([1. , 0.5], dtype=float32))
    """
    check_number("max_norm", max_norm)

    def clip(updates: Any, params: Any):
        del params
        leaves, treedef = jax.tree.flatten(updates)
        names = named_leaves(updates)
        in_stack = find_stacked(stacked, [path for _, path in names], leaves)
        layers: dict[Hashable, list[int]] = {}
        for i, (layer, path) in enumerate(names):
            if is_floating(leaves[i]):
                key = layer if layer_of is None else layer_of(path)
                layers.setdefault(key, []).append(i)

        finite = all_finite(updates)
        for layer, members in layers.items():
            group = [jnp.asarray(leaves[i]) for i in members]
            num_lead = _num_leading(layer, group, [in_stack[i] for i in members])
            axes = [tuple(range(num_lead, leaf.ndim)) for leaf in group]
            factor = clip_factor(scaled_norm(group, axes), max_norm, finite=finite)
            for i, leaf, a in zip(members, group, axes, strict=True):
                leaves[i] = rescale(leaf, factor, a)
        return jax.tree.unflatten(treedef, leaves)

    return stateless(clip)


def adaptive_clip(
    clipping: float = 0.01,
    eps: float = 1e-3,
    *,
    unit_axes: Callable[[str, tuple[int, ...]], tuple[int, ...]] | None = None,
    stacked: str | Callable[[str], bool] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adaptive gradient clipping (AGC): bound each unit's gradient by its weights.

    .. math:: G_i \to G_i \min(1, \lambda \max(\|W_i\|, \epsilon) / \|G_i\|)

    A unit :math:`i` is an output: the last axis of dense kernels ``(in, out)`` and of
    convolution kernels ``HWIO`` (of any number of spatial axes), so norms are over all
    axes but the last. A vector or a scalar is one unit. (`optax.adaptive_grad_clip`
    agrees except for shapes ``(1, n)``, one unit there, and rank 3, whose axis 0 it
    reduces.) The paper leaves out the last linear layer: use `optax.masked`.

    Args:
        clipping: the ratio :math:`\lambda \ge 0` of gradient norm to weight norm.
        eps: the least weight norm :math:`\epsilon \ge 0`, so that parameters
            initialised to zero can move.
        unit_axes: instead of the above, a function from the dotted path and the shape
            of a parameter to the axes that are reduced: ``(0,)`` for the kernel
            ``(in, heads, head_dim)`` of a query.
        stacked: parameters that hold many layers along their leading axis, as in
            `clip_by_layer_norm`; path and shape given to `unit_axes` are as stored, but
            the default rule applies to the slices.

    Raises:
        ValueError: if a number is negative or NaN; on update, if there are no
            parameters or `stacked` matches none of them.

    References:
        Brock, De, Smith and Simonyan (2021), High-performance large-scale image
        recognition without normalization, equation 3.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = adaptive_clip(0.1)
        >>> weights = jnp.array([[3.0, 0.0], [4.0, 0.0]])  # units of norms 5 and 0
        >>> clipped, _ = tx.update(jnp.ones((2, 2)), tx.init(weights), weights)
        >>> [f"{norm:.4f}" for norm in jnp.linalg.norm(clipped, axis=0)]
        ['0.5000', '0.0001']
    """
    check_number("clipping", clipping)
    check_number("eps", eps)

    def clip(updates: Any, params: Any):
        leaves = jax.tree.leaves(updates)
        paths = [path for _, path in named_leaves(updates)]
        in_stack = dict(zip(paths, find_stacked(stacked, paths, leaves), strict=True))
        finite = all_finite(updates)

        def one(path, grad: jax.Array, weight):
            if not is_floating(grad):
                return grad
            grad, weight = jnp.asarray(grad), jnp.asarray(weight)
            axes = (
                _all_but_units(grad.ndim, in_stack[path])
                if unit_axes is None
                else unit_axes(path, grad.shape)
            )
            norm = scaled_norm([weight], [axes])
            least = jnp.asarray(eps, norm.ratio.dtype)
            bound = jnp.asarray(clipping, least.dtype) * jnp.maximum(norm.value, least)
            factor = clip_factor(scaled_norm([grad], [axes]), bound, finite=finite)
            return rescale(grad, factor, axes)

        return map_with_params(one, "adaptive_clip", updates, params)

    return stateless(clip)


def _all_but_units(ndim, is_stacked):
    axes = tuple(range(int(is_stacked), ndim))
    return axes if len(axes) <= 1 else axes[:-1]


def _num_leading(layer, group, in_stack):
    """How many leading axes tell layers apart: 1 if the group is stacked, else 0."""
    lengths = sorted({leaf.shape[0] for leaf in group}) if all(in_stack) else []
    if any(in_stack) and len(lengths) != 1:
        shapes = ", ".join(str(leaf.shape) for leaf in group)
        raise UserValueError(
            f"layer {layer!r} is stacked, so its parameters must all be, with leading "
            f"axes of one length; their shapes are {shapes}, and stacked matches "
            f"{sum(in_stack)} of {len(in_stack)}."
        )
    return len(lengths)
