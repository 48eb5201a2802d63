"""From the runs between articulation points to layers."""

from typing import Any

from gradstab import _compat
from gradstab.network import flow as flows
from gradstab.network.blocks import Outline, Stack
from gradstab.network.boundaries import Boundaries, is_boundary
from gradstab.program.trace import flatten_body


def merge(
    atoms, outline: Outline, num_examples: int, boundaries: Any = None, /
) -> list:
    """Join the atoms that own no product with a parameter to the layer before them.

    Args:
        atoms: atoms and stacks, in depth order.
        outline: of the program or scan body.
        num_examples: length of the example axis. Of the points at which a layer could
            end, one where the examples lead is chosen.
        boundaries: from `as_boundaries`, or None. What they enclose is one layer.

    Returns:
        Atoms, one for each layer, and stacks.
    """
    layers, waiting = [], []
    for part in _between_boundaries(atoms):
        found, waiting = _layers([*waiting, *part], outline, num_examples, boundaries)
        layers += found
    return layers + ([_join(waiting)] if waiting else [])


def _between_boundaries(atoms):
    parts = [[]]
    for atom in atoms:
        parts[-1].append(atom)
        if not isinstance(atom, Stack) and is_boundary(atom.eqns[-1]):
            parts.append([])
    return [part for part in parts if part]


def _layers(atoms, outline: Outline, num_examples: int, boundaries: Boundaries | None):
    """The layers of atoms, and the atoms behind the last scan or without a product."""
    plain = [atom for atom in atoms if not isinstance(atom, Stack)]
    if boundaries and len(plain) == len(atoms):
        contracted = frozenset().union(*map(outline.contracts, plain))
        if boundaries.group(contracted) is not None:
            return [_join(plain)], []
    found, tail = [], []  # tail: atoms without a product behind the last layer
    for atom in atoms:
        if isinstance(atom, Stack):
            tail = _take_all(found, tail)
            found += [_join(tail)] if tail else []
            found.append(atom)
            tail = []
        elif not outline.contracts(atom):
            tail.append(atom)
        elif _is_layer(found) and any(map(_takes_projections, atom.eqns)):
            found[-1] = _join([found[-1], *tail, atom])
            tail = []
        else:
            tail = _take_some(found, tail, num_examples)
            found.append(_join([*tail, atom]))
            tail = []
    return found, _take_all(found, tail)


def _is_layer(found):
    return bool(found) and not isinstance(found[-1], Stack)


def _take_all(found, tail):
    """The layer before takes all atoms; where there is none, they are left."""
    if not _is_layer(found):
        return tail
    found[-1] = _join([found[-1], *tail])
    return []


def _take_some(found, tail, num_examples: int):
    """The layer before takes what ends with the examples in front; the rest is left."""
    if not _is_layer(found):
        return tail
    points = [found[-1], *tail]
    leading = [
        i
        for i, atom in enumerate(points)
        if _compat.shape_of(atom.out_var)[:1] == (num_examples,)
    ]
    taken = leading[-1] if leading else len(tail)
    found[-1] = _join(points[: taken + 1])
    return tail[taken:]


def _takes_projections(eqn: _compat.JaxprEqn):
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
    flow = flows.trace_flow(body.eqns, data=filter(_compat.is_floating, inputs))
    state = flows.trace_flow(body.eqns, data=filter(_compat.is_floating, carries))
    products = [e for e in body.eqns if _compat.contains(e, flows.CONTRACTIONS)]
    return bool(products) and not any(
        flow.is_data(v) and not state.is_data(v) for e in products for v in e.invars
    )


def _join(atoms):
    eqns = tuple(eqn for atom in atoms for eqn in atom.eqns)
    return flows.Atom(eqns, atoms[0].in_vars, atoms[-1].out_var)
