"""A coordinate check as a figure: sizes against width, with the fitted lines."""

import math
from typing import Any

import numpy as np

from gradstab import _drawing as drawing
from gradstab.errors import UserValueError
from gradstab.scaling.slopes import fit

_TITLES = {
    "activation": "activation",
    "update": "update of the activation",
    "gradient": "gradient of the activation",
    "own": "effect of a parameter's update",
}
_FEW_ROWS = 8


def plot(transfer: Any, /, *, ax: Any = None, quantity: str | None = None) -> Any:
    """See `Transfer.plot`."""
    if quantity is not None and quantity not in _TITLES:
        raise UserValueError(
            f"quantity must be one of {', '.join(_TITLES)}: {quantity!r}"
        )
    if ax is not None or quantity is not None:
        ax = drawing.canvas(ax)
        _panel(ax, transfer, quantity or "update")
        return ax.figure
    axes = drawing.new_axes(len(_TITLES), size=(6.4, 4.2), columns=2)
    for name, panel in zip(_TITLES, axes, strict=True):
        _panel(panel, transfer, name)
    return axes[0].figure


def _panel(ax: Any, transfer: Any, quantity: str) -> None:
    """One quantity after the last step: a line for each row, a band of its seeds."""
    values = np.asarray(getattr(transfer, quantity))[:, :, -1]
    of = transfer.parameter_names if quantity == "own" else transfer.layer_names
    sizes = np.array(transfer.sizes, np.float64)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    chosen = drawing.spread(range(len(of)), _FEW_ROWS)
    colours = drawing.ordered_colours(len(chosen))
    for row, colour in zip(chosen, colours, strict=True):
        column = np.where(values[..., row] > 0, values[..., row], np.nan)
        slope = fit(sizes, column)
        if math.isnan(slope.value):
            continue
        middle = np.exp(np.nanmean(np.log(column), axis=1))
        name = f"{drawing.label(of[row])} {slope}"
        ax.plot(sizes, middle, "o", color=colour, markersize=4)
        ax.plot(sizes, _line(sizes, middle, slope.value), color=colour, label=name)
        low, high = np.nanmin(column, axis=1), np.nanmax(column, axis=1)
        ax.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.set_xticks(sizes, [str(size) for size in transfer.sizes])
    ax.minorticks_off()
    ax.set_xlabel(transfer.vary)
    ax.set_ylabel("root mean square")
    steps = f"{transfer.num_steps} step{'s' * (transfer.num_steps != 1)}"
    ax.set_title(f"{_TITLES[quantity]} after {steps}")
    drawing.add_legend(ax)


def _line(sizes: np.ndarray, middle: np.ndarray, slope: float) -> np.ndarray:
    """The fitted line, through the middle of the points."""
    x, y = np.log(sizes), np.log(middle)
    some = np.isfinite(y)
    return np.exp(np.mean(y[some]) + slope * (x - np.mean(x[some])))
