"""Singular values of layers, and the density that theory has for them."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from scipy import integrate

from gradstab import _drawing as drawing
from gradstab.errors import UserValueError
from gradstab.records import Layer
from gradstab.report import Report
from gradstab.theory import MeanField, singular_value_density

# A histogram of fewer values is a row of spikes: they are counted one by one instead.
_FEW_VALUES = 500

_MOST_BINS = 60


def spectra(
    report: Report,
    /,
    *,
    layers: Iterable[str] | None = None,
    field: MeanField | None = None,
    ax: Any = None,
):
    """Singular values of layer Jacobians, with theory where it is known.

    Of many values the density is drawn; of few, the share of values up to each one.
    Colours go from the first layer (blue) to the last one (orange).

    Args:
        report: a `gradstab.Report` with singular values.
        layers: names of the layers; by default at most six, spread over the depth.
        field: the `gradstab.theory.MeanField` of the network; draws the density that
            wide layers with Gaussian weights have at its fixed point.
        ax: matplotlib axes to draw on; by default a new figure.

    Returns:
        A figure: values pooled over the examples. Those that are zero count.

    Raises:
        KeyError: if there is no layer of a name; the message lists the names.
        ValueError: if the report has no singular values, or none that are not zero.

    >>> import jax, gradstab as gs, jax.numpy as jnp
    >>> w = jax.random.normal(jax.random.key(0), (32, 32)) / 32**0.5
    >>> x = jax.random.normal(jax.random.key(1), (4, 32))
    >>> report = gs.analyze(lambda w, x: jnp.tanh(x @ w), w, x)
    >>> gs.plots.spectra(report).axes[0].get_xlabel()
    'singular value of the Jacobian'
    """
    known = [layer for layer in report.layers if layer.jacobian is not None]
    if layers is None:
        chosen = drawing.spread(known)
    else:
        wanted = {report.layer(name).name for name in layers}
        chosen = [layer for layer in known if layer.name in wanted]
    pooled = {
        x.name: np.asarray(x.jacobian.values, float).ravel()
        for x in chosen
        if x.jacobian is not None
    }
    pooled = {k: np.sort(v[np.isfinite(v)]) for k, v in pooled.items()}
    pooled = {k: v for k, v in pooled.items() if np.any(v > 0)}
    if not pooled:
        raise UserValueError("the report has no singular values of these layers")
    ax = drawing.canvas(ax)
    top = 1.05 * max(values[-1] for values in pooled.values())
    few = min(map(len, pooled.values())) < _FEW_VALUES
    colours = drawing.ordered_colours(len(pooled))
    for (name, values), color in zip(pooled.items(), colours, strict=True):
        style = {"label": drawing.label(name), "color": color}
        (_shares if few else _density)(ax, values, top, style)
    if field is not None:
        s, theory = (_theoretical_share if few else _theoretical_density)(field, top)
        style = {"color": drawing.ink(), "linestyle": "--"}
        ax.plot(s, theory, label="theory, wide layer", **style)
    ax.set(xlabel="singular value of the Jacobian", xlim=(0, top))
    ax.set(ylabel="share of values up to this one" if few else "density")
    title = f"singular values of {_words(pooled, known)}"
    ax.set_title(title, fontsize="medium")
    drawing.add_legend(ax, top=1.02 if few else None)
    return ax.figure


def _words(chosen: Collection[str], known: Collection[Layer]) -> str:
    """Of which layers the values are."""
    if len(chosen) == 1:
        return drawing.label(next(iter(chosen)))
    which = "the layers" if len(chosen) == len(known) else f"{len(known)} layers"
    number = "" if len(chosen) == len(known) else f"{len(chosen)} of "
    return f"{number}{which}, first (blue) to last (orange)"


def _shares(ax: Any, values: np.ndarray, top: float, style: dict[str, Any]) -> None:
    share = np.arange(1, len(values) + 1) / len(values)
    ax.step([0, *values, top], [0, *share, 1], where="post", **style)


def _density(ax: Any, values: np.ndarray, top: float, style: dict[str, Any]) -> None:
    """Of all values, so that those that are zero are missing from the area."""
    live = values[values > 0]
    low, high = np.quantile(live, [0.25, 0.75])
    # Freedman and Diaconis (1981).
    width = max(2 * (high - low) / len(live) ** (1 / 3), top / _MOST_BINS)
    bins = np.linspace(0, top, max(int(top / width), 5) + 1)
    heights, _ = np.histogram(live, bins, density=True)
    ax.stairs(heights * len(live) / len(values), bins, **style)


def _theoretical_density(field: MeanField, top: float) -> tuple[np.ndarray, np.ndarray]:
    s = np.linspace(top / 800, top, 800)
    return s, singular_value_density(field, 1, s)


def _theoretical_share(field: MeanField, top: float) -> tuple[np.ndarray, np.ndarray]:
    # To the end of the density, which may be beyond the largest value of few.
    s, density = _theoretical_density(field, 4 * top)
    share = integrate.cumulative_trapezoid(density, s, initial=0)
    # What the area lacks of one are values of zero.
    share += 1 - share[-1]
    return s[s <= top], share[s <= top]
