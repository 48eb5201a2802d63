"""The layers of a program, found by articulation points and parameter provenance.

A layer is the smallest run between two articulation points that multiplies the data
with a parameter; runs without such a product (a bias, an activation, a pooling) belong
to the layer before them. A scan whose carry is the only live data is entered: every
iteration of its body is a layer, or several, and all of them share one function.
"""

import jax.numpy as jnp

from gradstab import _compat
from gradstab.network import flow as flows
from gradstab.network.blocks import Block, Outline, Stack
from gradstab.network.program import flatten_body


def find_plan(program, /) -> list:
    """Blocks and stacks of a program, in depth order.

    Args:
        program: from `trace_program`.

    Returns:
        A list of `Block` and `Stack`; together they tile the way from input to output.

    Raises:
        ValueError: if no data flow from the inputs to the output.
    """
    inputs = program.input_vars
    floating = [v for v in inputs if _is_floating(v)]
    flow = flows.trace_flow(
        program.eqns,
        data=floating,
        dependent=[v for v in inputs if not _is_floating(v)],
        owners={v: frozenset({i}) for i, v in enumerate(program.param_vars)},
    )
    atoms = flows.atoms(program.eqns, flow, floating, program.out_var)
    if not atoms:
        raise ValueError(
            "the output does not depend on the inputs by a differentiable path: "
            "nothing to analyse"
        )
    # A parameter leaf is sliced only where the scan takes the leaf itself.
    leaf_of = {v: i for i, v in enumerate(program.param_vars)}
    outline = Outline(tuple(program.eqns), flow)
    items = _merge([_as_stack(atom, flow, leaf_of) or atom for atom in atoms], outline)
    return [item if isinstance(item, Stack) else outline.block(item) for item in items]


def all_blocks(plan, /) -> list[Block]:
    """The blocks of a plan, those of stacks and rolls among them, in depth order."""
    lists = ((item,) if isinstance(item, Block) else item.blocks for item in plan)
    return [block for blocks in lists for block in blocks]


def _is_floating(variable):
    return jnp.issubdtype(_compat.dtype_of(variable), jnp.inexact)


def _as_stack(atom, flow, leaf_of):
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
    outline = _outline(eqn, parts, body, inside, leaf_of)
    data = body.jaxpr.invars[first + position]
    atoms = flows.atoms(outline.eqns, inside, [data], carries[position])
    groups = _merge(atoms, outline)
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


def _merge(atoms, outline):
    """Join the atoms that own no product with a parameter to the layer before them."""
    merged, waiting = [], []
    for atom in atoms:
        if isinstance(atom, Stack):
            merged += [_join(waiting)] if waiting else []
            merged.append(atom)
            waiting = []
        elif merged and not waiting and _continues(merged[-1], atom, outline):
            merged[-1] = _join([merged[-1], atom])
        elif outline.contracts(atom):
            merged.append(_join([*waiting, atom]))
            waiting = []
        else:
            waiting.append(atom)
    return merged + ([_join(waiting)] if waiting else [])


def _continues(layer, atom, outline):
    """Whether the atom belongs to the layer before it."""
    if isinstance(layer, Stack):
        return False
    return not outline.contracts(atom) or any(map(_takes_projections, atom.eqns))


def _takes_projections(eqn):
    """Whether this is a recurrent scan whose inputs were projected before it.

    Multiplying all time steps with the input weights at once, ahead of the scan, is a
    way of computing a recurrent layer, not a layer of its own.
    """
    parts = _compat.scan_parts(eqn)
    if parts is None:
        return False
    body = flatten_body(parts.body).jaxpr
    fixed = parts.num_consts + parts.num_carry
    carries, inputs = body.invars[parts.num_consts : fixed], body.invars[fixed:]
    flow = flows.trace_flow(body.eqns, data=filter(_is_floating, inputs))
    state = flows.trace_flow(body.eqns, data=filter(_is_floating, carries))
    products = [e for e in body.eqns if _compat.contains(e, flows.CONTRACTIONS)]
    return bool(products) and not any(
        flow.is_data(v) and not state.is_data(v) for e in products for v in e.invars
    )


def _join(atoms):
    eqns = tuple(eqn for atom in atoms for eqn in atom.eqns)
    return flows.Atom(eqns, atoms[0].in_vars, atoms[-1].out_var)
