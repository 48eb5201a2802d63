"""How much a program computes: counted on its equations, without running it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from gradstab import _compat
from gradstab.program import reads
from gradstab.program.primitives import Kind, combines_by_program, is_a


class Work(NamedTuple):
    """What the evaluation of a program takes.

    Attributes:
        flops: multiplications and additions of products and convolutions.
        num_bytes: bytes that all other equations read and write.
        functions: entries of transcendental functions.
        calls: operations that are started one after the other.
    """

    flops: float = 0.0
    num_bytes: float = 0.0
    functions: float = 0.0
    calls: float = 0.0

    def __add__(self, other: tuple[float, ...]) -> "Work":
        """The work of both."""
        return Work(*(a + b for a, b in zip(self, other, strict=True)))

    def __mul__(self, factor: float) -> "Work":  # pyright: ignore[reportIncompatibleMethodOverride]
        """The work of so many evaluations."""
        return Work(*(factor * entry for entry in self))

    def __rmul__(self, factor: float) -> "Work":  # pyright: ignore[reportIncompatibleMethodOverride]
        """The work of so many evaluations."""
        return self * factor


def work_of(eqns: Sequence[_compat.JaxprEqn], /) -> Work:
    """The work of one evaluation of some equations.

    The body of a scan counts as often as it runs, that of an unbounded loop once, and
    of branches the first that is most work. Kernels and foreign code count as nothing
    but the bytes that they read and write.

    Args:
        eqns: equations of a program, in any order.

    Returns:
        The work. Cost: linear in the number of equations, bodies once.
    """
    total = Work()
    for eqn in eqns:
        total += _of_equation(eqn)
    return total


def num_equations(eqns: Sequence[_compat.JaxprEqn], /) -> int:
    """The equations that a compiler sees, those of bodies among them, each once."""
    inner = (body.eqns for eqn in eqns for body in _bodies(eqn))
    return len(eqns) + sum(map(num_equations, inner))


def _of_equation(eqn: _compat.JaxprEqn) -> Work:
    if (parts := _compat.scan_parts(eqn)) is not None:
        return parts.length * (work_of(parts.body.jaxpr.eqns) + Work(calls=1))
    if bodies := _bodies(eqn):
        return max(map(work_of, (body.eqns for body in bodies)))
    flops = reads.num_flops(eqn)
    if flops is not None:
        return Work(flops=flops, num_bytes=_moved(eqn), calls=1)
    if is_a(eqn, Kind.FREE):
        return Work()
    entries = sum(math.prod(_compat.shape_of(v)) for v in eqn.outvars)
    functions = entries if is_a(eqn, Kind.COSTLY) else 0
    return Work(num_bytes=_moved(eqn), functions=functions, calls=1)


def _bodies(eqn: _compat.JaxprEqn) -> list:
    """The programs that the equation runs; of a rule the function's alone."""
    if combines_by_program(eqn):
        return []  # how two numbers are combined is part of the operation
    bodies = _compat.inner_programs(eqn)
    return bodies[:1] if _compat.is_rule(eqn) else bodies


def _moved(eqn: _compat.JaxprEqn) -> int:
    return sum(map(reads.num_bytes, (*eqn.invars, *eqn.outvars)))
