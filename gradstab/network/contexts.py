"""Which contexts of layers are arrays that the caller holds already."""

from collections.abc import Sequence
from typing import Any

import jax

from gradstab import _compat
from gradstab.network.blocks import Block, Context, Roll
from gradstab.program.trace import Program


def held_positions(plan: Sequence[Any], program: Program, /) -> tuple[Context, ...]:
    """For every context variable of every block where the caller holds its value.

    Args:
        plan: blocks, stacks and rolls.
        program: from `trace_program`.

    Returns:
        Per block of the plan a context of positions in `held_arrays`: a number, for
        the layers of a roll a tuple of numbers; None for what is computed. Keys count
        as computed: they are small, and each is used once.
    """
    jaxpr = program.closed.jaxpr
    constants = [variable for variable, _ in _compat.constants(program.closed)]
    where = {v: i for i, v in enumerate((*jaxpr.invars, *constants)) if not _is_key(v)}
    return tuple(
        Context(
            [_position(source, where) for source in varying],
            [_position(source, where) for source in shared],
        )
        for item in plan
        for varying, shared in _sources(item)
    )


def held_arrays(program: Program, params: Any, state: Any, inputs: tuple, /) -> list:
    """The program's inputs and constants, in the order of `held_positions`."""
    constants = [value for _, value in _compat.constants(program.closed)]
    return [*jax.tree.leaves((params, state, inputs)), *constants]


def computed_only(contexts, positions, /) -> list[Context]:
    """The contexts with None for all that the caller holds."""
    return [
        Context(*map(_drop, context, held))
        for context, held in zip(contexts, positions, strict=True)
    ]


def with_held(contexts, positions, arrays, /) -> list[Context]:
    """The contexts with the arrays of the caller for what `computed_only` left out."""
    return [
        Context(*(_fill(c, h, arrays) for c, h in zip(context, held, strict=True)))
        for context, held in zip(contexts, positions, strict=True)
    ]


def _drop(values: Sequence[Any], positions):
    pairs = zip(values, positions, strict=True)
    return [value if position is None else None for value, position in pairs]


def _fill(values: Sequence[Any], positions, arrays):
    def found(value, position: int):
        if position is None:
            return value
        if isinstance(position, tuple):
            return tuple(arrays[i] for i in position)
        return arrays[position]

    return [found(*pair) for pair in zip(values, positions, strict=True)]


def _sources(item):
    """For each block of an item the program's variables that hold its context."""
    if isinstance(item, Block):
        return [(item.varying_vars, item.shared_vars)]
    if isinstance(item, Roll):
        pairs = zip(item.contexts, item.blocks, strict=True)
        return [(rows, block.shared_vars) for rows, block in pairs]
    # The slices of a reversed scan lie in reversed order: those are copied.
    inner, outer = item.body.jaxpr.invars, item.eqn.invars
    last = item.parts.num_consts + item.parts.num_carry
    fixed = dict(zip(inner[: item.parts.num_consts], outer, strict=False))
    sliced = dict(zip(inner[last:], outer[last:], strict=True))
    sliced = {} if item.parts.reverse else sliced
    return [
        (
            [sliced.get(v) for v in block.varying_vars],
            [fixed.get(v) for v in block.shared_vars],
        )
        for block in item.blocks
    ]


def _position(source, where):
    if isinstance(source, tuple):
        found = tuple(where.get(v) for v in source)
        return None if None in found else found
    return None if isinstance(source, _compat.Literal) else where.get(source)


def _is_key(variable: _compat.Var):
    return jax.numpy.issubdtype(_compat.dtype_of(variable), jax.dtypes.prng_key)
