"""What each parameter of a model is, from its program at two widths."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from gradstab.network.adapters import Target
from gradstab.program.meetings import Meeting, Meetings, meetings_of
from gradstab.program.trace import trace_program
from gradstab.scaling.roles import Found, Role, Shapes, growing, marks_for, role_of

# Exponents that differ by less are equal: 1/(n - 1) is no other law than 1/n.
_SAME = 0.1
# What muP wants of a product of queries and keys that sums over n entries: 1/n.
_INVERSE = -1.0

Pair = tuple[Meeting, Meeting]


class Described(NamedTuple):
    """What the programs of a model at two widths say.

    Attributes:
        found: for each parameter what it is.
        products: sentences on products of data that no parameter can make right.
        notes: other sentences.
    """

    found: list[Found]
    products: tuple[str, ...]
    notes: tuple[str, ...]


def meetings_in(target: Target, /) -> Meetings:
    """The meetings in the program of a model; nothing of it is evaluated."""
    program = trace_program(target.apply, target.params, target.state, target.inputs)
    return meetings_of(program.closed, marks_for(target))


def are_alike(narrow: Meetings, wide: Meetings, /) -> bool:
    """Whether two programs are one but for their sizes."""
    first, second = (
        [(one.kind, sorted(one.degrees)) for one in each.meetings]
        for each in (narrow, wide)
    )
    return first == second and len(narrow.factors) == len(wide.factors)


def from_programs(
    narrow: Meetings, wide: Meetings, shapes: Sequence[Shapes], /
) -> Described:
    """The role of every parameter, and what the program multiplies it with.

    Args:
        narrow: what was met at one width.
        wide: the same at twice the width.
        shapes: for each parameter its shape at the one and at the other.
    """
    pairs = list(zip(narrow.meetings, wide.meetings, strict=True))
    exponents, notes = _factors(narrow, wide, pairs)
    found = [_of_leaf(leaf, pair, pairs, exponents) for leaf, pair in enumerate(shapes)]
    products = []
    for number, pair in enumerate(pairs):
        lacks = _lacking(pair, exponents[number])
        if not lacks:
            continue
        takers = _takers(pair[0].sides, pairs)
        if takers:
            for leaf in takers:
                found[leaf] = found[leaf]._replace(missing=lacks)
        else:
            products.append(_by_hand(pair[0].source, lacks))
    return Described(found, tuple(dict.fromkeys(products)), notes)


def _factors(
    narrow: Meetings, wide: Meetings, pairs: list[Pair]
) -> tuple[list[float], tuple[str, ...]]:
    """For every meeting the exponent of what multiplies it; and what was not placed."""
    exponents, notes = [0.0] * len(pairs), []
    for small, large in zip(narrow.factors, wide.factors, strict=True):
        exponent = math.log2(large.value / small.value)
        if abs(exponent) < _SAME:
            continue
        sums = {number for number in small.before if _grows(pairs[number], "data")}
        if small.of:
            places = small.of
        elif small.before and small.before == sums and not small.elsewhere:
            places = sums
        elif small.after:
            places = small.after
        elif small.before and not small.elsewhere:
            places = small.before
        else:
            notes.append(
                f"at {small.source} the program multiplies by a constant that goes as "
                f"width^{exponent:.2g}; what that does to the parameters was not found"
            )
            continue
        for number in places:
            exponents[number] += exponent
    return exponents, tuple(dict.fromkeys(notes))


def _grows(pair: Pair, kind: str) -> bool:
    return pair[0].kind == kind and pair[1].summed > pair[0].summed


def _of_leaf(
    leaf: int, shapes: Shapes, pairs: list[Pair], exponents: list[float]
) -> Found:
    axes = growing(*shapes)
    if not axes:
        return Found(Role.FIXED, axes)
    uses = [i for i, (small, _) in enumerate(pairs) if leaf in small.degrees]
    roles = {role_of(*pairs[i], shapes) for i in uses}
    roles = roles - {Role.FIXED} if len(roles) > 1 else roles
    if note := _unusual(leaf, uses, pairs, roles, axes):
        return Found(Role.AMBIGUOUS, axes, note)
    factors = {_rounded(exponents[i]) for i in uses}
    if roles in ({Role.EMBEDDING, Role.OUTPUT}, {Role.INPUT, Role.OUTPUT}):
        return _tied(axes, uses, pairs, shapes, exponents)
    if len(factors) > 1:
        words = " and ".join(f"width^{one:g}" for one in sorted(factors))
        return Found(
            Role.AMBIGUOUS, axes, f"the program multiplies its uses by {words}"
        )
    role = roles.pop() if len(roles) == 1 else Role.EMBEDDING
    return Found(role, axes, "", factors.pop())


def _rounded(exponent: float) -> float:
    half = round(2 * exponent) / 2
    return half if abs(half - exponent) < _SAME else round(exponent, 2)


def _unusual(
    leaf: int,
    uses: list[int],
    pairs: list[Pair],
    roles: set[Role],
    axes: tuple[int, ...],
) -> str:
    """Why the role of a parameter is none of those that are known; or empty."""
    meetings = [pairs[i][0] for i in uses]
    if not uses:
        return "no use of it was found"
    if roles == {Role.FIXED}:
        return "what grows in it is neither summed over nor seen in the results"
    for meeting in meetings:
        if meeting.kind == "other":
            return (
                "used inside of a branch, an unbounded loop or an opaque operation, "
                f"at {meeting.source}"
            )
        if meeting.kind == "lookup" and meeting.is_multiplied:
            return f"looked up, and then multiplied with data, at {meeting.source}"
        degree = meeting.degrees[leaf]
        if degree != 1 and roles != {Role.VECTOR}:
            return _of_degree(degree, roles)
    if Role.AMBIGUOUS in roles:
        return "meets the data entry by entry with two growing axes"
    if roles == {Role.HIDDEN} and len(axes) < 2:
        return "used only together with other parameters: a factor of a hidden kernel"
    tied = {Role.EMBEDDING, Role.OUTPUT}, {Role.INPUT, Role.OUTPUT}
    alike = roles <= {Role.EMBEDDING, Role.VECTOR, Role.INPUT}
    if len(roles) > 1 and roles not in tied and not alike:
        return f"used as {', '.join(sorted(roles))}"
    return ""


def _of_degree(degree: float | None, roles: set[Role]) -> str:
    role = " and ".join(sorted(roles))
    if degree == 0:
        return f"{role}, but the program normalises it: its initial size has no effect"
    return f"{role}, but through a function of its values that is not linear"


def _tied(
    axes: tuple[int, ...],
    uses: list[int],
    pairs: list[Pair],
    shapes: Shapes,
    exponents: list[float],
) -> Found:
    """One that is input and output: it is scaled for the input."""
    outputs = [i for i in uses if role_of(*pairs[i], shapes) is Role.OUTPUT]
    inputs = [i for i in uses if i not in outputs]
    ahead = {_rounded(exponents[i]) for i in inputs}
    behind = {_rounded(exponents[i]) for i in outputs}
    if len(ahead) > 1 or len(behind) > 1:
        return Found(Role.AMBIGUOUS, axes, "tied, and multiplied by several constants")
    lacks = _INVERSE - behind.pop() + (factor := ahead.pop())
    note = ""
    if abs(lacks) > _SAME:
        note = (
            "input and output at once, and scaled as an input: multiply the output by "
            f"{_ratio(-lacks)} by hand, at {pairs[outputs[0]][0].source}"
        )
    return Found(Role.TIED, axes, note, factor)


def _ratio(exponent: float) -> str:
    power = "" if exponent == 1 else f"^{exponent:g}"
    return f"(base_width / width){power}"


def _lacking(pair: Pair, exponent: float) -> float:
    """The exponent that muP wants of a product of data, beyond that which it has."""
    if not _grows(pair, "data"):
        return 0.0
    grown = math.log2(pair[1].summed / pair[0].summed)
    lacks = _rounded(_INVERSE * grown - exponent)
    return lacks if abs(lacks) > _SAME else 0.0


def _takers(sides: Sequence[frozenset[int]], pairs: list[Pair]) -> list[int]:
    """The parameters that make one factor of a product, and do nothing else.

    The program must be linear from where they are used to the product.
    """
    for side in sides:
        meetings = [pairs[i][0] for i in side]
        leaves = sorted({leaf for one in meetings for leaf in one.degrees})
        others = {
            leaf
            for i, (small, _) in enumerate(pairs)
            if i not in side
            for leaf in small.degrees
        }
        linear = all(
            one.kind in ("product", "entries") and set(one.degrees.values()) == {1.0}
            for one in meetings
        )
        if leaves and linear and others.isdisjoint(leaves):
            return leaves
    return []


def _by_hand(source: str, lacks: float) -> str:
    return (
        f"data are multiplied with data over an axis that grows with the width, at "
        f"{source}: if these are queries and keys, divide by the size of a head and "
        f"not by its root; that is, multiply by {_ratio(-lacks)} by hand. Or let the "
        "number of heads grow and keep their size"
    )
