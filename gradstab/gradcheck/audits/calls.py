"""A call of a custom rule of differentiation inside of a program."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstab import _compat
from gradstab.program.primitives import is_named


@dataclasses.dataclass(frozen=True)
class Place:
    """An equation with a custom rule, and where in the program it stands.

    Attributes:
        eqn: the equation.
        rule: what it holds.
        path: such as ``scan/cond[1]/my_rule``.
        moved: for each operand, whether the arguments of the function can move it.
        shards: the mapping over devices that surrounds it, or None. The operands then
            have a leading axis over all devices.
        repeated: whether this is the last iteration of a loop that was entered before.
        hidden: whether it lies inside of a primitive that cannot be entered.
    """

    eqn: Any
    rule: _compat.RuleParts
    path: str
    moved: tuple[bool, ...]
    shards: Any = None
    repeated: bool = False
    hidden: bool = False


class Call(NamedTuple):
    """One evaluation of a rule.

    Attributes:
        place: the rule.
        operands: what it was called with.
        reached: whether it was called; if not, the operands are zeros.
    """

    place: Place
    operands: list
    reached: Any


def bind_on_shards(place: Place, operands: Sequence[Any], /) -> list:
    """The results of a rule for other operands, on the devices where it was called."""
    if place.shards is None:
        return _compat.bind(place.eqn, operands)
    over_all = over_all_devices(place.shards)

    def shard(*operands):
        results = _compat.bind(place.eqn, [x[0] for x in operands])
        return [y[None] for y in results]

    return jax.shard_map(
        shard,
        mesh=place.shards.mesh,
        in_specs=over_all,
        out_specs=over_all,
        axis_names=place.shards.axis_names,
        check_vma=place.shards.check_vma,
    )(*operands)


def over_all_devices(parts: _compat.ShardMapParts, /):
    """A leading axis over all devices of a mapping."""
    return jax.sharding.PartitionSpec(tuple(sorted(parts.axis_names)))


def reaches(eqn: _compat.JaxprEqn, moved: Sequence[bool], /) -> list[bool]:
    """Which results an equation moves when these operands move; at most."""
    any_moved = any(moved) and not is_named(eqn, "stop_gradient")
    return [any_moved and _is_floating(v) for v in eqn.outvars]


def _is_floating(variable: _compat.Var):
    return jnp.issubdtype(getattr(variable.aval, "dtype", jnp.int32), jnp.inexact)
