"""Where f stands still, and a rule says that it moves.

A function that is cut off (clip, relu, a dead unit) stands still there at every small
step, and moves again beyond the border. To the differences it looks like one that
rounds inside; but that one moves in stairs at the point given too.
"""

import dataclasses

import numpy as np

from gradstab.gradcheck.differences.probes import Probes
from gradstab.gradcheck.differences.steps import num_resolved
from gradstab.gradcheck.findings import Finding
from gradstab.gradcheck.states import Outcome
from gradstab.gradcheck.subject.vectors import root_mean_square

# So large a step, in sizes of the argument, and all smaller ones must not move f at
# all; at so many of them.
_STEP, _LEVELS = 2.0**-7, 3

# A slope of this part of f's value over the argument is none that rounding hides.
_SLOPE = 1e-3


def of_standstill(finding: Finding, probes: Probes, given: Probes, /, *, dtype):
    """The finding, as an accusation if f stands still and its rule does not.

    Args:
        finding: by differences, at a moved point.
        probes: of its leaf there.
        given: those at the point given.
        dtype: the coarsest that f computes in: stairs of few digits may be longer than
            any step.
    """
    state = finding.state
    if state not in (Outcome.STAIRS, Outcome.UNBOUNDED) or dtype != np.float64:
        return finding
    if not _stands_still(probes) or _moves_in_stairs(given):
        return finding
    rule = probes.rules[finding.mode]
    size = root_mean_square(rule) if np.all(np.isfinite(rule)) else np.inf
    typical = (probes.value or 1.0) / probes.scale
    if size <= _SLOPE * typical:
        return finding
    near = probes.steps <= _STEP * probes.scale
    bar = float(np.max(probes.rounding[near] / probes.steps[near])) / typical
    return dataclasses.replace(
        finding,
        error=size / typical,
        bar=bar,
        resolution=bar,
        state=Outcome.DIFFERS,
        absolute=True,
    )


def _stands_still(probes: Probes) -> bool:
    near = probes.steps <= _STEP * probes.scale
    return bool(np.sum(near) >= _LEVELS and not np.any(probes.moved[near]))


def _moves_in_stairs(probes: Probes) -> bool:
    levels = num_resolved(probes.moved, probes.rounding, probes.steps)
    return levels < len(probes.steps)
