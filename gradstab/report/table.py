"""The report as tables in a terminal or a notebook."""

import io

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

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
    for recurrence in report.recurrences:
        console.print()
        console.print(_recurrence(recurrence))
    console.print()
    notes = {layer.note: layer.name for layer in reversed(report.layers) if layer.note}
    for note, name in notes.items():
        console.print(Text(f"{name}: {note}", style="dim"))
    colour = COLOURS[report.verdict]
    line = Text.assemble("verdict: ", (report.verdict, colour))
    console.print(line)
    for reason in report.reasons:
        console.print(Text(f"  {reason}"))


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
        title=f"{len(report.layers)} layers, {report.made.get('precision', '')}",
        caption="sv: singular values of the layer's Jacobian",
    )
    table.add_column("layer", overflow="fold")
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for row in _with_gap(report.layers):
        table.add_row(
            *(["..."] * (1 + len(_COLUMNS)) if row is None else _layer_row(row))
        )
    return table


def _layer_row(layer):
    jacobian = layer.jacobian
    return (
        Text(layer.name + (" *" if layer.coupled else "")),
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
