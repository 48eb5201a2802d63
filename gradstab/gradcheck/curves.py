"""By how much differences and a rule disagree, step by step: what a plot shows."""

from collections.abc import Sequence

import numpy as np

from gradstab.gradcheck.subject.vectors import root_mean_square
from gradstab.records import record, static


@record
class Curve:
    """The differences of one argument leaf against its rule, before any extrapolation.

    Attributes:
        steps: the largest first, in units of the argument.
        residuals: differences minus rule at each, root mean square over directions,
            relative to the rule; absolute if the rule is zero.
        bars: how much of that rounding may be.
        leaf: the argument, such as ``args[0].kernel``.
        mode: ``forward`` or ``reverse``.
    """

    steps: tuple[float, ...]
    residuals: tuple[float, ...]
    bars: tuple[float, ...]
    leaf: str = static()
    mode: str = static()


@np.errstate(invalid="ignore", over="ignore")
def curves(names: Sequence[str], seen, /) -> tuple[Curve, ...]:
    """One curve for every leaf and mode.

    Args:
        names: of the leaves.
        seen: the `Measurement` of one round; what it says of all leaves moved together
            is left out.
    """
    if seen is None or not seen.finite:
        return ()
    return tuple(
        _curve(rule, probes, name, mode)
        for name, probes in zip(names, seen.leaves, strict=False)
        for mode, rule in probes.rules.items()
    )


def _curve(rule, probes, leaf, mode: str):
    size = root_mean_square(rule)
    unit = size if np.isfinite(size) and size > 0 else 1.0
    gap = probes.residual + (probes.anchor - rule)
    sizes = np.sqrt(np.mean(np.square(gap), axis=(1, 2)))
    rounding = probes.rounding / probes.steps
    steps, residuals, bars = (
        tuple(column.tolist())
        for column in (probes.steps, sizes / unit, rounding / unit)
    )
    return Curve(steps, residuals, bars, leaf, mode)
