"""A map of norms, layer against step, in decades."""

from typing import Any

import numpy as np

from gradstab import _drawing as drawing

_FEW_STEPS = 10  # as many numbers are read on an axis


def draw_decades(ax: Any, norms: np.ndarray, layers, steps: np.ndarray, /) -> None:
    """Draw norms, ``(steps, layers)``, the first layer at the bottom.

    Args:
        ax: matplotlib axes.
        norms: zero and what is not finite stay empty.
        layers: their names.
        steps: their numbers, or names.
    """
    num_steps, num_layers = norms.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        decades = np.log10(np.where(norms > 0, norms, np.nan)).T
    places = _places(steps)
    image = ax.pcolormesh(
        _edges(places), np.arange(num_layers + 1) - 0.5, np.ma.masked_invalid(decades)
    )
    layers, words = list(map(str, layers)), list(map(str, steps))
    most = min(drawing.how_many(ax, words, beside=layers), _FEW_STEPS)
    every = _every(num_steps, most)
    ax.set_xticks(places[::every], words[::every])
    drawing.name_axis(ax, np.arange(num_layers), layers, axis="y")
    ax.set(ylim=(-0.5, num_layers - 0.5), xlabel="step", ylabel="layer")
    ax.set_title("norms of the gradient, layer by layer", fontsize="medium")
    ax.figure.colorbar(image, ax=ax, label="norm of the gradient, decades")


def _places(steps):
    """Where the steps lie: as far apart as they are, if they are ascending numbers."""
    if steps.dtype.kind in "iuf" and np.all(np.isfinite(steps)):
        places = steps.astype(np.float64)
        if np.all(np.diff(places) > 0):
            return places
    return np.arange(len(steps), dtype=np.float64)


def _edges(places):
    """The borders of cells about the places: halfway to the neighbours."""
    if len(places) == 1:
        return places[0] + np.array([-0.5, 0.5])
    between = (places[1:] + places[:-1]) / 2
    first, last = 2 * places[0] - between[0], 2 * places[-1] - between[-1]
    return np.concatenate([[first], between, [last]])


def _every(num, most):
    """The least of 1, 2, 5, 10, ... that leaves no more than so many."""
    every, factors = 1, (2, 2.5, 2)
    for place in range(100):
        if (num - 1) // every < most:
            break
        every = int(every * factors[place % 3])
    return every
