"""The report as tables in a terminal or a notebook."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from rich.console import Console, Group
from rich.table import Table

from gradstab import _console
from gradstab._console import text
from gradstab.records import Layer, Prediction, Range, Recurrence
from gradstab.report.columns import beside_names
from gradstab.report.names import shared_prefix

T = TypeVar("T")

COLOURS = {
    "stable": "green",
    "critical": "cyan",
    "vanishing": "yellow",
    "exploding": "red",
    "broken": "bold red",
    "unknown": "magenta",
}

# Deep networks: the ends tell the story, the JSON file holds the rest.
_MOST_ROWS = 64

# A law that was fitted to some ten layers says nothing about more than this.
_FARTHEST = 1000

# Heads no wider than the numbers, so that eight columns fit into sixty characters.
_COLUMNS = (
    "forward\nrms",
    "satu-\nrated",
    "dead\nunits",
    "grad.\nnorm",
    "param.\ngrad.",
    "largest\nsv",
    "rms\nsv",
)


def show(report, console: Console | None = None, /) -> None:
    """Print verdict and tables to a rich console (standard output by default)."""
    console = _console.terminal(console)
    for place, view in enumerate(_views(report, console.width)):
        if place:
            console.print()
        console.print(view)
    console.print()
    notes = {layer.note: layer.name for layer in reversed(report.layers) if layer.note}
    for note, name in notes.items():
        console.print(text(f"{name}: {note}", style="dim"))
    for recurrence in report.recurrences:
        if recurrence.note:
            line = f"{recurrence.name}: {recurrence.note}"
            console.print(text(line, style="dim"))
    for note in report.notes:
        console.print(text(note, style="dim"))
    line = text(f"verdict: {report.verdict}")
    line.stylize(COLOURS.get(report.verdict, ""), len("verdict: "))
    console.print(line)
    for reason in report.reasons:
        console.print(text(f"  {reason}"))


def html(report, /) -> str:
    """The same as HTML, for notebooks."""
    return _console.html(lambda console: show(report, console))


def _views(report, width: int) -> Iterator[Table | Group]:
    """The tables, of which some reports have more."""
    yield from _layers(report, width)
    for recurrence in report.recurrences:
        yield from _recurrence(recurrence, width)
        if _near(recurrence.ranges):
            yield _ranges(recurrence.ranges, "steps")
    if report.theory is not None:
        rms = [layer.forward_rms for layer in report.layers]
        yield from _theory(report.theory, rms, width)
    if report.exponents is not None:
        yield _exponents(report.exponents)
    if _near(report.ranges):
        yield _ranges(report.ranges, "layers")


def _layers(report, width: int) -> Iterator[Table]:
    prefix = shared_prefix([layer.name for layer in report.layers])
    with_loss = not all(np.isnan(layer.param_gradient_norm) for layer in report.layers)
    return beside_names(
        ("layer", *_COLUMNS),
        [
            row and _layer_row(row, prefix, with_loss)
            for row in _with_gap(report.layers)
        ],
        width,
        title=_title(report),
        caption="sv: singular values of the layer's Jacobian",
    )


def _title(report) -> str:
    """How many layers, in which precision, and where all of them lie."""
    names = [layer.name for layer in report.layers]
    number = f"{len(names)} layers" if len(names) > 1 else "one layer"
    within = shared_prefix(names).rstrip("./~")
    place = f" of {within}" if within else ""
    return f"{number}{place}, {report.made.get('precision', '')}"


def _layer_row(layer: Layer, prefix: str, with_loss: bool) -> tuple[str, ...]:
    jacobian = layer.jacobian
    gradient = float(np.median(layer.gradient_norm))
    by_example = np.isfinite(gradient) or not np.isfinite(layer.gradient_rms)
    of_loss = with_loss or np.isnan(layer.gradient_rms)
    return (
        layer.name.removeprefix(prefix) + (" *" if layer.coupled else ""),
        _number(layer.forward_rms),
        _percent(layer.saturated_fraction),
        _percent(layer.dead_fraction),
        _number(gradient if by_example else None),
        _number(layer.param_gradient_norm if of_loss else None),
        _number(jacobian and jacobian.largest.mean),
        _number(jacobian and jacobian.root_mean_square.root_mean_square),
    )


def _recurrence(recurrence: Recurrence, width: int) -> Iterator[Table]:
    steps = len(recurrence.state_rms)
    spectra = dict(zip(recurrence.jacobian_steps, recurrence.jacobians, strict=True))
    known = sorted(spectra) or range(steps)
    shown = [
        known[int(i)] for i in np.unique(np.linspace(0, len(known) - 1, 11).round())
    ]
    rows = []
    for step in shown:
        jacobian = spectra.get(step)
        rows.append(
            (
                str(step),
                _number(recurrence.state_rms[step]),
                _number(np.median(recurrence.gradient_norms[step])),
                _number(jacobian and jacobian.largest.mean),
                _number(jacobian and jacobian.root_mean_square.root_mean_square),
            )
        )
    return beside_names(
        ("step", "state rms", "gradient", "largest sv", "rms sv"),
        rows,
        width,
        title=f"{recurrence.name} along time, state of {recurrence.state_size}",
        caption=_lyapunov(recurrence),
    )


def _lyapunov(recurrence: Recurrence) -> str | None:
    """The range of the Lyapunov exponents and their errors; None if there are none."""
    if not recurrence.exponents.size:
        return None
    columns = (recurrence.exponents, recurrence.exponents_error)
    ends = (
        [np.median(column[:, place]) for column in columns]
        for place in sorted({0, recurrence.exponents.shape[1] - 1})
    )
    numbers = " .. ".join(
        f"{value:+.3g}" + ("" if np.isnan(error) else f" ± {error:.2g}")
        for value, error in ends
    )
    unknown = np.isnan(recurrence.exponents_error[:, 0]).all()
    without = ", too few for an error" if unknown else ""
    return f"Lyapunov exponents {numbers} per time step{without}"


def _theory(theory: Prediction, rms: list[float], width: int) -> Iterator[Table]:
    """Measurement, theory, and the standard errors between them."""
    rows = []
    for row in _with_gap(tuple(np.flatnonzero(np.isfinite(theory.gradient_factor)))):
        if row is None:
            rows.append(None)
            continue
        length = theory.forward_rms[row]
        has_length = not np.isnan(length)
        rows.append(
            (
                theory.names[row],
                _number(rms[row]),
                _number(length if has_length else None),
                f"{theory.forward_z[row]:+.1f}" if has_length else "-",
                _number(theory.measured_gradient_factor[row]),
                _number(theory.gradient_factor[row]),
                f"{theory.gradient_z[row]:+.1f}",
            )
        )
    return beside_names(
        ("layer", "rms", "theory", "z", "factor", "theory", "z"),
        rows,
        width,
        title="mean-field theory beside the measurement",
        caption="factor: by which a gradient's norm changes on its way back through "
        "the layer; z: measurement minus theory, in standard errors",
    )


def _exponents(exponents: np.ndarray) -> Group:
    """The course of the exponents from the largest to the smallest."""
    mean = np.mean(exponents, axis=0)
    shown = np.unique(np.linspace(0, len(mean) - 1, 5).round().astype(int))
    numbers = ", ".join(f"{place + 1}: {_number(mean[place])}" for place in shown)
    title = "growth exponents of the Jacobian from input to output, per layer"
    return Group(text(f"{title} (by rank)"), text(f"  {numbers}"))


def _near(ranges: Sequence[Range]) -> bool:
    return any(found.depth <= _FARTHEST for found in ranges)


def _ranges(ranges: Sequence[Range], unit: str) -> Table:
    """Where each dtype ends, in the network or beyond it."""
    table = _console.table(
        "dtype",
        "signal",
        "gradient",
        title="where the range of a dtype ends",
        caption=f"a number of {unit}: beyond the network, by the law of growth",
    )
    cells: dict[str, dict[str, str]] = {}
    for found in ranges:
        cells.setdefault(found.dtype, {})[found.direction] = _end(found, unit)
    for dtype, cell in cells.items():
        table.add_row(dtype, text(cell["forward"]), text(cell["backward"]))
    return table


def _end(found: Range, unit: str) -> str:
    if found.depth > _FARTHEST:
        return "-"
    where = found.layer or f"{found.depth:.0f} {unit}"
    if found.layer and unit == "steps":
        where = f"step {found.layer}"
    return f"{where} ({found.end})"


def _with_gap(layers: Sequence[T]) -> Sequence[T | None]:
    if len(layers) <= _MOST_ROWS:
        return layers
    half = _MOST_ROWS // 2
    return (*layers[:half], None, *layers[-half:])


def _number(value: float | np.floating | None) -> str:
    """A few digits; a dash for what was not computed, while NaN is a result."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if 1e3 <= abs(value) < 1e4:
        return f"{value:.0f}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.1e}"


def _percent(value: float) -> str:
    # A share is NaN where there is nothing to have a share of.
    return "-" if np.isnan(value) else f"{100 * value:.0f} %"
