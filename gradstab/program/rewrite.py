"""A program as its author wrote it, with something done to some of its results.

What is not touched stays as it is: rematerialisation, loops, branches, shards and
compiled parts too. Equations are numbered in the order in which they stand, those
inside of a call, of rematerialisation, a scan, a branch and a `jax.shard_map` among
them; equal programs have equal numbers. Unbounded loops and rules of differentiation
are not entered: each is one equation.
"""

import bisect
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from gradstab import _compat, _rules
from gradstab.program.walk import as_closed, evaluate, evaluated, split_operands

# By this name of `checkpoint_name` what a change keeps is not made again where its
# surroundings are rematerialised: their operations stay the same.
SAVED = "gradstab saved"


class Ring(NamedTuple):
    """What runs an equation several times: a scan, or an axis of a mesh of devices.

    Attributes:
        number: of the scan, or of the `jax.shard_map`.
        length: how many times.
        axis: the name of the axis of the mesh; empty for a scan.
        backwards: whether a scan runs from its last slice to its first.
        typed: whether the types in a `jax.shard_map` say what differs from device to
            device.
    """

    number: int
    length: int
    axis: str = ""
    backwards: bool = False
    typed: bool = True


class Numbered(NamedTuple):
    """An equation with its number, and what runs it several times.

    Attributes:
        number: of the equation.
        eqn: the equation.
        around: scans and axes of meshes that it stands in, the outermost first.
    """

    number: int
    eqn: _compat.JaxprEqn
    around: tuple[Ring, ...]


def numbered(program, /, first: int = 0, around: tuple[Ring, ...] = ()):
    """All equations that have a number, in order; scans stand before their bodies.

    Args:
        program: closed or open.
        first: the number of its first equation.
        around: what runs it several times.
    """
    for eqn in program.eqns:
        if (body := _compat.inlined_body(eqn)) is not None:
            yield from numbered(body, first, around)
        else:
            yield Numbered(first, eqn, around)
            rings = (*around, *rings_of(eqn, first))
            for start, inside in programs_inside(eqn, first):
                yield from numbered(inside, start, rings)
        first += num_inside(eqn)


def programs_inside(eqn: _compat.JaxprEqn, number: int, /) -> list[tuple[int, Any]]:
    """The programs in an equation that have numbers, each with that of its first."""
    parts = _compat.scan_parts(eqn) or _compat.shard_map_parts(eqn)
    bodies = _compat.cond_branches(eqn) or (() if parts is None else (parts.body,))
    found, first = [], number + 1
    for body in bodies:
        found.append((first, body))
        first += sum(map(num_inside, body.eqns))
    return found


def rings_of(eqn: _compat.JaxprEqn, number: int, /) -> tuple[Ring, ...]:
    """What runs the programs in an equation several times."""
    if (parts := _compat.scan_parts(eqn)) is not None:
        return (Ring(number, parts.length, backwards=parts.reverse),)
    if (parts := _compat.shard_map_parts(eqn)) is not None:
        return tuple(
            Ring(number, parts.mesh.shape[axis], axis, typed=parts.check_vma)
            for axis in parts.manual_axes
        )
    return ()


def rewritten(
    closed,
    values: Sequence,
    extras: Mapping[int, Any],
    change: Callable[[int, list, Any], Sequence],
    /,
    *,
    first: int = 0,
) -> list:
    """The results of a program, with what some of its equations make changed.

    Args:
        closed: the program.
        values: of its inputs.
        extras: by the number of an equation what `change` gets beside its results: a
            pytree of arrays, with a leading axis for every ring around the equation,
            the outermost first. Each iteration and each device gets its part.
        change: ``change(number, results, extra)`` gives what stands for the results.
        first: the number of the first equation.
    """
    wanted = sorted(extras)

    def one(eqn, operands, start):
        inside = _between(extras, wanted, start, start + num_inside(eqn))
        if not inside:
            return evaluate(eqn, operands)
        if (body := _compat.inlined_body(eqn)) is not None:

            def run(inside, *operands):
                with _rules.scope(_rules.scope_of(eqn)):
                    return rewritten(body, operands, inside, change, first=start)

            return _rules.wrapped(eqn, run, saved=(SAVED,))(inside, *operands)
        own = {start: inside.pop(start)} if start in inside else {}
        results = _entered(eqn, operands, start, inside, change)
        return change(start, results, own[start]) if own else results

    return evaluated(as_closed(closed), values, counting(one, first))


def counting(one, first):
    """The rule of a walk that hands the number of each equation on."""
    number = first

    def rule(eqn, operands):
        nonlocal number
        start, number = number, number + num_inside(eqn)
        return one(eqn, operands, start)

    return rule


def _between(extras, wanted, low, high):
    low, high = (bisect.bisect_left(wanted, number) for number in (low, high))
    return {number: extras[number] for number in wanted[low:high]}


def _entered(eqn, operands, start, inside, change):
    """The results of an equation, with changes in the programs that it holds."""
    if not inside:
        return evaluate(eqn, operands)

    def within(number, program, values, inside):
        return rewritten(program, values, inside, change, first=number)

    steps = [functools.partial(within, *place) for place in programs_inside(eqn, start)]
    if _compat.scan_parts(eqn) is not None:
        return scanned(eqn, operands, steps[0], inside)
    if _compat.shard_map_parts(eqn) is not None:
        return _sharded(eqn, operands, steps[0], inside)
    return switched(operands, steps, inside)


def scanned(eqn, operands, step, extra, /):
    """The results of a scan whose body is ``step(values, slice of extra)``."""
    parts = _compat.scan_parts(eqn)
    assert parts is not None
    consts, carry, slices = split_operands(parts, operands)

    def body(carry, given):
        slices, extra = given
        results = step([*consts, *carry, *slices], extra)
        return results[: parts.num_carry], results[parts.num_carry :]

    carry, stacked = jax.lax.scan(
        body,
        list(carry),
        (list(slices), extra),
        length=parts.length,
        reverse=parts.reverse,
        unroll=eqn.params["unroll"],
    )
    return [*carry, *stacked]


def switched(operands, steps, extra, /):
    """The results of a branch whose bodies are ``step(values, extra)``."""
    index, *operands = operands

    def branch(step):
        return lambda extra, *operands: step(operands, extra)

    return jax.lax.switch(index, list(map(branch, steps)), extra, *operands)


def _sharded(eqn, operands, step, extra):
    """The results of a shard_map whose body is ``step(shards, shard of extra)``."""
    parts = _compat.shard_map_parts(eqn)
    assert parts is not None
    axes = parts.manual_axes
    spread = jax.sharding.PartitionSpec(*axes)
    extra = jax.tree.map(lambda x: _compat.laid_out(x, parts.mesh, spread), extra)

    def body(extra, *shards):
        own = jax.tree.map(lambda x: x.reshape(x.shape[len(axes) :]), extra)
        return tuple(step(list(shards), own))

    mapped = jax.shard_map(
        body,
        mesh=parts.mesh,
        in_specs=(spread, *parts.in_specs),
        out_specs=parts.out_specs,
        axis_names=parts.axis_names,
        check_vma=parts.check_vma,
    )
    return list(mapped(extra, *operands))


def num_inside(eqn, /) -> int:
    """How many numbers an equation takes."""
    body = _compat.inlined_body(eqn)
    if body is not None:
        return sum(map(num_inside, body.eqns))
    inside = programs_inside(eqn, 0)
    return 1 + sum(num_inside(e) for _, program in inside for e in program.eqns)
