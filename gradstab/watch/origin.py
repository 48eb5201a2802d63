"""The operation in which numbers stop being finite, and the line where it is written.

The program is evaluated an equation at a time, on the numbers that it has. From a
result that is not finite the way is followed back, always through an operand that is
not finite, to an equation all of whose operands are. What is infinite on purpose, as a
mask is, and does not reach a result, is not on that way.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstab import _compat, _tree
from gradstab.program import primitives
from gradstab.program.walk import (
    as_closed,
    called,
    environment,
    read,
    split_operands,
    walk,
)


class Origin(NamedTuple):
    """Where numbers stop being finite.

    Attributes:
        operation: the primitive's name.
        source: the line, ``file:line (function)``; empty if the program does not know.
        steps: of the loops around it the iteration, counted from 0 in their order; the
            outermost first.
        given: whether what is handed in is not finite, and not the operation's doing.
    """

    operation: str
    source: str
    steps: tuple[int, ...] = ()
    given: bool = False

    def __str__(self):
        if self.given:
            return "what is handed in is not finite"
        at = "".join(f", iteration {step}" for step in self.steps)
        place = f" at {self.source}" if self.source else ""
        return f"the first operation that is not finite is {self.operation}{place}{at}"


def find_origin(function: Callable, /, *args) -> Origin | None:
    """The operation of a function of arrays in which numbers stop being finite.

    Args:
        function: of pytrees of arrays, such as `jax.value_and_grad` of a loss.
        *args: what it is called with.

    Returns:
        None if all of its results are finite. Cost: a trace, and every operation by
        itself; all intermediate results are kept in memory.
    """
    closed = jax.make_jaxpr(function)(*args)
    return _origin(as_closed(closed), jax.tree.leaves(args), ())


def _origin(closed, values, steps) -> Origin | None:
    env = environment(closed, values)
    made: dict[Any, Any] = {}
    walk(closed.jaxpr.eqns, env)
    for eqn in closed.jaxpr.eqns:
        made.update((variable, eqn) for variable in eqn.outvars)

    def is_lost(atom):
        return not _is_finite(read(env, atom))

    lost = [atom for atom in closed.jaxpr.outvars if is_lost(atom)]
    if not lost:
        return None
    atom = lost[0]
    while not isinstance(atom, _compat.Literal) and atom in made:
        eqn = made[atom]
        before = [operand for operand in eqn.invars if is_lost(operand)]
        if not before:
            return _inside(eqn, [read(env, operand) for operand in eqn.invars], steps)
        atom = before[0]
    return Origin("", "", steps, given=True)


def _inside(eqn, operands, steps) -> Origin:
    """The operation within an equation whose operands are finite."""
    here = Origin(primitives.name_of(eqn), _compat.source_line(eqn), steps)
    parts, body = _compat.scan_parts(eqn), called(eqn)
    if parts is not None:
        return _in_scan(parts, operands, steps) or here
    if body is not None:
        return _origin(as_closed(body), operands, steps) or here
    return here


def _in_scan(parts, operands, steps) -> Origin | None:
    """The operation in the first iteration that is not finite."""
    body = as_closed(parts.body)
    consts, carry, sliced = split_operands(parts, operands)
    run = jax.jit(_compat.closed_function(body))
    for number in range(parts.length):
        position = parts.length - 1 - number if parts.reverse else number
        given = [*consts, *carry, *(x[position] for x in sliced)]
        results = run(*given)
        if not all(map(_is_finite, results)):
            return _origin(body, given, (*steps, number))
        carry = results[: parts.num_carry]
    return None


def _is_finite(value) -> bool:
    if _tree.is_key(value) or not jnp.issubdtype(jnp.result_type(value), jnp.inexact):
        return True
    return bool(jnp.all(jnp.isfinite(value)))
