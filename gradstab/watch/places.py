"""Where a loss is watched: the outputs of its layers, and who owns each parameter."""

import collections
import dataclasses
import math
import re
from typing import NamedTuple

from gradstab import _compat
from gradstab.errors import UserValueError
from gradstab.network import flow as flows
from gradstab.network import naming
from gradstab.network.blocks import Block, Roll
from gradstab.program.sketch import mark_of
from gradstab.program.trace import flatten_body
from gradstab.watch.around import Around, Spot, all_around
from gradstab.watch.reading import Reading, followed, made_by, network_of, read

# Parameters of no layer that is watched have a row of their own.
ELSEWHERE = "(elsewhere)"


@dataclasses.dataclass(frozen=True)
class Place:
    """A layer that is watched.

    Attributes:
        name: of the layer.
        spots: the results that are its output; several where it returns several.
        turn: which of the iterations around its spots it is, of how many; None if all
            of them are.
    """

    name: str
    spots: tuple[Spot, ...]
    turn: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Places:
    """All that is watched of a loss.

    Attributes:
        layers: the layers, in depth order.
        around: what runs each spot several times.
        owners: for each parameter leaf the row that it belongs to, or for each of its
            slices; rows are layers, and one more for what belongs to none of them. What
            several layers share belongs to the first.
        shared: the leaves that several layers share.
        opened: numbers of the scans over what is no layer and no time.
    """

    layers: tuple[Place, ...]
    around: dict[Spot, Around]
    owners: tuple[int | tuple[int, ...], ...]
    shared: frozenset[int]
    opened: frozenset[int]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the rows."""
        return (*(layer.name for layer in self.layers), ELSEWHERE)


class _Layer(NamedTuple):
    """A layer before it has a turn."""

    name: str
    spots: tuple[Spot, ...]
    contracted: tuple[str, ...]
    owned: tuple[str, ...]
    sliced: tuple[str, ...]
    slice: int | None
    numbers: frozenset[int]


def find_places(
    closed, params, rest, /, *, include=None, exclude=None, examples=False
) -> Places:
    """Find the layers of the model in a loss.

    Args:
        closed: the program of the loss, see `read`.
        params: what it is differentiated with respect to.
        rest: all other arrays that it reads.
        include: a regular expression: only layers in whose name it is found.
        exclude: a regular expression: no layer in whose name it is found.
        examples: whether what lies on the leading axis of data is measured apart.

    Raises:
        ValueError: if an expression leaves no layer.
    """
    readings = list(read(closed, params, rest))
    layers = _united([_layers_in(reading, params, rest) for reading in readings])
    chosen = _chosen([layer.name for layer in layers], include, exclude)
    layers = [layer for layer in layers if layer.name in chosen]
    spots = [spot for layer in layers for spot in layer.spots]
    around = all_around(closed, spots, examples=examples)
    layers, turns = _turns(layers, around)
    places = [
        Place(layer.name, layer.spots, turn)
        for layer, turn in zip(layers, turns, strict=True)
    ]
    program = readings[0].program
    owners = _owners(layers, program)
    uses = collections.Counter(
        path
        for layer in layers
        for path in dict.fromkeys((*layer.contracted, *layer.owned))
        if path not in layer.sliced
    )
    names = program.param_names
    shared = frozenset(i for i, name in enumerate(names) if uses[name] > 1)
    opened = readings[0].opened
    return Places(tuple(places), around, owners, shared, opened)


def _layers_in(reading, params, rest):
    network = network_of(reading, params, rest)
    layers = [] if network is None else _layers_of(network)
    if reading.opened:
        # What cuts parts out of the inputs is no layer.
        layers = [layer for layer in layers if layer.owned]
    return _with_others(layers, reading)


def _united(several) -> list[_Layer]:
    """The layers of all readings, in the order of the program."""
    first, *others = several
    if not others:
        return first
    found = list(first)
    for layers in others:
        known = frozenset(layer.spots for layer in found)
        for layer in layers:
            if layer.spots not in known:
                earlier = [i for i, o in enumerate(found) if o.spots < layer.spots]
                found.insert(max(earlier, default=-1) + 1, layer)
    single = [layer for layer in found if not layer.sliced]
    bases = naming.base_names(
        [layer.contracted for layer in single], [layer.owned for layer in single]
    )
    names = {id(layer): layer.name for layer in found}
    names |= dict(zip(map(id, single), bases, strict=True))
    names = naming.distinct([names[id(layer)] for layer in found])
    return [layer._replace(name=n) for layer, n in zip(found, names, strict=True)]


def _chosen(names, include, exclude):
    """Those of the names that are asked for."""
    found = [
        name
        for name in names
        if (include is None or re.search(include, name))
        and (exclude is None or not re.search(exclude, name))
    ]
    if names and not found:
        raise UserValueError(
            f"include={include!r}, exclude={exclude!r} leave none of the layers: "
            f"{naming.summary(names)}"
        )
    return frozenset(found)


# Layers that are found


def _layers_of(network) -> list[_Layer]:
    """The layers of a network, each with the results that leave it."""
    whole = _Origins(network.program.eqns)
    sites: list = []
    for item in network.plan:
        if isinstance(item, Block):
            sites.append((item, whole))
        elif isinstance(item, Roll):
            sites += [(block, whole) for block in item.members]
        else:
            inside = _Origins(item.body.jaxpr.eqns)
            steps = range(item.blocks[0].length)
            sites += [(block, inside) for _ in steps for block in item.blocks]
    known: dict = {}
    found = []
    for place, (block, origins) in zip(network.layers, sites, strict=True):
        if block not in known:
            own = frozenset().union(*map(_numbers, block.eqns))
            known[block] = _leaving(block, origins, own), own
        spots, own = known[block]
        named = place.contraction_params, place.params, place.sliced_params
        found.append(_Layer(place.name, spots, *named, place.slice, own))
    return found


class _Origins:
    """From the variables of a program to results of numbered equations."""

    def __init__(self, eqns):
        self._made = {v: (e, i) for e in eqns for i, v in enumerate(e.outvars)}

    def of(self, variable) -> set[Spot]:
        """The results that an array is, or is made of by equations without a number."""
        found, waiting, known = set(), [variable], set()
        while waiting:
            v = waiting.pop()
            if isinstance(v, _compat.Literal) or v in known or v not in self._made:
                continue
            known.add(v)
            eqn, position = self._made[v]
            number = mark_of(eqn)
            parts = _compat.scan_parts(eqn)
            inside = set() if parts is None else _within(parts, position)
            if inside:
                # Of a loop every iteration, not only what the last one leaves.
                found |= inside
            elif number is not None:
                found.add(Spot(number, position))
            else:
                waiting += [a for a in eqn.invars if _compat.is_floating(a)]
        return found


def _within(parts, position) -> set[Spot]:
    """The results in the body of a scan that one of its own results is."""
    body = flatten_body(parts.body)
    out = body.jaxpr.outvars[position]
    if isinstance(out, _compat.Literal) or not _compat.is_floating(out):
        return set()
    return _Origins(body.jaxpr.eqns).of(out)


def _leaving(block, origins, own) -> tuple[Spot, ...]:
    """What leaves a block: of several arrays those that no other one follows from."""
    found = sorted(spot for spot in origins.of(block.out_var) if spot.number in own)
    if len(found) < 2:
        return tuple(found)
    variables = {
        Spot(number, i): v
        for eqn in block.eqns
        if (number := mark_of(eqn)) is not None
        for i, v in enumerate(eqn.outvars)
    }
    behind = {
        spot: flows.trace_flow(block.eqns, data=[variables[spot]]).data
        for spot in found
        if spot in variables
    }
    return tuple(
        spot
        for spot in found
        if not any(
            variables[other] in behind.get(spot, ())
            for other in behind
            if other != spot
        )
    )


def _numbers(eqn) -> set[int]:
    """The numbers of an equation and of those in it."""
    number = mark_of(eqn)
    inside = (_numbers(e) for body in _compat.inner_programs(eqn) for e in body.eqns)
    return set().union(*inside) | ({number} if number is not None else set())


def _with_others(layers, reading: Reading) -> list[_Layer]:
    """The layers, and every product that is in none of them as one of its own.

    Those are beside the way to where the model ends: another head, a loss of its own.
    """
    origins = _Origins(reading.program.eqns)
    covered = frozenset().union(*(layer.numbers for layer in layers))
    others = []
    for eqn in reading.products:
        if covered.isdisjoint(own := _numbers(eqn)):
            made = made_by(reading, eqn)
            largest = max(made, key=lambda v: len(_compat.shape_of(v)))
            spots = tuple(sorted(origins.of(followed(reading, largest))))
            leaves = sorted(flows.contracts_parameter(eqn, reading.flow))
            paths = tuple(reading.program.param_names[i] for i in leaves)
            others.append(_Layer("", spots, paths, paths, (), None, frozenset(own)))
    homes = [layer.contracted or layer.owned for layer in (*others, *layers)]
    names = naming.base_names(homes, homes)
    found = list(layers)
    for layer, name in zip(others, names, strict=False):
        before = [i for i, other in enumerate(found) if _first(other) < _first(layer)]
        found.insert(max(before, default=-1) + 1, layer._replace(name=name))
    names = naming.distinct([layer.name for layer in found])
    return [layer._replace(name=n) for layer, n in zip(found, names, strict=True)]


def _first(layer):
    return min(layer.numbers, default=-1)


# Layers of loops


def _turns(layers, around):
    """The layers, and for each which of the iterations around its spots it is."""
    groups = collections.defaultdict(list)
    for layer in layers:
        groups[layer.spots].append(layer)
    found, turns = [], []
    for layer in layers:
        group = groups[layer.spots]
        number = next(i for i, other in enumerate(group) if other is layer)
        if len(group) == 1 or not layer.spots:
            found.append(layer)
            turns.append(None)
        elif _fits(len(group), [around[spot] for spot in layer.spots]):
            found.append(layer)
            turns.append((number, len(group)))
        elif number == 0:
            # More layers than iterations that can be told apart: one row for them all.
            found.append(layer._replace(name=f"{layer.name} .. {group[-1].name}"))
            turns.append(None)
    return found, turns


def _fits(count, several):
    """Whether the innermost of the loops turn as often as there are layers."""
    lengths = {around.lengths for around in several}
    if len(lengths) != 1:
        return False
    (lengths,) = lengths
    return any(math.prod(lengths[i:]) == count for i in range(len(lengths)))


# Parameters


def _owners(layers, program):
    """For each parameter leaf its row, or those of its slices."""
    elsewhere = len(layers)
    first: dict = {}
    for paths_of in (lambda layer: layer.contracted, lambda layer: layer.owned):
        for row, layer in enumerate(layers):
            for path in paths_of(layer):
                part = layer.slice if path in layer.sliced else None
                first.setdefault((path, part), row)
    found = []
    for path, variable in zip(program.param_names, program.param_vars, strict=True):
        shape = _compat.shape_of(variable)
        parts = [(path, i) for i in range(shape[0])] if shape else []
        if (path, None) not in first and any(part in first for part in parts):
            found.append(tuple(first.get(part, elsewhere) for part in parts))
        else:
            found.append(first.get((path, None), elsewhere))
    return tuple(found)
