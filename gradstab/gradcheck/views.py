"""A check as tables in a terminal or a notebook, as a plot, and as JSON values."""

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from gradstab import _console, _json
from gradstab import _drawing as drawing
from gradstab._console import text
from gradstab.errors import kind
from gradstab.gradcheck.states import Outcome

COLOURS = {"PASS": "green", "FAIL": "bold red", "INCONCLUSIVE": "yellow"}
_STATES = {Outcome.AGREES: "green", Outcome.DIFFERS: "bold red"}
_ERROR = "magenta"

_MARKERS = "osv^Dx"
# Heads of columns of numbers.
_NUMBERS = ("error", "noise", "resolution", "asked for", "evals", "value")


def show(result, console: Console | None = None, /) -> None:
    """Prints a `GradCheck` to a rich console: standard output by default."""
    console = _console.terminal(console)
    colour = COLOURS[result.verdict.value]
    reason = f": {result.reason}" if result.reason else ""
    line = text(f"{result.verdict.value}{reason}")
    line.stylize(colour, 0, len(result.verdict.value))
    console.print(line)
    for place in result.locations:
        console.print(text(str(place)))
    for made in (_findings(result), _identities(result)):
        if made.row_count:
            console.print(made)
    console.print(
        f"resolution {result.resolution:.1e}, asked for {result.rtol:.1e}; "
        f"{result.precision}, {result.evaluations} evaluations, seed {result.seed}",
        highlight=False,
    )
    if result.figures is not None:
        console.print(_figures(result.figures))
    for where, answer in result.moved:
        console.print(text(f"moved {where}: {answer}", style="dim"))
    for note in result.notes:
        console.print(text(f"note: {note}", style="dim"))


def html(result, /) -> str:
    """The same as HTML, for notebooks."""
    return _console.html(lambda console: show(result, console))


def show_audit(audit, console: Console | None = None, /) -> None:
    """Prints an `Audit` to a rich console: standard output by default."""
    console = _console.terminal(console)
    for line in str(audit).splitlines():
        words = text(line)
        for verdict, colour in COLOURS.items():
            words.highlight_regex(rf"^ *{verdict}\b", style=colour)
        console.print(words)


def audit_html(audit, /) -> str:
    """The same as HTML, for notebooks."""
    return _console.html(lambda console: show_audit(audit, console))


def table(results: Mapping[str, Any], /) -> Table:
    """A row for each of several checks.

    Args:
        results: each a `GradCheck`, or the exception that it raised, by name.
    """
    made = _table("case", "verdict", "resolution", "asked for", "precision", "evals")
    for name, result in results.items():
        if isinstance(result, BaseException):
            made.add_row(text(name), text("ERROR", style=_ERROR), *"----")
            continue
        made.add_row(
            text(name),
            text(result.verdict.value, style=COLOURS[result.verdict.value]),
            f"{result.resolution:.1e}",
            f"{result.rtol:.1e}",
            result.precision,
            str(result.evaluations),
        )
    return made


def raised(error: BaseException, /) -> str:
    """An exception in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = f": {lines[0]}" if lines else ""
    return f"raised {kind(error)}{reason}"


def plot(result, /, *, ax: Any = None):
    """Draws by how much differences and rules disagree, against the step.

    A right rule falls like a power of the step (truncation) until it rises like its
    inverse (rounding); a wrong one stops falling at the error that it makes.

    Args:
        result: a `GradCheck`.
        ax: matplotlib axes to draw on; by default those of a new figure.

    Returns:
        The matplotlib figure: a curve for each argument and mode (of the first six),
        what rounding may be below it, and the resolution.
    """
    ax = drawing.canvas(ax)
    ax.set(xscale="log", yscale="log")
    for place, (curve, marker) in enumerate(zip(result.curves, _MARKERS, strict=False)):
        color = drawing.colour(place)
        label = f"{drawing.label(curve.leaf)} ({curve.mode})"
        style = {"marker": marker, "markersize": 4, "color": color, "label": label}
        ax.plot(curve.steps, curve.residuals, **style)
        shade = {"alpha": 0.2, "color": color, "linewidth": 0}
        ax.fill_between(curve.steps, 0, curve.bars, **shade)
    if 0 < result.resolution < math.inf:
        style = {"color": drawing.ink(), "linestyle": ":", "label": "resolution"}
        ax.axhline(result.resolution, **style)
    ax.set_xlabel("step, in units of the argument")
    ax.set_ylabel("differences minus rule, relative")
    shown = len(_MARKERS) if len(result.curves) > len(_MARKERS) else None
    of = f"\n{shown} of {len(result.curves)} curves" if shown else ""
    title = f"{result.verdict.value} ({result.precision}); shaded: rounding{of}"
    ax.set_title(title, fontsize="medium")
    drawing.add_legend(ax)
    return ax.figure


def as_json(record) -> Any:
    """A `GradCheck` or any part of it as JSON values.

    Numbers that JSON lacks are the strings NaN, Infinity and -Infinity; complex ones
    have a ``real`` and an ``imag``.
    """
    return _json.encoded(record)


def _findings(result):
    made = _table("argument", "mode", "error", "noise", "resolution", "oracle", "state")
    for g in result.findings:
        zero = " of f's size" if g.absolute else ""
        made.add_row(
            text(g.leaf),
            g.mode,
            f"{g.error:.1e}",
            f"{g.bar:.1e}",
            f"{g.resolution:.1e}{zero}",
            text(g.oracle if g.point == "as given" else f"{g.oracle}, {g.point}"),
            text(g.state, style=_style(g.state)),
        )
    return made


def _figures(figures):
    made = _table("textbook figure", "value", "band")
    made.add_row("norm ratio", f"{figures.ratio:.1e}", figures.ratio_band or "-")
    error, band = f"{figures.worst_error:.1e}", figures.error_band or "-"
    made.add_row("worst relative error", error, band)
    return made


def _identities(result):
    made = _table("law", "argument", "error", "rounding", "holds")
    for law in result.identities:
        made.add_row(
            text(law.name),
            text(law.leaf),
            f"{law.error:.1e}",
            f"{law.bar:.1e}",
            text("yes") if law.holds else text(f"no: {law.detail}", style="bold red"),
        )
    return made


def _style(state: Any):
    return _STATES.get(state, "yellow")


def _table(*columns):
    return _console.table(*columns, right=_NUMBERS)
