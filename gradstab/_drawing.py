"""What all figures share: colours, names on an axis, room for a legend; not for users.

Every figure is readable on a white page and, with matplotlib's style
``dark_background``, on a dark one: lines that are not coloured have the colour of the
text.
"""

import functools
import io
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from gradstab._text import printable

# Okabe and Ito (2008): the colour-blind can tell them apart. Those first that have a
# contrast of 3 on white and on black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

# The ends and the middle of a scale for what has an order; none is near white or black.
_ORDERED = ((0x1F, 0x78, 0xC8), (0xB0, 0x56, 0x9F), (0xE0, 0x62, 0x2A))

T = TypeVar("T")

FEW = 6  # curves that can be told apart

_SIZE = "small"  # of names and legends

# The height of a line in sizes of its font.
_LINE = 1.5

# Of a longer name both ends are kept: the end tells it from its neighbours.
_LONGEST = 18

# What layout leaves of the room that axes have before it, at least: names that stand
# upright and titles of two lines take from the height.
_KEPT_WIDTH, _KEPT_HEIGHT, _KEPT_BESIDE = 0.95, 0.7, 0.9


def canvas(ax: Any, /, *, size: tuple[float, float] = (6.4, 4.2)) -> Any:
    """The axes to draw on: those, or the only ones of a new figure."""
    return new_axes(size=size)[0] if ax is None else ax


def new_axes(
    num: int = 1, /, *, size: tuple[float, float] = (6.4, 4.2), columns: int = 1
) -> list[Any]:
    """As many axes in one new figure, in rows; the last one may be wider."""
    rows = math.ceil(num / columns)
    width, height = size
    size = (width * columns, height * rows)
    figure = _figure_class()(figsize=size, layout="constrained")
    # Where the layout will put them, so that the room for words is known beforehand.
    sides = {"left": 0.7 / (width * columns), "right": 1 - 0.1 / (width * columns)}
    grid = figure.add_gridspec(rows, columns, **sides, wspace=0.8 / width)
    places = [divmod(place, columns) for place in range(num)]
    return [
        figure.add_subplot(
            grid[row, column:] if place == num - 1 else grid[row, column]
        )
        for place, (row, column) in enumerate(places)
    ]


@functools.cache
def _figure_class():
    """A figure that a notebook shows without being told to by a magic command."""
    # Imported here: it takes longer than most of what is drawn.
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png")
            return picture.getvalue()

    return ShownFigure


def ink() -> str:
    """The colour of what is not coloured: black on white pages."""
    import matplotlib

    return matplotlib.rcParams["text.color"]


def colour(place: int, /) -> str:
    """The colour of a curve, by its number."""
    return COLOURS[place % len(COLOURS)]


def ordered_colours(num: int, /) -> list[tuple[float, ...]]:
    """Colours of curves that have an order, from blue to orange."""
    places = np.linspace(0, len(_ORDERED) - 1, num) if num > 1 else [0]
    channels = np.array(_ORDERED).T / 255
    return [
        tuple(float(np.interp(p, range(len(_ORDERED)), c)) for c in channels)
        for p in places
    ]


def spread(items: Iterable[T], /, num: int = FEW) -> list[T]:
    """At most so many of them, evenly from the first to the last."""
    items = list(items)
    if len(items) <= num:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, num).round().astype(int)]


def label(name: str, /) -> str:
    """A name as it is written in figures: short, in one line, and without formulas."""
    name = printable(name)
    if len(name) > _LONGEST:
        half = (_LONGEST - 1) // 2
        name = f"{name[:half]}…{name[-half:]}"
    # A legend leaves out what begins with an underscore.
    name = f" {name}" if name.startswith("_") else name
    return name.replace("$", r"\$")


def name_axis(
    ax: Any, places: ArrayLike, names: Iterable[str], /, *, axis: str = "x"
) -> None:
    """Write names beside their places: as many as can be read, evenly.

    Args:
        ax: the axes.
        places: ascending numbers; all of them will be in view.
        names: one for each.
        axis: 'x' or 'y'.
    """
    places, names = np.asarray(places, float), [label(name) for name in names]
    width, height = _size(ax)
    room = width * _KEPT_WIDTH if axis == "x" else height * _KEPT_BESIDE
    longest = max(map(_length, names), default=0) + _points()
    upright = axis == "x" and len(names) * longest > room
    need = longest if axis == "x" and not upright else _LINE * _points()
    chosen = _every(len(names), max(int(room / need), 1))
    options = {"fontsize": _SIZE, "rotation": 90 if upright else 0}
    set_ticks = ax.set_xticks if axis == "x" else ax.set_yticks
    set_ticks([places[i] for i in chosen], [names[i] for i in chosen], **options)
    beside = max(0.5, 0.03 * len(places))
    limits = (places[0] - beside, places[-1] + beside)
    (ax.set_xlim if axis == "x" else ax.set_ylim)(limits)


def how_many(ax: Any, words: Sequence[str], /, *, beside: Iterable[str] = ()) -> int:
    """How many of the words can be read in a row below the axes.

    Args:
        ax: the axes.
        words: all of them.
        beside: names on the other axis, which take from the width.
    """
    longest = max(map(_length, words)) + 2 * _points()
    width = _size(ax)[0] * _KEPT_WIDTH
    taken = max((_length(label(name)) for name in beside), default=0)
    return max(int((width - taken) / longest), 1)


def _every(num: int, most: int) -> list[int]:
    """Every k-th place and the last, which takes the place of a near neighbour."""
    step = math.ceil(num / most)
    chosen = list(range(0, num, step))
    if chosen[-1] != num - 1:
        chosen = [*(chosen[:-1] if len(chosen) > 1 else chosen), num - 1]
    return chosen if most > 1 else chosen[:1]


def add_legend(ax: Any, /, *, top: float | None = None) -> None:
    """A legend of what is drawn, once per name, that covers no curve.

    The axes get as much room above as it needs, on the side where that is less.

    Args:
        ax: axes on which all is drawn.
        top: where what is drawn ends at most; by default where the axes end.
    """
    handles, labels = ax.get_legend_handles_labels()
    named = dict(_explained(ax, *entry) for entry in zip(handles, labels, strict=True))
    low, high = ax.get_ylim()
    if top is not None:
        high = top
    if named:
        columns, width, height = _legend_size(list(named), ax)
        scale = math.log10 if ax.get_yscale() == "log" else float
        back = (lambda y: 10.0**y) if ax.get_yscale() == "log" else float
        low, high = scale(low), scale(high)
        ends = {
            side: low + (_highest(ax, scale, side, width) - low) / (1 - height)
            for side in ("left", "right")
        }
        side = "left" if ends["left"] <= max(ends["right"], high) else "right"
        low, high = back(low), back(max(ends[side], high))
        ax.legend(
            named.values(),
            named.keys(),
            fontsize=_SIZE,
            loc=f"upper {side}",
            ncols=columns,
        )
    ax.set_ylim(low, high)


def _explained(ax: Any, handle: Any, words: str) -> tuple[str, Any]:
    """The entry of a legend; of a curve without points it says that there are none."""
    from matplotlib.lines import Line2D

    if isinstance(handle, Line2D):
        values = np.asarray(handle.get_ydata(), float)
        logarithmic = ax.get_yscale() == "log"
        if not np.any(np.isfinite(values) & ((values > 0) | (not logarithmic))):
            what = "zero or not finite" if logarithmic else "not finite"
            return f"{words}: {what}, no curve", Line2D([], [], linestyle="none")
    return words, handle


def _legend_size(labels: list[str], ax: Any) -> tuple[int, float, float]:
    """Columns of the legend, and which shares of the axes it may take."""
    width, height = np.multiply(_size(ax), (_KEPT_WIDTH, _KEPT_HEIGHT))
    size = _points()
    for columns in (3, 2, 1):
        parts = [part for part in np.array_split(labels, columns) if len(part)]
        # Handle, space, text, space to the next one, as matplotlib's defaults are.
        need = sum(max(map(_length, part)) + 4.8 * size for part in parts) + size
        if need <= width or columns == 1:
            break
    rows = math.ceil(len(labels) / columns)
    share = (rows * _LINE * size + 2.5 * size) / height
    return columns, min(need / width, 1.0), min(share, 0.6)


def _highest(
    ax: Any, scale: Callable[[float], float], side: str, width: float
) -> float:
    """The highest of what is drawn below a legend on that side, on the axis' scale."""
    along = np.log10 if ax.get_xscale() == "log" else np.asarray
    start, end = along(ax.get_xlim())
    edge = start + width * (end - start)
    if side == "right":
        edge = end - width * (end - start)
    # Limits that were set by hand cut off what is beyond.
    most = math.inf if ax.get_autoscaley_on() else ax.get_ylim()[1]
    tops = []
    for points in _drawn(ax):
        points = points[np.isfinite(points).all(axis=1)]
        x, y = points[(points[:, 0] > 0) | (along is np.asarray)].T
        x = along(x)
        below = x <= edge if side == "left" else x >= edge
        # The line to the next point is below the legend too.
        below[1:] |= below[:-1].copy()
        below[:-1] |= below[1:].copy()
        with np.errstate(invalid="ignore"):
            y = y[below & ((y > 0) | (scale is float))]
        tops += [scale(min(y.max(), most))] if len(y) else []
    return max(tops, default=scale(ax.get_ylim()[0]))


def _drawn(ax: Any) -> Iterator[np.ndarray]:
    """The points of all curves and areas, in data."""
    start, end = ax.get_xlim()
    for line in ax.lines:
        x, y = line.get_data()
        x_in_data, y_in_data = line.get_transform().contains_branch_seperately(
            ax.transData
        )
        if not y_in_data:  # from bottom to top: nothing can make room for a legend
            continue
        x = x if x_in_data else (start, end)
        yield np.column_stack([np.asarray(x, float), np.asarray(y, float)])
    for patch in ax.patches:
        yield patch.get_patch_transform().transform(patch.get_path().vertices)
    for collection in ax.collections:
        for path in collection.get_paths():
            yield path.vertices


def _size(ax: Any) -> tuple[float, float]:
    """Width and height of axes in points."""
    scale = 72 / ax.figure.dpi
    return ax.bbox.width * scale, ax.bbox.height * scale


def _points() -> float:
    """The size of small letters in points."""
    from matplotlib.font_manager import FontProperties

    return FontProperties(size=_SIZE).get_size_in_points()


def _length(words: str) -> float:
    """How long words in small letters are, in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=_SIZE)
    words = words.replace(r"\$", "$")
    return text_to_path.get_text_width_height_descent(words, font, False)[0]
