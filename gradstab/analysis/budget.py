"""How much of an analysis is done by default: what fits into ten minutes."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradstab import _memory
from gradstab.analysis.cost import Cost, estimate_cost, too_large
from gradstab.analysis.selection import Limits
from gradstab.analysis.subject import Subject
from gradstab.errors import UserMemoryError

# Examples and singular values, from what is wished for to what is least.
_LADDER = ((16, None), (8, None), (4, 8), (2, 4), (1, 4), (1, 1))
_REDRAWS = (16, 4, 0)

# The share of the time that theory may take, and that signals in float64 may.
_SHARE = 0.2

# An estimate may be short by a factor of three: what is chosen is to take half.
_CAUTION = 0.5

# Signals that take more than this are not widened to float64.
_WIDE_BYTES = 2**32


class Asked(NamedTuple):
    """What the user has said; None is left to us.

    Attributes:
        examples: for how many examples.
        top_k: how many singular values.
        layers: which layers.
        precision: see `analyze`.
        theory: whether to have theory.
        max_dense, max_bytes: see `Limits`.
        max_seconds: of the whole analysis.
        spectra_on: see `Limits`.
    """

    examples: int | None
    top_k: int | None
    layers: Any
    precision: str | None
    theory: bool
    max_dense: int
    max_bytes: float
    max_seconds: float
    spectra_on: str = "auto"


class Plan(NamedTuple):
    """What is done.

    Attributes:
        limits: of the Jacobians.
        wanted: for every layer whether its Jacobian is computed.
        redraws: of theory; None without it.
        cost: the estimate.
        notes: what was left out, and why.
    """

    limits: Limits
    wanted: list[bool]
    redraws: int | None
    cost: Cost
    notes: tuple[str, ...]


def too_large_for_float64(subject: Subject, asked: Asked, loss: bool, /) -> bool:
    """Whether the signals alone are better computed in the model's own precision."""
    if asked.precision is not None or not subject.wide:
        return False
    if any(dtype == "float64" for dtype in subject.own_dtypes):
        return False
    nothing = [False] * len(subject.network.layers)
    cost = estimate_cost(subject, nothing, _limits(asked, 1, 1), loss=loss)
    most = min(_WIDE_BYTES, _memory.memory_at_hand() / 2)
    signals = dict(cost.parts).get("signals", 0.0)
    above = cost.num_bytes - _memory.memory_in_use() > most
    return above or signals > _SHARE * asked.max_seconds


def make_plan(
    subject: Subject,
    wanted: list[bool],
    asked: Asked,
    loss: bool,
    /,
) -> Plan:
    """As much as the time and half of the memory allow; at least what was asked for.

    Args:
        subject: from `find_subject`.
        wanted: for every layer whether its Jacobian is wished for.
        asked: what the user has said, which is done at any cost.
        loss: whether there is one.

    Returns:
        The plan.

    Raises:
        MemoryError: if not even the signals fit into the memory at hand.
    """
    room = _memory.memory_at_hand()
    used = _memory.memory_in_use()
    most = Cost(asked.max_seconds, used + room / 2)
    redraws = _affordable_redraws(subject, asked, loss)
    first, fair = None, wanted
    if asked.layers is None:
        giant = too_large(subject, _limits(asked, 1, 1))
        fair = [w and not g for w, g in zip(wanted, giant, strict=True)]
    for limits, some in _less_and_less(asked, fair):
        cost = estimate_cost(subject, some, limits, loss=loss, redraws=redraws)
        first = first or cost
        plan = Plan(limits, some, redraws, cost, ())
        if _fits(cost, most._replace(seconds=_CAUTION * most.seconds)):
            break
    if plan.cost.num_bytes - used > room:
        raise UserMemoryError(
            f"the signals need about {(plan.cost.num_bytes - used) / 2**30:.2g} GiB, "
            f"and {room / 2**30:.2g} GiB are left: analyse fewer examples at a time, "
            "or give precision='own'"
        )
    return plan._replace(
        notes=tuple(
            _notes(plan, asked, wanted, fair, first, most, subject.network.names)
        )
    )


def say(notes: Iterable[str], /) -> None:
    """Write notes on standard error, which need not be a terminal."""
    for note in notes:
        print(f"gradstab: {note}", file=sys.stderr)


def _limits(asked: Asked, examples: int, top_k: int | None) -> Limits:
    return Limits(
        asked.examples or examples,
        asked.top_k or top_k,
        asked.max_dense,
        asked.max_bytes,
        asked.spectra_on,
    )


def _affordable_redraws(subject: Subject, asked: Asked, loss: bool) -> int | None:
    if not asked.theory:
        return None
    nothing = [False] * len(subject.network.layers)
    for redraws in _REDRAWS:
        cost = estimate_cost(
            subject, nothing, _limits(asked, 1, 1), loss=loss, redraws=redraws
        )
        if dict(cost.parts).get("theory", 0.0) <= _SHARE * asked.max_seconds:
            return redraws
    return None


def _less_and_less(
    asked: Asked, wanted: list[bool]
) -> Iterator[tuple[Limits, list[bool]]]:
    """Limits and layers, each less work than the one before."""
    rungs = list(dict.fromkeys(_limits(asked, *rung) for rung in _LADDER))
    for limits in rungs:
        yield limits, wanted
    count = sum(wanted)
    while asked.layers is None and count > 0:
        count //= 2
        yield rungs[-1], _spaced(wanted, count)


def _spaced(wanted: list[bool], count: int) -> list[bool]:
    """So many of the wanted layers, evenly spaced, the last one among them."""
    places = np.flatnonzero(wanted)
    kept = places[np.linspace(len(places) - 1, 0, count).round().astype(int)]
    return [number in kept for number in range(len(wanted))]


def _fits(cost: Cost, most: Cost) -> bool:
    return cost.seconds <= most.seconds and cost.num_bytes <= most.num_bytes


def _notes(
    plan: Plan,
    asked: Asked,
    wanted: list[bool],
    fair: list[bool],
    first: Cost | None,
    most: Cost,
    names: Sequence[str],
) -> Iterator[str]:
    bounds = f"{_time(most.seconds)} or {most.num_bytes / 2**30:.2g} GiB"
    less = []
    pairs = zip(names, wanted, fair, strict=True)
    if giants := [name for name, want, keep in pairs if want and not keep]:
        yield (
            f"no Jacobian of {', '.join(giants)}: the vectors of one example take more "
            "than four times max_bytes"
        )
    if asked.examples is None and plan.limits.examples < _LADDER[0][0]:
        less.append(f"examples={plan.limits.examples}")
    if asked.top_k is None and plan.limits.top_k is not None:
        less.append(f"top_k={plan.limits.top_k}")
    if plan.wanted != fair:
        less.append(f"Jacobians of {sum(plan.wanted)} of {sum(fair)} layers")
    if less:
        yield (
            f"the whole analysis would take {first}; to stay below {bounds}: "
            f"{', '.join(less)}; give examples=, top_k=, layers= or max_seconds= to "
            "have it otherwise"
        )
    if asked.theory and plan.redraws != _REDRAWS[0]:
        what = "no theory" if plan.redraws is None else _redraws(plan.redraws)
        yield f"{what}: to draw every layer again {_REDRAWS[0]} times takes too long"
    if not _fits(plan.cost, most):
        yield f"this will take {plan.cost}, above {bounds}"


def _redraws(number: int) -> str:
    return (
        f"errors of theory from {number} redraws" if number else "no errors of theory"
    )


def _time(seconds: float) -> str:
    return f"{seconds / 60:.3g} minutes" if seconds >= 60 else f"{seconds:.3g} s"
