"""Every number of a history: its formula, when it is there, how it is read."""

import dataclasses
from collections.abc import Callable

import numpy as np

from gradstab import _console
from gradstab._console import text
from gradstab.watch.scalars import z_score

Get = Callable[[str], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number of every step, or of every layer at every step.

    Attributes:
        name: what ``history[name]`` gives.
        formula: what it is.
        level: at which level of `value_and_grad` it is there.
        reading: what it says.
        healthy: where it is in a run that trains well. These are rules of thumb: what
            lies outside is to be looked at, and no proof of anything.
        of: computes it from columns, ``(steps, names)``; None for what was measured.
        per_layer: whether every layer has its own.
    """

    name: str
    formula: str
    level: str
    reading: str
    healthy: str
    of: Callable[[Get], np.ndarray] | None = None
    per_layer: bool = False


def _share(get):
    squares = np.square(_over(get("gradient_norm"), _global_norm(get)[:, None]))
    return np.where(np.isfinite(squares), squares, np.nan)


def _global_norm(get):
    norms = get("gradient_norm")
    known = norms[:, ~np.isnan(norms).all(axis=0)] if norms.size else norms
    if not known.size:
        return np.full(len(norms), np.nan)
    largest = known.max(axis=1)
    scale = np.where(np.isfinite(largest) & (largest > 0), largest, 1)
    return scale * np.linalg.norm(known / scale[:, None], axis=1)


def _gain(get):
    norms = get("backward_rms") * np.sqrt(get("backward_entries"))
    result = np.full_like(norms, np.nan)
    result[:, 1:] = _over(norms[:, :-1], norms[:, 1:])
    return result


def _update_ratio(get):
    return _over(get("update_norm"), get("param_norm"))


def _largest_layer(get):
    shares = np.nan_to_num(_share(get), nan=-1.0)
    if not shares.size:
        return np.full(len(shares), np.nan)
    return np.where(shares.max(axis=1) >= 0, shares.argmax(axis=1), np.nan)


def _nonfinite(get):
    counts = np.stack([get("forward_nonfinite"), get("backward_nonfinite")])
    known = ~np.isnan(counts).all(axis=(0, 2))
    return np.where(known, np.nansum(counts, axis=(0, 2)), np.nan)


def _over(above, below):
    with np.errstate(divide="ignore", invalid="ignore"):
        return above / below


def _least(of):
    return lambda get: np.fmin.reduce(of(get), axis=1, initial=np.nan)


def _most(of):
    return lambda get: np.fmax.reduce(of(get), axis=1, initial=np.nan)


_LAYERS = (
    ("forward_rms", "sqrt(mean h²)", "light",
     "size of the data that leave the layer", "near 1, alike from layer to layer"),
    ("backward_rms", "sqrt(mean (∂L/∂h)²)", "light",
     "size of the gradient that comes back to it",
     "any size; no steady growth or decay over layers"),
    ("forward_nonfinite", "iterations with NaN or ±∞ in h", "light",
     "the layer, or one before it, overflows", "0"),
    ("backward_nonfinite", "the same of ∂L/∂h", "light",
     "the backward pass of a later layer overflows", "0"),
    ("gradient_norm", "‖g‖", "light", "gradient of the layer's parameters",
     "within a factor of 100 of the other layers"),
    ("param_norm", "‖w‖", "full, or after with_updates", "size of the parameters",
     "grows slowly, then levels off"),
    ("update_norm", "‖u‖", "after with_updates", "length of the step",
     "see update_ratio"),
    ("gradient_cosine", "g·w / (‖g‖ ‖w‖)", "full",
     "the radial part: 0 where a normalisation hides the scale of w",
     "below 0.3 in size; near 1 the gradient only rescales w"),
)  # fmt: skip
_DERIVED = (
    ("share", "‖g‖² / Σ ‖g‖²", "light", "who drives the global norm and its clipping",
     "below 0.5 in networks of many layers", _share),
    ("radial_norm", "‖g‖ · abs(cos)", "full", "part of the gradient along w",
     "less than a third of ‖g‖",
     lambda get: get("gradient_norm") * np.abs(get("gradient_cosine"))),
    ("gain", "‖∂L/∂h_(l-1)‖ / ‖∂L/∂h_l‖", "light",
     "by how much the layer stretches what goes back through it",
     "0.8 to 1.25; its product over layers within 0.01 to 100", _gain),
    ("update_ratio", "‖u‖ / ‖w‖", "after with_updates", "relative length of the step",
     "1e-4 to 1e-2, after warm-up", _update_ratio),
)  # fmt: skip
_SCALARS = (
    ("loss", "L", "light", "what is minimised", "falls", lambda get: get("value")),
    ("loss_z", "(L - mean) / std of the 100 steps before", "light",
     "a spike: a bad batch, or a step too far", "below 6",
     lambda get: z_score(get("value"))),
    ("global_norm", "sqrt(Σ ‖g‖²)", "light", "the norm that is clipped",
     "steady within a factor of 10 after warm-up", _global_norm),
    ("largest_share", "max of share", "light", "how much one layer drives the norm",
     "below 0.5 in networks of many layers", _most(_share)),
    ("largest_share_layer", "its row", "light", "which one: history.names[row]",
     "changes from step to step", _largest_layer),
    ("smallest_gain", "min of gain", "light", "where gradients shrink most",
     "above 0.1", _least(_gain)),
    ("largest_gain", "max of gain", "light", "where gradients grow most",
     "below 10", _most(_gain)),
    ("smallest_update_ratio", "min of update_ratio", "after with_updates",
     "the layer that learns least", "above 1e-5", _least(_update_ratio)),
    ("largest_update_ratio", "max of update_ratio", "after with_updates",
     "the layer that is changed most", "below 1e-1", _most(_update_ratio)),
    ("nonfinite", "Σ of both counts", "light", "NaN or ±∞ anywhere", "0", _nonfinite),
)  # fmt: skip

METRICS: tuple[Metric, ...] = (
    *(Metric(*row) for row in _SCALARS),
    *(Metric(*row, per_layer=True) for row in _LAYERS),
    *(Metric(*row, per_layer=True) for row in _DERIVED),
)
"""All of them: first the ten that writers write, then those of layers."""

DERIVED = {metric.name: metric.of for metric in METRICS if metric.of is not None}
"""What computes those that are not measured."""
SCALARS = tuple(metric.name for metric in METRICS if not metric.per_layer)

_HEADS = ("name", "formula", "level", "reading", "healthy")


def show_metrics(console=None, /) -> None:
    """Print the table of all metrics to a rich console (standard output by default)."""
    console = _console.terminal(console)
    table = _console.table(*_HEADS, padding=(0, 1, 0, 0))
    for metric in METRICS:
        table.add_row(*(text(getattr(metric, head)) for head in _HEADS))
    console.print(table)


def as_markdown() -> str:
    """The same table in Markdown."""
    rows = [_HEADS, ["---"] * len(_HEADS)]
    rows += [[f"`{m.name}`", m.formula, m.level, m.reading, m.healthy] for m in METRICS]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
