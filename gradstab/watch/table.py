"""The statistics of a step as a table in a terminal or a notebook."""

import numpy as np

from gradstab import _console
from gradstab._console import text
from gradstab.watch.locating import expect_one_step, first_nonfinite

# Heads no wider than the numbers.
_HEADS = (
    "layer",
    "forward\nrms",
    "backward\nrms",
    "gain",
    "grad.\nnorm",
    "share",
    "radial\ncosine",
    "param.\nnorm",
    "update\nratio",
)
# Of deep networks the ends.
_MOST_ROWS = 64


def show(stats, console=None, /) -> None:
    """Print the table, and what is not finite, to a rich console."""
    expect_one_step(stats, "a table")
    console = _console.terminal(console)
    number = len(stats.names) - 1
    title = (
        f"{number} layer{'s' * (number != 1)}, loss {_number(stats.value)}, "
        f"gradient norm {_number(stats.global_norm)}"
    )
    table = _console.table(
        *_HEADS,
        right=_HEADS[1:],
        title=text(title),
        title_justify="center",
        padding=(0, 1, 0, 0),
    )
    for row in _rows(stats):
        table.add_row(*map(text, row))
    console.print(table)
    place = first_nonfinite(stats)
    if place is not None:
        console.print(text(str(place), style="bold red"))


def _rows(stats):
    columns = (
        stats.forward_rms,
        stats.backward_rms,
        stats.gain,
        stats.gradient_norm,
        stats.share,
        stats.gradient_cosine,
        stats.param_norm,
        stats.update_ratio,
    )
    columns = [np.asarray(column, np.float64) for column in columns]
    styles = [_STYLES.get(i, _number) for i in range(len(columns))]
    numbers = [i for i, _ in enumerate(stats.names) if _is_shown(stats, i)]
    half = _MOST_ROWS // 2
    for i in numbers:
        if len(numbers) > _MOST_ROWS and half <= numbers.index(i) < len(numbers) - half:
            if numbers.index(i) == half:
                yield ["..."] * (1 + len(columns))
            continue
        cells = [style(c[i]) for style, c in zip(styles, columns, strict=True)]
        yield [stats.names[i], *cells]


def _is_shown(stats, row):
    """Whether a row has something to say; the last one often has not."""
    return row < len(stats.names) - 1 or stats.param_norm[row] != 0


def _number(value):
    """Three digits, or two beside an exponent: as wide as the heads."""
    value = float(value)
    if np.isnan(value):
        return ""
    small, large = 1e-3, 1e6
    plain = value == 0 or small <= abs(value) < large or np.isinf(value)
    return f"{value:.3g}" if plain else f"{value:.1e}"


def _percent(value):
    if np.isnan(value):
        return ""
    return f"{100 * value:.3g} %" if value == 0 or value >= 1e-3 else "< 0.1 %"


def _cosine(value):
    return "" if np.isnan(value) else f"{value:.3f}"


# Of the columns that are no sizes: shares and cosines.
_STYLES = {4: _percent, 5: _cosine}
