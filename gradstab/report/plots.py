"""The report as a figure: a panel for each question, any of them on axes of yours."""

from typing import Any

import numpy as np

from gradstab import _drawing as drawing
from gradstab.errors import UserValueError
from gradstab.report import panels

KINDS = {
    "signals": panels.signals,
    "jacobians": panels.jacobians,
    "exponents": panels.exponents,
    "units": panels.units,
    "time": panels.time,
    "lyapunov": panels.lyapunov,
}

_HAS = {
    "signals": lambda report: bool(report.layers),
    "jacobians": lambda report: any(x.jacobian is not None for x in report.layers),
    "exponents": lambda report: report.exponents is not None,
    "units": lambda report: bool(report.layers),
    "time": lambda report: bool(report.recurrences),
    "lyapunov": lambda report: any(np.size(x.exponents) for x in report.recurrences),
}


def plot(report, /, *, kind: str | None = None, ax: Any = None):
    """Signals, singular values, exponents, units, and what happens along time.

    Args:
        report: the report.
        kind: the panel to draw, one of `KINDS`; by default all that the report has
            something for, or the signals if axes are given.
        ax: matplotlib axes for one panel; by default a new figure.

    Returns:
        The `matplotlib.figure.Figure`; save it with `savefig`.

    Raises:
        ValueError: if there is no such panel, or nothing to draw in it.
    """
    kinds = [name for name, has in _HAS.items() if has(report)]
    if ax is not None or kind is not None:
        kind = kind or "signals"
        if kind not in kinds:
            raise UserValueError(
                f"kind is {kind!r}; this report has panels for: {', '.join(kinds)}"
            )
        ax = drawing.canvas(ax)
        KINDS[kind](ax, report)
        return ax.figure
    title = f"{_number(report)}: {report.verdict}"
    if not any(share.any() for share in panels.shares(report).values()):
        kinds.remove("units")
        title = f"{title}\n{panels.without(report)}"
    axes = drawing.new_axes(len(kinds), size=(6.4, 4.2), columns=min(2, len(kinds)))
    for name, panel in zip(kinds, axes, strict=True):
        KINDS[name](panel, report)
    axes[0].figure.suptitle(title)
    return axes[0].figure


def _number(report) -> str:
    num = len(report.layers)
    return f"{num} layers" if num != 1 else "one layer"
