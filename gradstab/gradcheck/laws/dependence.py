"""Which inputs of a program its results are computed from.

JAX's elimination of dead code says it too, but it never drops some equations, such as
kernels on jax 0.10, and so counts what only they read.
"""

from collections.abc import Sequence
from typing import Any

from gradstab import _compat
from gradstab.program.walk import called


def read_by(program, /, wanted: Sequence[bool] | None = None) -> list[bool]:
    """For each input of a program, whether the results are computed from it.

    What calls, branches, loops and rules hold is followed; of any other equation every
    result counts as computed from every operand.

    Args:
        program: open or closed.
        wanted: for each result whether it counts; None for all.

    >>> import jax
    >>> read_by(jax.make_jaxpr(lambda x, y: (2 * x, x + y))(1.0, 1.0), [True, False])
    [True, False]
    """
    jaxpr = getattr(program, "jaxpr", program)
    wanted = [True] * len(jaxpr.outvars) if wanted is None else wanted
    needed: set = set()

    def mark(atoms, flags):
        pairs = zip(atoms, flags, strict=True)
        needed.update(a for a, f in pairs if f and not isinstance(a, _compat.Literal))

    mark(jaxpr.outvars, wanted)
    for eqn in reversed(jaxpr.eqns):
        flags = [v in needed for v in eqn.outvars]
        if any(flags):
            mark(eqn.invars, _operands(eqn, flags))
    return [v in needed for v in jaxpr.invars]


def _operands(eqn: _compat.JaxprEqn, wanted) -> list[bool]:
    """For each operand of an equation whether the wanted results are made of it."""
    if (body := called(eqn)) is not None:
        return read_by(body, wanted)
    if (parts := _compat.shard_map_parts(eqn)) is not None:
        return read_by(parts.body, wanted)
    if (branches := _compat.cond_branches(eqn)) is not None:
        each = [read_by(branch, wanted) for branch in branches]
        return [True, *map(any, zip(*each, strict=True))]
    if (parts := _compat.scan_parts(eqn)) is not None:
        carry, rest = wanted[: parts.num_carry], wanted[parts.num_carry :]
        return _of_loop(parts.body, parts.num_consts, carry, rest)
    if (parts := _compat.while_parts(eqn)) is not None:
        return _of_while(parts, wanted)
    return [True] * len(eqn.invars)


def _of_loop(body: _compat.ClosedJaxpr, num_consts, carry: Any, rest=()):
    """What the steps read, until no further part of the carry is needed."""
    kept = slice(num_consts, num_consts + len(carry))
    while True:
        used = read_by(body, [*carry, *rest])
        used[kept] = [a or b for a, b in zip(carry, used[kept], strict=True)]
        if used[kept] == list(carry):
            return used
        carry = used[kept]


def _of_while(parts: _compat.WhileParts, wanted) -> list[bool]:
    asked = read_by(parts.condition)
    first = parts.num_condition_consts
    carry = [a or b for a, b in zip(wanted, asked[first:], strict=True)]
    return [*asked[:first], *_of_loop(parts.body, parts.num_body_consts, carry)]
