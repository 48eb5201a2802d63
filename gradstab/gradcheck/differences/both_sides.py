"""What probes on both sides of a point show, at some levels of the ladder."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.differences.by_output import columns_of
from gradstab.gradcheck.differences.directions import (
    LARGE,
    NUM_COTANGENTS,
    NUM_TANGENTS,
)
from gradstab.gradcheck.differences.shown import shown
from gradstab.gradcheck.differences.tables import norm, paired, unit, vectors

# That which has an entry for every level.
_BY_LEVEL = ("residual", "norm", "moved", "bend", "jump", "norms", "slopes_of")


@np.errstate(all="ignore")
def on_both_sides(
    programs, point: Sequence[Any], draw, tables, steps, moves, /
) -> dict:
    """What every probe shows; arrays of the shape of the steps, and of the entries.

    The steps ``(len(moves), tangents, levels, replicates)`` are those of some moves.
    """
    i, k, *_ = (a.ravel() for a in np.indices(steps.shape, np.int32))
    i, h = moves.astype(np.int32)[i], steps.ravel()
    anchor, slopes = _anchor(tables, draw)
    outputs = programs.problem.outputs
    watched = range(len(outputs)) if draw.outputs is None else draw.outputs
    columns = columns_of(outputs, draw.outputs)
    value = tables["value"][columns]
    size = unit(value)
    cotangents = vectors(draw.cotangents)[:, columns]
    ends = np.cumsum([outputs[n].size for n in watched])[:-1]
    probes = []
    moved = _narrow(h, point)
    known = None if _rounds_little(point) else anchor
    turns = programs.ends(point, draw, known, i, k, moved)
    for where, there, here, nudge in turns:
        there, here = (vectors(y)[:, columns] for y in (there, here))
        seen = shown(there, here, value, cotangents, size, ends)
        expected = 2 * h[where, None] * slopes[i[where], k[where]]
        residual = seen["products"] - expected + nudge.reshape(len(there), -1)
        probes.append(
            {
                "residual": residual / (2 * h[where, None]),
                "norm": seen["norm"],
                "moved": seen["moved"],
                "bend": seen["bend"] / (2 * h[where]),
                "jump": seen["jump"],
                "norms": seen["norms"],
                "slopes_of": seen["changes"] / (2 * h[where, None]),
            }
        )
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *probes)
    seen = {n: a.reshape(*steps.shape, *a.shape[1:]) for n, a in whole.items()}
    return seen | {
        "slopes": slopes,
        "value": norm(value),
        "watched": watched,
        "outputs": len(outputs),
        "eps": float(jnp.finfo(programs.problem.dtype).eps),
    }


def _rounds_little(point: Sequence[Any]) -> bool:
    """Whether rounding x + h v, at 1e-16 of x, is not worth the price of correcting."""
    size = sum(x.size for x in point)
    # With so many entries the correction doubles the cost of a probe.
    return size > LARGE and all(x.dtype == np.float64 for x in point)


def _narrow(h: np.ndarray, point: Sequence[Any]):
    """The steps, in a dtype that every leaf's step survives unchanged."""
    return h.astype(max((x.dtype for x in point), key=lambda d: jnp.finfo(d).nmant))


def _anchor(tables, draw):
    """The finite part of the gradients, and its entries; zero without gradients."""
    if "gradients" not in tables:
        return None, np.zeros((len(draw.weights), NUM_TANGENTS, NUM_COTANGENTS))
    if all(np.all(np.isfinite(g)) for g in tables["gradients"]):
        return tables["gradients"], tables["reverse"]
    finite = tuple(
        np.where(np.isfinite(g), g, g.dtype.type(0)) for g in tables["gradients"]
    )
    return finite, paired(draw, finite)


def joined(near: dict, more: dict, known, part, /) -> tuple[dict, np.ndarray]:
    """What two parts of the levels show, the largest step first.

    Args:
        near: what the first part showed; empty if there was none.
        more: what the second one shows.
        known: the numbers of the levels of the first.
        part: those of the second.

    Returns:
        What both show, and their numbers.
    """
    both = np.concatenate([known, part])
    order = np.argsort(both)
    joined = {
        name: np.concatenate([near[name], a], axis=2)[:, :, order]
        if len(known) and name in _BY_LEVEL
        else a
        for name, a in more.items()
    }
    return joined, both[order]
