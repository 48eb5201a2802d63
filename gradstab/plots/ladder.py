"""The ladder of growth exponents."""

from typing import Any

from gradstab import _drawing as drawing
from gradstab.errors import UserValueError
from gradstab.report import Report, panels


def exponents(report: Report, /, *, rate: float | None = None, ax: Any = None):
    """The ladder of growth exponents of the input-output Jacobian, by rank.

    Beside it the mean logarithm per layer of the factor by which the gradient's norm
    changes: as it was measured, and as theory has it.

    Args:
        report: a `gradstab.Report` with exponents.
        rate: what theory says of the gradient's norm, per layer; by default the
            report's own theory, if it has one for every layer.
        ax: matplotlib axes to draw on; by default a new figure.

    Returns:
        A figure: mean and range over the examples; zero neither shrinks nor grows.
        Directions that are lost altogether are counted in the title.

    Raises:
        ValueError: if the report has no exponents.
    """
    if report.exponents is None:
        raise UserValueError("the report has no exponents; its notes say why")
    ax = drawing.canvas(ax)
    panels.exponents(ax, report, rate=rate)
    return ax.figure
