"""What was measured of a layer: by iteration, device and example, and together."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradstab.records import record, static
from gradstab.watch import measures as m
from gradstab.watch.around import Around
from gradstab.watch.places import Place, Places
from gradstab.watch.sites import Site

ITERATION, DEVICE, EXAMPLE = "iteration", "device", "example"
KINDS = (ITERATION, DEVICE, EXAMPLE)


@record
class Detail:
    """Of one layer what is summed up in its row.

    Attributes:
        rms: root mean square of the data and of the gradient, ``(..., 2)``; NaN where
            nothing came by.
        nonfinite: whether some of them are not finite, ``(..., 2)``.
        axes: what the leading axes are: ``"iteration"`` for every loop, the outermost
            first; names of axes of a mesh; ``"example"``.
    """

    rms: jax.Array
    nonfinite: jax.Array
    axes: tuple[str, ...] = static(default=())


class Measured(NamedTuple):
    """What was measured of a layer.

    Attributes:
        sums: measures, with an axis for each loop, device axis, and for examples where
            they are apart; then forward and backward, ``(..., 2, num_measures)``.
        lost: what of them is not finite, ``(..., 2)``.
        axes: the name of each of the leading axes: iteration, the name of an axis of a
            mesh, example.
        num_loops: how many of them are loops.
    """

    sums: jax.Array
    lost: jax.Array
    axes: tuple[str, ...]
    num_loops: int

    @property
    def total(self) -> jax.Array:
        """The measures of all together, ``(2, num_measures)``."""
        return jnp.sum(self.sums, axis=tuple(range(len(self.axes))))

    @property
    def lost_iterations(self) -> jax.Array:
        """Which of the iterations, in their order, are not finite, ``(..., 2)``."""
        others = tuple(range(self.num_loops, len(self.axes)))
        return jnp.any(self.lost, axis=others).reshape(-1, 2)

    def detail(self, per) -> Detail | None:
        """What is asked for apart; None where there is nothing of the kind.

        Args:
            per: of `KINDS`.
        """
        named = [a if a in (ITERATION, EXAMPLE) else DEVICE for a in self.axes]
        others = tuple(i for i, kind in enumerate(named) if kind not in per)
        if len(others) == len(named):
            return None
        sums, lost = jnp.sum(self.sums, axis=others), jnp.any(self.lost, axis=others)
        entries = sums[..., m.ENTRIES]
        entries = jnp.where(entries > 0, entries, jnp.nan)
        rms = m.norm(sums[..., m.SQUARES]) / jnp.sqrt(entries)
        axes = tuple(a for i, a in enumerate(self.axes) if i not in others)
        return Detail(jnp.broadcast_to(rms, lost.shape), lost, axes)


def gathered(layer: Place, places: Places, values, wide, /) -> Measured:
    """What was measured of a layer.

    Args:
        layer: the layer.
        places: all that is watched.
        values: by spot ``(*rings, [examples,] 2, num_measures)``.
        wide: the dtype of the sums.
    """
    several = [
        _of_spot(layer, places.around[spot], values[spot].astype(wide))
        for spot in layer.spots
    ]
    if len({(part.axes, part.sums.shape) for part in several}) > 1:
        # What returns arrays from several loops has no iterations in common.
        several = [_together(part) for part in several]
    sums = functools.reduce(jnp.add, (part.sums for part in several))
    lost = functools.reduce(jnp.logical_or, (part.lost for part in several))
    return several[0]._replace(sums=sums, lost=lost)


def _of_spot(layer, around: Around, values):
    """What was measured at a spot, loops first, then devices, then examples."""
    rings = around.rings
    scans = [i for i, ring in enumerate(rings) if not ring.axis]
    devices = [i for i, ring in enumerate(rings) if ring.axis]
    values = jnp.flip(values, [i for i, ring in enumerate(rings) if ring.backwards])
    rest = range(len(rings), values.ndim)
    values = jnp.transpose(values, (*scans, *devices, *rest))
    lengths = tuple(rings[i].length for i in scans)
    kept = _loops(layer, around)
    others = values.shape[len(scans) :]
    if layer.turn is not None:
        number, count = layer.turn
        values = values.reshape(math.prod(lengths) // count, count, *others)[:, number]
    values = values.reshape(*(ring.length for ring in kept), *others)
    lost = ~jnp.isfinite(values[..., m.SQUARES.start])
    names = tuple(rings[i].axis for i in devices)
    for axis, name in enumerate(names, len(kept)):
        if name in around.copies:
            # Of what all devices have the same it is counted once.
            values = jax.lax.slice_in_dim(values, 0, 1, axis=axis)
    axes = (
        (ITERATION,) * len(kept)
        + names
        + (EXAMPLE,) * (values.ndim - 2 - len(names) - len(kept))
    )
    return Measured(values, lost, axes, len(kept))


def _together(part):
    return Measured(part.total, jnp.any(part.lost.reshape(-1, 2), axis=0), (), 0)


def _loops(layer: Place, around: Around):
    """The loops around a spot that are none over layers."""
    loops = [ring for ring in around.rings if not ring.axis]
    if layer.turn is None:
        return loops
    count = layer.turn[1]
    return next(
        loops[:i]
        for i in reversed(range(len(loops)))
        if math.prod(ring.length for ring in loops[i:]) == count
    )


def site_of(layer: Place, places: Places, /) -> Site:
    """Where in the order of the computation a layer stands."""
    rings = {places.around[spot].rings for spot in layer.spots}
    first = min(layer.spots, default=None)
    if first is None:
        return Site()
    loops = _loops(layer, places.around[first])
    inner = [r for r in places.around[first].rings if not r.axis][len(loops) :]
    order = (inner[0].number, layer.turn[0]) if inner and layer.turn else ()
    if len(rings) > 1:
        loops = []
    path = tuple((ring.number, ring.length) for ring in loops)
    apart = all(ring.number in places.opened for ring in loops)
    return Site(path, (*order, first.number), apart)


def first_steps(measured: Measured, /) -> jax.Array:
    """The first iteration that is not finite: forward, and on the way back."""
    lost = measured.lost_iterations
    if not measured.num_loops:
        return jnp.full((2,), -1)
    first = jnp.argmax(lost[:, 0])
    last = lost.shape[0] - 1 - jnp.argmax(lost[::-1, 1])
    return jnp.where(jnp.any(lost, axis=0), jnp.stack([first, last]), -1)
