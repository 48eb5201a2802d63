"""Steps that are left out: non-finite and huge gradients.

A guard wraps the transformations that it protects, instead of standing before them in
a chain. In a chain it could only replace a bad gradient by zero, and Adam would go on:
its moments would decay, its step count advance, and the parameters move along the old
momentum. Wrapped, a skipped step leaves the inner state bit for bit as it was.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradstab import _checked
from gradstab._tree import all_finite
from gradstab.clipping._arguments import check_count, check_number
from gradstab.clipping._scaled import global_norm


class SkipState(NamedTuple):
    """How many steps were skipped, and the state of what is inside."""

    skipped: jax.Array  # bool, whether the last step was
    skip_count: jax.Array  # int32
    consecutive: jax.Array  # int32, bad gradients in a row up to now
    inner: Any


def skip_nonfinite(
    inner: optax.GradientTransformation, max_consecutive: int | None = None
) -> optax.GradientTransformationExtraArgs:
    """Skip steps whose gradient has a NaN or infinite entry.

    On a skipped step the update is zero and the state of `inner` stays untouched.

    Args:
        inner: what comes after: an optimiser, or a chain of clipping and one.
        max_consecutive: after this many bad gradients in a row, give up: the next one
            goes through, and the run fails visibly. None never gives up; watch
            ``optax.tree.get(state, "consecutive")`` then.

    Raises:
        ValueError: if the number is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = skip_nonfinite(optax.adam(0.1))
        >>> state = tx.init(jnp.zeros(2))
        >>> update, state = tx.update(jnp.array([1.0, jnp.nan]), state)
        >>> update, int(state.skip_count), int(optax.tree.get(state, "count"))
        (Array([0., 0.], dtype=float32), 1, 0)
    """
    if max_consecutive is not None:
        check_count("max_consecutive", max_consecutive, 0)

    def is_accepted(updates: Any, num_before):
        fine = all_finite(updates)
        gives_up = max_consecutive is not None and num_before >= max_consecutive
        return fine, fine | jnp.asarray(gives_up)

    return _guard(inner, is_accepted)


def skip_large(
    inner: optax.GradientTransformation, max_norm: float
) -> optax.GradientTransformationExtraArgs:
    """Skip steps whose gradient's global norm exceeds a bound, or is not finite.

    On a skipped step the update is zero and the state of `inner` stays untouched.

    Args:
        inner: what comes after: an optimiser, or a chain of clipping and one.
        max_norm: the largest norm that is accepted, in units of the gradient.

    Raises:
        ValueError: if the bound is negative or NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = skip_large(optax.sgd(1.0), 10.0)
        >>> update, state = tx.update(jnp.array([30.0]), tx.init(jnp.zeros(1)))
        >>> update, bool(state.skipped)
        (Array([0.], dtype=float32), True)
    """
    check_number("max_norm", max_norm)

    def is_accepted(updates: Any, num_before):
        del num_before
        norm = global_norm(updates)
        bound = jnp.asarray(max_norm, norm.ratio.dtype)
        fine = norm.finite & (norm.value <= bound)
        return fine, fine

    return _guard(inner, is_accepted)


def _guard(inner, is_accepted):
    _checked.transformation(inner, "inner")
    inner = optax.with_extra_args_support(inner)

    def init(params: Any):
        # Arrays of their own, as a state that is donated may hold none of them twice.
        return SkipState(
            skipped=jnp.zeros((), bool),
            skip_count=jnp.zeros((), jnp.int32),
            consecutive=jnp.zeros((), jnp.int32),
            inner=inner.init(params),
        )

    def update(updates: Any, state: Any, params: Any = None, **extra_args):
        def step():
            return inner.update(updates, state.inner, params, **extra_args)

        def skip():
            return optax.tree.zeros_like(jax.eval_shape(step)[0]), state.inner

        fine, accepted = is_accepted(updates, state.consecutive)
        updates, new_inner = jax.lax.cond(accepted, step, skip)
        count = optax.safe_increment
        return updates, SkipState(
            skipped=~accepted,
            skip_count=jnp.where(accepted, state.skip_count, count(state.skip_count)),
            consecutive=jnp.where(fine, 0, count(state.consecutive)),
            inner=new_inner,
        )

    return optax.GradientTransformationExtraArgs(init, update)
