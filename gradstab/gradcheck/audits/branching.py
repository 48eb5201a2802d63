"""Branches and loops, with what the custom rules inside of them are called with.

Each function here evaluates one equation. It takes ``walk``, which does the same for a
program: ``walk(closed, values, moved, path) -> (results, which of them arguments can
move, calls)``.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradstab import _compat
from gradstab.gradcheck.audits.calls import Call, reaches


def of_cond(
    walk,
    eqn: _compat.JaxprEqn,
    branches,
    operands: Sequence[Any],
    moved: Sequence[bool],
    path,
):
    """The branch that is taken runs; the calls of the others are not reached."""
    stages = [
        functools.partial(walk, branch, moved=moved[1:], path=f"{path}cond[{i}]/")
        for i, branch in enumerate(branches)
    ]
    results, calls = _one_of(operands[0], stages, operands[1:])
    return results, reaches(eqn, moved), calls


def of_scan(
    walk,
    eqn: _compat.JaxprEqn,
    parts,
    operands: Sequence[Any],
    moved: Sequence[bool],
    path,
):
    """The first iteration once more than the others, for its calls; then all."""
    consts, carry, xs = _split(operands, parts.num_consts, parts.num_carry)
    flags = _flags(moved, parts.num_consts, parts.num_carry)
    body = functools.partial(walk, parts.body, moved=flags, path=f"{path}scan/")
    if parts.length == 0:
        blank = [jnp.zeros(x.shape[1:], x.dtype) for x in xs]
        _, calls = _one_of(0, [_nothing, body], [*consts, *carry, *blank])
        return _compat.bind(eqn, operands), reaches(eqn, moved), calls
    first, last = (-1, 0) if parts.reverse else (0, -1)
    _, _, calls = body([*consts, *carry, *(x[first] for x in xs)])
    carry, ys = _all_but_last(parts, consts, carry, xs)
    out, _, more = body([*consts, *carry, *(x[last] for x in xs)])
    carry, ends = out[: len(carry)], [y[None] for y in out[len(carry) :]]
    pairs = zip(ends, ys, strict=True) if parts.reverse else zip(ys, ends, strict=True)
    results = [*carry, *map(jnp.concatenate, pairs)]
    more = map(_repeated, more) if parts.length > 1 else ()
    return results, reaches(eqn, moved), [*calls, *more]


def _all_but_last(parts: _compat.ScanParts, consts: Sequence[Any], carry: Any, xs: Any):
    def step(carry: Any, x):
        out = _compat.closed_function(parts.body)(*consts, *carry, *x)
        return out[: len(carry)], out[len(carry) :]

    kept = slice(1, None) if parts.reverse else slice(-1)
    xs = [x[kept] for x in xs]
    return jax.lax.scan(step, carry, xs, parts.length - 1, parts.reverse)


def _split(operands: Sequence[Any], num_consts, num_carry):
    num = num_consts + num_carry
    return operands[:num_consts], operands[num_consts:num], operands[num:]


def _flags(moved: Sequence[bool], num_consts, num_carry):
    """Whatever moves one operand of a loop is taken to move every carry."""
    consts, _, xs = _split(moved, num_consts, num_carry)
    return [*consts, *[any(moved)] * num_carry, *xs]


def of_while(
    walk,
    eqn: _compat.JaxprEqn,
    parts,
    operands: Sequence[Any],
    moved: Sequence[bool],
    path,
):
    """Counts the iterations, then runs up to the last: twice the cost of the loop."""
    given, operands = _split(operands, parts.num_condition_consts, len(operands))[:2]
    moved = moved[parts.num_condition_consts :]
    consts, carry, _ = _split(operands, parts.num_body_consts, len(operands))
    flags = _flags(moved, parts.num_body_consts, len(carry))
    body = functools.partial(walk, parts.body, moved=flags, path=f"{path}while/")
    length, last, results = _counted(parts, given, consts, carry)
    stages = [_nothing, body]
    entered = (length > 0).astype(jnp.int32)
    _, calls = _one_of(entered, stages, [*consts, *carry])
    _, more = _one_of(entered, stages, [*consts, *last])
    return results, reaches(eqn, moved), [*calls, *map(_repeated, more)]


def _counted(parts: _compat.WhileParts, given, consts: Sequence[Any], carry: Any):
    """The number of iterations, the carry before the last of them and after it."""

    def going(state: Any):
        return _compat.closed_function(parts.condition)(*given, *state[1])[0]

    def step(state: Any):
        return state[0] + 1, _compat.closed_function(parts.body)(*consts, *state[1])

    start = jnp.zeros((), jnp.int32), carry
    length, results = jax.lax.while_loop(going, step, start)
    _, last = jax.lax.while_loop(lambda state: state[0] < length - 1, step, start)
    return length, last, results


def _repeated(call):
    return call._replace(place=dataclasses.replace(call.place, repeated=True))


def _nothing(operands: Sequence[Any]):
    """The stage of a loop that is not entered."""
    return [], [], []


def _one_of(index, stages, operands: Sequence[Any]):
    """The results of the stage at ``index``, and the calls of all stages.

    Every stage returns the calls of every other one too: zeros, not reached. It returns
    no results if the first stage is `_nothing`.
    """
    places, shapes = zip(*(_outline(s, operands) for s in stages), strict=True)

    def branch(k, *operands):
        results, _, calls = stages[k](list(operands))
        kept = [[*map(_blank, of_stage)] for of_stage in shapes]
        kept[k] = [(call.operands, call.reached) for call in calls]
        wanted = results if stages[0] is not _nothing else []
        return wanted, _alike(itertools.chain.from_iterable(kept), operands)

    branches = [functools.partial(branch, k) for k in range(len(stages))]
    results, kept = jax.lax.switch(index, branches, *operands)
    names = itertools.chain.from_iterable(places)
    return results, [Call(p, *slot) for p, slot in zip(names, kept, strict=True)]


def _alike(kept, operands: Sequence[Any]):
    """The same; in a shard_map branches must agree on the axes along which they vary.

    A choice between a value and itself, by the operands, varies along all axes of both.
    """
    odd = [jnp.any(x != x) for x in operands]
    choice = functools.reduce(jnp.logical_or, odd, jnp.array(False))
    return [jax.tree.map(lambda x: jax.lax.select(choice, x, x), slot) for slot in kept]


def _outline(stage, operands: Sequence[Any]):
    """The places of the calls of a stage, and the shapes of what they keep."""
    places = []

    def run(*operands):
        _, _, calls = stage(list(operands))
        places[:] = [call.place for call in calls]
        return [(call.operands, call.reached) for call in calls]

    shapes = jax.eval_shape(run, *operands)
    return places, shapes


def _blank(shapes):
    return jax.tree.map(lambda s: jax.lax.full(s.shape, 0, s.dtype), shapes)
