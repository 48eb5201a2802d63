"""A record of what a transformation did to the gradients, kept in its state."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstab import _checked
from gradstab._tree import floating_leaves, is_floating, nodes_of, real_view
from gradstab.clipping._scaled import global_norm, wide_dtype
from gradstab.errors import UserValueError


class RecordedState(NamedTuple):
    """What the last step did and how often; ``optax.tree.get(state, "pre_norm")``."""

    step: jax.Array  # int32, steps so far
    pre_norm: jax.Array  # global norm before; infinite beyond the largest float
    post_norm: jax.Array  # and after
    clipped: jax.Array  # bool, whether the last step changed an entry
    clip_count: jax.Array  # int32, steps that did
    nonfinite_count: jax.Array  # int32, steps whose gradient had a non-finite entry
    clip_cosine: jax.Array  # of the angle between both gradients; 1 if not clipped
    inner: Any


def recorded(
    tx: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Keep the norms before and after a transformation, and count what it clips.

    The cosine of the angle between the gradients before and after says how far the
    direction is changed: 1 where all entries are shortened alike, as by a global norm;
    NaN where nothing is left, or something is not finite.

    A step is clipped if any entry comes out different, bit for bit (NaN equals NaN):
    norms would not tell, as clipping one entry by value hardly changes them. So wrap
    the clipper alone, or several in a chain, but not the optimiser. The clippers here
    return the same bits when they do not clip.

    Args:
        tx: the transformation, of this package or any other.

    Returns:
        A transformation that does the same, with a `RecordedState`.

    Example:
        >>> import jax.numpy as jnp
        >>> from gradstab.clipping import clip_by_global_norm
        >>> tx = optax.chain(recorded(clip_by_global_norm(1.0)), optax.adam(1e-3))
        >>> state = tx.init(jnp.zeros(2))
        >>> _, state = tx.update(jnp.array([3.0, 4.0]), state)
        >>> float(optax.tree.get(state, "pre_norm")), float(clip_fraction(state))
        (5.0, 1.0)
    """
    _checked.transformation(tx, "tx")
    inner = optax.with_extra_args_support(tx)

    def init(params: Any):
        # Arrays of their own, as a state that is donated may hold none of them twice.
        return RecordedState(
            step=jnp.zeros((), jnp.int32),
            pre_norm=jnp.zeros((), wide_dtype(params)),
            post_norm=jnp.zeros((), wide_dtype(params)),
            clipped=jnp.zeros((), bool),
            clip_count=jnp.zeros((), jnp.int32),
            nonfinite_count=jnp.zeros((), jnp.int32),
            clip_cosine=jnp.ones((), wide_dtype(params)),
            inner=inner.init(params),
        )

    def update(updates: Any, state: Any, params: Any = None, **extra_args):
        after, inner_state = inner.update(updates, state.inner, params, **extra_args)
        before, dtype = global_norm(updates), state.pre_norm.dtype
        left, clipped = global_norm(after), _differ(updates, after)
        cosine = jnp.where(clipped, _cosine((updates, before), (after, left)), 1)
        return after, RecordedState(
            step=_count_if(True, state.step),
            pre_norm=before.value.astype(dtype),
            post_norm=left.value.astype(dtype),
            clipped=clipped,
            clip_count=_count_if(clipped, state.clip_count),
            nonfinite_count=_count_if(~before.finite, state.nonfinite_count),
            clip_cosine=cosine.astype(dtype),
            inner=inner_state,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def clip_fraction(state: Any, /) -> jax.Array:
    """The share of steps that clipped, from the one `recorded` inside a state.

    Args:
        state: of any optimiser that contains `recorded` once, however deep.

    Returns:
        A float32 scalar in [0, 1]; zero before the first step.

    Raises:
        ValueError: if the state contains no `recorded`, or more than one: pass the
            part that contains one.
    """
    records = nodes_of(state, RecordedState)
    if len(records) != 1:
        raise UserValueError(
            f"expected one recorded transformation in the state, found {len(records)}. "
            "Wrap the clipper: recorded(clip_by_global_norm(1.0)); of several records, "
            "pass the part of the state that holds one."
        )
    # Leaves, because nnx.Optimizer keeps every array of a state in a variable.
    clip_count, step = jax.tree.leaves((records[0].clip_count, records[0].step))
    return clip_count.astype(jnp.float32) / jnp.maximum(step, 1).astype(jnp.float32)


def _differ(before, after):
    changes = [
        _changed(a, b.astype(a.dtype))
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    ]
    return jnp.any(jnp.stack(changes)) if changes else jnp.zeros((), bool)


def _changed(a: jax.Array, b: jax.Array):
    same = (a == b) | (jnp.isnan(a) & jnp.isnan(b)) if is_floating(a) else a == b
    return ~jnp.all(same)


def _cosine(*gradients):
    """Of the angle between two gradients, each with its norm."""
    parts = []
    for tree, norm in gradients:
        leaves = [real_view(jnp.asarray(leaf)) for leaf in floating_leaves(tree)]
        parts.append([leaf.astype(norm.ratio.dtype) / norm.scale for leaf in leaves])
    product = sum(jnp.sum(a * b) for a, b in zip(*parts, strict=True))
    (_, before), (_, after) = gradients
    cosine = product / (before.ratio * after.ratio)
    return jnp.clip(cosine, -1, 1)


def _count_if(condition, count):
    return jnp.where(condition, optax.safe_increment(count), count)
