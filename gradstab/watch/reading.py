"""A loss read as a network: its inputs, its products, and where the model ends.

A loss is a function of parameters and of anything else: examples, labels, masks, keys,
running state. What counts as an input is read off the program: something comes from it
with which a parameter is multiplied. Where the model ends and the loss begins too: the
last array on the way, of the shape of the last product, into which a parameter enters.

A scan over parts of a batch, a branch, a `jax.shard_map`, whatever else holds products
with parameters and is no loop over layers or time, is opened: read as if its program
stood there once.
"""

import dataclasses
from collections.abc import Iterator

import jax

from gradstab import _compat, _tree
from gradstab.network import find_layers
from gradstab.network import flow as flows
from gradstab.program import primitives
from gradstab.program.primitives import Kind
from gradstab.program.rewrite import numbered
from gradstab.program.sketch import Opened, mark_of, sketched
from gradstab.program.trace import Program, trace_program


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """A loss as a flat program, each equation of which bears its number.

    Attributes:
        program: the flat program, of parameters and everything else.
        flow: the part that each of its variables plays.
        products: equations on the way to the loss that multiply with parameters.
        users: for each variable the equations on the way that read it.
        inputs: positions of the inputs, among everything else.
        end: where the model ends; None if no parameter is multiplied with data.
        opened: numbers of what is read as if its program stood there once.
        sums: numbers of sums over devices, which complete what they add up.
    """

    program: Program
    flow: flows.Flow
    products: tuple
    users: dict
    inputs: tuple[int, ...]
    end: _compat.Var | None
    opened: frozenset[int] = frozenset()
    sums: frozenset[int] = frozenset()


def read(closed, params, rest, /) -> Iterator[Reading]:
    """Read a loss, once for each program of its branches.

    Args:
        closed: its program; the first result is the loss, the inputs are the leaves of
            ``params`` and all of ``rest``.
        params: what it is differentiated with respect to.
        rest: all other arrays that it reads.

    Returns:
        The readings; of a loss without branches one. Cost: two traces for each, and two
        for each depth to which programs hold others.
    """
    params, rest = jax.tree.map(_compat.plain_shape, (params, rest))
    held = {one.number: one.eqn for one in numbered(closed)}
    sums = frozenset(
        n for n, eqn in held.items() if primitives.is_a(eqn, Kind.COMBINES)
    )
    opened, number = Opened(), 0
    while number < _num_branches(opened, held):
        reading = _read(closed, params, rest, opened._replace(branch=number), sums)
        if more := _to_open(reading, held) - opened.numbers:
            opened = opened._replace(numbers=opened.numbers | more)
            continue
        yield reading
        number += 1


def _read(closed, params, rest, opened, sums):
    def loss(params, rest):
        return sketched(closed, [*jax.tree.leaves(params), *rest], opened)[0]

    program = trace_program(loss, params, list(rest), ())
    num_params = len(program.param_names)
    others = program.closed.jaxpr.invars[num_params:]
    inputs = _inputs(program, others)
    found = [others[i] for i in inputs]
    flow = flows.trace_flow(
        program.eqns,
        data=[v for v in found if _compat.is_floating(v)],
        dependent=[v for v in found if not _compat.is_floating(v)],
        owners={v: frozenset({i}) for i, v in enumerate(program.param_vars)},
    )
    needed = flows.needed_equations(program.eqns, program.out_var, flow)
    products = tuple(e for e in needed if flows.contracts_parameter(e, flow))
    users: dict = {}
    for eqn in needed:
        for v in dict.fromkeys(filter(flow.is_data, eqn.invars)):
            users.setdefault(v, []).append(eqn)
    last = None, opened.numbers, sums
    reading = Reading(program, flow, products, users, inputs, *last)
    if not products:
        return reading
    end = _summed(reading, _end(reading, found))
    return dataclasses.replace(reading, end=end)


def _num_branches(opened, held):
    """In how many ways a loss is to be read."""
    branches = [_compat.cond_branches(held[number]) or () for number in opened.numbers]
    return max(1, *map(len, branches), 1)


def _to_open(reading, held):
    """The numbers of what holds layers, and is no loop over layers or time."""
    found = set()
    for eqn in reading.products:
        number = mark_of(eqn)
        holds = _compat.cond_branches(eqn) or (
            _compat.scan_parts(eqn) and not _is_recurrent(eqn)
        )
        if holds and number in held:
            found.add(number)
    return frozenset(found)


def _is_recurrent(eqn):
    """Whether a scan multiplies what it hands from one iteration to the next."""
    parts = _compat.scan_parts(eqn)
    assert parts is not None
    jaxpr = parts.body.jaxpr
    kept = slice(parts.num_consts, parts.num_consts + parts.num_carry)
    pairs = zip(jaxpr.invars[kept], jaxpr.outvars, strict=False)
    moved = [v for v, out in pairs if v is not out and _compat.is_floating(v)]
    flow = flows.trace_flow(jaxpr.eqns, data=moved)
    return any(
        any(map(flow.is_data, inner.invars))
        for inner in jaxpr.eqns
        if _compat.contains(inner, flows.CONTRACTIONS)
    )


def network_of(reading: Reading, params, rest, /):
    """The layers of the model inside of a loss; None if it cannot be read as one."""
    program, end = reading.program, reading.end
    params, rest = jax.tree.map(_compat.plain_shape, (params, rest))
    given = [rest[i] for i in reading.inputs]
    floating = [x for x in given if not _tree.is_key(x)]
    lengths = {x.shape[0] if x.shape else 0 for x in floating}
    if end is None or len(lengths) != 1 or 0 in lengths:
        return None
    state = [x for i, x in enumerate(rest) if i not in reading.inputs]
    run = _compat.program_function(program.closed.jaxpr.invars, [end], program.eqns)

    def model(params, state, *inputs):
        ours, others = dict(zip(reading.inputs, inputs, strict=True)), iter(state)
        numbers = range(len(rest))
        every = [ours[i] if i in ours else next(others) for i in numbers]
        return run(*jax.tree.leaves(params), *every)[0]

    return find_layers(model, params, tuple(given), state=state)


def followed(reading: Reading, variable, /):
    """A result of a product with what is added to it of parameters: a bias."""
    flow, users, ahead = reading.flow, reading.users, variable
    while len(found := users.get(ahead, ())) == 1:
        (eqn,) = found
        plain = len(eqn.outvars) == 1 and not flows.contracts_parameter(eqn, flow)
        if not (plain and _axes(eqn.outvars[0]) == _axes(ahead)):
            break
        (ahead,) = eqn.outvars
        if any(map(flow.params_of, eqn.invars)) or mark_of(eqn) in reading.sums:
            variable = ahead
        elif not primitives.is_a(eqn, Kind.MOVES):
            break
    return variable


def made_by(reading: Reading, eqn, /) -> list:
    """The results of an equation that are data on the way to the loss."""
    users, out = reading.users, reading.program.out_var
    return [v for v in eqn.outvars if v in users or v is out]


def _inputs(program, others):
    """Positions of what the data start from, in the order in which it is used."""
    leaves = [*program.param_vars, *others]
    num_params = len(program.param_vars)
    origin = flows.trace_flow(
        program.eqns, owners={v: frozenset({i}) for i, v in enumerate(leaves)}
    )
    weighs = frozenset(range(num_params))
    found: list[int] = []
    operands: list = []
    for eqn in program.eqns:
        if not _compat.contains(eqn, flows.CONTRACTIONS | {"gather"}):
            continue
        # To a flow of no data, all that comes from an array is owned by it.
        sources = list(map(origin.params_of, eqn.invars))
        data = _data(sources, weighs)
        if data and not found:
            pairs = zip(eqn.invars, sources, strict=True)
            operands = [_shape(v) for v, s in pairs if s & data]
        found += sorted(data) if not data.intersection(found) else []
    shapes = [_shape(leaves[i]) for i in found]
    number = _num_examples([shape[0] for shape in shapes if shape], operands)
    kept = [
        i - num_params
        for i, shape in zip(found, shapes, strict=True)
        if shape and shape[0] == number
    ]
    return tuple(kept)


def _num_examples(lengths, operands):
    """How many examples there are: what is not trained may come before the trained.

    Args:
        lengths: of the leading axes of all that the data come from.
        operands: shapes of what the first parameter is multiplied with.
    """
    leading = [length for length in lengths if length in [s[0] for s in operands if s]]
    among = [length for length in lengths if any(length in s for s in operands)]
    return next(iter((*leading, *among, *lengths)), None)


def _data(sources, weighs):
    """What a product with parameters multiplies them with; nothing if it has none.

    Args:
        sources: for each operand all that it comes from.
        weighs: the parameters.
    """
    if any(s and s <= weighs for s in sources):
        return frozenset().union(*sources) - weighs
    # A sum of what is trained and what is not: the other operand comes from no such.
    others = [s for s in sources if not s & weighs]
    mixed = len(others) < len(sources) - sources.count(frozenset())
    return frozenset().union(*others) if mixed else frozenset()


def _end(reading, inputs):
    """The last array into which a parameter enters, of the last product's shape."""
    program, flow = reading.program, reading.flow
    last = reading.products[-1]
    floating = [v for v in inputs if _compat.is_floating(v)]
    atoms = flows.atoms(program.eqns, flow, floating, program.out_var)
    place = next(i for i, atom in enumerate(atoms) if last in atom.eqns)
    end = atoms[place].out_var
    for atom in atoms[place + 1 :]:
        uses = any(flow.params_of(v) for eqn in atom.eqns for v in eqn.invars)
        if uses and _axes(atom.out_var) == _axes(atoms[place].out_var):
            end = atom.out_var
    if end is program.out_var or not _shape(end):
        # Beside the way to the loss there is another: no array is the only one.
        made = made_by(reading, last)
        return followed(reading, max(made, key=lambda v: len(_shape(v))))
    return end


def _summed(reading, variable):
    """The sum over devices of parts of an array, if nothing else is made of them."""
    while len(found := reading.users.get(variable, ())) == 1:
        if mark_of(found[0]) not in reading.sums:
            break
        (variable,) = found[0].outvars
    return variable


def _shape(variable):
    return _compat.shape_of(variable)


def _axes(variable):
    """The lengths of the axes in any order: a mapped layer may be transposed."""
    return sorted(_shape(variable))
