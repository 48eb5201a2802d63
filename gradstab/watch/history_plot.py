"""A history as a figure: a map of its layers, and the curves that matter."""

from typing import Any

import numpy as np

from gradstab import _drawing as drawing
from gradstab.errors import UserValueError
from gradstab.watch.decades import draw_decades
from gradstab.watch.trends import LEAST

# Of more steps as many groups are drawn; a curve then is the range of each.
_MOST_STEPS = 400
_FEW_LAYERS = 4


def plot(history, /, *, kind=None, ax: Any = None):
    """See `History.plot`."""
    kinds = [name for name, (_, has) in _KINDS.items() if has(history)]
    if not kinds:
        raise UserValueError("this history has no steps with numbers to draw")
    if ax is not None or kind is not None:
        kind = kind or kinds[0]
        if kind not in kinds:
            raise UserValueError(
                f"kind is {kind!r}; this history has panels for: {', '.join(kinds)}"
            )
        ax = drawing.canvas(ax)
        _KINDS[kind][0](ax, history)
        return ax.figure
    axes = drawing.new_axes(len(kinds), size=(6.4, 4.2), columns=min(2, len(kinds)))
    for name, panel in zip(kinds, axes, strict=True):
        _KINDS[name][0](panel, history)
    # The bar of the map's colours takes room from the panels beside it: legends are
    # arranged once more when it is known how much.
    axes[0].figure.draw_without_rendering()
    for panel in axes:
        if panel.get_legend() is not None:
            drawing.add_legend(panel)
    return axes[0].figure


def _map(ax: Any, history):
    """Norms of the gradients of all layers; of a group of steps the largest."""
    norms = history["gradient_norm"]
    some = np.isfinite(norms) & (norms > 0)
    rows, layers = some.any(axis=1), some.any(axis=0)
    names = [name for name, has in zip(history.names, layers, strict=True) if has]
    steps, norms = history.steps[rows], norms[rows][:, layers]
    # A spike is to be seen, and what is not finite in a group hides nothing.
    norms = np.where(np.isfinite(norms), norms, np.nan)
    starts = _groups(len(steps))
    draw_decades(ax, np.fmax.reduceat(norms, starts), names, steps[starts])


def _loss(ax: Any, history):
    values = history.value
    ax.set_yscale("log" if np.nanmin(_finite(values)) > 0 else "linear")
    _curve(ax, history.steps, values, "loss", drawing.colour(0))
    _name(ax, "loss", "loss")


def _norms(ax: Any, history):
    """The global norm, and the layers with the largest shares of it."""
    ax.set_yscale("log")
    steps, norms = history.steps, history["gradient_norm"]
    with np.errstate(invalid="ignore"):
        weight = np.nansum(np.where(np.isfinite(norms), history["share"], 0), axis=0)
    order = [i for i in np.argsort(-np.nan_to_num(weight)) if np.any(norms[:, i] > 0)]
    _curve(ax, steps, history.global_norm, "all layers", drawing.ink(), linewidth=2)
    for place, i in enumerate(order[:_FEW_LAYERS]):
        name = drawing.label(history.names[i])
        _curve(ax, steps, norms[:, i], name, drawing.colour(place))
    title = "norm of the gradient"
    if np.isfinite(norms).all(axis=1).sum() >= LEAST:
        found = history.attribute()
        if found.norm.grows:
            ax.axvline(found.norm.since, color=drawing.ink(), linestyle=":")
            names = [drawing.label(one.layer) for one in found.drivers[:3]]
            by = ", ".join(names) or "no layer alone"
            title += f"\ngrows since step {found.norm.since}, driven by {by}"
        else:
            title += "\ndoes not grow beyond its noise"
    _name(ax, "norm", title)


def _extremes(ax: Any, history):
    """The ends of gains and of update ratios over the layers."""
    ax.set_yscale("log")
    for place, name in enumerate(_EXTREMES):
        values = history[name]
        if _positive(values):
            style = "--" if name.startswith("smallest") else "-"
            words = name.replace("_", " ")
            colour = drawing.colour(place // 2)
            _curve(ax, history.steps, values, words, colour, linestyle=style)
    ax.axhline(1, color=drawing.ink(), linewidth=0.5)
    _name(ax, "ratio", "gains of layers, and lengths of updates")


_EXTREMES = (
    "largest_gain",
    "smallest_gain",
    "largest_update_ratio",
    "smallest_update_ratio",
)
_KINDS = {
    "map": (_map, lambda history: _positive(history["gradient_norm"])),
    "loss": (_loss, lambda history: np.isfinite(history.value).any()),
    "norms": (_norms, lambda history: _positive(history["gradient_norm"])),
    "extremes": (
        _extremes,
        lambda history: any(_positive(history[name]) for name in _EXTREMES),
    ),
}


def _positive(values):
    return bool(np.any(np.isfinite(values) & (values > 0)))


def _finite(values):
    return np.where(np.isfinite(values), values, np.nan)


def _groups(num):
    """Where groups of steps begin."""
    return np.arange(0, num, -(-num // _MOST_STEPS))


def _curve(ax: Any, steps, values, words, colour, **style):
    """A curve; of many steps the medians of groups, and between their ends a band."""
    values = _finite(values)
    starts = _groups(len(steps))
    if len(starts) == len(steps):
        ax.plot(steps, values, color=colour, label=words, **style)
        return
    ends = [np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)]
    parts = np.split(values, starts[1:])
    middle = [
        np.median(known) if len(known := part[np.isfinite(part)]) else np.nan
        for part in parts
    ]
    ax.fill_between(steps[starts], *ends, color=colour, alpha=0.3, linewidth=0)
    ax.plot(steps[starts], middle, color=colour, label=words, **style)


def _name(ax: Any, size, title):
    ax.set(xlabel="step", ylabel=size)
    ax.set_title(title, fontsize="medium")
    drawing.add_legend(ax)
