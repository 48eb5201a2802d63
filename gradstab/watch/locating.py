"""Where numbers stop being finite: layer, iteration, forward or backward."""

from typing import NamedTuple

import numpy as np
from jax.core import Tracer

from gradstab.errors import UserValueError
from gradstab.watch.sites import iteration, position


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
            None outside of loops.
    """

    layer: str
    part: str
    step: int | tuple[int, ...] | None = None

    def __str__(self):
        at = "" if self.step is None else f" at iteration {self.step}"
        if self.layer == "loss":
            what = {"forward": "the loss", "backward": "the gradient of the loss"}
            return f"the layers are finite, but {what[self.part]} is not"
        return f"the first layer that is not finite is {self.layer!r} ({self.part}){at}"


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


def first_nonfinite(stats, /) -> NonFinite | None:
    """See `Statistics.nonfinite`."""
    expect_one_step(stats, "the first place")
    last = len(stats.names) - 1
    norms = np.asarray(stats.param_norm)
    measured = stats.level == "full" or not np.isnan(norms).all()
    if measured and not np.isfinite(norms).all():
        return NonFinite(stats.names[np.argmin(np.isfinite(norms))], "parameters")
    lost = np.asarray(stats.forward_nonfinite) > 0
    if lost[:last].any():
        row, step = _earliest(stats, lost, np.asarray(stats.forward_step), forward=True)
        return NonFinite(stats.names[row], "forward", step)
    if not np.isfinite(stats.value):
        return NonFinite("loss", "forward")
    return _backward(stats, last)


def _backward(stats, last):
    lost = np.asarray(stats.backward_nonfinite) > 0
    own = np.asarray(stats.gradient_finite)
    following = "loss"
    for row in reversed(range(last)):
        if lost[row]:
            steps = np.asarray(stats.backward_step)
            first, step = _earliest(stats, lost, steps, forward=False)
            if step is None:
                return NonFinite(following, "backward")
            if stats.sites[first].apart:
                return NonFinite(_next(stats, first), "backward", step)
            return NonFinite(stats.names[first], "backward", step)
        if not own[row]:
            return NonFinite(stats.names[row], "backward")
        following = stats.names[row]
    finite = np.isfinite(np.asarray(stats.gradient_norm)).all()
    return None if finite else NonFinite(following, "backward")


def _earliest(stats, lost, steps, *, forward):
    """The row that comes first in the order of the computation, and its iteration."""
    rows = [int(row) for row in np.flatnonzero(lost[:-1])]
    if not stats.sites:
        return (rows[0] if forward else rows[-1]), None
    keys = {row: position(stats.sites[row], max(int(steps[row]), 0)) for row in rows}
    row = (min if forward else max)(rows, key=keys.__getitem__)
    return row, iteration(stats.sites[row], int(steps[row]))


def _next(stats, row):
    """What comes behind a layer in an iteration of its loops."""
    sites, following = stats.sites, row + 1
    alike = sites[following].loops == sites[row].loops
    return stats.names[following] if alike else "loss"
