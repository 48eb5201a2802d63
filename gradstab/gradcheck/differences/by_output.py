"""What one round of evaluations says of each output alone."""

import numpy as np

from gradstab.gradcheck.differences.tables import norm

# Roundings from which on an output is said to move.
_MOVES = 8


def columns_of(outputs, watched, /):
    """Where the outputs that are looked at lie in the vector of all."""
    if watched is None:
        return slice(None)
    number = np.repeat(np.arange(len(outputs)), [y.size for y in outputs])
    return np.isin(number, watched)


def by_output(rows, ends, /):
    """The norm of each output, ``(rows, outputs)``; of a single one nothing."""
    if not len(ends):
        return np.zeros((len(rows), 0))
    return np.stack([norm(part) for part in np.split(rows, ends, axis=1)], axis=1)


def sizes_of_outputs(seen, i: int, rungs, scale, eps: float, /) -> dict:
    """The fields ``sizes`` and ``still`` of `Probes`, for the i-th move.

    An output that moves farther away only is not still, and has no size.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        slopes, norms = (
            np.sqrt(np.mean(np.square(seen[name][i]), axis=(0, 2)))
            for name in ("slopes_of", "norms")
        )
        # What is inside of f may grow with a large step, and its rounding too.
        grown = np.maximum(1, 4 * rungs / scale) / rungs
        moves = slopes > _MOVES * eps * norms * grown[:, None]  # (levels, outputs)
    moves &= np.isfinite(slopes)
    near = rungs <= scale
    value = np.max(norms, axis=0, initial=0.0, where=near[:, None] & np.isfinite(norms))
    sizes = np.where(np.any(moves, axis=0), 0.0, np.where(value > 0, value, 1) / scale)
    for n, moved in enumerate((moves & near[:, None]).T):
        if np.any(moved):  # far away f may bend, and close by noise may be all
            sizes[n] = np.median(slopes[moved, n])
    watched = list(seen["watched"])
    full, still = np.full(seen["outputs"], np.inf), np.zeros(seen["outputs"], bool)
    # What is zero is not rounded: it does not move by however little.
    full[watched], still[watched] = sizes, ~np.any(moves, axis=0) & (value > 0)
    return {"sizes": full, "still": still}
