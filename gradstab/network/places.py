"""Where each layer sits: its name, its shapes, its parameters."""

import dataclasses

from gradstab import _compat
from gradstab.network import naming
from gradstab.network.blocks import Stack
from gradstab.network.layers import all_blocks


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
        index: which of the block's layers it is, in depth order; None outside a scan.
        slice: which slice of ``sliced_params`` it owns; None outside a scan.
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


def find_places(plan, program, /) -> tuple[Place, ...]:
    """Every layer of the plan, in depth order, named by the parameters it owns."""
    blocks = all_blocks(plan)
    bases = naming.base_names(
        [_paths(block.contracted, program) for block in blocks],
        [_paths(block.owned, program) for block in blocks],
    )
    number_of = {block: number for number, block in enumerate(blocks)}
    rows = []
    for item in plan:
        group = item.blocks if isinstance(item, Stack) else (item,)
        stack = _paths(frozenset().union(*(b.sliced for b in group)), program)
        for index in range(group[0].length) if isinstance(item, Stack) else (None,):
            for block in group:
                number = number_of[block]
                part = _slice(block, index)
                name = naming.layer_name(bases[number], part if stack else index, stack)
                rows.append(_place(name, block, number, index, part, program))
    names = naming.distinct([row.name for row in rows])
    return tuple(
        dataclasses.replace(row, name=name)
        for row, name in zip(rows, names, strict=True)
    )


def _slice(block, index):
    """The slice of a scan's parameters that its ``index``-th layer owns."""
    if index is None:
        return None
    return block.length - 1 - index if block.reverse else index


def _place(name, block, number, index, part, program):
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


def _paths(leaves, program):
    return tuple(program.param_names[i] for i in sorted(leaves))
