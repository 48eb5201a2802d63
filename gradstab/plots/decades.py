"""Norms of gradients while training, as a map."""

from typing import Any

import numpy as np

from gradstab import _drawing as drawing
from gradstab.errors import UserValueError

_FEW_STEPS = 10  # as many numbers are read on an axis


def heat_map(norms, /, *, layers=None, steps=None, ax: Any = None):
    """Gradient norms, layer against step, in decades.

    Args:
        norms: ``(steps, layers)`` norms; zero and what is not finite stay empty.
        layers: names, in depth order.
        steps: ``(steps,)`` their numbers, ascending; a look stands in the middle of its
            cell.
        ax: matplotlib axes to draw on; by default a new figure.

    Returns:
        A figure with the first layer at the bottom; of many layers and steps, every
        so many are named.

    Raises:
        ValueError: if the shapes do not fit, or nothing is there to draw.

    >>> import numpy as np
    >>> figure = heat_map(np.ones((3, 2)), layers=["input", "head"], steps=[0, 50, 100])
    >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ['0', '50', '100']
    """
    norms = np.asarray(norms, np.float64)
    if norms.ndim != 2 or not norms.size:
        raise UserValueError(f"norms is (steps, layers), and has shape {norms.shape}")
    num_steps, num_layers = norms.shape
    steps = np.arange(num_steps) if steps is None else np.asarray(steps)
    layers = list(range(num_layers)) if layers is None else list(layers)
    if len(steps) != num_steps or len(layers) != num_layers:
        raise UserValueError(
            f"norms is (steps, layers), and has shape {norms.shape}, with "
            f"{len(steps)} steps and {len(layers)} names of layers"
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        decades = np.log10(np.where(norms > 0, norms, np.nan)).T
    ax = drawing.canvas(ax)
    places = _places(steps)
    image = ax.pcolormesh(
        _edges(places), np.arange(num_layers + 1) - 0.5, np.ma.masked_invalid(decades)
    )
    layers, steps = list(map(str, layers)), list(map(str, steps))
    most = min(drawing.how_many(ax, steps, beside=layers), _FEW_STEPS)
    every = _every(num_steps, most)
    ax.set_xticks(places[::every], steps[::every])
    drawing.name_axis(ax, np.arange(num_layers), layers, axis="y")
    ax.set(ylim=(-0.5, num_layers - 0.5), xlabel="step", ylabel="layer")
    ax.set_title("norms of the gradient, layer by layer", fontsize="medium")
    ax.figure.colorbar(image, ax=ax, label="norm of the gradient, decades")
    return ax.figure


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
