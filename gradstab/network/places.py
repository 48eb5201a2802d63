"""Where each layer sits: its name, its shapes, its parameters."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from gradstab import _compat
from gradstab.network import naming
from gradstab.network.blocks import Block, Roll
from gradstab.network.flow import Flow
from gradstab.network.layers import all_blocks
from gradstab.network.reasons import why_joined
from gradstab.network.scopes import naming_paths
from gradstab.program.trace import Program


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
        index: which of the block's layers it is, in depth order; None if the only one.
        slice: which slice of ``sliced_params`` it owns; None outside a scan.
        note: why products that look like several layers are one.
    """

    name: str
    in_shapes: tuple
    out_shape: tuple
    params: tuple[str, ...]
    contraction_params: tuple[str, ...]
    sliced_params: tuple[str, ...]
    block: int
    index: int | None
    slice: int | None
    note: str = ""


def find_places(
    plan: Sequence[Any], program: Program, flow: Flow, /
) -> tuple[Place, ...]:
    """Every layer of the plan, in depth order, named by the parameters it owns."""
    number_of = {block: number for number, block in enumerate(all_blocks(plan))}
    sites = [site for item in plan for site in _sites(item)]
    # The copies in a roll share a block, and have parameters of their own.
    found = list(dict.fromkeys(own for own, *_ in sites))
    paths = naming_paths(program, flow)
    bases = naming.base_names(
        [_of(block.contracted, paths) for block in found],
        [_of(block.owned, paths) for block in found],
    )
    base_of = dict(zip(found, bases, strict=True))
    rows = []
    for own, block, index, slices in sites:
        part = None if slices is None else _slice(own, index or 0)
        stack = _paths(slices or (), program)
        iteration = (index or 0) + (own.start or 0)
        step = None if slices is None else part if stack else iteration
        name = naming.layer_name(base_of[own], step, stack)
        row = _place(name, own, number_of[block], index, part, program)
        note = why_joined(name, own, row.contraction_params, alone=len(sites) == 1)
        rows.append(dataclasses.replace(row, note=note))
    names = naming.distinct([row.name for row in rows])
    return tuple(
        dataclasses.replace(row, name=name)
        for row, name in zip(rows, names, strict=True)
    )


def _sites(item):
    """The layers of an item of the plan, in depth order.

    Each with its own block, the block that computes it, which of that block's layers it
    is, and in a scan the parameter leaves of which the scan's blocks own slices.
    """
    if isinstance(item, Block):
        return [(item, item, None, _stack(item))]
    if isinstance(item, Roll):
        period = len(item.blocks)
        return [
            (own, item.blocks[number % period], number // period, _stack(own))
            for number, own in enumerate(item.members)
        ]
    slices = frozenset().union(*(block.stack for block in item.blocks))
    steps = range(item.blocks[0].length)
    return [(block, block, step, slices) for step in steps for block in item.blocks]


def _stack(block: Block):
    """The parameter leaves of its scan, if a block was an iteration of one."""
    return None if block.start is None else block.stack


def _slice(block: Block, index):
    """The slice of a scan's parameters that its ``index``-th layer owns."""
    number = block.length - 1 - index if block.reverse else index
    return number + (block.start or 0)


def _place(name: str, block: Block, number: int, index, part, program: Program):
    return Place(
        name=name,
        in_shapes=tuple(map(_compat.shape_of, block.in_vars)),
        out_shape=_compat.shape_of(block.out_var),
        params=_paths(block.owned, program),
        contraction_params=_paths(block.contracted, program),
        sliced_params=_paths(block.sliced, program),
        block=number,
        index=index,
        slice=part,
    )


def _paths(leaves, program: Program):
    return _of(leaves, program.param_names)


def _of(leaves, paths: tuple[str, ...]):
    return tuple(paths[i] for i in sorted(leaves))
