"""Where data meet parameters or data in a program, and what constants multiply there.

Nothing is evaluated but constants. A *meeting* is an equation that makes data of data
and parameters, a product of data with data, or a sum of data. A *constant factor* is a
single number by which the program multiplies: it belongs to the parameters that it
multiplies, to the meeting whose result it multiplies, or to the one it leads to.
"""

import collections
import dataclasses
import math
import types
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gradstab import _compat
from gradstab.program import primitives
from gradstab.program.degrees import Degrees, degrees_after
from gradstab.program.linearity import adds, is_linear, moves
from gradstab.program.primitives import Kind
from gradstab.program.uses import Mark, joined, settled_marks, use_of
from gradstab.program.walk import (
    as_closed,
    called,
    evaluate,
    evaluated,
    readers_in,
    split_operands,
)

# Constants of more entries are not evaluated, and are no factors.
_SMALL = 4096
_NOTHING: frozenset[int] = frozenset()


@dataclasses.dataclass
class Meeting:
    """An equation where data meet parameters, or data.

    Attributes:
        kind: that of a `gradstab.program.uses.Use`; 'data' for a product of data with
            data, 'sum' for a sum of data.
        summed: how many entries one result sums over.
        beside: how many results sum the same data, each with other parameters.
        degrees: for each parameter leaf that is read, how what is read goes with its
            size.
        sides: of a product of data, for each factor the meetings whose results it is.
        source: the line of the user's program; empty if it is not known.
        is_multiplied: whether the result is multiplied with data.
    """

    kind: str
    summed: int
    beside: int
    degrees: Degrees
    source: str
    sides: tuple[frozenset[int], ...] = ()
    is_multiplied: bool = False


@dataclasses.dataclass
class ConstantFactor:
    """One number that multiplies.

    Attributes:
        value: the number, without its sign.
        source: the line of the user's program.
        of: the meetings whose parameters it multiplies.
        after: the meetings whose results, and nothing else, it multiplies.
        before: the meetings that what is multiplied leads to.
        elsewhere: whether it leads to something else too.
    """

    value: float
    source: str
    of: set[int]
    after: frozenset[int]
    before: set[int]
    elsewhere: bool = False


class Meetings(NamedTuple):
    """What was met, in the order of the program."""

    meetings: list[Meeting]
    factors: list[ConstantFactor]


class _Value(NamedTuple):
    """What is known of a value.

    Attributes:
        mark: what it is made of.
        constant: its entries, if it is made of neither and they are known.
        degrees: how it goes with the sizes of the parameters in it.
        factors: numbers of the constant factors in it.
        meetings: numbers of the meetings whose results it is a linear function of, and
            that nothing else reads.
        varies: axes along which it is not repeated; None for all.
    """

    mark: Mark = Mark()
    constant: Any = None
    degrees: Degrees = types.MappingProxyType({})
    factors: frozenset[int] = _NOTHING
    meetings: frozenset[int] = _NOTHING
    varies: frozenset[int] | None = None


def meetings_of(closed: Any, marks: Sequence[Mark], /) -> Meetings:
    """All meetings and constant factors of a program.

    Args:
        closed: a flat program.
        marks: what each of its inputs is made of.
    """
    walk = _Walk()
    values = [
        _Value(mark, degrees=dict.fromkeys(mark.leaves, 1.0), constant=None)
        for mark in marks
    ]
    for value in walk.run(closed, values):
        walk.read_elsewhere([value], outputs=True)
    return Meetings(walk.meetings, walk.factors)


class _Walk:
    def __init__(self) -> None:
        self.meetings: list[Meeting] = []
        self.factors: list[ConstantFactor] = []
        self.readers: collections.Counter = collections.Counter()
        self.direct: dict[int, Any] = {}

    def run(self, closed: Any, values: Sequence[_Value]) -> list[_Value]:
        closed = as_closed(closed)
        self.readers |= readers_in(closed)
        return list(map(_as_value, evaluated(closed, values, self.rule)))

    def rule(self, eqn: _compat.JaxprEqn, operands: list) -> Sequence[_Value]:
        values = [self._read(*pair) for pair in zip(eqn.invars, operands, strict=True)]
        if (body := called(eqn)) is not None:
            return self.run(body, values)
        if _compat.scan_parts(eqn) is not None:
            return self._scan(eqn, values)
        mark = joined(value.mark for value in values)
        if not mark.is_data:
            if not mark.leaves:
                return _constants(eqn, values)
            return [self._of_parameters(eqn, values, mark)] * len(eqn.outvars)
        use = use_of(eqn, [value.mark for value in values])
        result = (
            self._of_data(eqn, values) if use is None else self._use(eqn, values, use)
        )
        return [result._replace(mark=Mark(is_data=True))] * len(eqn.outvars)

    def _read(self, atom: Any, operand: Any) -> _Value:
        value = _as_value(operand)
        if value.meetings and self.readers[atom] > 1:
            return value._replace(meetings=_NOTHING)
        return value

    def read_elsewhere(self, values: Iterable[_Value], *, outputs: bool = False):
        """Values go where their factors can not be followed."""
        for value in values:
            for number in value.factors:
                self.factors[number].elsewhere |= not outputs

    # Parameters alone.

    def _of_parameters(
        self, eqn: _compat.JaxprEqn, values: list[_Value], mark: Mark
    ) -> _Value:
        degrees = degrees_after(eqn, [value.degrees for value in values])
        held = [value for value in values if value.mark.leaves]
        factors = _common(held) if adds(eqn) else _all_factors(held)
        if (number := self._factor(eqn, values, _NOTHING)) is not None:
            factors |= {number}
        return _Value(mark, None, degrees, factors, varies=_varies(eqn, held[0]))

    def _factor(
        self, eqn: _compat.JaxprEqn, values: list[_Value], after: frozenset[int]
    ) -> int | None:
        """The number of the constant factor that an equation is; None if it is none."""
        if not primitives.is_named(eqn, "mul", "div"):
            return None
        divides = primitives.is_named(eqn, "div")
        held = [i for i, value in enumerate(values) if _uniform(value) is None]
        if len(held) != 1 or (divides and held != [0]):
            return None
        constant = abs(_uniform(values[1 - held[0]]) or 0.0)
        if not 0 < constant < math.inf:
            return None
        value = 1 / constant if divides else constant
        line = _compat.source_line(eqn)
        self.factors.append(ConstantFactor(value, line, set(), after, set()))
        return len(self.factors) - 1

    # Parameters and data.

    def _use(self, eqn: _compat.JaxprEqn, values: list[_Value], use: Any) -> _Value:
        held = [v for v in values if v.mark.leaves and not v.mark.is_data]
        data = [v for v in values if v.mark.is_data]
        degrees = {leaf: degree for v in held for leaf, degree in v.degrees.items()}
        number = self._meet(eqn, use.kind, use.summed, use.beside, degrees)
        for value in held:
            for factor in value.factors:
                self.factors[factor].of.add(number)
        if adds(eqn):
            self.read_elsewhere(data)
            return _Value(meetings=_all_meetings(data) | {number})
        if use.kind in ("product", "lookup") or primitives.is_named(eqn, "mul"):
            self._lead(data, number)
        else:
            self.read_elsewhere(data)
        if primitives.is_named(eqn, "mul"):
            self.direct[number] = eqn.outvars[0], held[0].varies
        return _Value(meetings=frozenset({number}))

    def _meet(
        self,
        eqn: _compat.JaxprEqn,
        kind: str,
        summed: int,
        beside: int,
        degrees: Degrees,
        sides: tuple[frozenset[int], ...] = (),
    ) -> int:
        line = _compat.source_line(eqn)
        self.meetings.append(Meeting(kind, summed, beside, degrees, line, sides))
        return len(self.meetings) - 1

    def _lead(self, values: Iterable[_Value], number: int) -> None:
        for value in values:
            for factor in value.factors:
                self.factors[factor].before.add(number)

    # Data alone.

    def _of_data(self, eqn: _compat.JaxprEqn, values: list[_Value]) -> _Value:
        data = [value for value in values if value.mark.is_data]
        if primitives.is_a(eqn, Kind.CONTRACTION) and len(data) > 1:
            return self._product(eqn, data)
        if primitives.is_named(eqn, "reduce_sum"):
            return self._sum(eqn, data[0])
        if (number := self._factor(eqn, values, _all_meetings(data))) is not None:
            (value,) = data
            return _Value(factors=value.factors | {number}, meetings=value.meetings)
        if not is_linear(eqn, [value.mark.is_data for value in values]):
            self.read_elsewhere(data)
            return _Value()
        common = _common(data) if len(data) == len(values) or moves(eqn) else _NOTHING
        self.read_elsewhere([v._replace(factors=v.factors - common) for v in data])
        return _Value(factors=common, meetings=_all_meetings(data))

    def _product(self, eqn: _compat.JaxprEqn, data: list[_Value]) -> _Value:
        summed = _compat.num_summed(eqn, 0)
        sides = tuple(value.meetings for value in data)
        number = self._meet(eqn, "data", summed, 1, {}, sides)
        self._lead(data, number)
        for one in _all_meetings(data):
            self.meetings[one].is_multiplied = True
        return _Value(meetings=frozenset({number}))

    def _sum(self, eqn: _compat.JaxprEqn, value: _Value) -> _Value:
        shape, axes = _compat.shape_of(eqn.invars[0]), eqn.params["axes"]
        for one in value.meetings:
            made, varies = self.direct.get(one, (None, None))
            if made is eqn.invars[0] and len(value.meetings) == 1:
                own = [i for i in range(len(shape)) if varies is None or i in varies]
                summed = math.prod(shape[i] for i in own if i in axes)
                if summed > 1:  # a product that is written as two steps
                    meeting, size = self.meetings[one], math.prod(shape[i] for i in own)
                    meeting.kind, meeting.summed = "product", summed
                    meeting.beside = size // summed
                    return value
        summed = math.prod(shape[i] for i in axes)
        number = self._meet(eqn, "sum", summed, 1, {})
        self.read_elsewhere([value])
        return _Value(meetings=frozenset({number}))

    # Scans.

    def _scan(self, eqn: _compat.JaxprEqn, values: list[_Value]) -> list[_Value]:
        parts = _compat.scan_parts(eqn)
        assert parts is not None
        marks = settled_marks(parts, [value.mark for value in values])
        consts, carry, slices = split_operands(parts, values)
        self.read_elsewhere([v for v in (*carry, *slices) if v.mark.is_data])
        inside = [
            *(value._replace(meetings=_NOTHING) for value in consts),
            *(_Value(degrees=dict.fromkeys(v.mark.leaves)) for v in carry),
            *(v._replace(meetings=_NOTHING, constant=None) for v in slices),
        ]
        made = self.run(
            parts.body,
            [v._replace(mark=mark) for v, mark in zip(inside, marks, strict=True)],
        )
        self.read_elsewhere(value for value in made if value.mark.is_data)
        return [
            value._replace(meetings=_NOTHING, constant=None, varies=None)
            for value in made
        ]


def _as_value(value: Any) -> _Value:
    return value if isinstance(value, _Value) else _Value(constant=value)


def _constants(eqn: _compat.JaxprEqn, values: list[_Value]) -> Sequence[_Value]:
    """The results of an equation without parameters and data, if they are small."""
    shapes = [_compat.shape_of(variable) for variable in eqn.outvars]
    single = [_uniform(value) for value in values]
    if primitives.is_a(eqn, Kind.RESHAPES) and None not in single:
        return [_Value(constant=single[0])] * len(shapes)
    unknown = any(value.constant is None for value in values)
    kinds = (Kind.LOOP, Kind.FOREIGN, Kind.OPAQUE, Kind.RANDOM, Kind.SAMPLER)
    if (
        unknown
        or primitives.is_a(eqn, *kinds)
        or primitives.draws(eqn)
        or any(math.prod(shape) > _SMALL for shape in shapes)
        or not all(map(_compat.is_floating, eqn.outvars))
    ):
        return [_Value()] * len(shapes)
    operands = [
        _as_array(variable, value.constant)
        for variable, value in zip(eqn.invars, values, strict=True)
    ]
    return [_Value(constant=result) for result in evaluate(eqn, operands)]


def _as_array(atom: Any, constant: Any) -> Any:
    shape = _compat.shape_of(atom)
    if np.shape(constant) == shape:
        return constant
    return jax.numpy.full(shape, constant, _compat.dtype_of(atom))


def _uniform(value: _Value) -> float | None:
    """The one number of a constant; None if it is no constant, or not one number."""
    constant = value.constant
    if constant is None or np.size(constant) not in range(1, _SMALL + 1):
        return None
    if not jax.numpy.issubdtype(jax.numpy.result_type(constant), jax.numpy.number):
        return None
    numbers = np.asarray(constant).ravel()
    return float(np.real(numbers[0])) if (numbers == numbers[0]).all() else None


def _varies(eqn: _compat.JaxprEqn, value: _Value) -> frozenset[int] | None:
    """Along which axes parameters differ, where that is known of a broadcast."""
    if not primitives.is_named(eqn, "broadcast_in_dim"):
        same = primitives.is_named(eqn, "convert_element_type", "mul", "div", "neg")
        return value.varies if same else None
    shape = _compat.shape_of(eqn.invars[0])
    axes = eqn.params["broadcast_dimensions"]
    own = range(len(shape)) if value.varies is None else value.varies
    return frozenset(axes[i] for i in own if shape[i] > 1)


def _common(values: Sequence[_Value]) -> frozenset[int]:
    return frozenset.intersection(*(value.factors for value in values))


def _all_factors(values: Iterable[_Value]) -> frozenset[int]:
    return _NOTHING.union(*(value.factors for value in values))


def _all_meetings(values: Iterable[_Value]) -> frozenset[int]:
    return _NOTHING.union(*(value.meetings for value in values))
