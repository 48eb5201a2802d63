"""The phases of wide networks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from gradstab import _drawing as drawing
from gradstab.errors import UserValueError
from gradstab.theory import critical_sigma_w, mean_field

_PHASES = {-1: "ordered: gradients vanish", 1: "chaotic: gradients explode"}

# Points of the critical line; they are denser near sigma_b = 0, where it bends most.
_NUM_POINTS = 49


def phase_diagram(
    activation: Callable[..., Any],
    /,
    *,
    sigma_w: Sequence[float] | np.ndarray | None = None,
    sigma_b: Sequence[float] | np.ndarray | None = None,
    ax: Any = None,
):
    """Where gradients vanish and where they explode: the phases of wide networks.

    Args:
        activation: any elementwise function.
        sigma_w: borders of the cells on one axis, ascending; from 0.5 to 3 by default.
        sigma_b: borders on the other; from 0 to 1 by default.
        ax: matplotlib axes to draw on; by default a new figure.

    Returns:
        A figure of the gradient's rate per layer, natural logarithm of its norm, in the
        middle of every cell; with the line on which it is zero, and both phases named.

    Raises:
        ValueError: if there are fewer than two borders, or they do not ascend.

    Cost:
        A tenth of a second for each cell, and for each point of the line.
    """
    sigma_w = _borders(
        "sigma_w", np.linspace(0.5, 3, 15) if sigma_w is None else sigma_w
    )
    sigma_b = _borders("sigma_b", np.linspace(0, 1, 9) if sigma_b is None else sigma_b)
    middles = [(border[1:] + border[:-1]) / 2 for border in (sigma_w, sigma_b)]
    rates = np.array(
        [
            [
                mean_field(activation, float(w), float(b)).gradient_rate
                for w in middles[0]
            ]
            for b in middles[1]
        ]
    )
    ax = drawing.canvas(ax)
    finite = rates[np.isfinite(rates)]
    low, high = min(finite.min(initial=0), -1e-9), max(finite.max(initial=0), 1e-9)
    image = ax.pcolormesh(
        sigma_w,
        sigma_b,
        np.ma.masked_invalid(rates),
        cmap=_about_zero(low, high),
        vmin=low,
        vmax=high,
    )
    ax.figure.colorbar(image, ax=ax, label="rate of the gradient's norm, per layer")
    ax.set(xlim=sigma_w[[0, -1]], ylim=sigma_b[[0, -1]])
    ax.set(xlabel=r"$\sigma_w$", ylabel=r"$\sigma_b$")
    line = _critical_line(activation, sigma_w[[0, -1]], sigma_b[[0, -1]])
    for piece in line:
        ax.plot(*piece.T, color="black", label="critical line")
    if line:
        place = max(line, key=len)[len(max(line, key=len)) // 2]
        _write(ax, r"$\chi = 1$", *place)
    for sign, words in _PHASES.items():
        _name(ax, words, rates * sign > 0, *middles)
    name = getattr(activation, "__name__", "")
    title = ["phases of wide networks" + f": {drawing.label(name)}" * bool(name)]
    if not line:
        title.append("no network here is critical")
    elif any(_is_inside(end, sigma_w, sigma_b) for p in line for end in p[[0, -1]]):
        title.append("where the line ends, the rate jumps past zero")
    ax.set_title("\n".join(title), fontsize="medium")
    return ax.figure


def _borders(what: str, values: ArrayLike) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.all(np.diff(values) > 0):
        raise UserValueError(
            f"{what} is {values.tolist()}; it holds the borders of the cells, at least "
            "two ascending numbers, as numpy.linspace gives them"
        )
    if values[0] < 0:
        raise UserValueError(f"{what} begins at {values[0]:g}; it is at least 0")
    return values


def _about_zero(low: float, high: float):
    """White at zero, and both ends of the data in full colour."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    values = np.linspace(low, high, 512)
    parts = np.where(values > 0, values / high, -values / low)
    if -low < 1e-6 < high or high < 1e-6 < -low:
        parts = np.clip(parts, *((0, 1) if high > -low else (-1, 0)))
    return ListedColormap(colormaps["PuOr_r"](0.5 + 0.5 * parts))


def _critical_line(
    activation: Callable[..., Any], sigma_w: np.ndarray, sigma_b: np.ndarray
) -> list[np.ndarray]:
    """Pieces of the line inside of the borders, ``(points, 2)``, ends included."""
    low, high = sigma_w
    biases = sigma_b[0] + np.ptp(sigma_b) * np.linspace(0, 1, _NUM_POINTS) ** 2
    weights = np.array([_critical(activation, b) for b in biases])
    pieces, piece = [], []
    for place in range(_NUM_POINTS):
        inside = low <= weights[place] <= high
        if place and inside != (low <= weights[place - 1] <= high):
            crossing = _crossing(
                activation,
                sigma_w,
                biases[place - 1 : place + 1],
                weights[place - 1 : place + 1],
            )
            piece += crossing
        if inside:
            piece.append((weights[place], biases[place]))
        if piece and (not inside or place == _NUM_POINTS - 1):
            pieces += [np.array(piece)] if len(piece) > 1 else []
            piece = []
    return pieces


def _crossing(
    activation: Callable[..., Any],
    sigma_w: np.ndarray,
    biases: np.ndarray,
    weights: np.ndarray,
) -> list[tuple]:
    """Where the line leaves the borders; empty if it ends there."""
    if not np.isfinite(weights).all():
        return []
    outside = weights[(weights < sigma_w[0]) | (weights > sigma_w[1])][0]
    border = sigma_w[0] if outside < sigma_w[0] else sigma_w[1]
    if border in weights:
        return []
    bias = optimize.brentq(
        lambda b: _critical(activation, b) - border, *biases, xtol=1e-6
    )
    return [(_critical(activation, bias), bias)]


def _critical(activation: Callable[..., Any], sigma_b) -> float:
    """NaN where no network with these biases is critical."""
    try:
        return critical_sigma_w(activation, float(sigma_b))
    except ValueError:
        return np.nan


def _is_inside(point: np.ndarray, sigma_w: np.ndarray, sigma_b: np.ndarray) -> bool:
    """Whether a point is on no border."""
    ends = ((sigma_w[0], sigma_w[-1]), (sigma_b[0], sigma_b[-1]))
    return not any(
        np.isclose(x, end, rtol=1e-4, atol=1e-5)
        for x, pair in zip(point, ends, strict=True)
        for end in pair
    )


def _name(
    ax: Any, words: str, phase: np.ndarray, sigma_w: np.ndarray, sigma_b: np.ndarray
) -> None:
    """Write the name of a phase in the cell that is deepest inside of it."""
    if not phase.any():
        return
    # Steps to the nearest cell of another phase or to the border.
    inside = np.pad(phase, 1)
    depth = inside.astype(int)
    while inside.any():
        around = inside.copy()
        for axis, shift in ((0, 1), (0, -1), (1, 1), (1, -1)):
            around &= np.roll(inside, shift, axis)
        inside, depth = around, depth + around
    depth = depth[1:-1, 1:-1]
    deepest = np.argwhere(depth == depth.max())
    away = np.linalg.norm(deepest - np.argwhere(phase).mean(axis=0), axis=1)
    row, column = deepest[np.argmin(away)]
    _write(ax, words.replace(": ", ":\n"), sigma_w[column], sigma_b[row])


def _write(ax: Any, words: str, x, y) -> None:
    """Words that can be read on every colour, inside of the axes."""
    from matplotlib import patheffects

    outline = [patheffects.withStroke(linewidth=3, foreground="white")]
    style = {"color": "black", "fontsize": "small", "path_effects": outline}
    (start, end), side = ax.get_xlim(), "center"
    if x - start < 0.2 * (end - start):
        x, side = start + 0.02 * (end - start), "left"
    elif end - x < 0.2 * (end - start):
        x, side = end - 0.02 * (end - start), "right"
    ax.text(x, y, words, ha=side, va="center", clip_on=True, **style)
