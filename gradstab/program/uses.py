"""Where parameters meet data: what each parameter does to the data that it meets.

A value of a program is made of data (what depends on the inputs), or of parameters and
constants alone. An equation that reads both is a *use* of those parameters. The walk
runs a program at two points at once, before and after a change of its parameters, so
that at each use the effect of the parameters and that of the data can be told apart.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstab import _compat, _tree
from gradstab.program import primitives
from gradstab.program.primitives import Kind
from gradstab.program.walk import as_closed, called, evaluate, evaluated, split_operands


class Mark(NamedTuple):
    """What a value is made of.

    Attributes:
        leaves: numbers of the parameter leaves in it.
        is_data: whether it depends on the inputs.
        sliced: whether it is a slice of parameters that a scan runs over.
    """

    leaves: frozenset[int] = frozenset()
    is_data: bool = False
    sliced: bool = False

    def join(self, other: "Mark", /) -> "Mark":
        """The mark of what is made of both."""
        return Mark(
            self.leaves | other.leaves,
            self.is_data or other.is_data,
            self.sliced or other.sliced,
        )


class Use(NamedTuple):
    """An equation that makes data of data and of parameters.

    Attributes:
        leaves: numbers of the parameter leaves that are read.
        kind: 'product', 'lookup', 'entries' (each entry of the parameters meets single
            entries of the data) or 'other'.
        summed: how many entries of the parameters one entry of the result sums over.
        beside: how many entries it has for each of these: results with parameters of
            their own, whether they sum the same data or each group its own.
        sliced: whether each iteration of a scan reads a slice of its own.
    """

    leaves: tuple[int, ...]
    kind: str
    summed: int
    beside: int
    sliced: bool


class Effect(NamedTuple):
    """Root mean squares at a use; with a leading axis over the slices of a scan.

    Attributes:
        entering: of the data that enter, before; 1 if they are integers.
        leaving: of the result, before.
        own: of the change of the result if the parameters change and the data do not.
        moved: of the change of the data that enter.
        passed: of the change of the result if the data change and the parameters do
            not.
    """

    entering: jax.Array
    leaving: jax.Array
    own: jax.Array
    moved: jax.Array
    passed: jax.Array


class DataProduct(NamedTuple):
    """A product of data with data, such as that of queries and keys.

    Attributes:
        summed: how many entries it sums over.
        source: the line of the user's program; empty if it is not known.
    """

    summed: int
    source: str


class Met(NamedTuple):
    """What was met on a walk: uses and products of data, in the order of evaluation."""

    uses: tuple[Use, ...]
    effects: tuple[Effect, ...]
    products: tuple[DataProduct, ...]


class _Value(NamedTuple):
    """A value, what it is after the change, and what it is made of."""

    before: Any
    after: Any
    mark: Mark


def parameters_met(
    closed: Any, before: Sequence, after: Sequence, marks: Sequence[Mark], /
) -> Met:
    """Every use of parameters in a program, with its effects.

    Args:
        closed: a flat program.
        before: values of its inputs.
        after: the same with changed parameters.
        marks: what each input is made of.

    Returns:
        What was met. Survives jit, where uses are known when the program is traced.
        Scans are entered; branches and unbounded loops are uses as a whole. Cost: two
        evaluations, and two more of each use.
    """
    walk = _Walk()
    values = map(_Value, before, after, marks)
    evaluated(closed, values, walk.rule)
    return Met(tuple(walk.uses), tuple(walk.effects), tuple(walk.products))


class _Walk:
    """The rule of the walk, with what it met so far."""

    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.effects: list[Effect] = []
        self.products: list[DataProduct] = []

    def rule(self, eqn: _compat.JaxprEqn, operands: list) -> list:
        operands = list(map(_as_value, operands))
        if (body := called(eqn)) is not None:
            return evaluated(as_closed(body), operands, self.rule)
        if _compat.scan_parts(eqn) is not None:
            return self._scan(eqn, operands)
        marks = [operand.mark for operand in operands]
        mark = joined(marks)
        before = evaluate(eqn, [o.before for o in operands])
        unchanged = not mark.leaves and not mark.is_data
        after = before if unchanged else evaluate(eqn, [o.after for o in operands])
        if (use := use_of(eqn, marks)) is not None:
            self.uses.append(use)
            self.effects.append(_effect(eqn, operands, before))
        elif (product := _data_product(eqn, marks)) is not None:
            self.products.append(product)
        return [
            _Value(*pair, _after_use(mark)) for pair in zip(before, after, strict=True)
        ]

    def _scan(self, eqn: _compat.JaxprEqn, operands: list) -> list:
        parts = _compat.scan_parts(eqn)
        assert parts is not None
        marks = settled_marks(parts, [operand.mark for operand in operands])
        consts, carry, slices = split_operands(parts, operands)
        made: list[Mark] = []
        met = _Walk()

        def step(carry, given):
            met.__init__()
            pairs = [(o.before, o.after) for o in consts] + list(carry) + list(given)
            values = [_Value(*pair, m) for pair, m in zip(pairs, marks, strict=True)]
            results = list(map(_as_value, evaluated(parts.body, values, met.rule)))
            made[:] = [value.mark for value in results]
            results = [(value.before, value.after) for value in results]
            carry, stacked = results[: parts.num_carry], results[parts.num_carry :]
            return carry, (stacked, met.effects)

        start = [(o.before, o.after) for o in carry]
        given = [(o.before, o.after) for o in slices]
        last, (stacked, effects) = jax.lax.scan(
            step, start, given, length=parts.length, reverse=parts.reverse
        )
        self.uses.extend(met.uses)
        self.products.extend(met.products)
        for use, effect in zip(met.uses, effects, strict=True):
            over = effect if use.sliced else Effect(*map(_typical, effect))
            self.effects.append(over)
        pairs = zip([*last, *stacked], made, strict=True)
        return [_Value(*values, mark) for values, mark in pairs]


def use_of(eqn: _compat.JaxprEqn, marks: Sequence[Mark], /) -> Use | None:
    """The use of parameters that an equation is; None if it is none."""
    held = [i for i, m in enumerate(marks) if m.leaves and not m.is_data]
    data = [i for i, m in enumerate(marks) if m.is_data]
    if not held or not data or not any(map(_compat.is_floating, eqn.outvars)):
        return None
    mark = joined([marks[i] for i in held])
    kind, summed, beside = _kind(eqn, held[0], data[0])
    return Use(tuple(sorted(mark.leaves)), kind, summed, beside, mark.sliced)


def _kind(eqn: _compat.JaxprEqn, held: int, data: int) -> tuple[str, int, int]:
    size = math.prod(_compat.shape_of(eqn.invars[held]))
    if primitives.is_a(eqn, Kind.CONTRACTION):
        summed = _compat.num_summed(eqn, held)
        return "product", summed, size // max(summed, 1)
    if primitives.is_named(eqn, "gather", "dynamic_slice") and held == 0:
        return "lookup", 1, math.prod(eqn.params["slice_sizes"])
    if primitives.acts_on_entries(eqn) or primitives.is_a(eqn, Kind.MOVES, Kind.PIECES):
        return "entries", 1, size
    return "other", 1, size


def _data_product(eqn: _compat.JaxprEqn, marks: Sequence[Mark]) -> DataProduct | None:
    if not primitives.is_named(eqn, "dot_general") or not all(m.is_data for m in marks):
        return None
    summed = _compat.num_summed(eqn, 0)
    return DataProduct(summed, _compat.source_line(eqn) or "")


def _effect(eqn: _compat.JaxprEqn, operands: list, before: list) -> Effect:
    held = [not operand.mark.is_data for operand in operands]
    # What changes: parameters alone, or data alone.
    pairs = list(zip(operands, held, strict=True))
    own = evaluate(eqn, [o.after if own else o.before for o, own in pairs])
    passed = evaluate(eqn, [o.before if own else o.after for o, own in pairs])
    data = [o for o in operands if o.mark.is_data and _tree.is_floating(o.before)]
    one = jnp.ones(())
    return Effect(
        _rms([o.before for o in data]) if data else one,
        _rms(before),
        _rms(_difference(own, before)),
        _rms(_difference([o.after for o in data], [o.before for o in data]))
        if data
        else jnp.zeros(()),
        _rms(_difference(passed, before)),
    )


def _difference(after: list, before: list) -> list:
    pairs = zip(after, before, strict=True)
    return [a - b for a, b in pairs if _tree.is_floating(b)]


def _rms(arrays: Iterable) -> jax.Array:
    arrays = [array for array in arrays if _tree.is_floating(array)]
    size = sum(array.size for array in arrays)
    return _tree.safe_norm(arrays) / math.sqrt(max(size, 1))


def _typical(values: jax.Array) -> jax.Array:
    """The root mean square of root mean squares."""
    return _rms([values])


def _as_value(value: Any) -> _Value:
    return value if isinstance(value, _Value) else _Value(value, value, Mark())


def joined(marks: Iterable[Mark], /) -> Mark:
    """The mark of what is made of all."""
    result = Mark()
    for mark in marks:
        result = result.join(mark)
    return result


def _after_use(mark: Mark) -> Mark:
    """What is made of data is data, whatever parameters went into it."""
    return Mark(is_data=True) if mark.is_data else mark


def settled_marks(parts: _compat.ScanParts, marks: list[Mark], /) -> list[Mark]:
    """Marks of the inputs of a scan's body that hold in every iteration."""
    first = parts.num_consts
    last = first + parts.num_carry
    slices = [
        mark._replace(sliced=bool(mark.leaves) and not mark.is_data)
        for mark in marks[last:]
    ]
    marks = [*marks[:last], *slices]
    while True:
        results = marks_of(parts.body, marks)[: parts.num_carry]
        carry = [
            _after_use(a.join(b))
            for a, b in zip(marks[first:last], results, strict=True)
        ]
        if carry == marks[first:last]:
            return marks
        marks[first:last] = carry


def marks_of(closed: Any, marks: Sequence[Mark], /) -> list[Mark]:
    """What the results of a program are made of, from what its inputs are."""

    def rule(eqn: _compat.JaxprEqn, operands: list) -> list:
        operands = [m if isinstance(m, Mark) else Mark() for m in operands]
        if (body := called(eqn)) is not None:
            return marks_of(as_closed(body), operands)
        if (parts := _compat.scan_parts(eqn)) is not None:
            return marks_of(parts.body, settled_marks(parts, operands))
        return [_after_use(joined(operands))] * len(eqn.outvars)

    results = evaluated(closed, marks, rule)
    return [m if isinstance(m, Mark) else Mark() for m in results]
