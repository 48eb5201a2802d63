"""Norms of gradients while training, as a map."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gradstab import _drawing as drawing
from gradstab.errors import UserValueError
from gradstab.watch.decades import draw_decades


def heat_map(
    norms: ArrayLike,
    /,
    *,
    layers: Iterable[Any] | None = None,
    steps: ArrayLike | None = None,
    ax: Any = None,
):
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
    ax = drawing.canvas(ax)
    draw_decades(ax, norms, layers, steps)
    return ax.figure
