"""From what rode out of a backward pass to the statistics of every layer."""

import functools
import math

import jax.numpy as jnp

from gradstab import _tree
from gradstab.watch import measures as m
from gradstab.watch.norms import cosines_by_row, finite_by_row, norms_by_row
from gradstab.watch.places import Place, Places
from gradstab.watch.statistics import Statistics


def collect(places: Places, level, value, params, grads, measured, /) -> Statistics:
    """The statistics of one step.

    Args:
        places: what is watched.
        level: how much.
        value: the loss.
        params: leaves of the parameters.
        grads: of their gradient.
        measured: by spot ``(*loops, 2, num_measures)``.
    """
    wide = _tree.widest(jnp.float32, *(x.dtype for x in measured.values()))
    found = [_of_layer(layer, places, measured, wide) for layer in places.layers]
    none = jnp.zeros((2, m.num_measures(level)), wide)
    nothing = none, jnp.full((2,), -1), jnp.zeros((2,), int)
    totals, steps, counts = zip(*found, nothing, strict=True)
    total, step, lost = jnp.stack(totals), jnp.stack(steps), jnp.stack(counts)
    entries = total[..., m.ENTRIES]
    none = jnp.where(entries > 0, entries, jnp.nan)
    rms = m.norm(total[..., m.SQUARES]) / jnp.sqrt(none)
    rows = places.owners, len(places.names)
    gradient = norms_by_row(*rows, grads, sizes=_sizes(rms))
    finite = finite_by_row(*rows, places.shared, gradient, grads)
    unknown = jnp.full_like(gradient, jnp.nan)
    param_norm = cosine = unknown
    if level is m.Level.FULL:
        param_norm = norms_by_row(*rows, params)
        cosine = cosines_by_row(*rows, params, grads)
    return Statistics(
        value=value,
        forward_rms=rms[:, 0],
        backward_rms=rms[:, 1],
        forward_nonfinite=lost[:, 0],
        backward_nonfinite=lost[:, 1],
        forward_entries=entries[:, 0],
        backward_entries=entries[:, 1],
        forward_step=step[:, 0],
        backward_step=step[:, 1],
        param_norm=param_norm,
        gradient_norm=gradient,
        gradient_finite=finite,
        gradient_cosine=cosine,
        update_norm=unknown,
        measures=total if level is m.Level.FULL else None,
        names=places.names,
        owners=places.owners,
        scans=(*(_scan_of(layer, places) for layer in places.layers), -1),
        level=level.value,
    )


def _sizes(rms):
    """Guesses of the norms of gradients: what enters a layer times what comes back."""
    entering = jnp.concatenate([jnp.ones_like(rms[:1, 0]), rms[:-1, 0]])
    guess = jnp.where(entering > 0, entering, 1) * rms[:, 1]
    return jnp.where(jnp.isfinite(guess), guess, 1)


# Of layers


def _of_layer(layer: Place, places, measured, wide):
    """Of a layer forward and backward: measures, where it is not finite, how often."""
    parts = [_turn(layer, places.loops[spot], measured[spot]) for spot in layer.spots]
    parts = [part.astype(wide) for part in parts]  # (iterations, 2, measures)
    total = sum(jnp.sum(part, axis=0) for part in parts)
    finite = [jnp.isfinite(part[..., m.SQUARES.start]) for part in parts]
    lost = ~functools.reduce(jnp.logical_and, finite)  # (iterations, 2)
    return total, _steps(layer, places, lost), jnp.sum(lost, axis=0)


def _turn(layer, loops, values):
    """The measures of the iterations that the layer is, in their order."""
    axes = tuple(i for i, backwards in enumerate(loops.backwards) if backwards)
    values = jnp.flip(values, axes)
    flat = values.reshape(-1, *values.shape[len(loops.lengths) :])
    if layer.turn is None:
        return flat
    number, count = layer.turn
    return flat.reshape(-1, count, *flat.shape[1:])[:, number]


def _steps(layer, places, lost):
    """The first iteration that is not finite: forward, and on the way back."""
    if _scan_of(layer, places) < 0:
        return jnp.full((2,), -1)
    first = jnp.argmax(lost[:, 0])
    last = lost.shape[0] - 1 - jnp.argmax(lost[::-1, 1])
    return jnp.where(jnp.any(lost, axis=0), jnp.stack([first, last]), -1)


def _scan_of(layer, places):
    """The number that says in which loop over time the layer is; -1 for none."""
    loops = [places.loops[spot] for spot in layer.spots]
    lengths = {loop.lengths for loop in loops}
    if len(lengths) != 1 or lengths == {()}:
        return -1
    (lengths,) = lengths
    turns = 1 if layer.turn is None else layer.turn[1]
    return -1 if math.prod(lengths) == turns else loops[0].scan
