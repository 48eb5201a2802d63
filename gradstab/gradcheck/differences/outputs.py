"""Outputs whose derivative is lost beside that of others, looked at alone.

A table mixes all outputs. What is left of a small one in it may be less than the noise
of the large ones, and a rule that ignores it goes unseen. With cotangents that are zero
for the large ones, their noise is gone.
"""

import dataclasses
from collections.abc import Callable

from gradstab.gradcheck.differences.directions import SIGHT
from gradstab.gradcheck.differences.rounds import Round
from gradstab.gradcheck.differences.verdict import (
    AGREES,
    DIFFERS,
    KINK,
    OVERSHADOWED,
    small_outputs,
)

# Groups of outputs that are looked at.
_MOST = 16


def with_small_outputs(rounds: dict, names, look: Callable, /) -> dict:
    """The rounds, those of small outputs replaced by some along them alone.

    Small ones are looked at together, and those of them that are hidden by the others
    again; where that says nothing, one by one.

    Args:
        rounds: by leaf, mode and oracle.
        names: of the outputs.
        look: from the numbers of some outputs to the rounds along them alone.

    Returns:
        For every leaf, mode and oracle the round that decides. What agrees for all
        groups of outputs agrees, with the worst of their resolutions.
    """
    rounds = dict(rounds)
    waiting = {
        key: [small_outputs(r.probes)]
        for key, r in rounds.items()
        if r.finding.state == OVERSHADOWED
    }
    worst = {key: _of_large_ones(rounds[key]) for key in waiting}
    for _ in range(_MOST):
        group = next((groups[0] for groups in waiting.values() if groups), None)
        if group is None:
            break
        alone = {key: _named(r, group, names) for key, r in look(group).items()}
        for key, r in alone.items():
            state = r.finding.state
            if group in waiting.get(key, []):
                waiting[key].remove(group)
                waiting[key] += _left(r, group)
                if state in (AGREES, OVERSHADOWED):
                    worst[key] = max(worst[key], _of_large_ones(r), key=_resolution)
                elif state in (DIFFERS, KINK) or len(group) == 1:
                    rounds[key] = r
                    del waiting[key]
            elif key not in rounds or _accuses(r, rounds[key]):
                rounds[key] = r
    return rounds | {key: worst[key] for key, groups in waiting.items() if not groups}


def _left(found: Round, group) -> list:
    """The groups that are to be looked at after this one."""
    if found.finding.state == OVERSHADOWED:
        return [small_outputs(found.probes)]
    settled = found.finding.state in (AGREES, DIFFERS, KINK) or len(group) == 1
    return [] if settled else [(n,) for n in group]


def _accuses(found: Round, before: Round) -> bool:
    return found.finding.state == DIFFERS and before.finding.state == AGREES


def _of_large_ones(found: Round) -> Round:
    """What a round says about the outputs that are not small: it agrees."""
    g = found.finding
    if g.state == AGREES:
        return found
    least = 1.0 if g.absolute else 1.0 - g.bar
    resolution = (max(g.error, g.bar) + g.bar) / (SIGHT * least)
    agrees = dataclasses.replace(g, state=AGREES, resolution=resolution)
    return dataclasses.replace(found, finding=agrees)


def _resolution(found: Round) -> float:
    return found.finding.resolution


def _named(found: Round, group, names) -> Round:
    output = tuple(names[n] if n < len(names) else f"output[{n}]" for n in group)
    finding = dataclasses.replace(found.finding, output=output)
    return dataclasses.replace(found, finding=finding)
