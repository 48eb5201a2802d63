"""Equations that are linear in data."""

from collections.abc import Sequence

from gradstab import _compat
from gradstab.program import primitives
from gradstab.program.primitives import Kind


def adds(eqn: _compat.JaxprEqn, /) -> bool:
    """Whether an equation adds or subtracts."""
    return primitives.is_named(eqn, "add", "sub", "add_any")


def moves(eqn: _compat.JaxprEqn, /) -> bool:
    """Whether it moves entries, and computes nothing of them."""
    return primitives.is_a(eqn, Kind.MOVES, Kind.RESHAPES, Kind.PIECES)


def is_linear(eqn: _compat.JaxprEqn, is_data: Sequence[bool], /) -> bool:
    """Whether the result is linear in all of its data, or is made of their entries.

    Args:
        eqn: the equation.
        is_data: for each operand whether it is data.
    """
    if adds(eqn) or moves(eqn) or primitives.is_named(eqn, "neg", "copy_p"):
        return True
    if primitives.is_named(eqn, "select_n"):
        return not is_data[0]
    divides = primitives.is_named(eqn, "div")
    multiplies = primitives.is_named(eqn, "mul") or divides
    if primitives.is_a(eqn, Kind.CONTRACTION) or multiplies:
        return sum(is_data) == 1 and (is_data[0] or not divides)
    return primitives.is_named(eqn, "stop_gradient", "sharding_constraint", "pad")
