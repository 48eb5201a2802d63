"""Scans over layers through which several arrays flow, as scans over one array.

A stack of layers may carry a trunk and a log-determinant, or two streams; it may read
the output of an encoder in every layer; a skip may pass around it. No one array is then
all that is live between two iterations. Here all of them are packed into one, example
by example, and unpacked in every iteration, as at a boundary: the program computes what
it did, and the packed array is a place where layers end and begin.

A scan is over layers if no data enter it step by step, and if a product with parameters
follows from a product of the iteration before. A sum over experts is not, nor is a loop
over slices of a vocabulary: their products do not follow from each other.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from gradstab import _compat
from gradstab.network import flow as flows
from gradstab.network.boundaries import lead_with_examples, live_after
from gradstab.network.gathered import GatheredScan
from gradstab.program.trace import Program, flatten_body
from gradstab.program.walk import environment, evaluate, outputs, retraced, walk


def gather(program: Program, flow: flows.Flow, num_examples: int, /):
    """The program with one carry in every scan over layers.

    Args:
        program: from `trace_program`.
        flow: its flow.
        num_examples: length of the example axis.

    Returns:
        The program itself where no scan needs it. Cost: a trace where one does.
    """
    if not flow.is_data(program.out_var):
        return program
    eqns = flows.needed_equations(program.eqns, program.out_var, flow)
    live = live_after(eqns, flow, program.out_var)
    leaf_of = {v: i for i, v in enumerate(program.param_vars)}
    found = [
        _gathered(eqn, flow, live[i], num_examples, leaf_of)
        for i, eqn in enumerate(eqns)
    ]
    if not any(found):
        return program
    found = _with_ends(eqns, flow, found)
    closed = program.closed

    def run(*values):
        env = environment(closed, values)

        def rule(eqn: _compat.JaxprEqn, operands: Sequence[Any]):
            if id(eqn) not in found:
                return evaluate(eqn, operands)
            scan = found[id(eqn)]
            around = [env[v] for v in scan.passengers]
            around, results = scan.run(operands, around, num_examples)
            env.update(zip(scan.passengers, around, strict=True))
            return results

        return outputs(closed, walk(closed.jaxpr.eqns, env, rule))

    return dataclasses.replace(program, closed=retraced(closed, run))


def carries_needed(
    body: _compat.ClosedJaxpr, parts: _compat.ScanParts, wanted, /
) -> frozenset:
    """Positions of the carries on which those wanted depend, over all steps.

    Args:
        body: the body of a scan, flat.
        parts: of the scan.
        wanted: positions of carries.
    """
    first = parts.num_consts
    inner = body.jaxpr.invars[first : first + parts.num_carry]
    number = {v: i for i, v in enumerate(inner)}
    needed, before = frozenset(wanted), None
    while needed != before:
        before = needed
        used = {body.jaxpr.outvars[i] for i in needed if _is_variable(body, i)}
        for eqn in reversed(body.jaxpr.eqns):
            if any(v in used for v in eqn.outvars):
                used.update(v for v in eqn.invars if not _is_literal(v))
        needed |= {number[v] for v in used if v in number}
    return needed


def _gathered(
    eqn: _compat.JaxprEqn, flow: flows.Flow, live, num_examples: int, leaf_of
) -> GatheredScan | None:
    """What to pack in this equation; None if it is no scan or one array does."""
    parts = _compat.scan_parts(eqn)
    if parts is None or parts.length < 2 or eqn.effects:
        return None
    if not flows.contracts_parameter(eqn, flow):
        return None
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    xs, ys = eqn.invars[last:], eqn.outvars[parts.num_carry :]
    if any(flow.is_data(v) or flow.is_dependent(v) for v in xs):
        return None
    if any(v in live for v in ys):
        return None
    body = flatten_body(parts.body)
    wanted = [i for i in range(parts.num_carry) if eqn.outvars[i] in live]
    needed = carries_needed(body, parts, wanted)
    moving = _moving(body, eqn, parts, flow)
    if moving is None:
        return None
    carries = tuple(sorted(needed & moving))
    consts = tuple(i for i in range(first) if flow.is_data(eqn.invars[i]))
    made = set(eqn.outvars)
    passengers = tuple(v for v in live if v not in made)
    if len(carries) + len(consts) + len(passengers) < 2 or not carries:
        return None
    arrays = [*(eqn.outvars[i] for i in carries), *(eqn.invars[i] for i in consts)]
    if not all(lead_with_examples(v, num_examples) for v in (*arrays, *passengers)):
        return None
    if not _in_sequence(body, parts, carries, eqn, flow):
        return None
    leaves = tuple(None if _is_literal(v) else leaf_of.get(v) for v in xs)
    owned = [i for i in range(first) if flow.params_of(eqn.invars[i])]
    tied = None if any(leaf is not None for leaf in leaves) else next(iter(owned), None)
    return GatheredScan(parts, carries, consts, passengers, leaves, tied)


def _with_ends(eqns: Sequence[_compat.JaxprEqn], flow: flows.Flow, found) -> dict:
    """By equation what flows through the scans, and which iterations lie outside.

    What is done to the data before a scan over layers, or behind it, belongs to the
    layer next to it that is no iteration of a scan. Where there is none, the first or
    the last iteration becomes one.
    """
    kinds = [_kind(eqn, flow) for eqn in eqns]
    places = [i for i, kind in enumerate(kinds) if kind]
    result, taken = {}, False
    for number, i in enumerate(places):
        if found[i] is None:
            taken = kinds[i] == "product"
            continue
        following = [kinds[j] for j in places[number + 1 :]]
        last = following[:1] != ["product"]
        result[id(eqns[i])] = dataclasses.replace(found[i], first=not taken, last=last)
        taken = last
    return result


def _kind(eqn: _compat.JaxprEqn, flow: flows.Flow):
    """Whether an equation is a product with parameters, alone or scanned over."""
    if not flows.contracts_parameter(eqn, flow):
        return ""
    parts = _compat.scan_parts(eqn)
    if parts is None:
        return "product"
    xs = eqn.invars[parts.num_consts + parts.num_carry :]
    moving = any(flow.is_data(v) or flow.is_dependent(v) for v in xs)
    return "product" if moving else "stack"


def _moving(
    body: _compat.ClosedJaxpr,
    eqn: _compat.JaxprEqn,
    parts: _compat.ScanParts,
    flow: flows.Flow,
):
    """The carries that are data in one step at least; None if an integer follows."""
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    inner, outer = body.jaxpr.invars, eqn.invars
    data = [flow.is_data(v) for v in outer]
    dependent = [flow.is_dependent(v) for v in outer]
    for _ in range(parts.num_carry + 1):
        inside = flows.trace_flow(
            body.jaxpr.eqns,
            data=[v for v, moves in zip(inner, data, strict=True) if moves],
            dependent=[v for v, moves in zip(inner, dependent, strict=True) if moves],
            owners={v: flow.params_of(o) for v, o in zip(inner, outer, strict=True)},
        )
        out = body.jaxpr.outvars[: parts.num_carry]
        if any(inside.is_dependent(v) for v in out) or any(dependent[first:last]):
            return None
        data[first:last] = [
            before or inside.is_data(v)
            for before, v in zip(data[first:last], out, strict=True)
        ]
    return {i for i, moves in enumerate(data[first:last]) if moves}


def _in_sequence(
    body: _compat.ClosedJaxpr,
    parts: _compat.ScanParts,
    carries,
    eqn: _compat.JaxprEqn,
    flow: flows.Flow,
):
    """Whether a product of one step takes what follows from one of the step before."""
    first = parts.num_consts
    inner = body.jaxpr.invars
    owners = {v: flow.params_of(o) for v, o in zip(inner, eqn.invars, strict=True)}
    data = [inner[first + i] for i in carries]
    data += [v for v, o in zip(inner, eqn.invars, strict=True) if flow.is_data(o)]
    inside = flows.trace_flow(body.jaxpr.eqns, data=data, owners=owners)
    products = {id(e) for e in body.jaxpr.eqns if flows.contracts_parameter(e, inside)}
    after = {v for e in body.jaxpr.eqns if id(e) in products for v in e.outvars}
    behind = flows.trace_flow(body.jaxpr.eqns, data=after)
    carried = {
        inner[first + i]
        for i in carries
        if behind.is_data(body.jaxpr.outvars[i]) or body.jaxpr.outvars[i] in after
    }
    before = flows.trace_flow(body.jaxpr.eqns, data=carried)
    return any(
        before.is_data(v)
        for e in body.jaxpr.eqns
        if id(e) in products
        for v in e.invars
    )


def _is_literal(atom: _compat.Var | _compat.Literal):
    return isinstance(atom, _compat.Literal)


def _is_variable(body: _compat.ClosedJaxpr, position: int):
    return not _is_literal(body.jaxpr.outvars[position])
