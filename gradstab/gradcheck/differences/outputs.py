"""Outputs whose derivative is lost beside that of others, looked at alone.

A table mixes all outputs. What is left of a small one in it may be less than the noise
of the large ones, and a rule that ignores it goes unseen. With cotangents that are zero
for the large ones, their noise is gone.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from gradstab.gradcheck.differences.directions import SIGHT
from gradstab.gradcheck.differences.rounds import Round
from gradstab.gradcheck.differences.verdict import small_outputs
from gradstab.gradcheck.states import Outcome
from gradstab.gradcheck.subject.vectors import root_mean_square

# Groups of outputs that are looked at.
_MOST = 16

# So many outputs are looked at one by one where the noise of one hides all.
_FEW = 8


def with_small_outputs(
    rounds: dict,
    look: Callable,
    /,
    *,
    names: Sequence[str],
    rtol: float,
    thorough: bool = True,
) -> dict:
    """The rounds, those of small outputs replaced by some along them alone.

    Small ones are looked at together, and those of them that are hidden by the others
    again; where that says nothing, one by one.

    Args:
        rounds: by leaf, mode and oracle.
        look: from the numbers of some outputs to the rounds along them alone.
        names: of the outputs.
        rtol: the resolution asked for.
        thorough: look at few outputs one by one where noise hides them.

    Returns:
        For every leaf, mode and oracle the round that decides. What agrees for all
        groups of outputs agrees, with the worst of their resolutions.
    """
    rounds, waiting, agreed = dict(rounds), {}, {}
    for key, one in rounds.items():
        if groups := _first(one, rtol, thorough):
            waiting[key], agreed[key] = groups, _of_others(one, groups)
    for _ in range(_MOST):
        group = next((groups[0] for groups in waiting.values() if groups), None)
        if group is None:
            break
        alone = {key: _named(r, group, names) for key, r in look(group).items()}
        for key, r in alone.items():
            if group in waiting.get(key, []):
                groups = _next(r, group, rtol)
                waiting[key] = [g for g in waiting[key] if g != group] + groups
                agreed[key] += _of_others(r, groups)
                if not groups and not r.finding.agrees:
                    rounds[key] = _deciding(rounds[key], r)
                    del waiting[key]
            elif r.finding.differs and key not in waiting:
                rounds[key] = _deciding(rounds.get(key, r), r)
    done = [key for key, groups in waiting.items() if not groups]
    worst = {k: max(agreed[k], key=lambda one: one.finding.resolution) for k in done}
    return rounds | {
        k: r for k, r in worst.items() if rounds[k].finding.state != Outcome.SLIGHT
    }


def _deciding(one: Round, alone: Round) -> Round:
    """Of all outputs and some of them alone, the round that says more."""
    accused = one.finding.differs
    slight = one.finding.state == Outcome.SLIGHT and not alone.finding.differs
    return one if accused or slight else alone


def _first(one: Round, rtol: float | None, thorough) -> list:
    """The groups of outputs that have to be looked at alone."""
    if not len(one.probes.sizes):
        return []
    state = one.finding.state
    if state in (Outcome.OVERSHADOWED, Outcome.SLIGHT):
        return _hidden(one, rtol)
    outputs = np.flatnonzero(np.isfinite(one.probes.sizes)).tolist()
    lost = thorough and state in (Outcome.HIDDEN, Outcome.VANISHES)
    return [(n,) for n in outputs] if lost and len(outputs) <= _FEW else []


def _next(found: Round, group, rtol: float | None) -> list:
    """The groups that have to be looked at after this one."""
    state = found.finding.state
    if state == Outcome.OVERSHADOWED:
        return _hidden(found, rtol)
    settled = state in (Outcome.AGREES, Outcome.DIFFERS, Outcome.KINK)
    return [] if settled or len(group) == 1 else [(n,) for n in group]


def _hidden(one: Round, rtol: float | None) -> list:
    """Of the small outputs those whose errors could be overlooked."""
    hidden = [
        n
        for n in small_outputs(one.probes)
        if not _floor(one) <= rtol * one.probes.sizes[n]
    ]
    return [tuple(hidden)] if hidden else []


def _floor(one: Round) -> float:
    """The norm of an error that would have been noticed."""
    error, bar = root_mean_square(one.rule - one.truth.entries), one.truth.bar
    return (max(error, bar) + bar) / SIGHT


def _of_others(one: Round, groups) -> list[Round]:
    """What a round says about the outputs that are in no group, if it agrees there."""
    g = one.finding
    if g.agrees:
        return [one]
    if g.state != Outcome.OVERSHADOWED:
        return []
    least = 1.0 if g.absolute else 1.0 - g.bar
    resolution = (max(g.error, g.bar) + g.bar) / (SIGHT * least)
    seen = set(small_outputs(one.probes)).difference(*groups)
    small = min((one.probes.sizes[n] for n in seen), default=np.inf)
    resolution = max(resolution, _floor(one) / small)
    agrees = dataclasses.replace(g, state=Outcome.AGREES, resolution=resolution)
    return [dataclasses.replace(one, finding=agrees)]


def _named(found: Round, group, names: Sequence[str]) -> Round:
    output = tuple(names[n] if n < len(names) else f"output[{n}]" for n in group)
    finding = dataclasses.replace(found.finding, output=output)
    return dataclasses.replace(found, finding=finding)
