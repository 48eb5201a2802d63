"""The panels of a report's figure, each drawn on axes that it is given."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gradstab import _drawing as drawing
from gradstab.records import Growth, Recurrence, Spectrum
from gradstab.report.names import short_names

_PER = {"exponential": "{unit}", "power": "ln({unit})", "exp-sqrt": "sqrt({unit})"}

_REDUCED = {"largest": np.max, "median": np.median, "smallest": np.min}

_STYLES = ("-", "--", "-.", ":")


def signals(ax: Any, report, /) -> None:
    """The sizes of signals against depth, the laws fitted to them, and theory."""
    names = [layer.name for layer in report.layers]
    depth = np.arange(1, len(names) + 1)
    forward = [layer.forward_rms for layer in report.layers]
    gradient = [np.median(layer.gradient_norm) for layer in report.layers]
    weights = [layer.param_gradient_norm for layer in report.layers]
    ax.set_yscale("log")
    for place, (values, what) in enumerate(
        (
            (forward, "signal, rms"),
            (gradient, "gradient, norm"),
            (weights, "gradient of parameters"),
        )
    ):
        _curve(ax, depth, values, what, color=drawing.colour(place), marker=".")
    for growth, values, place in (
        (report.growth.forward, forward, 0),
        (report.growth.backward, gradient, 1),
    ):
        rows = [names.index(name) for name in growth.layers if name in names]
        if not growth.layers and growth.depth == len(names):
            rows = list(range(len(names)))
        x, y = depth[rows], np.asarray(values, float)[rows]
        _law(ax, growth, x, y, "layer", drawing.colour(place))
    if report.theory is not None:
        for values in (_lengths(report), _gradients(report, gradient)):
            _curve(ax, depth, values, "theory", color=drawing.ink(), linestyle=":")
    drawing.name_axis(ax, depth, short_names(names))
    backward = f"gradient: {_in_words(report.growth.backward, 'layer', -1)}"
    ax.set(xlabel="layer", ylabel="size")
    ax.set_title(f"signals along the layers\n{backward}", fontsize="medium")
    drawing.add_legend(ax)


def jacobians(ax: Any, report, /) -> None:
    """Singular values of the layers' Jacobians: those above the noise of rounding."""
    places = [i for i, layer in enumerate(report.layers) if layer.jacobian is not None]
    rows = [_above_rounding(report.layers[i].jacobian) for i in places]
    x = 1 + np.array(places)
    ax.set_yscale("log")
    for place, (what, reduce) in enumerate(_REDUCED.items()):
        y = [_mean([reduce(v) for v in row if len(v)]) for row in rows]
        _curve(ax, x, y, what, color=drawing.colour(place), marker=".")
    gains = [report.layers[i].jacobian.root_mean_square for i in places]
    rms = np.array([gain.root_mean_square for gain in gains])
    color = drawing.colour(len(_REDUCED))
    _curve(ax, x, rms, "rms over all directions", color=color, marker=".")
    ax.axhline(1.0, color="grey", linewidth=0.8)  # neither gained nor lost
    names = [layer.name for layer in report.layers]
    drawing.name_axis(ax, 1 + np.arange(len(names)), short_names(names))
    ax.set(xlabel="layer", ylabel="singular value")
    lines = ["singular values of the layers' Jacobians"]
    values = [np.asarray(report.layers[i].jacobian.values) for i in places]
    size, finite = (
        sum(v.size for v in values),
        sum(np.isfinite(v).sum() for v in values),
    )
    if lost := finite - sum(len(v) for row in rows for v in row):
        lines.append(f"{lost} of {size} are below rounding noise: not drawn")
    if finite < size:
        lines.append(f"{size - finite} of {size} are not finite: not drawn")
    ax.set_title("\n".join(lines), fontsize="medium")
    drawing.add_legend(ax)


def exponents(ax: Any, report, /, *, rate: float | None = None) -> None:
    """The ladder of exponents of the input-output Jacobian, and the gradient's rate.

    Args:
        ax: matplotlib axes.
        report: a report with exponents.
        rate: what theory says of the gradient's norm, per layer; by default what the
            report's theory says of all of its layers.
    """
    rows = np.atleast_2d(np.asarray(report.exponents, float))
    finite = np.atleast_1d(np.isfinite(rows).all(axis=0))
    ranks = 1 + np.flatnonzero(finite)
    rows = rows[:, finite]
    colour = drawing.colour(0)
    if len(ranks):
        ax.fill_between(
            ranks,
            rows.min(axis=0),
            rows.max(axis=0),
            alpha=0.3,
            linewidth=0,
            color=colour,
        )
        ax.plot(ranks, rows.mean(axis=0), ".-", color=colour, label="measured")
    ax.axhline(0.0, color="grey", linewidth=0.8)
    growth = report.growth.backward
    measured = _mean_rate(report, "measured_gradient_factor")
    if measured is None and growth.law == "exponential":
        measured = -growth.rate
    rate = _mean_rate(report, "gradient_factor") if rate is None else rate
    for value, what, color, style in (
        (measured, "measured", drawing.colour(1), "--"),
        (rate, "theory", drawing.ink(), ":"),
    ):
        if value is not None and math.isfinite(value):
            what = f"gradient's norm, {what}: {value:+.3g}"
            ax.axhline(value, color=color, linestyle=style, label=what)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="rank", ylabel="growth exponent per layer (natural log.)")
    lines = ["growth exponents from input to output"]
    if not finite.all():
        lines.append(f"{np.sum(~finite)} of {len(finite)} are lost: not drawn")
    ax.set_title("\n".join(lines), fontsize="medium")
    drawing.add_legend(ax)


def _mean_rate(report, field: str) -> float | None:
    """The mean logarithm of a gradient's factor over the layers, as exponents are.

    None if it is not known of all of them.
    """
    if report.theory is None:
        return None
    known = dict(zip(report.theory.names, getattr(report.theory, field), strict=True))
    factors = np.array([known.get(layer.name, math.nan) for layer in report.layers])
    usable = len(factors) and np.all(np.isfinite(factors) & (factors > 0))
    return float(np.mean(np.log(factors))) if usable else None


def units(ax: Any, report, /) -> None:
    """Shares of units and of directions that pass nothing on."""
    names = [layer.name for layer in report.layers]
    depth = np.arange(1, len(names) + 1)
    drawn = _together({k: y for k, y in shares(report).items() if y.any()})
    for place, (what, values) in enumerate(drawn.items()):
        style = {"color": drawing.colour(place), "linestyle": _STYLES[place]}
        _curve(ax, depth, values, what, marker=".", **style)
    drawing.name_axis(ax, depth, short_names(names))
    ax.set(xlabel="layer", ylabel="share", ylim=(-0.02, 1.02))
    lines = ["units and directions that pass nothing on"]
    if nothing := without(report):
        lines.append(nothing)
    ax.set_title("\n".join(lines), fontsize="medium")
    drawing.add_legend(ax, top=1.02)


def shares(report, /) -> dict[str, np.ma.MaskedArray]:
    """Of units and of directions that pass nothing on, layer by layer, where known."""
    curves = {
        what: [getattr(layer, field) for layer in report.layers]
        for field, what in (
            ("saturated_fraction", "saturated"),
            ("dead_fraction", "dead units"),
            ("zero_fraction", "outputs of zero"),
        )
    }
    curves["directions lost in rounding"] = [
        _lost_share(layer.jacobian) for layer in report.layers
    ]
    masked = {k: np.ma.masked_invalid(np.array(y, float)) for k, y in curves.items()}
    return {k: y for k, y in masked.items() if y.count()}


def without(report, /) -> str:
    """Which of the shares are zero in all layers, in words; empty if none is."""
    none = [what for what, values in shares(report).items() if not values.any()]
    return f"none in any layer: {', '.join(none)}" if none else ""


def time(ax: Any, report, /) -> None:
    """The gradient of the state at every time step, with its law, and the state."""
    shown = drawing.spread(report.recurrences)
    ax.set_yscale("log")
    for recurrence, color in zip(shown, drawing.COLOURS, strict=False):
        steps = np.arange(len(recurrence.state_rms))
        norms = np.median(np.asarray(recurrence.gradient_norms, float), axis=-1)
        name = drawing.label(recurrence.name)
        _curve(ax, steps, norms, f"{name}: gradient", color=color, marker=".")
        growth = recurrence.backward
        _law(ax, growth, steps, norms, "step", color)
        states, thin = recurrence.state_rms, {"linewidth": 0.8, "linestyle": "-."}
        _curve(ax, steps, states, f"{name}: state, rms", color=color, **thin)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="time step", ylabel="size")
    words = "gradient and state along time"
    if len(shown) == 1:
        words += f"\ngradient: {_in_words(shown[0].backward, 'step', -1)}"
    ax.set_title(words + _of(shown, report.recurrences), fontsize="medium")
    drawing.add_legend(ax)


def lyapunov(ax: Any, report, /) -> None:
    """Lyapunov exponents of the state's map, by rank, with their errors."""
    known = [x for x in report.recurrences if np.size(x.exponents)]
    shown, lost = drawing.spread(known), []
    for recurrence, color in zip(shown, drawing.COLOURS, strict=False):
        mean = recurrence.mean_exponents
        values, errors = np.asarray(mean.value, float), np.asarray(mean.error, float)
        finite = np.isfinite(values)
        name = drawing.label(recurrence.name)
        if not finite.all():
            lost.append(f"{name}: {np.sum(~finite)} of {len(values)} are not finite")
        if finite.any():
            ranks = 1 + np.flatnonzero(finite)
            values, errors = values[finite], np.nan_to_num(errors[finite], posinf=0)
            ax.plot(ranks, values, ".-", color=color, label=name)
            low, high = values - errors, values + errors
            ax.fill_between(ranks, low, high, alpha=0.3, linewidth=0, color=color)
    ax.axhline(0.0, color="grey", linewidth=0.8)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="rank", ylabel="Lyapunov exponent per time step")
    words = ["Lyapunov exponents", *lost]
    ax.set_title("\n".join(words) + _of(shown, known), fontsize="medium")
    drawing.add_legend(ax)


def _curve(
    ax: Any, x: np.ndarray, values: ArrayLike, what: str, /, **style: Any
) -> None:
    """A curve with gaps where there is nothing to draw; none at all is left out."""
    values = np.ma.filled(np.ma.asarray(values, float), math.nan)
    drawable = np.isfinite(values)
    if ax.get_yscale() == "log":
        drawable &= values > 0
    if not drawable.any():
        return
    beside = np.append(drawable[1:], False) | np.append(False, drawable[:-1])
    if "marker" not in style and (alone := np.flatnonzero(drawable & ~beside)).size:
        style |= {"marker": "x", "markevery": alone.tolist()}
    ax.plot(x, np.where(drawable, values, np.nan), label=what, **style)


def _law(
    ax: Any, growth: Growth, x: np.ndarray, values: np.ndarray, unit: str, color: str
) -> None:
    """The fitted law through the values that it was fitted to."""
    if growth.law == "unknown" or len(x) != growth.depth or len(x) < 2:
        return
    place = np.arange(1.0, len(x) + 1)
    if growth.law == "power":
        course = growth.rate * np.log(place + growth.offset)
    elif growth.law == "exp-sqrt":
        course = growth.rate * np.sqrt(place + growth.offset)
    else:
        course = (growth.law == "exponential") * growth.rate * place
    usable = np.isfinite(values) & (values > 0)
    if not usable.any():
        return
    start = np.median(np.log(values[usable]) - course[usable])
    what = f"law: {_rate(growth, unit)}"
    ax.plot(x, np.exp(start + course), "--", color=color, linewidth=1, label=what)


def _rate(growth: Growth, unit: str) -> str:
    if growth.law == "constant":
        return "constant"
    per = _PER[growth.law].format(unit=unit)
    return f"{growth.law}, {growth.rate:+.3g} per {per}"


def _in_words(growth: Growth, unit: str, sign: int) -> str:
    """The law and the change from end to end, in the direction of the signal."""
    if math.isnan(growth.change):
        return f"too few {unit}s to tell a change"
    if sign > 0:
        factor = growth.change
    else:
        factor = 1 / growth.change if growth.change else math.inf
    law = "law unknown" if growth.law == "unknown" else _rate(growth, unit)
    way = "on its way back" if sign < 0 else "from the first to the last"
    return f"a factor {factor:.3g} {way} ({law})"


def _lengths(report) -> list[float]:
    known = dict(zip(report.theory.names, report.theory.forward_rms, strict=True))
    return [known.get(layer.name, math.nan) for layer in report.layers]


def _gradients(report, measured: Sequence[np.floating]) -> np.ndarray:
    """Theory's gradients, from the measured one at the last layer that it knows.

    A layer's factor leads from its output to that of the layer before.
    """
    known = dict(zip(report.theory.names, report.theory.gradient_factor, strict=True))
    factors = [known.get(layer.name, math.nan) for layer in report.layers]
    found = np.full(len(factors), math.nan)
    for place in range(len(factors) - 1, 0, -1):
        if not math.isfinite(factors[place]):
            continue
        if not math.isfinite(found[place]):
            found[place] = measured[place]
        found[place - 1] = found[place] * factors[place]
    return found


def _above_rounding(spectrum: Spectrum) -> list[np.ndarray]:
    """Per example the singular values that rounding has not made.

    A computed value is off by about the machine's epsilon times the largest; what is
    smaller says nothing of the map.
    """
    values = np.asarray(spectrum.values)
    errors = np.asarray(spectrum.errors, float)
    eps = np.finfo(values.dtype).eps if values.dtype.kind == "f" else 0.0
    values = np.asarray(values, float)
    with np.errstate(invalid="ignore"):
        noise = np.maximum(errors, eps * values.max(axis=1, keepdims=True, initial=0))
        drawn = np.isfinite(values) & (values > noise)
    return [row[kept] for row, kept in zip(values, drawn, strict=True)]


def _lost_share(spectrum: Spectrum | None) -> float:
    """The share of directions that are below rounding; NaN if not all were computed."""
    if spectrum is None:
        return math.nan
    values = np.asarray(spectrum.values)
    whole = values.size and values.shape[1] >= min(spectrum.shape)
    if not whole or not np.isfinite(values).all():
        return math.nan
    return 1 - sum(map(len, _above_rounding(spectrum))) / values.size


def _together(curves: dict[str, np.ma.MaskedArray]) -> dict[str, np.ma.MaskedArray]:
    """Curves that are the same where both are known as one, with both names."""
    found = {}
    for what, values in curves.items():
        for other, drawn in found.items():
            both = ~np.ma.getmaskarray(drawn) & ~np.ma.getmaskarray(values)
            if both.any() and np.array_equal(drawn[both], values[both]):
                del found[other]
                found[f"{other} = {what}"] = max(drawn, values, key=np.ma.count)
                break
        else:
            found[what] = values
    return found


def _mean(values: Sequence[np.floating]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _of(shown: Sequence[Recurrence], everything: Sequence[Recurrence]) -> str:
    return f"\n{len(shown)} of {len(everything)} layers" * (
        len(shown) < len(everything)
    )
