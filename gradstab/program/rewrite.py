"""A program as its author wrote it, with something done to some of its results.

What is not touched stays as it is: rematerialisation, loops and compiled parts too.
Equations are numbered in the order in which they stand, those inside of a call, of
rematerialisation and of a scan among them; equal programs have equal numbers. Branches,
unbounded loops and rules of differentiation are not entered: each is one equation.
"""

import bisect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from gradstab import _compat, _rules
from gradstab.program.walk import as_closed, evaluate, evaluated, split_operands

# By this name of `checkpoint_name` what a change keeps is not made again where its
# surroundings are rematerialised: their operations stay the same.
SAVED = "gradstab saved"
# In parentheses, as names of transformations are: no part of any scope's name.
_MARK = re.compile(r"gradstab\((\d+)\)")


class Numbered(NamedTuple):
    """An equation with its number, and the scans around it.

    Attributes:
        number: of the equation.
        eqn: the equation.
        loops: lengths of the scans that it stands in, the outermost first.
        backwards: for each of them whether it runs from its last slice to its first.
        scan: the number of the outermost of them; -1 without one.
    """

    number: int
    eqn: _compat.JaxprEqn
    loops: tuple[int, ...]
    backwards: tuple[bool, ...]
    scan: int


def numbered(
    program, /, first: int = 0, loops: tuple = (), backwards: tuple = (), scan: int = -1
):
    """All equations that have a number, in order; scans stand before their bodies.

    Args:
        program: closed or open.
        first: the number of its first equation.
        loops: lengths of the scans around it.
        backwards: which of them run from the last slice to the first.
        scan: the number of the outermost of them; -1 without one.
    """
    for eqn in program.eqns:
        body, parts = _compat.inlined_body(eqn), _compat.scan_parts(eqn)
        if body is not None:
            yield from numbered(body, first, loops, backwards, scan)
        else:
            yield Numbered(first, eqn, loops, backwards, scan)
        if parts is not None:
            around = (*loops, parts.length), (*backwards, parts.reverse)
            outer = first if scan < 0 else scan
            yield from numbered(parts.body, first + 1, *around, outer)
        first += _num_inside(eqn)


def rewritten(
    closed,
    values: Sequence,
    extras: Mapping[int, Any],
    change: Callable[[int, list, Any], Sequence],
    /,
    *,
    first: int = 0,
) -> list:
    """The results of a program, with what some of its equations make changed.

    Args:
        closed: the program.
        values: of its inputs.
        extras: by the number of an equation what `change` gets beside its results: a
            pytree of arrays, with a leading axis for every scan around the equation,
            the outermost first. Each iteration gets its part.
        change: ``change(number, results, extra)`` gives what stands for the results.
        first: the number of the first equation.
    """
    wanted = sorted(extras)

    def one(eqn, operands, start):
        inside = _between(extras, wanted, start, start + _num_inside(eqn))
        if not inside:
            return evaluate(eqn, operands)
        if (body := _compat.inlined_body(eqn)) is not None:

            def run(inside, *operands):
                with _rules.scope(_rules.scope_of(eqn)):
                    return rewritten(body, operands, inside, change, first=start)

            return _rules.wrapped(eqn, run, saved=(SAVED,))(inside, *operands)
        own = {start: inside.pop(start)} if start in inside else {}
        if inside:

            def step(body, values, inside):
                return rewritten(body, values, inside, change, first=start + 1)

            results = _scan(eqn, operands, step, inside)
        else:
            results = evaluate(eqn, operands)
        return change(start, results, own[start]) if own else results

    return evaluated(as_closed(closed), values, _counting(one, first))


def marked(closed, values: Sequence, /, *, first: int = 0) -> list:
    """The results of a program; traced, each equation bears its number.

    Calls and rematerialisation are gone from the new program; `mark_of` reads the
    number from an equation of it, and of what is made from it.

    Args:
        closed: the program.
        values: of its inputs.
        first: the number of the first equation.
    """

    def one(eqn, operands, start):
        if (body := _compat.inlined_body(eqn)) is not None:
            with _rules.scope(_rules.scope_of(eqn)):
                return marked(body, operands, first=start)
        with jax.named_scope(f"gradstab({start})"):
            if _compat.scan_parts(eqn) is not None:

                def step(body, values, inside):
                    return marked(body, values, first=start + 1)

                return _scan(eqn, operands, step, None)
            function = _compat.as_custom_vjp(eqn)
            return function(*operands) if function else evaluate(eqn, operands)

    return evaluated(as_closed(closed), values, _counting(one, first))


def mark_of(eqn: _compat.JaxprEqn, /) -> int | None:
    """The number that an equation bears; None without one."""
    found = _MARK.findall(str(eqn.source_info.name_stack))
    return int(found[-1]) if found else None


def _counting(one, first):
    """The rule of a walk that hands the number of each equation on."""
    number = first

    def rule(eqn, operands):
        nonlocal number
        start, number = number, number + _num_inside(eqn)
        return one(eqn, operands, start)

    return rule


def _between(extras, wanted, low, high):
    low, high = (bisect.bisect_left(wanted, number) for number in (low, high))
    return {number: extras[number] for number in wanted[low:high]}


def _scan(eqn, operands, step, extra):
    """The results of a scan whose body is ``step(body, values, slice of extra)``."""
    parts = _compat.scan_parts(eqn)
    assert parts is not None
    consts, carry, slices = split_operands(parts, operands)

    def body(carry, given):
        slices, extra = given
        results = step(parts.body, [*consts, *carry, *slices], extra)
        return results[: parts.num_carry], results[parts.num_carry :]

    carry, stacked = jax.lax.scan(
        body,
        list(carry),
        (list(slices), extra),
        length=parts.length,
        reverse=parts.reverse,
        unroll=eqn.params["unroll"],
    )
    return [*carry, *stacked]


def _num_inside(eqn):
    """How many numbers an equation takes."""
    body = _compat.inlined_body(eqn)
    if body is not None:
        return sum(map(_num_inside, body.eqns))
    parts = _compat.scan_parts(eqn)
    return 1 if parts is None else 1 + sum(map(_num_inside, parts.body.eqns))
