"""A comparison of gradients as a table, and in sentences; not for users."""

import numpy as np

from gradstab import _console
from gradstab._console import text
from gradstab.watch.sameness import Sameness

_HEADS = (
    "layer",
    "differ-\nence",
    "noise of\nmean",
    "in units\nof noise",
    "1 - cos",
    "resolu-\ntion",
    "verdict",
)
_COLOURS = {Sameness.DIFFERS: "bold red", Sameness.UNKNOWN: "yellow"}
# Of deep networks those that differ, and the ends.
_MOST_ROWS = 64


def show(found, console=None, /) -> None:
    """Print the table and what it says to a rich console."""
    console = _console.terminal(console)
    table = _console.table(*_HEADS, right=_HEADS[1:-1], padding=(0, 1, 0, 0))
    for one in _shown(found.layers):
        table.add_row(*map(text, _cells(one)), text(_verdict(one), _style(one)))
    if len(found.layers) > 1:
        table.add_section()
        one = found.whole
        table.add_row(*map(text, _cells(one)), text(_verdict(one), _style(one)))
    console.print(table)
    for line in sentences(found):
        console.print(text(line))


def sentences(found, /) -> list[str]:
    """What was compared, and each layer that differs, the worst first."""
    a, b = found.names
    counts: dict[str, int] = {}
    for one in found.layers:
        counts[one.verdict.value] = counts.get(one.verdict.value, 0) + 1
    said = ", ".join(f"{number} {words}" for words, number in counts.items())
    losses = " and ".join(f"{mean:.6g}" for mean in found.values.mean(axis=0))
    number = len(found.layers)
    lines = [f"{name}: {words}" for name, words in found.made.items()]
    lines += [
        f"{b} against {a}, {found.num_batches} batches, mean losses {losses} "
        f"({a} and {b})",
        f"{number} layer{'s' * (number != 1)}: {said}",
    ]
    rank = {one.layer: i for i, one in enumerate(_worst_first(found.differing))}
    lines += [_sentence(one, a, b) for one in sorted(found.differing, key=_rank(rank))]
    return lines


def _rank(rank):
    return lambda one: rank[one.layer]


def _worst_first(layers):
    sizes = [np.inf if np.isnan(one.difference) else one.difference for one in layers]
    order = np.argsort(-np.array(sizes), kind="stable")
    return [layers[i] for i in order]


def _sentence(one, a, b):
    if any(one.lost):
        parts = [
            f"{name} in {number}"
            for name, number in zip((a, b), one.lost, strict=True)
            if number
        ]
        return f"{one.layer} is not finite: {', '.join(parts)} batches"
    said = f"{one.layer} differs by {_percent(one.difference)}"
    if np.isfinite(one.of_noise):
        said += f", {_size(one.of_noise)} of the noise between batches"
    beyond = abs(one.factor - 1) > 2 * one.factor_error
    if np.isfinite(one.factor_error) and beyond:
        said += f"; along {a} it is {_factor(one)} times as long"
    return said


def _factor(one):
    """A factor with as many digits as its error leaves, but for four at most."""
    error = f"(± {one.factor_error:.1g})"
    if abs(one.factor - 1) < 1e-3:
        return f"1{one.factor - 1:+.1e} {error}"
    digits = -int(np.floor(np.log10(max(one.factor_error, 1e-4))))
    return f"{one.factor:.{max(digits, 0)}f} {error}"


def _shown(layers):
    """All layers; of very many those that differ, and the first and the last ones."""
    if len(layers) <= _MOST_ROWS:
        return layers
    half = _MOST_ROWS // 2
    kept = set(range(half)) | set(range(len(layers) - half, len(layers)))
    kept |= {i for i, one in enumerate(layers) if one.verdict is Sameness.DIFFERS}
    return [layers[i] for i in sorted(kept)]


def _cells(one):
    seen = "" if one.verdict is Sameness.BITWISE else _percent(one.resolution)
    return (
        one.layer,
        _percent(one.difference),
        _percent(one.noise),
        _size(one.of_noise),
        _size(one.turn),
        seen,
    )


def _verdict(one):
    return f"{one.verdict.value}{' (not finite)' if any(one.lost) else ''}"


def _style(one):
    return _COLOURS.get(one.verdict, "")


def _percent(value):
    if np.isnan(value):
        return ""
    value = 100 * value
    plain = value == 0 or 1e-2 <= value < 1e4
    return f"{value:.3g} %" if plain else f"{value:.0e} %"


def _size(value):
    if np.isnan(value):
        return ""
    plain = value == 0 or 1e-3 <= abs(value) < 1e4 or np.isinf(value)
    return f"{value:.3g}" if plain else f"{value:.0e}"
