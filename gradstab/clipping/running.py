"""Clipping by what the norms were so far: AutoClip and ZClip."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from gradstab.clipping._arguments import check_count, check_number
from gradstab.clipping._scaled import (
    clip_factor,
    global_norm,
    rescale_tree,
    wide_dtype,
)


class AutoClipState(NamedTuple):
    """The latest norms in a ring buffer."""

    history: jax.Array  # (window,)
    position: jax.Array  # int32, where the next norm goes
    filled: jax.Array  # int32, number of norms in the history
    threshold: jax.Array  # that of the last step; zero before the first


class ZClipState(NamedTuple):
    """Running mean and standard deviation of the norms."""

    count: jax.Array  # int32, number of finite norms seen
    mean: jax.Array
    stddev: jax.Array
    threshold: jax.Array  # that of the last step; infinite where nothing was clipped


def clip_by_percentile(
    percentile: float, *, window: int = 1000
) -> optax.GradientTransformationExtraArgs:
    r"""AutoClip: clip the global norm to a percentile of its own history.

    The threshold at step :math:`t` is the percentile (with linear interpolation, as
    `numpy.percentile`) of the norms before clipping at the last steps, that of step
    :math:`t` included; so the first step never clips, and percentile 100 never does.
    The paper keeps the whole history and recommends percentile 10. Here it is the last
    `window` steps, which gives the state a fixed size. Sorts `window` numbers per step.

    Gradients with a non-finite entry are neither clipped nor remembered. A norm beyond
    the largest float is remembered as that.

    Args:
        percentile: in [0, 100].
        window: the number of steps remembered, a size: it cannot be scheduled.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Seetharaman, Wichern, Pardo and Le Roux (2020), AutoClip: adaptive gradient
        clipping for source separation networks, algorithm 1.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = clip_by_percentile(50)
        >>> state = tx.init(jnp.zeros(1))
        >>> for norm in [1.0, 3.0, 9.0]:
        ...     clipped, state = tx.update(jnp.array([norm]), state)
        >>> clipped  # to the median of 1, 3 and 9
        Array([3.], dtype=float32)
    """
    check_number("percentile", percentile, 0.0, 100.0)
    check_count("window", window)

    def init(params: Any):
        # Arrays of their own, as a state that is donated may hold none of them twice.
        return AutoClipState(
            history=jnp.zeros(window, wide_dtype(params)),
            position=jnp.zeros((), jnp.int32),
            filled=jnp.zeros((), jnp.int32),
            threshold=jnp.zeros((), wide_dtype(params)),
        )

    def update(updates: Any, state: Any, params: Any = None, **extra_args):
        del params, extra_args
        norm = global_norm(updates)
        value = _within_range(norm.value, state.history.dtype)
        history = state.history.at[state.position].set(value)
        filled = jnp.minimum(state.filled + 1, window)
        threshold = _percentile(history, filled, percentile)
        position = (state.position + 1) % window
        seen = AutoClipState(history, position, filled, threshold)
        state = _select(norm.finite, seen, state)
        return rescale_tree(updates, clip_factor(norm, threshold)), state

    return optax.GradientTransformationExtraArgs(init, update)


def clip_by_zscore(
    z_threshold: float = 2.5, *, alpha: float = 0.97, warmup: int = 25
) -> optax.GradientTransformationExtraArgs:
    r"""ZClip: shorten gradients whose norm is an outlier, the further the more.

    With :math:`\mu, \sigma` the running mean and standard deviation of the norms before
    this step and :math:`z = (\|g\| - \mu) / \sigma`, a gradient with
    :math:`z > z_\ast` gets the norm

    .. math:: g^\ast = \mu + \frac{z_\ast^2}{z} \sigma

    Then :math:`\mu \to \alpha \mu + (1 - \alpha) g^\ast` and
    :math:`\sigma^2 \to \alpha \sigma^2 + (1 - \alpha) (g^\ast - \mu)^2` with the new
    :math:`\mu`, where :math:`g^\ast` is the norm *after* clipping, so a spike does not
    enter the statistics. During the warm-up nothing is clipped, and the statistics are
    the plain mean and (population) standard deviation; a fixed clip before this one in
    the chain protects it.

    While all norms so far were equal, :math:`\sigma = 0` and a larger one is clipped to
    :math:`\mu`; while they were all zero, nothing is. The state holds :math:`\sigma`,
    not its square, which would leave the range of float32 for norms above 1.8e19 and
    below 1e-19. Gradients with a non-finite entry are neither clipped nor counted.

    Args:
        z_threshold: the z-score :math:`z_\ast \ge 0` above which norms are outliers.
        alpha: the decay in [0, 1] of the running statistics.
        warmup: the number of steps (with finite gradients) before clipping begins.

    Raises:
        ValueError: if an argument is out of range.

    References:
        Kumar, Owen, Roy Chowdhury and Güra (2025), ZClip: adaptive spike mitigation for
        LLM pre-training, algorithm 1 with the reciprocal clipping function; its
        defaults.

    Example:
        >>> import jax.numpy as jnp
        >>> tx = clip_by_zscore(warmup=2)
        >>> state = tx.init(jnp.zeros(1))
        >>> for norm in [1.0, 3.0, 12.0]:  # mean 2, standard deviation 1, then z = 10
        ...     clipped, state = tx.update(jnp.array([norm]), state)
        >>> clipped  # 2 + 2.5**2 / 10
        Array([2.625], dtype=float32)
    """
    check_number("z_threshold", z_threshold)
    check_number("alpha", alpha, 0.0, 1.0)
    check_number("warmup", warmup, 1)

    def init(params: Any):
        return ZClipState(
            count=jnp.zeros((), jnp.int32),
            mean=jnp.zeros((), wide_dtype(params)),
            stddev=jnp.zeros((), wide_dtype(params)),
            threshold=jnp.full((), jnp.inf, wide_dtype(params)),
        )

    def update(updates: Any, state: Any, params: Any = None, **extra_args):
        del params, extra_args
        dtype = state.mean.dtype
        norm = global_norm(updates)
        value = _within_range(norm.value, dtype)
        warm = state.count >= jnp.asarray(warmup)
        reach = jnp.asarray(z_threshold, dtype) * state.stddev
        excess = value - state.mean
        outlier = norm.finite & warm & (state.mean > 0) & (excess > reach)
        shortened = state.mean + reach * (reach / jnp.where(outlier, excess, 1))
        threshold = jnp.where(outlier, shortened, jnp.inf)

        kept = jnp.minimum(value, threshold)
        mean, stddev = _running(state, kept, warm, jnp.asarray(alpha, dtype))
        seen = ZClipState(
            jnp.asarray(optax.safe_increment(state.count)), mean, stddev, threshold
        )
        state = _select(norm.finite, seen, state)
        return rescale_tree(updates, clip_factor(norm, threshold)), state

    return optax.GradientTransformationExtraArgs(init, update)


def _running(state: Any, value: jax.Array, warm, alpha):
    """Mean and standard deviation with one more value, by average or by decay."""
    num = (state.count + 1).astype(value.dtype)
    weight = jnp.where(warm, 1 - alpha, 1 / num)
    step = value - state.mean
    # The paper's deviation is from the new mean, a factor of 1 - weight; the average's
    # is between old and new, its square root (Welford).
    moved = jnp.where(warm, 1 - weight, jnp.sqrt(1 - weight)) * step
    stddev = jnp.hypot(jnp.sqrt(1 - weight) * state.stddev, jnp.sqrt(weight) * moved)
    return state.mean + weight * step, stddev


def _percentile(history, filled, percentile):
    """The percentile of the first entries, linearly interpolated."""
    is_filled = jnp.arange(history.size) < filled
    ordered = jnp.sort(jnp.where(is_filled, history, jnp.inf))
    fraction = jnp.asarray(percentile, history.dtype) / 100
    rank = fraction * (filled - 1).astype(history.dtype)
    low = jnp.floor(rank)
    below = ordered[low.astype(jnp.int32)]
    above = ordered[jnp.ceil(rank).astype(jnp.int32)]
    return below + (rank - low) * (above - below)


def _within_range(value: jax.Array, dtype: DTypeLike):
    return jnp.minimum(value, jnp.finfo(dtype).max).astype(dtype)


def _select(condition, new, old):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
