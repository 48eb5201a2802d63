"""A coordinate check as tables in a terminal or a notebook."""

import collections
from typing import Any

from gradstab import _console
from gradstab._console import text
from gradstab.scaling import blocks
from gradstab.scaling.causes import Cause
from gradstab.scaling.slopes import Slope, Trend

_STYLES = {Trend.GROWS: "bold red", Trend.SHRINKS: "yellow", Trend.FLAT: "green"}
# Of deep models the ends.
_MOST_ROWS = 40


def show(transfer: Any, console: Any = None, /) -> None:
    """Print slopes, verdicts and causes to a rich console."""
    console = _console.terminal(console)
    console.print(_layers(transfer))
    if transfer.vary == "width":
        console.print(_parameters(transfer))
    for sentence in sentences(transfer):
        console.print(text(sentence))


def _layers(transfer: Any) -> Any:
    sizes = ", ".join(map(str, transfer.sizes))
    steps = f"{transfer.num_steps} step{'s' * (transfer.num_steps != 1)}"
    title = (
        f"exponents of {transfer.vary} ({sizes}) after {steps}, "
        f"{transfer.num_seeds} seed{'s' * (transfer.num_seeds != 1)}"
    )
    heads = ("activation", "its update", "gradient")
    table = _console.table("layer", *heads, "verdict", right=heads, title=text(title))
    for layer in _ends(transfer.layers):
        if layer is None:
            table.add_row(*["..."] * 5)
            continue
        cells = (layer.activation, layer.update, layer.gradient)
        verdict = text(str(layer.verdict), style=_STYLES.get(layer.verdict, ""))
        table.add_row(_name(layer.name), *map(_cell, cells), verdict)
    return table


def _parameters(transfer: Any) -> Any:
    heads = ("initial\ngain", "effect of\nits update")
    table = _console.table("parameter", "role", *heads, "verdict", right=heads)
    for row in _ends(transfer.parameters):
        if row is None:
            table.add_row(*["..."] * 5)
            continue
        verdict = text(str(row.verdict), style=_STYLES.get(row.verdict, ""))
        cells = (_cell(row.gain), _cell(row.own), verdict)
        table.add_row(_name(row.name), text(str(row.role)), *cells)
    return table


def _ends(rows: tuple) -> list:
    if len(rows) <= _MOST_ROWS:
        return list(rows)
    half = _MOST_ROWS // 2
    return [*rows[:half], None, *rows[-half:]]


def _name(name: str) -> Any:
    """A name, all of it: two parameters may differ at its end alone."""
    shown = text(name)
    shown.overflow = "fold"
    return shown


def _cell(slope: Slope) -> Any:
    return text(str(slope))


def sentences(transfer: Any, /) -> list[str]:
    """What a coordinate check says, in words."""
    return [
        _verdict(transfer),
        *_schemes(transfer),
        *_causes(transfer),
        *transfer.notes,
    ]


def _verdict(transfer: Any) -> str:
    names = collections.defaultdict(list)
    for layer in transfer.layers:
        names[layer.verdict].append(layer.name)
    worst = transfer.verdict
    if worst is Trend.FLAT:
        return (
            f"flat: every layer keeps its size, and its updates theirs, as the "
            f"{transfer.vary} grows"
        )
    where = _few(names[worst])
    if worst is Trend.UNKNOWN:
        needed = transfer.seeds_needed
        more = f"; {needed} seeds would probably settle it" if needed else ""
        return f"cannot tell: the errors are too large in {where}{more}"
    return f"{worst}: {where} as the {transfer.vary} grows"


def _schemes(transfer: Any) -> list[str]:
    if transfer.vary == "depth":
        return blocks.sentences(transfer.blocks, transfer.schemes)
    if transfer.vary != "width":
        return []
    by_scheme = collections.defaultdict(list)
    for scheme, optimizer in transfer.schemes:
        by_scheme[scheme].append(optimizer)
    if not by_scheme:
        return ["the slopes after the first step are those of no parametrisation known"]
    said = [f"{name} ({', '.join(of)})" for name, of in by_scheme.items()]
    return [f"the slopes after the first step are those of {', '.join(said)}"]


def _causes(transfer: Any) -> list[str]:
    """The causes; those of one kind, of which there may be many, in one sentence."""
    kinds = collections.defaultdict(list)
    for cause in transfer.causes:
        kinds[cause.role, cause.what, cause.multiplier].append(cause)
    return [_cause(found) for found in kinds.values()]


def _cause(found: list[Cause]) -> str:
    first, *others = found
    if not others:
        return str(first)
    names = _few([cause.name for cause in found])
    slopes = [cause.slope.value for cause in found]
    return (
        f"{len(found)} {first.role} parameters ({names}): {_effects(first)} as "
        f"width^{min(slopes):+.2f} to width^{max(slopes):+.2f}; multiply their "
        f"{first.what} by width^{first.multiplier:g}"
    )


def _effects(cause: Cause) -> str:
    """What it is of several parameters, with its verb."""
    if cause.what == "initial values":
        return "what each makes of the data goes"
    return "what their updates do to the data goes"


def _few(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown
