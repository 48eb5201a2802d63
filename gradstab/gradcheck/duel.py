r"""Rule or body? Differences where the two say most different things.

Along random directions differences in few digits see nothing of a function of many
entries: of a sum of n, they see the derivative 1 / sqrt(n) times as large as along the
gradient. Where a rule :math:`R` and the automatic differentiation :math:`B` of its own
body differ, the direction that tells them apart best is known:
:math:`v = (R - B)^\top w`, and behind f :math:`(R - B) v`. A rule is accused if the
differences there contradict it and agree with its body. It is never acquitted: one
direction proves nothing about the others.
"""

import dataclasses

import numpy as np

from gradstab.gradcheck.differences.directions import NUM_TANGENTS
from gradstab.gradcheck.differences.draws import Draw, draw, toward
from gradstab.gradcheck.differences.probes import Probes
from gradstab.gradcheck.differences.tables import num_rules, rule_tables
from gradstab.gradcheck.differences.verdict import Truth, compare, differences
from gradstab.gradcheck.examination import TOGETHER, Examination
from gradstab.gradcheck.findings import BODY, Finding
from gradstab.gradcheck.states import Outcome
from gradstab.gradcheck.subject.abilities import abilities, program
from gradstab.gradcheck.subject.problem import MODES
from gradstab.gradcheck.subject.programs import Programs
from gradstab.gradcheck.subject.vectors import root_mean_square

# An error is clearly seen if the differences' own is so much smaller.
_CLEAR = 0.25

_ROUNDS = 3  # an accusation is confirmed along two more sets of directions


def duels(seen: Examination, plain, found, /) -> list[Finding]:
    """Accuses the rule that differs most from its body, where f alone cannot tell.

    Args:
        seen: the examination, at the point given.
        plain: the function without its rules.
        found: the findings so far.

    Returns:
        At most one finding for each mode.
    """
    # What differs by less than was asked for, and was clearly seen to, does so along
    # every direction.
    settled = {
        (g.leaf, g.mode)
        for g in found
        if g.proves
        and (g.agrees or (g.state == Outcome.SLIGHT and g.bar < _CLEAR * g.error))
    }
    doubtful = [
        g
        for g in found
        if g.oracle == BODY and g.differs and np.isfinite(g.error)
        if (g.leaf, g.mode) not in settled and g.leaf != TOGETHER
    ]
    if not doubtful:
        return []
    body = _programs(seen, plain)
    worst = {g.mode: g for g in sorted(doubtful, key=lambda g: g.error)}
    lost = [_duel(seen, body, g.leaf, g.mode) for g in worst.values()]
    return [g for g in lost if g is not None]


def _programs(seen: Examination, plain) -> Programs:
    task = seen.problem
    with task.context():
        closed = program(plain, task.leaves)
        modes, *_ = abilities(plain, task.leaves, task.outputs, MODES, closed)
    both = dataclasses.replace(task, modes=modes)
    return Programs(both, f=plain, lanes=seen.prober.programs.lanes)


def _duel(seen: Examination, body, name: str, mode: str) -> Finding | None:
    """The accusation if every round makes it, by the round that saw least."""
    leaf, findings = seen.problem.names.index(name), []
    for _ in range(_ROUNDS):
        found = _round(seen, body, leaf, mode)
        if found is None:
            return None
        findings.append(found)
    return max(findings, key=lambda g: g.resolution)


def _round(seen: Examination, body, leaf: int, mode: str) -> Finding | None:
    """The accusation along fresh directions, or None."""
    task, rng = seen.problem, seen.stream()
    drawn = _directed(seen, body, leaf, draw(task, task.leaves, rng, paired=False))
    if drawn is None:
        return None
    looked = seen.prober.along(task.leaves, drawn, rng)
    entries = rule_tables(body, task.leaves, drawn)[body.problem.modes[0]][leaf]
    seen.evaluations += looked.evaluations + num_rules(body.problem)
    probes = _own_pairs(looked.leaves[leaf])
    rule = probes.rules[mode]
    truth = differences(rule, probes, dtype=task.dtype)
    if not _agree(_diagonal(entries.ravel()), truth):
        return None
    given = {"leaf": task.names[leaf], "mode": mode, "dtype": task.dtype}
    found = compare(rule, truth, probes, rtol=seen.rtol, **given)
    return found if found.differs else None


def _directed(seen: Examination, body, leaf: int, drawn: Draw) -> Draw | None:
    """The directions along which rule and body differ most; None if they do not."""
    point, programs = seen.problem.leaves, seen.prober.programs
    rule, plain = (p.rules(point, drawn) for p in (programs, body))
    if "reverse" in rule and "reverse" in plain:
        rows = (raw["reverse"][leaf][:NUM_TANGENTS] for raw in (rule, plain))
        gap = np.subtract(*(np.asarray(g, np.float64) for g in rows))
        if not _usable([gap]):
            return None
        drawn = toward(drawn, seen.problem, leaf, tangents=gap)
        rule, plain = (p.rules(point, drawn) for p in (programs, body))
    if "forward" in plain:
        ends = [np.asarray(y[leaf], np.float64) for y in plain["forward"]]
        if "forward" in rule:
            own = [np.asarray(y[leaf], np.float64) for y in rule["forward"]]
            ends = [a - b for a, b in zip(own, ends, strict=True)]
        if _usable(ends):
            drawn = toward(drawn, seen.problem, leaf, cotangents=ends)
    return drawn


def _usable(arrays) -> bool:
    """Whether every row is finite and not zero."""
    flat = np.concatenate([a.reshape(len(a), -1) for a in arrays], axis=1)
    return bool(np.all(np.isfinite(flat)) and np.all(np.any(flat, axis=1)))


def _own_pairs(probes: Probes) -> Probes:
    """Of the table only every tangent with its own cotangent."""
    return dataclasses.replace(
        probes,
        rules={mode: _diagonal(table) for mode, table in probes.rules.items()},
        anchor=_diagonal(probes.anchor),
        residual=_diagonal(probes.residual),
    )


def _diagonal(entries):
    pairs = entries.reshape(*entries.shape[:-1], NUM_TANGENTS, -1)
    return np.diagonal(pairs, axis1=-2, axis2=-1)


def _agree(entries, truth: Truth) -> bool:
    if truth.entries is None:
        return False
    return root_mean_square(entries - truth.entries) <= truth.bar + truth.kink
