"""From what rode out of a backward pass to the statistics of every layer."""

import functools

import jax.numpy as jnp

from gradstab import _compat, _tree
from gradstab.watch import measures as m
from gradstab.watch.gathering import first_steps, gathered, site_of
from gradstab.watch.norms import cosines_by_row, finite_by_row, norms_by_row
from gradstab.watch.places import Places
from gradstab.watch.sites import Site
from gradstab.watch.statistics import Statistics


def collect(
    places: Places, level, per, value, params, grads, measured, /
) -> Statistics:
    """The statistics of one step.

    Args:
        places: what is watched.
        level: how much.
        per: what is to be apart too, of `gathering.KINDS`.
        value: the loss.
        params: leaves of the parameters.
        grads: of their gradient.
        measured: by spot ``(*rings, [examples,] 2, num_measures)``.
    """
    run = functools.partial(_collected, places, level, per)
    return _compat.on_one_layout(run)(value, params, grads, measured)


def _collected(places, level, per, value, params, grads, measured):
    wide = _tree.widest(jnp.float32, *(x.dtype for x in measured.values()))
    found = [gathered(layer, places, measured, wide) for layer in places.layers]
    none = jnp.zeros((2, m.num_measures(level)), wide)
    total = jnp.stack([*(one.total for one in found), none])
    step = jnp.stack([*map(first_steps, found), jnp.full((2,), -1)])
    counts = [jnp.sum(one.lost_iterations, axis=0) for one in found]
    lost = jnp.stack([*counts, jnp.zeros((2,), int)])
    entries = total[..., m.ENTRIES]
    none = jnp.where(entries > 0, entries, jnp.nan)
    rms = m.norm(total[..., m.SQUARES]) / jnp.sqrt(none)
    rows = places.owners, len(places.names)
    gradient = norms_by_row(*rows, grads, turn=2 * len(measured))
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
        details=_details(places, found, per),
        names=places.names,
        owners=places.owners,
        sites=(*(site_of(layer, places) for layer in places.layers), Site()),
        level=level.value,
    )


def _details(places, found, per):
    """By layer what is apart."""
    names = [layer.name for layer in places.layers]
    parts = {n: one.detail(per) for n, one in zip(names, found, strict=True)}
    return {n: part for n, part in parts.items() if part is not None} if per else None
