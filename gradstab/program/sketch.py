"""A sketch of a program, to read it by: what it computes once, as one flat program.

Each equation of the sketch bears the number that it has in the program. Calls and
rematerialisation are gone. What is *opened* stands there once and as if alone: a scan
over parts of a batch by one of its iterations, a branch by one of its programs, a
`jax.shard_map` by the program of one device. A sketch has the structure of the program
and the shapes of its results, not the numbers: nobody runs it.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradstab import _compat, _rules
from gradstab.program import primitives
from gradstab.program.primitives import Kind
from gradstab.program.rewrite import (
    counting,
    programs_inside,
    scanned,
    switched,
)
from gradstab.program.walk import as_closed, evaluate, evaluated, split_operands

# In parentheses, as names of transformations are: no part of any scope's name.
_MARK = re.compile(r"gradstab\((\d+)\)")


class Opened(NamedTuple):
    """What a sketch opens.

    Attributes:
        numbers: of the equations.
        branch: which of the programs of a branch stands for it; of fewer the last.
    """

    numbers: frozenset[int] = frozenset()
    branch: int = 0


def sketched(closed, values: Sequence, opened: Opened, /, *, first: int = 0) -> list:
    """The results of a program; traced, each equation bears its number.

    `mark_of` reads the number from an equation of it, and of what is made from it.

    Args:
        closed: the program.
        values: of its inputs.
        opened: what stands there as if alone.
        first: the number of the first equation.
    """

    def one(eqn, operands, start):
        if (body := _compat.inlined_body(eqn)) is not None:
            with _rules.scope(_rules.scope_of(eqn)):
                return sketched(body, operands, opened, first=start)
        if start in opened.numbers:
            return _once(eqn, operands, start, opened)
        if primitives.is_a(eqn, Kind.PASSES):
            return _reshaped(eqn, operands)
        with jax.named_scope(f"gradstab({start})"):
            return _marked(eqn, operands, start, opened)

    return evaluated(as_closed(closed), values, counting(one, first))


def mark_of(eqn: _compat.JaxprEqn, /) -> int | None:
    """The number that an equation bears; None without one."""
    found = _MARK.findall(str(eqn.source_info.name_stack))
    return int(found[-1]) if found else None


def _steps(eqn, start, opened):
    """The programs in an equation as functions of their operands."""

    def step(number, program):
        return lambda values, _: sketched(program, values, opened, first=number)

    return [step(*place) for place in programs_inside(eqn, start)]


def _marked(eqn, operands, start, opened):
    if _compat.scan_parts(eqn) is not None:
        (step,) = _steps(eqn, start, opened)
        return scanned(eqn, operands, step, None)
    if _compat.cond_branches(eqn) is not None:
        return switched(operands, _steps(eqn, start, opened), None)
    if (parts := _compat.shard_map_parts(eqn)) is not None:
        # A branch holds it: an equation with what is multiplied inside, and no mesh.
        (step,) = _steps(eqn, start, opened)
        whole = [lambda values, _: _of_one_device(parts, values, step)] * 2
        return switched([jnp.int32(0), *operands], whole, None)
    if primitives.is_a(eqn, Kind.COMBINES, Kind.EXCHANGES):
        return [_new(x) for x in _reshaped(eqn, operands)]
    if primitives.is_named(eqn, "pvary", "sharding_constraint", "reshard"):
        return operands
    if primitives.is_named(eqn, "axis_index"):
        return [jnp.zeros(*_kind(eqn.outvars[0]))]
    if _compat.varying(eqn.outvars[0]) and (body := _compat.rule_body(eqn)) is not None:
        return _plain(body, operands)
    function = _compat.as_custom_vjp(eqn)
    return function(*operands) if function else evaluate(eqn, operands)


def _plain(program, operands):
    """The results of a program that has no numbers: all bear that of its equation."""

    def one(eqn, operands):
        body = _compat.inlined_body(eqn) or _compat.rule_body(eqn)
        if body is not None:
            return _plain(body, operands)
        if primitives.is_a(eqn, Kind.COMBINES, Kind.EXCHANGES):
            return _reshaped(eqn, operands)
        if primitives.is_named(eqn, "pvary"):
            return operands
        return evaluate(eqn, operands)

    results = evaluated(as_closed(program), operands, one)
    several = len(results) > 1
    return list(jax.lax.optimization_barrier(tuple(results))) if several else results


def _once(eqn, operands, start, opened):
    """The results of what is opened."""
    steps = _steps(eqn, start, opened)
    if (parts := _compat.scan_parts(eqn)) is not None:
        consts, carry, slices = split_operands(parts, operands)
        results = steps[0]([*consts, *carry, *(x[0] for x in slices)], None)
        carry, stacked = results[: parts.num_carry], results[parts.num_carry :]
        shapes = [(parts.length, *jnp.shape(x)) for x in stacked]
        return [*carry, *map(jnp.broadcast_to, stacked, shapes)]
    if (parts := _compat.shard_map_parts(eqn)) is not None:
        return _of_one_device(parts, operands, steps[0])
    return steps[min(opened.branch, len(steps) - 1)](operands[1:], None)


def _of_one_device(parts, operands, step):
    """The results of a shard_map, all devices taken for the first one."""
    shards = [
        x
        if jnp.shape(x) == _compat.shape_of(v)
        else jax.lax.slice(x, [0] * jnp.ndim(x), _compat.shape_of(v))
        for x, v in zip(operands, parts.body.jaxpr.invars, strict=True)
    ]
    results = step(shards, None)
    return [
        _tiled(x, spec, parts.mesh)
        for x, spec in zip(results, parts.out_specs, strict=True)
    ]


def _tiled(x, spec, mesh):
    """An array as large as the shards of all devices together."""
    for axis, names in enumerate(spec):
        names = names if isinstance(names, tuple) else (names,) if names else ()
        for name in names:
            x = jnp.concatenate([x] * mesh.shape[name], axis)
    return x


def _reshaped(eqn, operands):
    """The operands in the shapes of the results."""
    shapes = map(_compat.shape_of, eqn.outvars)
    return [
        x if jnp.shape(x) == shape else jnp.resize(x, shape)
        for x, shape in zip(operands, shapes, strict=True)
    ]


def _new(x):
    """An array of its own, made of the array."""
    return jax.lax.mul(
        x, jnp.ones((), x.dtype) if jnp.ndim(x) == 0 else jnp.ones_like(x)
    )


def _kind(variable):
    return _compat.shape_of(variable), _compat.dtype_of(variable)
