"""The layers of a program, found by articulation points and parameter provenance.

A layer is the smallest run between two articulation points that multiplies the data
with a parameter; runs without such a product (a bias, an activation, a pooling) belong
to the layer before them. A scan whose carry is the only live data is entered: every
iteration of its body is a layer, or several, and all of them share one function.
"""

import dataclasses

from gradstab import _compat
from gradstab.network import flow as flows
from gradstab.network.blocks import Block, Outline, Stack
from gradstab.network.boundaries import as_boundaries, divide
from gradstab.network.merging import merge
from gradstab.network.program import flatten_body


def find_plan(program, num_examples, /) -> list:
    """Blocks and stacks of a program, in depth order.

    Args:
        program: from `trace_program`.
        num_examples: length of the example axis.

    Returns:
        A list of `Block` and `Stack`; together they tile the way from input to output.

    Raises:
        ValueError: if no data flow from the inputs to the output.
    """
    flow = _flow(program)
    floating = [v for v in program.input_vars if _compat.is_floating(v)]
    atoms = flows.atoms(program.eqns, flow, floating, program.out_var)
    if not atoms:
        raise ValueError(
            "the output does not depend on the inputs by a differentiable path: "
            "nothing to analyse"
        )
    outline = Outline(tuple(program.eqns), flow)
    limits = num_examples, program.boundaries
    items = [_as_stack(atom, flow, program, limits) or atom for atom in atoms]
    items = merge(items, outline, *limits)
    return [item if isinstance(item, Stack) else outline.block(item) for item in items]


def cut_at(boundaries, program, num_examples, /):
    """The program with the boundaries that a user draws.

    Args:
        boundaries: regular expressions, see `find_layers`; None draws none.
        program: from `trace_program`.
        num_examples: length of the example axis.

    Raises:
        TypeError, ValueError: see `as_boundaries`.
    """
    if boundaries is None:
        return program
    drawn = as_boundaries(boundaries, program)
    closed = divide(
        program.closed, _flow(program), program.out_var, drawn, num_examples
    )
    return dataclasses.replace(program, closed=closed, boundaries=drawn)


def all_blocks(plan, /) -> list[Block]:
    """The blocks of a plan, those of stacks and rolls among them, in depth order."""
    lists = ((item,) if isinstance(item, Block) else item.blocks for item in plan)
    return [block for blocks in lists for block in blocks]


def _flow(program):
    inputs = program.input_vars
    return flows.trace_flow(
        program.eqns,
        data=[v for v in inputs if _compat.is_floating(v)],
        dependent=[v for v in inputs if not _compat.is_floating(v)],
        owners={v: frozenset({i}) for i, v in enumerate(program.param_vars)},
    )


def _as_stack(atom, flow, program, limits):
    """The atom as a scan over layers, or None if it is not one."""
    if len(atom.eqns) != 1 or len(atom.in_vars) != 1:
        return None
    (eqn,) = atom.eqns
    parts = _compat.scan_parts(eqn)
    if parts is None or parts.length == 0:
        return None
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    carried = [i for i in range(first, last) if eqn.invars[i] is atom.in_vars[0]]
    outside = [v for i, v in enumerate(eqn.invars) if not first <= i < last]
    if len(carried) != 1 or any(map(flow.is_data, outside)):
        return None
    position = carried[0] - first
    if eqn.outvars[position] is not atom.out_var:
        return None
    body = flatten_body(parts.body)
    inside = _flow_inside(eqn, parts, body, position, flow)
    carries = body.jaxpr.outvars[: parts.num_carry]
    others = [v for i, v in enumerate(carries) if i != position]
    if any(inside.is_data(v) or inside.is_dependent(v) for v in others):
        return None
    num_examples, boundaries = limits
    if boundaries is not None:
        body = divide(body, inside, carries[position], boundaries, num_examples)
        inside = _flow_inside(eqn, parts, body, position, flow)
    # A parameter leaf is sliced only where the scan takes the leaf itself.
    leaf_of = {v: i for i, v in enumerate(program.param_vars)}
    outline = _outline(eqn, parts, body, inside, leaf_of)
    data, out = body.jaxpr.invars[first + position], body.jaxpr.outvars[position]
    groups = merge(flows.atoms(outline.eqns, inside, [data], out), outline, *limits)
    if not any(map(outline.contracts, groups)):
        return None
    return Stack(eqn, parts, body, tuple(map(outline.block, groups)))


def _flow_inside(eqn, parts, body, position, flow):
    """The flow through the body of a scan whose carry at this position is the data."""
    pairs = list(zip(body.jaxpr.invars, eqn.invars, strict=True))
    data, _ = pairs.pop(parts.num_consts + position)
    return flows.trace_flow(
        body.jaxpr.eqns,
        data=[data],
        dependent=[v for v, outer in pairs if flow.is_dependent(outer)],
        owners={v: flow.params_of(outer) for v, outer in pairs},
    )


def _outline(eqn, parts, body, flow, leaf_of):
    inner, fixed = body.jaxpr.invars, parts.num_consts + parts.num_carry
    constants = [variable for variable, _ in _compat.constants(body)]
    outer = [None if isinstance(v, _compat.Literal) else v for v in eqn.invars]
    return Outline(
        eqns=tuple(body.jaxpr.eqns),
        flow=flow,
        length=parts.length,
        reverse=parts.reverse,
        shared=frozenset([*inner[: parts.num_consts], *constants]),
        slices={
            inner[i]: leaf_of[outer[i]]
            for i in range(fixed, len(inner))
            if outer[i] in leaf_of
        },
    )
