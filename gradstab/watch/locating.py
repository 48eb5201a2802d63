"""Where numbers stop being finite, or jump: layer, iteration, device, direction."""

import math
import warnings
from typing import NamedTuple

import numpy as np
from jax.core import Tracer

from gradstab.errors import UserValueError
from gradstab.watch.sites import iteration, position

# Of the logarithms of a reference: so many deviations beyond the median, and a factor.
# Six robust deviations are what nothing of a normal law is beyond in 1e8 steps; a layer
# that always gives the same number has none, hence the factor.
# Of healthy runs of `experiments.early_warnings` 5 % have a jump 1.02 times as large,
# in logarithms.
DEVIATIONS, FACTOR = 6.0, 4.0
_MAD = 1.4826  # the standard deviation of a normal law over its median deviation


class NonFinite(NamedTuple):
    """The first place that is not finite.

    Attributes:
        layer: its name; ``"loss"`` if the layers are finite, but not the loss or its
            gradient.
        part: ``"parameters"``, ``"forward"`` or ``"backward"``: what is not finite
            because of it.
        step: in a loop over time the iteration, counted from 0: forward the first whose
            data are not finite, backward the one whose gradient is not finite first,
            which is the last; of loops in loops one for each, the outermost first;
            None outside of loops, and where only the gradient of parameters says it.
        device: index along each axis of the mesh, ``(("data", 3),)``, where devices are
            apart; of several the first.
        example: which of the examples of this iteration and device, where they are
            apart; of several the first.
    """

    layer: str
    part: str
    step: int | tuple[int, ...] | None = None
    device: tuple[tuple[str, int], ...] = ()
    example: int | None = None

    def __str__(self):
        if self.layer == "loss":
            what = {"forward": "the loss", "backward": "the gradient of the loss"}
            return f"the layers are finite, but {what[self.part]} is not"
        return (
            f"the first layer that is not finite is {self.layer!r} "
            f"({self.part}){_at(self)}"
        )


class Spike(NamedTuple):
    """The first place that jumps; see `NonFinite` for what says where.

    Attributes:
        factor: by how much what is measured there exceeds its median.
    """

    layer: str
    part: str
    step: int | tuple[int, ...] | None = None
    device: tuple[tuple[str, int], ...] = ()
    example: int | None = None
    factor: float = math.nan

    def __str__(self):
        return (
            f"the first jump is at {self.layer!r} ({self.part}){_at(self)}, to "
            f"{self.factor:.3g} times the median"
        )


def _at(place):
    parts = [] if place.step is None else [f"iteration {place.step}"]
    parts += [f"{axis} {index}" for axis, index in place.device]
    parts += [] if place.example is None else [f"example {place.example}"]
    return f" at {', '.join(parts)}" if parts else ""


def is_traced(stats, /) -> bool:
    """Whether statistics have no numbers, inside of jit."""
    return isinstance(stats.value, Tracer)


def is_one_step(stats, /) -> bool:
    """Whether statistics hold the numbers of one step."""
    return not is_traced(stats) and np.ndim(stats.value) == 0


def expect_one_step(stats, what, /) -> None:
    """Refuse what has no one answer for several steps.

    Raises:
        ValueError: inside of jit, and of several steps at once.
    """
    if is_traced(stats):
        raise UserValueError(
            f"{what} needs numbers: return the statistics from jit first"
        )
    if np.ndim(stats.value):
        raise UserValueError(
            f"{what} is of one step, and these are {np.shape(stats.value)}: "
            "take one, jax.tree.map(lambda x: x[-1], stats)"
        )


class _Marks(NamedTuple):
    """What is wrong at each row.

    Attributes:
        masks: forward and backward, which rows.
        steps: for each the first iteration, of all loops together; -1 without loops.
        own: rows whose parameters' gradient is wrong.
        loss: whether the loss is.
        details: by layer the axes, and what is wrong along them, ``(..., 2)``.
    """

    masks: tuple
    steps: tuple
    own: np.ndarray
    loss: bool
    details: dict


def first_nonfinite(stats, /) -> NonFinite | None:
    """See `Statistics.nonfinite`."""
    expect_one_step(stats, "the first place")
    norms = np.asarray(stats.param_norm)
    measured = stats.level == "full" or not np.isnan(norms).all()
    if measured and not np.isfinite(norms).all():
        return NonFinite(stats.names[np.argmin(np.isfinite(norms))], "parameters")
    masks = np.asarray(stats.forward_nonfinite), np.asarray(stats.backward_nonfinite)
    steps = np.asarray(stats.forward_step), np.asarray(stats.backward_step)
    own = ~np.asarray(stats.gradient_finite)
    details = {
        name: (one.axes, np.asarray(one.nonfinite))
        for name, one in (stats.details or {}).items()
    }
    marks = _Marks(
        (masks[0] > 0, masks[1] > 0), steps, own, not np.isfinite(stats.value), details
    )
    place, _ = _first(stats, marks)
    if place is None and not np.isfinite(np.asarray(stats.gradient_norm)).all():
        return NonFinite(stats.names[0] if len(stats.names) > 1 else "loss", "backward")
    return place


def _first(stats, marks: _Marks):
    """The first place that is wrong, and the row that says so."""
    last = len(stats.names) - 1
    if marks.masks[0][:last].any():
        row = _earliest(stats, marks, 0)
        return NonFinite(
            stats.names[row], "forward", *_where(stats, marks, row, 0)
        ), row
    if marks.loss:
        return NonFinite("loss", "forward"), last
    following = "loss"
    for row in reversed(range(last)):
        if marks.masks[1][row]:
            first = _earliest(stats, marks, 1)
            where = _where(stats, marks, first, 1)
            if where[0] is None:
                name = following if first == row else _next(stats, first)
            else:
                apart = stats.sites[first].apart
                name = _next(stats, first) if apart else stats.names[first]
            return NonFinite(name, "backward", *where), first
        if marks.own[row]:
            where = _where_before(stats, marks, row)
            return NonFinite(stats.names[row], "backward", *where), row
        following = stats.names[row]
    return None, last


def _earliest(stats, marks, way):
    """The row that comes first in the order of the computation."""
    rows = [int(row) for row in np.flatnonzero(marks.masks[way][:-1])]
    if not stats.sites:
        return rows[-way]
    steps = marks.steps[way]
    keys = {row: position(stats.sites[row], max(int(steps[row]), 0)) for row in rows}
    return (min, max)[way](rows, key=keys.__getitem__)


def _where(stats, marks, row, way):
    """Iteration, device and example of a row."""
    site = stats.sites[row] if stats.sites else None
    step = None if site is None else iteration(site, int(marks.steps[way][row]))
    if stats.names[row] not in marks.details:
        return step, (), None
    axes, wrong = marks.details[stats.names[row]]
    wrong = wrong[..., way]
    indices = () if step is None else np.atleast_1d(step)
    loops = axes.count("iteration")
    wrong, axes = wrong[tuple(indices[:loops])], axes[loops:]
    if not wrong.any():
        return step, (), None
    found = np.unravel_index(int(np.argmax(wrong)), wrong.shape) if axes else ()
    named = [(axis, int(index)) for axis, index in zip(axes, found, strict=True)]
    device = tuple(pair for pair in named if pair[0] != "example")
    return step, device, dict(named).get("example")


def _where_before(stats, marks, row):
    """Where a layer spoils its gradient: where that of the layer before it is wrong."""
    if not marks.masks[1][:row].any():
        return None, (), None
    before = _earliest(stats, marks, 1)
    step, device, example = _where(stats, marks, before, 1)
    together = stats.sites[before].loops == stats.sites[row].loops
    return step if together and stats.sites[row].apart else None, device, example


def _next(stats, row):
    """What comes behind a layer in an iteration of its loops."""
    sites, following = stats.sites, row + 1
    alike = sites[following].loops == sites[row].loops
    return stats.names[following] if alike and sites[following].order else "loss"


# Jumps


def first_spike(stats, reference, /) -> Spike | None:
    """See `Statistics.spike`."""
    expect_one_step(stats, "a jump")
    if reference.names != stats.names or np.ndim(reference.value) != 1:
        raise UserValueError(
            "the reference must be statistics of the same layers at several earlier "
            "steps, one after the other: "
            "jax.tree.map(lambda *x: jnp.stack(x), *earlier); got "
            f"{np.shape(reference.value)} of {len(reference.names)} layers"
        )
    details = {}
    for name, one in (stats.details or {}).items():
        factors = _factors(one.rms, reference.details[name].rms)
        details[name] = one.axes, factors
    both = [
        _factors(getattr(stats, name), getattr(reference, name))
        for name in ("forward_rms", "backward_rms", "gradient_norm", "value")
    ]
    masks, steps = [], []
    for way in (0, 1):
        rows, at = both[way] > 1, np.full(len(stats.names), -1)
        for name, (axes, factors) in details.items():
            row, loops = stats.names.index(name), axes.count("iteration")
            wrong = factors[..., way] > 1
            rows[row] |= wrong.any()
            if loops == len(stats.sites[row].loops) > 0 and wrong.any():
                number = math.prod(wrong.shape[:loops])
                lost = np.flatnonzero(wrong.reshape(number, -1).any(axis=1))
                at[row] = lost[-way]
        masks.append(rows)
        steps.append(at)
    wrong = {name: (axes, factors > 1) for name, (axes, factors) in details.items()}
    marks = _Marks(tuple(masks), tuple(steps), both[2] > 1, bool(both[3] > 1), wrong)
    place, row = _first(stats, marks)
    if place is None:
        return None
    return Spike(*place, factor=_size(stats, reference, place, row))


def _factors(value, reference):
    """How far a jump goes, of what is allowed; more than one is a spike."""
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of nothing but NaN: no jump
        beside = jump(np.log(np.abs(value)), np.log(np.abs(reference)))
    return np.nan_to_num(beside, nan=0.0)


def jump(value, before, /) -> np.ndarray:
    """By how much logarithms exceed the median of those before, of what is allowed.

    Args:
        value: ``(...)``.
        before: ``(steps, ...)``.
    """
    middle = median(before)
    spread = _MAD * median(np.abs(before - middle))
    allowed = np.maximum(DEVIATIONS * spread, math.log(FACTOR))
    return (value - middle) / allowed


def median(before, /) -> np.ndarray:
    """That of steps, of what is known; `numpy.nanmedian` takes ten times as long."""
    flat = np.reshape(before, (len(before), -1))
    middle = np.median(flat, axis=0)
    lost = np.isnan(middle) & ~np.isnan(flat).all(axis=0)
    if lost.any():
        middle[lost] = np.nanmedian(flat[:, lost], axis=0)
    return middle.reshape(np.shape(before)[1:])


def _size(stats, reference, place, row):
    if place.layer == "loss" and place.part == "forward":
        return float(stats.value / np.median(reference.value))
    name = "forward_rms" if place.part == "forward" else "backward_rms"
    if not place.step and place.part == "backward" and place.layer == stats.names[row]:
        name = "gradient_norm"
    now, before = getattr(stats, name)[row], getattr(reference, name)[:, row]
    return float(now / np.median(before))
