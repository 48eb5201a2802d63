"""What every custom rule inside of a function is called with, when the function runs.

The program is run once, as one compiled program, with the operands of its rules as
further results. Inside of a scan or while loop these are the operands of the first and
of the last iteration; inside of a cond those of the branch that is taken.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gradstab import _compat
from gradstab.gradcheck.audits import branching
from gradstab.gradcheck.audits.calls import Call, Place, over_all_devices, reaches
from gradstab.program.primitives import name_of
from gradstab.program.walk import as_closed, evaluated


def calls_in(
    closed: _compat.ClosedJaxpr, values, /, *, moved: Sequence[bool]
) -> list[Call]:
    """Runs a program and keeps what its custom rules are called with.

    Args:
        closed: the program.
        values: its inputs.
        moved: for each input, whether it is an argument to differentiate.

    Returns:
        The calls, in order of evaluation. Costs one run of the program, and one more of
        the body of every loop, compiled as one.
    """
    seen = []

    def run(*values):
        _, _, calls = _walk(closed, values, moved, "")
        seen[:] = [call.place for call in calls]
        return [(call.operands, call.reached) for call in calls]

    results = jax.jit(run)(*values)
    return [
        Call(place, operands, bool(jnp.all(reached)))
        for place, (operands, reached) in zip(seen, results, strict=True)
    ]


def _walk(closed: _compat.ClosedJaxpr, values, moved: Sequence[bool], path):
    """Results of a program, which of them arguments can move, and the calls inside."""
    flags = dict(zip(closed.jaxpr.invars, moved, strict=True))
    calls = []

    def flags_of(atoms):
        literal = _compat.Literal
        return [not isinstance(v, literal) and flags.get(v, False) for v in atoms]

    def rule(eqn: _compat.JaxprEqn, operands):
        results, found, inside = _evaluate(eqn, operands, flags_of(eqn.invars), path)
        flags.update(zip(eqn.outvars, found, strict=True))
        calls.extend(inside)
        return results

    return evaluated(closed, values, rule), flags_of(closed.jaxpr.outvars), calls


def _evaluate(eqn: _compat.JaxprEqn, operands, moved: Sequence[bool], path):
    """`_walk` of one equation."""
    if not _compat.holds_rule(eqn):
        return _compat.bind(eqn, operands), reaches(eqn, moved), []
    body = _compat.inlined_body(eqn)
    if body is not None:
        return _walk(as_closed(body), operands, moved, path)
    for parts, walk in _WALKS:
        found = parts(eqn)
        if found is not None:
            return walk(eqn, found, operands, moved, path)
    # A primitive that is not known here: what is inside can be named, not reached.
    inside = f"{path}{name_of(eqn)}/"
    places = [_place(rule, parts, inside, ()) for rule, parts in _rules(eqn)]
    hidden = [dataclasses.replace(place, hidden=True) for place in places]
    calls = [Call(place, [], False) for place in hidden]
    return _compat.bind(eqn, operands), reaches(eqn, moved), calls


def _rules(eqn: _compat.JaxprEqn):
    for program in _compat.inner_programs(eqn):
        for inner in getattr(program, "jaxpr", program).eqns:
            if parts := _compat.rule_parts(inner):
                yield inner, parts
            yield from _rules(inner)


def _place(eqn: _compat.JaxprEqn, parts, path, moved: Sequence[bool]):
    return Place(eqn, parts, path + _compat.rule_name(eqn), tuple(moved))


def _of_rule(eqn: _compat.JaxprEqn, parts, operands, moved: Sequence[bool], path):
    place = _place(eqn, parts, path, moved)
    call = Call(place, operands, True)
    body = parts.body
    if body is None or not any(map(_compat.holds_rule, body.jaxpr.eqns)):
        return _compat.bind(eqn, operands), reaches(eqn, moved), [call]
    results, flags, nested = _walk(body, operands, moved, f"{place.path}/")
    return results, flags, [call, *nested]


def _of_shard_map(eqn: _compat.JaxprEqn, parts, operands, moved: Sequence[bool], path):
    """The operands of all devices, along a new leading axis."""
    seen = {}

    def shard(*operands):
        results, seen["moved"], calls = _walk(
            parts.body, operands, moved, f"{path}shard_map/"
        )
        seen["places"] = [
            dataclasses.replace(call.place, shards=parts) for call in calls
        ]
        kept = [(call.operands, call.reached) for call in calls]
        return results, jax.tree.map(lambda x: jnp.asarray(x)[None], kept)

    results, kept = jax.shard_map(
        shard,
        mesh=parts.mesh,
        in_specs=parts.in_specs,
        out_specs=(list(parts.out_specs), over_all_devices(parts)),
        axis_names=parts.axis_names,
        check_vma=parts.check_vma,
    )(*operands)
    calls = [
        Call(place, operands, jnp.all(reached))
        for place, (operands, reached) in zip(seen["places"], kept, strict=True)
    ]
    return results, seen["moved"], calls


# How to recognise an equation that holds programs, and how to evaluate it.
_WALKS = (
    (_compat.rule_parts, _of_rule),
    (_compat.cond_branches, functools.partial(branching.of_cond, _walk)),
    (_compat.scan_parts, functools.partial(branching.of_scan, _walk)),
    (_compat.while_parts, functools.partial(branching.of_while, _walk)),
    (_compat.shard_map_parts, _of_shard_map),
)
