"""The one walk through a program: its equations in order, each by a rule of one's own.

Whoever does something at the equations of a program (adds to a result, records it,
replaces an operation, widens it) writes the rule for one equation. The walk knows what
an equation reads and where its results go. A rule that has a memory is a closure, or
the method of an object.
"""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from gradstab import _compat

Rule = Callable[[_compat.JaxprEqn, list], Sequence]
Environment = dict[_compat.Var, Any]


def evaluate(eqn: _compat.JaxprEqn, operands: Sequence, /) -> list:
    """The results of one equation for these operands, traced or concrete."""
    values = {
        atom: value
        for atom, value in zip(eqn.invars, operands, strict=True)
        if not isinstance(atom, _compat.Literal)
    }
    run = _compat.program_function(list(values), eqn.outvars, [eqn])
    return run(*values.values())


def read(env: Environment, atom: Any, /) -> Any:
    """The value of a variable or a literal."""
    return atom.val if isinstance(atom, _compat.Literal) else env[atom]


def environment(closed: _compat.ClosedJaxpr, values: Iterable, /) -> Environment:
    """The values of a program's constants and inputs, by variable."""
    env = dict(_compat.constants(closed))
    env.update(zip(closed.jaxpr.invars, values, strict=True))
    return env


def walk(
    eqns: Iterable[_compat.JaxprEqn],
    env: Environment,
    /,
    rule: Rule = evaluate,
    after: Callable[[_compat.JaxprEqn], object] | None = None,
) -> Environment:
    """Evaluate equations one after the other.

    Args:
        eqns: the equations, in order.
        env: the values of all variables that they read and do not make; those that they
            make are added to it.
        rule: ``rule(eqn, operands)`` gives the results of an equation.
        after: is called when the results of an equation are in ``env``, and may change
            what is there.

    Returns:
        ``env``. The equations run when this does: under `jax.jit`, when that traces.
    """
    for eqn in eqns:
        results = rule(eqn, [read(env, atom) for atom in eqn.invars])
        env.update(zip(eqn.outvars, results, strict=True))
        if after is not None:
            after(eqn)
    return env


def evaluated(
    closed: _compat.ClosedJaxpr, values: Iterable, /, rule: Rule = evaluate
) -> list:
    """The results of a program, each of its equations evaluated by a rule.

    Args:
        closed: the program, closed or, if it has no constants, open.
        values: of its inputs.
        rule: see `walk`.

    >>> import jax
    >>> closed = jax.make_jaxpr(lambda x: 2 * x + 1)(3.0)
    >>> [float(y) for y in evaluated(closed, [4.0])]
    [9.0]
    """
    closed = as_closed(closed)
    return outputs(closed, walk(closed.jaxpr.eqns, environment(closed, values), rule))


def outputs(closed: _compat.ClosedJaxpr, env: Environment, /) -> list:
    """What a program returns, of the values of its variables."""
    return [read(env, atom) for atom in closed.jaxpr.outvars]


def retraced(closed: _compat.ClosedJaxpr, run: Callable, /) -> _compat.ClosedJaxpr:
    """The program of a function of the same inputs as those of another program."""
    return jax.make_jaxpr(run)(*map(shape_of_input, closed.jaxpr.invars))


def shape_of_input(variable: _compat.Var, /) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a variable."""
    return jax.ShapeDtypeStruct(_compat.shape_of(variable), _compat.dtype_of(variable))


def split_operands(parts: _compat.ScanParts, operands: Sequence, /) -> tuple:
    """The operands of a scan: constants, carry, and what it takes a slice of."""
    first, last = parts.num_consts, parts.num_consts + parts.num_carry
    return operands[:first], operands[first:last], operands[last:]


def called(eqn: _compat.JaxprEqn, /):
    """The program that an equation only calls, or stands for by a rule; or None."""
    body = _compat.inlined_body(eqn)
    return _compat.rule_body(eqn) if body is None and _compat.is_rule(eqn) else body


def as_closed(body, /) -> _compat.ClosedJaxpr:
    """The closed program; rematerialisation holds an open one, without constants."""
    return body if hasattr(body, "consts") else _compat.ClosedJaxpr(body, ())


def readers_in(closed: _compat.ClosedJaxpr, /) -> collections.Counter:
    """How often a program reads each of its variables, as a result too.

    A program that is called many times is one object: counts of several programs are to
    be joined by their maximum, ``|``.
    """
    atoms = [atom for eqn in closed.jaxpr.eqns for atom in eqn.invars]
    atoms += closed.jaxpr.outvars
    return collections.Counter(a for a in atoms if not isinstance(a, _compat.Literal))
