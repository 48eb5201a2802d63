"""Residual branches of a program: what is computed of a stream and added to it.

Nothing is evaluated. A sum of two data is the end of a branch if one of them, the
branch, is computed of the other, the stream, through a product. The parameters that the
branch is a linear function of, and that nothing between them and the sum reads
otherwise, are its ends: multiplied by a number, they multiply the branch by it.
"""

import collections
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

from gradstab import _compat
from gradstab.program import primitives
from gradstab.program.degrees import Degrees, degrees_after
from gradstab.program.linearity import adds, is_linear, moves
from gradstab.program.primitives import Kind
from gradstab.program.uses import Mark, joined, settled_marks, use_of
from gradstab.program.walk import (
    as_closed,
    called,
    evaluated,
    readers_in,
    split_operands,
)

_NOTHING: frozenset[int] = frozenset()


class Branch(NamedTuple):
    """What is added to a stream.

    Attributes:
        ends: numbers of the parameter leaves that scale it; empty if none do.
        source: the line of the user's program; empty if it is not known.
        times: how often it is evaluated: the length of the scans around it.
    """

    ends: frozenset[int]
    source: str
    times: int


class Branches(NamedTuple):
    """The branches of a program, and the leaves that do something else as well."""

    branches: tuple[Branch, ...]
    elsewhere: frozenset[int]


class _Value(NamedTuple):
    """What is known of a value.

    Attributes:
        mark: what it is made of.
        degrees: how it goes with the sizes of the parameters in it.
        ends: leaves that it is a linear function of.
        stream: numbers of the data that it is, but for what was added and for factors.
        past: numbers of all data that it depends on, its own among them.
        through: those of them that it depends on through a product.
    """

    mark: Mark = Mark()
    degrees: Degrees = types.MappingProxyType({})
    ends: frozenset[int] = _NOTHING
    stream: frozenset[int] = _NOTHING
    past: frozenset[int] = _NOTHING
    through: frozenset[int] = _NOTHING


def branches_of(closed: Any, marks: Sequence[Mark], /) -> Branches:
    """All residual branches of a program, in its order.

    Args:
        closed: a flat program.
        marks: what each of its inputs is made of.
    """
    walk = _Walk()
    walk.run(closed, [walk.given(mark) for mark in marks])
    ends = collections.Counter(i for one in walk.branches for i in one.ends)
    more = {leaf for leaf, times in walk.uses.items() if times > ends[leaf]}
    return Branches(tuple(walk.branches), frozenset(more))


class _Walk:
    def __init__(self) -> None:
        self.branches: list[Branch] = []
        self.uses: collections.Counter = collections.Counter()
        self._readers: collections.Counter = collections.Counter()
        self._times = 1
        self._count = 0

    def given(self, mark: Mark) -> _Value:
        """A value that nothing is known of but what it is made of."""
        if not mark.is_data:
            return _Value(mark, dict.fromkeys(mark.leaves, 1.0))
        return self._data()

    def _data(self, **known: Any) -> _Value:
        self._count += 1
        own = frozenset({self._count})
        stream = known.pop("stream", _NOTHING) | own
        past = known.pop("past", _NOTHING) | own
        return _Value(Mark(is_data=True), stream=stream, past=past, **known)

    def run(self, closed: Any, values: Sequence[_Value]) -> list[_Value]:
        closed = as_closed(closed)
        self._readers |= readers_in(closed)
        return list(map(_as_value, evaluated(closed, values, self.rule)))

    def rule(self, eqn: _compat.JaxprEqn, operands: list) -> Sequence[_Value]:
        values = [self._read(*pair) for pair in zip(eqn.invars, operands, strict=True)]
        if (body := called(eqn)) is not None:
            return self.run(body, values)
        if _compat.scan_parts(eqn) is not None:
            return self._scan(eqn, values)
        marks = [value.mark for value in values]
        mark = joined(marks)
        if not mark.is_data:
            degrees = degrees_after(eqn, [value.degrees for value in values])
            return [_Value(mark, degrees)] * len(eqn.outvars)
        return [self._made(eqn, values, use_of(eqn, marks))] * len(eqn.outvars)

    def _read(self, atom: Any, operand: Any) -> _Value:
        value = _as_value(operand)
        if value.ends and self._readers[atom] > 1:
            return value._replace(ends=_NOTHING)
        return value

    def _made(self, eqn: _compat.JaxprEqn, values: list[_Value], use: Any) -> _Value:
        data = [value for value in values if value.mark.is_data]
        past = _NOTHING.union(*(value.past for value in data))
        through = _NOTHING.union(*(value.through for value in data))
        if use is not None:
            self.uses.update(use.leaves)
            ends = _ends_of_use(eqn, values, use)
            through |= past if use.kind in ("product", "other") else _NOTHING
            return self._data(ends=ends, past=past, through=through)
        if adds(eqn) and len(data) == 2:
            return self._sum(eqn, data, past, through)
        if is_linear(eqn, [value.mark.is_data for value in values]):
            all_ends = len(data) == len(values) or len(data) == 1
            ends = _joined_ends(data) if all_ends else _NOTHING
            stream = data[0].stream if len(data) == 1 else _NOTHING
            return self._data(ends=ends, stream=stream, past=past, through=through)
        if len(data) > 1 and primitives.is_a(eqn, Kind.CONTRACTION):
            through |= past
        elif not primitives.acts_on_entries(eqn) and not moves(eqn):
            # Loops and branches, which may hold products.
            known = primitives.is_named(eqn, *_WITHOUT_PRODUCTS)
            through |= _NOTHING if known else past
        return self._data(past=past, through=through)

    def _sum(
        self,
        eqn: _compat.JaxprEqn,
        data: list[_Value],
        past: frozenset[int],
        through: frozenset[int],
    ) -> _Value:
        for stream, branch in (data, data[::-1]):
            common = stream.stream & branch.past
            # What depends on it without a product, such as a mean, is no branch.
            if common and max(common) in branch.through:
                line = _compat.source_line(eqn) or ""
                self.branches.append(Branch(branch.ends, line, self._times))
                return self._data(stream=stream.stream, past=past, through=through)
        return self._data(ends=_joined_ends(data), past=past, through=through)

    def _scan(self, eqn: _compat.JaxprEqn, values: list[_Value]) -> list[_Value]:
        parts = _compat.scan_parts(eqn)
        assert parts is not None
        marks = settled_marks(parts, [value.mark for value in values])
        consts, carry, slices = split_operands(parts, values)
        given = [
            *(value._replace(ends=_NOTHING) for value in consts),
            *(_Value(degrees=dict.fromkeys(value.mark.leaves)) for value in carry),
            *(value._replace(ends=_NOTHING) for value in slices),
        ]
        inside = [
            self._data() if mark.is_data else value._replace(mark=mark)
            for value, mark in zip(given, marks, strict=True)
        ]
        self._times *= parts.length
        made = self.run(parts.body, inside)
        self._times //= max(parts.length, 1)
        past = _NOTHING.union(*(value.past for value in values))
        # What comes of a scan is computed of all that enters, by products perhaps.
        return [
            self._data(past=past | value.past, through=past | value.through)
            if value.mark.is_data
            else value
            for value in made
        ]


# Neither entry by entry nor products of data.
_WITHOUT_PRODUCTS = (
    *("reduce_sum", "reduce_max", "reduce_min", "argmax", "argmin", "cumsum", "sort"),
    *("stop_gradient", "optimization_barrier", "sharding_constraint", "pad"),
    *("reduce_and", "reduce_or", "reduce_window_max", "reduce_window_sum", "iota"),
)


def _ends_of_use(
    eqn: _compat.JaxprEqn, values: list[_Value], use: Any
) -> frozenset[int]:
    held = [v for v in values if v.mark.leaves and not v.mark.is_data]
    data = [v for v in values if v.mark.is_data]
    own = {leaf: degree for v in held for leaf, degree in v.degrees.items()}
    if any(own.get(leaf) != 1 for leaf in use.leaves):
        return _NOTHING
    if adds(eqn):
        ends = _joined_ends(data)
        return ends | frozenset(use.leaves) if ends else _NOTHING
    linear = use.kind in ("product", "lookup") or primitives.is_named(eqn, "mul")
    return frozenset(use.leaves) if linear else _NOTHING


def _joined_ends(data: Sequence[_Value]) -> frozenset[int]:
    """Of a sum: all leaves, if each term is linear in some."""
    if not all(value.ends for value in data):
        return _NOTHING
    return _NOTHING.union(*(value.ends for value in data))


def _as_value(value: Any) -> _Value:
    return value if isinstance(value, _Value) else _Value()
