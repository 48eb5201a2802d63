"""The layers of a program, found by articulation points and parameter provenance.

A layer is the smallest run between two articulation points that multiplies the data
with a parameter; runs without such a product (a bias, an activation, a pooling) belong
to the layer before them. A scan whose carry is the only live data is entered: every
iteration of its body is a layer, or several, and all of them share one function.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp

from gradstab import _compat
from gradstab.network import flow as flows
from gradstab.network import naming
from gradstab.network.program import flatten_body


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """The function that one layer, or each of many equal layers, computes.

    Attributes:
        eqns: its equations, in order.
        context_vars: what it needs beside the data: parameters, keys, masks.
        in_vars: the data that enter: one variable, or all floating inputs, or none
            (an embedding of integers).
        out_var: the data that leave.
        length: the number of layers that share it; 1 outside a scan.
        contracted: parameter leaves that it multiplies the data with.
        owned: all parameter leaves that it uses.
        sliced: those of them of which each layer of a scan owns one slice.
    """

    eqns: tuple
    context_vars: tuple
    in_vars: tuple
    out_var: _compat.Var
    length: int
    contracted: frozenset
    owned: frozenset
    sliced: frozenset

    def __call__(self, context, *data):
        """The data that leave, for this context and these data that enter."""
        invars = [*self.context_vars, *self.in_vars]
        run = _compat.program_function(invars, [self.out_var], self.eqns)
        (out,) = run(*context, *data)
        return out


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """A scan over layers.

    Attributes:
        eqn: the scan equation.
        parts: its body and counts.
        body: the body, flat.
        blocks: the functions of the layers of one iteration, in depth order.
    """

    eqn: _compat.JaxprEqn
    parts: _compat.ScanParts
    body: Any
    blocks: tuple


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a layer sits: its name, its shapes, its parameters.

    Attributes:
        name: dotted path of the parameters it multiplies the data with.
        in_shapes: shapes of the data that enter.
        out_shape: shape of the data that leave, examples first.
        params: dotted paths of all parameter leaves that it uses.
        contraction_params: those that it multiplies the data with.
        sliced_params: those of which it owns one slice of the leading axis.
        block: which block computes it.
        index: its iteration in a scan over layers; None outside.
    """

    name: str
    in_shapes: tuple
    out_shape: tuple
    params: tuple[str, ...]
    contraction_params: tuple[str, ...]
    sliced_params: tuple[str, ...]
    block: int
    index: int | None


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
    plan = []
    for item in _merge(_with_stacks(atoms, flow, leaf_of), flow):
        if isinstance(item, Stack):
            plan.append(item)
        else:
            plan.append(_block(item, program.eqns, flow))
    return plan


def find_places(plan, program, /) -> tuple[Place, ...]:
    """Every layer of the plan, in depth order, named by the parameters it owns."""
    blocks = all_blocks(plan)
    contracted = [_paths(b.contracted, program) for b in blocks]
    owned = [_paths(b.owned, program) for b in blocks]
    bases = naming.base_names(contracted, owned)
    number_of = {block: number for number, block in enumerate(blocks)}
    rows = []
    for item in plan:
        group = item.blocks if isinstance(item, Stack) else (item,)
        sliced = _paths(frozenset().union(*(b.sliced for b in group)), program)
        for step in range(group[0].length) if isinstance(item, Stack) else (None,):
            for block in group:
                number = number_of[block]
                row = Place(
                    name=naming.layer_name(bases[number], step, sliced),
                    in_shapes=tuple(map(_compat.shape_of, block.in_vars)),
                    out_shape=_compat.shape_of(block.out_var),
                    params=owned[number],
                    contraction_params=contracted[number],
                    sliced_params=_paths(block.sliced, program),
                    block=number,
                    index=step,
                )
                rows.append(row)
    names = naming.distinct([row.name for row in rows])
    return tuple(
        dataclasses.replace(row, name=name)
        for row, name in zip(rows, names, strict=True)
    )


def all_blocks(plan, /) -> list[Block]:
    """The blocks of a plan, those of the stacks among them, in depth order."""
    lists = (item.blocks if isinstance(item, Stack) else (item,) for item in plan)
    return [block for blocks in lists for block in blocks]


def _is_floating(variable):
    return jnp.issubdtype(_compat.dtype_of(variable), jnp.inexact)


def _paths(leaves, program):
    return tuple(program.param_names[i] for i in sorted(leaves))


def _with_stacks(atoms, flow, leaf_of):
    return [_as_stack(atom, flow, leaf_of) or atom for atom in atoms]


def _as_stack(atom, flow, leaf_of):
    """The atom as a scan over layers, or None if it is not one."""
    if len(atom.eqns) != 1 or len(atom.in_vars) != 1:
        return None
    (eqn,) = atom.eqns
    parts = _compat.scan_parts(eqn)
    if parts is None:
        return None
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    carried = [i for i in range(first, last) if eqn.invars[i] == atom.in_vars[0]]
    outside = [v for i, v in enumerate(eqn.invars) if not first <= i < last]
    if len(carried) != 1 or any(map(flow.is_data, outside)):
        return None
    position = carried[0] - first
    if eqn.outvars[position] != atom.out_var:
        return None
    body = flatten_body(parts.body)
    return _enter(eqn, parts, body, position, flow, leaf_of)


def _enter(eqn, parts, body, position, flow, leaf_of):
    inner = body.jaxpr.invars
    data = inner[parts.num_consts + position]
    inside = flows.trace_flow(
        body.jaxpr.eqns,
        data=[data],
        dependent=[
            v
            for v, o in zip(inner, eqn.invars, strict=True)
            if flow.is_dependent(o) and v is not data
        ],
        owners={
            v: flow.params_of(outer)
            for v, outer in zip(inner, eqn.invars, strict=True)
            if v is not data
        },
    )
    carries = body.jaxpr.outvars[: parts.num_carry]
    others = [v for i, v in enumerate(carries) if i != position]
    if any(inside.is_data(v) or inside.is_dependent(v) for v in others):
        return None
    eqns = body.jaxpr.eqns
    atoms = flows.atoms(eqns, inside, [data], carries[position])
    groups = _merge(atoms, inside)
    if not any(_contracts(group, inside) for group in groups):
        return None
    num_fixed = parts.num_consts + parts.num_carry
    sliced = {
        inner[i]: leaf_of[eqn.invars[i]]
        for i in range(num_fixed, len(inner))
        if eqn.invars[i] in leaf_of
    }
    blocks = [_block(g, eqns, inside, parts.length, sliced) for g in groups]
    return Stack(eqn, parts, body, tuple(blocks))


def _contracts(atom, flow):
    return frozenset().union(*(flows.contracts_parameter(e, flow) for e in atom.eqns))


def _merge(atoms, flow):
    """Join the atoms that own no product with a parameter to the layer before them."""
    merged, waiting = [], []
    for atom in atoms:
        if isinstance(atom, Stack):
            merged += [_join(waiting)] if waiting else []
            merged.append(atom)
            waiting = []
        elif merged and not waiting and _continues(merged[-1], atom, flow):
            merged[-1] = _join([merged[-1], atom])
        elif _contracts(atom, flow):
            merged.append(_join([*waiting, atom]))
            waiting = []
        else:
            waiting.append(atom)
    return merged + ([_join(waiting)] if waiting else [])


def _continues(layer, atom, flow):
    """Whether the atom belongs to the layer before it."""
    if isinstance(layer, Stack):
        return False
    return not _contracts(atom, flow) or any(map(_takes_projections, atom.eqns))


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


def _block(atom, eqns, flow, length=1, sliced=None):
    inside = _local_equations(atom, eqns, flow)
    made = {v for eqn in inside for v in eqn.outvars} | set(atom.in_vars)
    used = [v for eqn in inside for v in eqn.invars]
    context = dict.fromkeys(
        v for v in used if not isinstance(v, _compat.Literal) and v not in made
    )
    owned = frozenset().union(*(flow.params_of(v) for v in context))
    return Block(
        eqns=tuple(inside),
        context_vars=tuple(context),
        in_vars=atom.in_vars,
        out_var=atom.out_var,
        length=length,
        contracted=_contracts(atom, flow),
        owned=owned,
        sliced=owned & frozenset((sliced or {}).values()),
    )


def _local_equations(atom, eqns, flow):
    """The atom's equations, and those of masks and constants that only they need."""
    data_eqns, local, inside = set(map(id, atom.eqns)), set(atom.in_vars), []
    for eqn in eqns:
        variables = [v for v in eqn.invars if not isinstance(v, _compat.Literal)]
        needs = [v for v in variables if flow.is_data(v) or flow.is_dependent(v)]
        derived = bool(needs) and all(v in local for v in needs)
        constant = all(v in local for v in variables) and not needs
        if id(eqn) in data_eqns or derived or constant:
            inside.append(eqn)
            local.update(eqn.outvars)
    return flows.needed_equations(inside, atom.out_var)
