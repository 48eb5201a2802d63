"""The three findings beside each other: the picture of a page of a few words."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from gradstab import _drawing as drawing
from gradstab.demo.cases import Case
from gradstab.demo.diverging import Run
from gradstab.gradcheck import GradCheck
from gradstab.report import Report

_SIZE = (9.0, 3.4)  # 900 pixels wide at 100 to an inch
_BLUE, _RED = drawing.COLOURS[:2]
_GREY = "0.45"
_LEAST = 1e-13  # of an axis of relative differences in float64
_WRONG = 1e-3  # what a typical difference from a right rule is not above
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": _GREY,
    "axes.edgecolor": "0.7",
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
}


def overview(cases: Iterable[Case], /):
    """A panel for each case, on white, to be read at a width of 900 pixels.

    Args:
        cases: as many as there shall be panels.

    Returns:
        The `matplotlib.figure.Figure`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    cases = list(cases)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own style is
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=_SIZE, dpi=200, layout="constrained")
        axes = figure.subplots(1, len(cases), squeeze=False)[0]
        for ax, case in zip(axes, cases, strict=True):
            _PANELS[type(case.result)](ax, case.result)
    return figure


def _network(ax: Any, report: Report):
    """The gradient at the output of every layer, and the law that it follows."""
    norms = np.array([np.median(layer.gradient_norm) for layer in report.layers])
    depth, growth = np.arange(1, len(norms) + 1), report.growth.backward
    ax.set_yscale("log")
    ax.plot(depth, norms, "o", color=_RED)
    said = f"the gradient: {growth.law}"
    if growth.law == "exponential":
        names = [layer.name for layer in report.layers]
        rows = depth[[name in growth.layers for name in names]]
        start = np.median(np.log(norms[rows - 1]) - growth.rate * rows)
        ax.plot(rows, np.exp(start + growth.rate * rows), "--", color=_RED, zorder=0)
        said = f"the gradient: a factor {math.exp(-growth.rate):.3g} per layer"
    ax.set(xlabel="layer, from the input", ylabel="norm of the gradient")
    ax.xaxis.get_major_locator().set_params(integer=True)
    _head(ax, f"analyze: {report.verdict}", said)


def _rule(ax: Any, result: GradCheck):
    """By how much rule and differences disagree, as the differences get better."""
    wrong = {one.leaf for one in result.findings if one.differs}
    ax.set(xscale="log", yscale="log")
    for curve in result.curves:
        color = _RED if curve.leaf in wrong else _BLUE
        steps = np.array(curve.steps)
        values = np.clip(curve.residuals, _LEAST, None)
        ax.plot(steps, values, "o-", color=color)
        place = math.sqrt(steps[0] * steps[-1])
        words = f"{curve.leaf}: {'wrong' if curve.leaf in wrong else 'right'}"
        # Below a line that stays, and in the arms of one that falls and rises again.
        below = np.median(values) > _WRONG
        at = values.max() / 6 if below else math.sqrt(values.min() * values.max())
        ax.text(place, at, words, color=color, ha="center", va="top")
    ax.set(xlabel="step of the differences", ylabel="differences minus rule")
    hints = [one.hint.partition(",")[0] for one in result.locations if one.hint]
    said = (
        f"{result.locations[0].leaf}: {hints[0]}"
        if hints
        else f"resolution {result.resolution:.0e}"
    )
    _head(ax, f"check: {result.verdict.value}", said)


def _run(ax: Any, run: Run):
    """The loss and the gradient up to the alarm, and the loss that nobody stops."""
    from matplotlib.ticker import LogLocator, NullLocator

    history, end = run.history, len(run.history)
    losses, steps = run.losses, np.arange(1, len(run.losses) + 1)
    ax.set_yscale("log")
    ax.plot(steps[:end], losses[:end], color=_BLUE)
    ax.plot(steps[end - 1 :], losses[end - 1 :], ":", color=_BLUE)
    ax.plot(history.steps, history.global_norm, color=_RED)
    part = end // 4
    for values, what, color, side in (
        (losses, "loss", _BLUE, 1.15),
        (history.global_norm, "gradient", _RED, 0.8),
    ):
        edge = np.max if side > 1 else np.min
        high = side * edge(values[part - part // 2 : part + part // 2])
        align = "bottom" if side > 1 else "top"
        ax.text(part, high, what, color=color, ha="left", va=align)
    if run.alarms:
        ax.axvline(end, color=_GREY, linewidth=0.8, zorder=0)
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter("{x:g}")
    grows, drivers = run.attribution.norm, run.attribution.drivers
    by = f", by {drivers[0].layer}" if drivers else ""
    said = f"growth since step {grows.since}{by}" if grows.grows else "no growth"
    ax.set(xlabel="step", ylabel="loss, norm of the gradient")
    _head(ax, f"watch: alarm at step {end}" if run.alarms else "watch: no alarm", said)


_PANELS = {Report: _network, GradCheck: _rule, Run: _run}


def _head(ax: Any, verdict: str, said: str):
    """The verdict, and below it what is said."""
    ax.set_title(f"{verdict}\n", loc="left", fontweight="bold", fontsize=11)
    ax.text(0, 1.03, said, transform=ax.transAxes, fontsize=8.5, color=_GREY)
