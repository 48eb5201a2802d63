"""The layers of a program, found by articulation points and parameter provenance.

A layer is the smallest run between two articulation points that multiplies the data
with a parameter; runs without such a product (a bias, an activation, a pooling) belong
to the layer before them. A scan whose carry is the only live data is entered: every
iteration of its body is a layer, or several, and all of them share one function.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from gradstab import _compat
from gradstab.errors import UserValueError
from gradstab.network import flow as flows
from gradstab.network.blocks import Block, Outline, Stack
from gradstab.network.boundaries import as_boundaries, cut_behind, divide, trunk_among
from gradstab.network.carries import carries_needed, gather
from gradstab.network.merging import merge
from gradstab.network.separators import separators
from gradstab.network.slices import Slices, find_slices
from gradstab.network.stages import part_stages
from gradstab.program import primitives
from gradstab.program.trace import Program, flatten_body


def find_plan(
    program: Program, boundaries: Any, num_examples: int, /
) -> tuple[list, Any]:
    """Blocks and stacks of a program, in depth order.

    Args:
        program: from `trace_program`.
        boundaries: regular expressions, see `find_layers`; None for those that are
            found, an empty tuple for none.
        num_examples: length of the example axis.

    Returns:
        ``(plan, program)``: a list of `Block` and `Stack`, which together tile the way
        from input to output; the program with the boundaries.

    Raises:
        TypeError, ValueError: see `as_boundaries`.
        ValueError: if no data flow from the inputs to the output.
    """
    if boundaries is None or len(boundaries):
        program = part_stages(program, flow_of(program), num_examples)
        program = gather(program, flow_of(program), num_examples)
    if boundaries is not None:
        program = _cut_at(boundaries, program, num_examples)
        return _plan(program, *_items(program, num_examples)), program
    items, outline = _items(program, num_examples)
    packs = _separators(items, outline, program.param_names, num_examples)
    if packs:
        closed = cut_behind(program.closed, packs, num_examples)
        program = dataclasses.replace(program, closed=closed)
        program = gather(program, flow_of(program), num_examples)
        items, outline = _items(program, num_examples)
    return _plan(program, items, outline), program


def _plan(program: Program, items, outline: Outline):
    return [item if isinstance(item, Stack) else outline.block(item) for item in items]


def _items(program: Program, num_examples: int):
    """The layers of a program as atoms and stacks, and its outline."""
    flow = flow_of(program)
    floating = [v for v in program.input_vars if _compat.is_floating(v)]
    atoms = flows.atoms(program.eqns, flow, floating, program.out_var)
    if not atoms:
        raise UserValueError(
            "the output does not depend on the inputs by a differentiable path: "
            "nothing to analyse"
        )
    slices = find_slices(program.eqns, flow)
    outline = Outline(tuple(program.eqns), flow, slices=slices)
    known = _whole_leaves(program) | slices
    items = [
        _as_stack(atom, flow, known, program, num_examples) or atom for atom in atoms
    ]
    return merge(items, outline, num_examples, program.boundaries), outline


def _whole_leaves(program: Program):
    """A scan slices a leaf where it takes the leaf itself, or what has its slices."""
    whole = {
        v: frozenset({Slices(i, 0, frozenset())})
        for i, v in enumerate(program.param_vars)
    }
    for eqn in program.eqns:
        if primitives.is_named(eqn, "convert_element_type", "slice"):
            (before,), (after,) = eqn.invars, eqn.outvars
            lengths = _compat.shape_of(before)[:1], _compat.shape_of(after)[:1]
            literal = isinstance(before, _compat.Literal)
            if not literal and before in whole and lengths[0] == lengths[1]:
                whole[after] = whole[before]
    return whole


def _separators(items, outline: Outline, paths: Sequence[str], num_examples: int):
    """Where to cut those of the layers that hold many."""
    parts = [
        (frozenset().union(*(block.contracted for block in item.blocks)), None)
        if isinstance(item, Stack)
        else (outline.contracts(item), item)
        for item in items
    ]
    trunks = {id(atom): _trunk(atom, outline) for _, atom in parts if atom is not None}
    return separators(parts, outline, paths, num_examples, trunks)


def _trunk(atom, outline: Outline):
    """See `separators`: known where the arrays of a scan over layers are packed."""
    ends = [eqn for eqn in outline.eqns if atom.out_var in eqn.outvars]
    for eqn in outline.eqns:
        if any(v in eqn.outvars for v in atom.in_vars):
            parts = _compat.scan_parts(eqn)
            ends += parts.body.jaxpr.eqns if parts is not None else [eqn]
    return next(filter(None, map(trunk_among, ends)), None)


def _cut_at(boundaries: Any, program: Program, num_examples: int):
    """The program with the boundaries that a user draws."""
    drawn = as_boundaries(boundaries, program)
    closed = divide(
        program.closed, flow_of(program), program.out_var, drawn, num_examples
    )
    return dataclasses.replace(program, closed=closed, boundaries=drawn)


def all_blocks(plan: Sequence[Any], /) -> list[Block]:
    """The blocks of a plan, those of stacks and rolls among them, in depth order."""
    lists = ((item,) if isinstance(item, Block) else item.blocks for item in plan)
    return [block for blocks in lists for block in blocks]


def flow_of(program: Program, /) -> flows.Flow:
    """The part that each variable of a program plays."""
    inputs = program.input_vars
    return flows.trace_flow(
        program.eqns,
        data=[v for v in inputs if _compat.is_floating(v)],
        dependent=[v for v in inputs if not _compat.is_floating(v)],
        owners={v: frozenset({i}) for i, v in enumerate(program.param_vars)},
    )


def _as_stack(atom, flow: flows.Flow, slices, program: Program, num_examples: int):
    """The atom as a scan over layers, or None if it is not one."""
    if len(atom.eqns) != 1 or len(atom.in_vars) != 1:
        return None
    (eqn,) = atom.eqns
    parts = _compat.scan_parts(eqn)
    if parts is None or parts.length == 0:
        return None
    position = _position(eqn, parts, atom, flow)
    if position is None:
        return None
    first = parts.num_consts
    body = flatten_body(parts.body)
    needed = carries_needed(body, parts, [position])
    inside = _flow_inside(eqn, parts, body, position, flow)
    carries = body.jaxpr.outvars[: parts.num_carry]
    others = [i for i in needed if i != position]
    entering = [eqn.invars[first + i] for i in others]
    leaving = [carries[i] for i in others]
    if any(map(flow.is_data, entering)) or any(map(inside.is_data, leaving)):
        return None
    if any(map(inside.is_dependent, leaving)):
        return None

    def groups(body: _compat.ClosedJaxpr, inside):
        outline = _outline(eqn, parts, body, inside, slices)
        data, out = body.jaxpr.invars[first + position], body.jaxpr.outvars[position]
        atoms = flows.atoms(outline.eqns, inside, [data], out)
        return merge(atoms, outline, num_examples, program.boundaries), outline

    if program.boundaries is not None:
        out = body.jaxpr.outvars[position]
        body = divide(body, inside, out, program.boundaries, num_examples)
        inside = _flow_inside(eqn, parts, body, position, flow)
    found, outline = groups(body, inside)
    if not any(map(outline.contracts, found)):
        return None
    if program.boundaries is None:
        packs = _separators(found, outline, program.param_names, num_examples)
        if packs:
            body = cut_behind(body, packs, num_examples)
            inside = _flow_inside(eqn, parts, body, position, flow)
            found, outline = groups(body, inside)
    return Stack(eqn, parts, body, tuple(map(outline.block, found)))


def _position(eqn: _compat.JaxprEqn, parts: _compat.ScanParts, atom, flow: flows.Flow):
    """Where in the carry the data are, if nothing else enters; else None."""
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    outside = [v for i, v in enumerate(eqn.invars) if not first <= i < last]
    if any(map(flow.is_data, outside)) or atom.out_var not in eqn.outvars:
        return None
    position = eqn.outvars.index(atom.out_var)
    if position >= parts.num_carry:
        return None
    entering = eqn.invars[first + position]
    return position if entering is atom.in_vars[0] else None


def _flow_inside(
    eqn: _compat.JaxprEqn,
    parts: _compat.ScanParts,
    body: _compat.ClosedJaxpr,
    position: int,
    flow: flows.Flow,
):
    """The flow through the body of a scan whose carry at this position is the data."""
    pairs = list(zip(body.jaxpr.invars, eqn.invars, strict=True))
    data, _ = pairs.pop(parts.num_consts + position)
    return flows.trace_flow(
        body.jaxpr.eqns,
        data=[data],
        dependent=[v for v, outer in pairs if flow.is_dependent(outer)],
        owners={v: flow.params_of(outer) for v, outer in pairs},
    )


def _outline(
    eqn: _compat.JaxprEqn,
    parts: _compat.ScanParts,
    body: _compat.ClosedJaxpr,
    flow: flows.Flow,
    slices,
):
    inner, fixed = body.jaxpr.invars, parts.num_consts + parts.num_carry
    constants = [variable for variable, _ in _compat.constants(body)]
    outer = [None if isinstance(v, _compat.Literal) else v for v in eqn.invars]
    given = {
        v: frozenset(p for p in slices.get(o, ()) if i >= fixed or p.leaf is None)
        for i, (v, o) in enumerate(zip(inner, outer, strict=True))
    }
    parts_of = frozenset().union(*given.values())
    stack = frozenset(p.leaf for p in parts_of if p.leaf is not None)
    given = {
        v: frozenset(p._replace(stack=stack) for p in held) for v, held in given.items()
    }
    return Outline(
        eqns=tuple(body.jaxpr.eqns),
        flow=flow,
        length=parts.length,
        reverse=parts.reverse,
        shared=frozenset([*inner[: parts.num_consts], *constants]),
        slices=find_slices(body.jaxpr.eqns, flow, given),
    )
