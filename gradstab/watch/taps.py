"""Measures that ride out of the backward pass, in two ways that agree.

A tap is an identity on an array of the forward pass. Its rule of differentiation passes
the cotangent on unchanged, and lets the measures of both out: as the gradient of an
argument that is zero, or, where JAX has them, as logs of the backward pass.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from gradstab.program.rewrite import SAVED, rewritten
from gradstab.watch.measures import Level, accumulator, measure, num_measures
from gradstab.watch.places import Loops, Spot


class Gradients(NamedTuple):
    """What a backward pass gives.

    Attributes:
        results: of the program; the first is the loss.
        grads: with respect to the parameters.
        measures: by spot, forward and backward, ``(*loops, 2, num_measures)``; zeros
            where no cotangent came by.
    """

    results: list
    grads: list
    measures: dict[Spot, jax.Array]


def by_tokens(closed, params, rest, loops: dict[Spot, Loops], level: Level, /):
    """Gradients, and the measures as those with respect to arguments that are zero."""
    tokens: dict[int, Any] = {}
    for spot, around in loops.items():
        token = _nothing(around, level)
        tokens.setdefault(spot.number, {})[spot.position] = token

    turns = _turns(loops)

    def change(number, results, given):
        results = list(results)
        for position, token in given.items():
            tap = _token_tap(level, turns[Spot(number, position)])
            results[position] = tap(results[position], token)
        return results

    def loss(params, tokens):
        results = rewritten(closed, [*params, *rest], tokens, change)
        return results[0], results[1:]

    differentiated = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (value, others), (grads, made) = differentiated(list(params), tokens)
    measures = {spot: made[spot.number][spot.position] for spot in loops}
    return Gradients([value, *others], grads, measures)


def by_logs(closed, params, rest, loops: dict[Spot, Loops], level: Level, /):
    """Gradients, and the measures as logs of the backward pass."""
    extras: dict[int, Any] = {}
    for spot in loops:
        extras.setdefault(spot.number, {})[spot.position] = None

    turns = _turns(loops)

    def change(number, results, given):
        results = list(results)
        for position in given:
            spot = Spot(number, position)
            tap = _logging_tap(level, turns[spot], _log_name(spot))
            results[position] = tap(results[position])
        return results

    def loss(params):
        results = rewritten(closed, [*params, *rest], extras, change)
        return results[0], results[1:]

    value, backward, others = jax.vjp(loss, list(params), has_aux=True)
    (grads,), logs = backward.with_logs(jnp.ones_like(value))
    measures = {
        spot: logs.get(_log_name(spot), _nothing(around, level))
        for spot, around in loops.items()
    }
    return Gradients([value, *others], grads, measures)


# The way that this JAX has.
by_default = by_logs if hasattr(jax.custom_vjp, "defvjp_with_logs") else by_tokens


@functools.cache
def _token_tap(level, turn):
    @jax.custom_vjp
    def tap(x, token):
        return x

    def backward(before, w):
        return w, jnp.stack([before, measure(w, level, turn + 1)])

    tap.defvjp(lambda x, token: (x, _kept(x, level, turn)), backward)
    return tap


@functools.cache
def _logging_tap(level, turn, name):
    @jax.custom_vjp
    def tap(x):
        return x

    def backward(before, w):
        return (w,), {name: jnp.stack([before, measure(w, level, turn + 1)])}

    log: Any = tap  # which older versions of JAX do not have
    log.defvjp_with_logs(lambda x: (x, _kept(x, level, turn)), backward)
    return tap


def _kept(x, level, turn):
    return checkpoint_name(measure(x, level, turn), SAVED)


def _turns(loops):
    """A number for each spot; the next one is for its way back."""
    return {spot: 2 * i for i, spot in enumerate(loops)}


def _log_name(spot):
    return f"gradstab {spot.number}.{spot.position}"


def _nothing(around, level):
    shape = (*around.lengths, 2, num_measures(level))
    return jnp.zeros(shape, accumulator(around.dtype))
