"""The report as tables in a terminal or a notebook."""

import io

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradstab.report.names import shared_prefix

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


def show(report, console=None, /) -> None:
    """Print verdict and tables to a rich console (standard output by default)."""
    console = console or Console()
    # A narrow screen needs every character for the numbers.
    console.print(_layers(report, padding=(0, 0, 0, int(console.width >= 80))))
    for view in _views(report):
        console.print()
        console.print(view)
    console.print()
    notes = {layer.note: layer.name for layer in reversed(report.layers) if layer.note}
    for note, name in notes.items():
        console.print(Text(f"{name}: {note}", style="dim"))
    for recurrence in report.recurrences:
        if recurrence.note:
            line = f"{recurrence.name}: {recurrence.note}"
            console.print(Text(line, style="dim"))
    for note in report.notes:
        console.print(Text(note, style="dim"))
    colour = COLOURS[report.verdict]
    line = Text.assemble("verdict: ", (report.verdict, colour))
    console.print(line)
    for reason in report.reasons:
        console.print(Text(f"  {reason}"))


def _views(report):
    """The tables that some reports have."""
    for recurrence in report.recurrences:
        yield _recurrence(recurrence)
        if _near(recurrence.ranges):
            yield _ranges(recurrence.ranges, "steps")
    if report.theory is not None:
        yield _theory(report.theory, [layer.forward_rms for layer in report.layers])
    if report.exponents is not None:
        yield _exponents(report.exponents)
    if _near(report.ranges):
        yield _ranges(report.ranges, "layers")


def html(report, /) -> str:
    """The same as HTML, for notebooks."""
    console = Console(record=True, width=140, file=io.StringIO())
    show(report, console)
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def _layers(report, *, padding):
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=padding,
        show_edge=False,
        title=_title(report),
        caption="sv: singular values of the layer's Jacobian",
    )
    table.add_column("layer", overflow="fold")
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    prefix = shared_prefix([layer.name for layer in report.layers])
    for row in _with_gap(report.layers):
        table.add_row(
            *(["..."] * (1 + len(_COLUMNS)) if row is None else _layer_row(row, prefix))
        )
    return table


def _title(report):
    """How many layers, in which precision, and where all of them lie."""
    names = [layer.name for layer in report.layers]
    number = f"{len(names)} layers" if len(names) > 1 else "one layer"
    within = shared_prefix(names).rstrip("./~")
    place = f" of {within}" if within else ""
    return f"{number}{place}, {report.made.get('precision', '')}"


def _layer_row(layer, prefix):
    jacobian = layer.jacobian
    return (
        Text(layer.name.removeprefix(prefix) + (" *" if layer.coupled else "")),
        _number(layer.forward_rms),
        _percent(layer.saturated_fraction),
        _percent(layer.dead_fraction),
        _number(np.median(layer.gradient_norm)),
        _number(layer.param_gradient_norm),
        _number(jacobian and jacobian.largest.mean),
        _number(jacobian and np.sqrt(jacobian.mean_square.mean)),
    )


def _recurrence(recurrence):
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        title=Text(f"{recurrence.name} along time, state of {recurrence.state_size}"),
        caption=_lyapunov(recurrence),
    )
    table.add_column("step")
    for column in ("state rms", "gradient", "largest sv", "rms sv"):
        table.add_column(column, justify="right", no_wrap=True)
    steps = len(recurrence.state_rms)
    spectra = dict(zip(recurrence.jacobian_steps, recurrence.jacobians, strict=True))
    known = sorted(spectra) or range(steps)
    shown = [
        known[int(i)] for i in np.unique(np.linspace(0, len(known) - 1, 11).round())
    ]
    for step in shown:
        jacobian = spectra.get(step)
        table.add_row(
            str(step),
            _number(recurrence.state_rms[step]),
            _number(np.median(recurrence.gradient_norms[step])),
            _number(jacobian and jacobian.largest.mean),
            _number(jacobian and np.sqrt(jacobian.mean_square.mean)),
        )
    return table


def _lyapunov(recurrence):
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


def _theory(theory, rms):
    """Measurement, theory, and the standard errors between them."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        title="mean-field theory beside the measurement",
        caption="factor: by which a gradient's norm changes on its way back through "
        "the layer; z: measurement minus theory, in standard errors",
    )
    table.add_column("layer", overflow="fold")
    for column in ("rms", "theory", "z", "factor", "theory", "z"):
        table.add_column(column, justify="right", no_wrap=True)
    columns = (
        rms,
        theory.forward_rms,
        theory.forward_z,
        theory.measured_gradient_factor,
        theory.gradient_factor,
        theory.gradient_z,
    )
    known = np.flatnonzero(np.isfinite(theory.gradient_factor))
    for row in _with_gap(tuple(known)):
        if row is None:
            table.add_row(*["..."] * 7)
            continue
        numbers = [_number(column[row]) for column in columns]
        numbers[2], numbers[5] = (f"{columns[i][row]:+.1f}" for i in (2, 5))
        table.add_row(Text(theory.names[row]), *numbers)
    return table


def _exponents(exponents):
    """The course of the exponents from the largest to the smallest."""
    mean = np.mean(exponents, axis=0)
    shown = np.unique(np.linspace(0, len(mean) - 1, 5).round().astype(int))
    numbers = ", ".join(f"{place + 1}: {_number(mean[place])}" for place in shown)
    title = "growth exponents of the Jacobian from input to output, per layer"
    return Text(f"{title} (by rank)\n  {numbers}")


def _near(ranges):
    return any(found.depth <= _FARTHEST for found in ranges)


def _ranges(ranges, unit):
    """Where each dtype ends, in the network or beyond it."""
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        title="where the range of a dtype ends",
        caption=f"a number of {unit}: beyond the network, by the law of growth",
    )
    for column in ("dtype", "signal", "gradient"):
        table.add_column(column)
    cells: dict[str, dict[str, str]] = {}
    for found in ranges:
        cells.setdefault(found.dtype, {})[found.direction] = _end(found, unit)
    for dtype, cell in cells.items():
        table.add_row(dtype, Text(cell["forward"]), Text(cell["backward"]))
    return table


def _end(found, unit):
    if found.depth > _FARTHEST:
        return "-"
    where = found.layer or f"{found.depth:.0f} {unit}"
    if found.layer and unit == "steps":
        where = f"step {found.layer}"
    return f"{where} ({found.end})"


def _with_gap(layers):
    if len(layers) <= _MOST_ROWS:
        return layers
    half = _MOST_ROWS // 2
    return (*layers[:half], None, *layers[-half:])


def _number(value):
    if value is None or np.isnan(value):
        return "-"
    if value == 0:
        return "0"
    if 1e3 <= abs(value) < 1e4:
        return f"{value:.0f}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e3 else f"{value:.1e}"


def _percent(value):
    return "-" if np.isnan(value) else f"{100 * value:.0f} %"
