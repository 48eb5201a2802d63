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

from gradstab import _compat
from gradstab.program.rewrite import SAVED, rewritten
from gradstab.watch.around import Around, Spot
from gradstab.watch.measures import Level, accumulator, measure, num_measures


class Gradients(NamedTuple):
    """What a backward pass gives.

    Attributes:
        results: of the program; the first is the loss.
        grads: with respect to the parameters.
        measures: by spot, forward and backward, ``(*rings, [examples,] 2,
            num_measures)``; zeros where no cotangent came by.
    """

    results: list
    grads: list
    measures: dict[Spot, jax.Array]


class Tap(NamedTuple):
    """What is measured at a spot, and how.

    Attributes:
        level: how much.
        turn: a number for the spot; the next one is for its way back.
        partial: axes of a mesh over whose devices the cotangent is to be summed.
        vary: axes along which the type of the measures varies.
        examples: whether what lies on the leading axis is measured apart.
    """

    level: Level
    turn: int
    partial: tuple[str, ...]
    vary: tuple[str, ...]
    examples: bool

    def forward(self, x):
        """The measures of the data, which nothing makes again."""
        return checkpoint_name(self._measured(x, self.turn), SAVED)

    def both(self, before, w):
        """The measures of the data and of the cotangent, ``(2, num_measures)``."""
        if self.partial:
            w = jax.lax.psum(w, self.partial)
        found = jnp.stack([before, self._measured(w, self.turn + 1)], axis=-2)
        return _compat.varied(found, self.vary)

    def _measured(self, x, turn):
        def one(x):
            return measure(x, self.level, turn)

        return _compat.on_one_layout(jax.vmap(one) if self.examples else one)(x)


def by_tokens(closed, params, rest, around: dict[Spot, Around], level: Level, /):
    """Gradients, and the measures as those with respect to arguments that are zero."""
    tokens: dict[int, Any] = {}
    for spot, there in around.items():
        token = _nothing(there, level)
        tokens.setdefault(spot.number, {})[spot.position] = token

    taps = _taps(around, level)

    def change(number, results, given):
        results = list(results)
        for position, token in given.items():
            tap = _token_tap(taps[Spot(number, position)])
            results[position] = tap(results[position], token)
        return results

    def loss(params, tokens):
        results = rewritten(closed, [*params, *rest], tokens, change)
        return results[0], results[1:]

    differentiated = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    (value, others), (grads, made) = differentiated(list(params), tokens)
    measures = {spot: made[spot.number][spot.position] for spot in around}
    return Gradients([value, *others], grads, measures)


def by_logs(closed, params, rest, around: dict[Spot, Around], level: Level, /):
    """Gradients, and the measures as logs of the backward pass."""
    extras: dict[int, Any] = {}
    for spot in around:
        extras.setdefault(spot.number, {})[spot.position] = None

    taps = _taps(around, level)

    def change(number, results, given):
        results = list(results)
        for position in given:
            spot = Spot(number, position)
            tap = _logging_tap(taps[spot], _log_name(spot))
            results[position] = tap(results[position])
        return results

    def loss(params):
        results = rewritten(closed, [*params, *rest], extras, change)
        return results[0], results[1:]

    value, backward, others = jax.vjp(loss, list(params), has_aux=True)
    (grads,), logs = backward.with_logs(jnp.ones_like(value))
    measures = {}
    for spot, there in around.items():
        nothing = _nothing(there, level)
        log = _logged(logs.get(_log_name(spot), nothing))
        measures[spot] = jnp.reshape(log, nothing.shape)
    return Gradients([value, *others], grads, measures)


# The way that this JAX has.
by_default = by_logs if hasattr(jax.custom_vjp, "defvjp_with_logs") else by_tokens


@functools.cache
def _token_tap(how):
    @jax.custom_vjp
    def tap(x, token):
        return x

    tap.defvjp(
        lambda x, token: (x, how.forward(x)),
        lambda before, w: (w, how.both(before, w)),
    )
    return tap


@functools.cache
def _logging_tap(how, name):
    @jax.custom_vjp
    def tap(x):
        return x

    log: Any = tap  # which older versions of JAX do not have
    log.defvjp_with_logs(
        lambda x: (x, how.forward(x)),
        lambda before, w: ((w,), {name: how.both(before, w)}),
    )
    return tap


def _taps(around, level):
    return {
        spot: Tap(
            level,
            turn=2 * i,
            partial=tuple(sorted(there.partial)),
            vary=tuple(ring.axis for ring in there.rings if ring.axis and ring.typed),
            examples=there.examples is not None,
        )
        for i, (spot, there) in enumerate(around.items())
    }


def _log_name(spot):
    return f"gradstab {spot.number}.{spot.position}"


def _logged(log):
    """A log; of a branch that of the program that has it, zeros if another one ran."""
    while (branches := getattr(log, "branches", None)) is not None:
        (log,) = (branch for branch in branches if branch is not None)
    return log


def _nothing(there, level):
    apart = () if there.examples is None else (there.examples,)
    shape = (*there.lengths, *apart, 2, num_measures(level))
    return _compat.varied(jnp.zeros(shape, accumulator(there.dtype)), there.varying)
