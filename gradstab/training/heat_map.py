"""The norms of gradients, layer by step, as a picture of characters."""

import numpy as np
from rich.text import Text

from gradstab._text import printable

_MOST_COLUMNS = 256
_LABEL = 20
_NUMBER = 9
# From small to large; each is told from the others without its colour.
_SHADES = " .░▒▓█"
# Of viridis, which is read in grey and by the colour-blind (van der Walt and Smith).
_COLOURS = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")
_LOST = ("x", "bold red")


class HeatMap:
    """Log norms of the steps so far; of many steps a column is the mean of several.

    Args:
        names: of the rows, from the first layer to the last.
    """

    def __init__(self, names: tuple[str, ...]):
        self._names = names
        self._columns: list[np.ndarray] = []
        self._open: list[np.ndarray] = []
        self._each = 1
        self._steps = (0, 0)

    def add(self, step: int, norms: np.ndarray, /) -> None:
        """Add the norms of a step, ``(names,)``."""
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log10(norms.astype(np.float64))
        self._steps = (self._steps[0] or step, step)
        self._open.append(np.where(np.isneginf(logs), np.nan, logs))
        self._last = norms
        if len(self._open) == self._each:
            self._columns.append(_mean(self._open))
            self._open = []
        if len(self._columns) > _MOST_COLUMNS:
            pairs = zip(self._columns[::2], self._columns[1::2], strict=False)
            rest = self._columns[-1:] if len(self._columns) % 2 else []
            self._columns, self._open = [_mean(pair) for pair in pairs], rest
            self._each *= 2

    def __rich_console__(self, console, options):
        if not (self._columns or self._open):
            return
        width = max(options.max_width - _LABEL - _NUMBER - 3, 8)
        most_rows = max((options.height or console.height) - 10, 4)
        yield from self.lines(width, most_rows)

    def lines(self, width: int, most_rows: int, /) -> list[Text]:
        """The rows, and beneath them the scale.

        Args:
            width: of the picture alone.
            most_rows: of more layers several are one row.
        """
        whole = [*self._columns, *([_mean(self._open)] if self._open else [])]
        cells = _pooled(np.stack(whole, 1), width, axis=1)
        groups = np.array_split(np.arange(len(self._names)), most_rows)
        groups = [group for group in groups if len(group)]
        cells = np.stack([_mean(cells[group]) for group in groups])
        finite = cells[np.isfinite(cells)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        high = max(high, low + 1)  # what differs by less than a factor of ten is alike
        lines = []
        for group, row in zip(groups, cells, strict=True):
            label = " .. ".join(dict.fromkeys(self._names[i] for i in group[[0, -1]]))
            line = Text(f"{_short(printable(label)):<{_LABEL}} ", no_wrap=True)
            for value in row:
                line.append(*_cell(value, low, high))
            last = self._last[group].max()
            lines.append(line.append(f" {last:{_NUMBER}.2e}"))
        first, last = self._steps
        scale = Text(f"{'gradient norm':<{_LABEL}} {10**low:.1e} ", style="dim")
        for shade, colour in zip(_SHADES, _COLOURS, strict=True):
            scale.append(shade, colour)
        scale.append(f" {10**high:.1e}   steps {first} .. {last}")
        return [*lines, scale]


def _short(label):
    """Both ends of a name that is too long."""
    if len(label) <= _LABEL:
        return label
    return f"{label[: _LABEL // 2 - 2]}..{label[-_LABEL // 2 :]}"


def _mean(columns):
    """The mean of columns; infinite or NaN where one is, but zeros are left out."""
    columns = np.stack(list(columns))
    lost = np.isposinf(columns).any(0)
    known = np.isfinite(columns)
    total = np.where(known, columns, 0).sum(0)
    number = known.sum(0)
    mean = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return np.where(lost, np.inf, mean)


def _pooled(cells, most, *, axis):
    groups = np.array_split(np.arange(cells.shape[axis]), most)
    parts = [np.take(cells, group, axis) for group in groups if len(group)]
    return np.stack([_mean(np.moveaxis(part, axis, 0)) for part in parts], axis)


def _cell(value, low, high):
    if np.isinf(value):
        return _LOST
    if np.isnan(value):
        return " ", ""
    level = int((value - low) / (high - low) * (len(_SHADES) - 1) + 0.5)
    level = min(max(level, 0), len(_SHADES) - 1)
    return _SHADES[level], _COLOURS[level]
