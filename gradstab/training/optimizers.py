"""Optimisers from names and numbers: what a command line and a config file hold."""

import functools
import math
from collections.abc import Callable

import optax

from gradstab import clipping
from gradstab.errors import UserKeyError, UserValueError

OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "adam": optax.adam,
    "adamw": optax.adamw,
}
"""Optimisers by name, as functions of the learning rate and their options."""

CLIPPERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "value": clipping.clip_by_value,
    "global-norm": clipping.clip_by_global_norm,
    "layer-norm": clipping.clip_by_layer_norm,
    "block-rms": clipping.clip_by_block_rms,
    "adaptive": clipping.adaptive_clip,
    "percentile": clipping.clip_by_percentile,
    "zscore": clipping.clip_by_zscore,
}
"""Ways to clip by name, as functions of their threshold."""

STACKABLE = ("layer-norm", "adaptive")


def build(
    name: str,
    learning_rate: optax.ScalarOrSchedule,
    /,
    *,
    clip: str | None = None,
    threshold: float | None = None,
    stacked=None,
    l1: float = 0.0,
    l2: float = 0.0,
    skip_nonfinite: bool = False,
    rates: optax.GradientTransformation | None = None,
    **options,
) -> optax.GradientTransformation:
    """An optimiser that records the gradient's norm and how often it is clipped.

    The order is penalties, clipping, optimiser.

    Args:
        name: one of `OPTIMIZERS`.
        learning_rate: a number or an optax schedule.
        clip: one of `CLIPPERS`, or None not to clip; the norm is recorded all the same.
        threshold: of the clipping, in its own units.
        stacked: which parameters are stacks of layers, for the clippers that tell
            layers apart; see `gradstab.clipping.clip_by_layer_norm`.
        l1: weight of an L1 penalty on the weights.
        l2: weight of an L2 penalty on the weights.
        skip_nonfinite: replace the update for a gradient that is not finite by zero.
        rates: scales what the optimiser makes, parameter by parameter, such as
            ``.transform`` of `gradstab.parametrize`; the decay of AdamW is not scaled.
        **options: more of the optimiser's, such as ``momentum`` or ``weight_decay``.

    Raises:
        KeyError: an unknown optimiser or way to clip.
        ValueError: clipping without a threshold, or a threshold without clipping; a
            learning rate or a weight that is negative or not finite.
        TypeError: an option that the optimiser does not have.

    Examples:
        >>> import jax.numpy as jnp
        >>> optimizer = build("sgd", 0.1, clip="global-norm", threshold=1.0)
        >>> state = optimizer.init(jnp.zeros(2))
        >>> update, state = optimizer.update(jnp.array([3.0, 4.0]), state)
        >>> [round(u, 3) for u in update.tolist()]
        [-0.06, -0.08]
    """
    numbers = {"learning_rate": learning_rate, "l1": l1, "l2": l2}
    for label, value in numbers.items():
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise UserValueError(
                f"{label} is {value}; expected a finite number from 0."
            )
    make = _known(name, OPTIMIZERS, "optimiser")
    if rates is not None:
        make = functools.partial(_scaled, name, rates)
    optimizer = make(learning_rate, **options)
    parts = [clipping.recorded(_clipper(clip, threshold, stacked)), optimizer]
    if l2:
        parts.insert(0, clipping.add_l2_penalty(l2, mask=clipping.weights_only))
    if l1:
        parts.insert(0, clipping.add_l1_penalty(l1, mask=clipping.weights_only))
    chain = optax.chain(*parts)
    return clipping.skip_nonfinite(chain) if skip_nonfinite else chain


def _scaled(
    name: str,
    rates: optax.GradientTransformation,
    learning_rate: optax.ScalarOrSchedule,
    **options,
) -> optax.GradientTransformation:
    """An optimiser whose updates are scaled, but for decoupled weight decay.

    Of AdamW the product of learning rate and decay is to stay: Yang et al. (2022),
    appendix B.3; Dey et al. (2025), table 1.
    """
    if name != "adamw":
        return optax.chain(OPTIMIZERS[name](learning_rate, **options), rates)
    # As `optax.adamw`, with the rates before the decay.
    decay = options.pop("weight_decay", 1e-4), options.pop("mask", None)
    return optax.chain(
        optax.scale_by_adam(**options),
        rates,
        optax.add_decayed_weights(*decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def _clipper(clip, threshold, stacked):
    if (clip is None) != (threshold is None):
        raise UserValueError(
            f"clip={clip!r} and threshold={threshold!r}: give both or neither."
        )
    if clip is None:
        return optax.identity()
    make = _known(clip, CLIPPERS, "way to clip")
    return make(threshold, **({"stacked": stacked} if clip in STACKABLE else {}))


def _known(name: str, known, what):
    if name not in known:
        raise UserKeyError(f"no {what} named {name!r}; known: {', '.join(known)}.")
    return known[name]
