"""A program run one equation after the other, each in a way of one's own."""

from collections.abc import Callable

from gradstab import _compat


def evaluated(closed, values, equation: Callable, /) -> list:
    """The results of a program.

    Args:
        closed: the program, closed or, if it has no constants, open.
        values: of its inputs.
        equation: ``equation(eqn, operands, place)``, the results of one equation, which
            stands at this place in the program.

    >>> import jax
    >>> closed = jax.make_jaxpr(lambda x: 2 * x + 1)(3.0)
    >>> [float(y) for y in evaluated(closed, [4.0], lambda e, v, _: _compat.bind(e, v))]
    [9.0]
    """
    closed = as_closed(closed)
    env = dict(_compat.constants(closed))
    env.update(zip(closed.jaxpr.invars, values, strict=True))

    def read(atom):
        return atom.val if isinstance(atom, _compat.Literal) else env[atom]

    for place, eqn in enumerate(closed.jaxpr.eqns):
        results = equation(eqn, [read(atom) for atom in eqn.invars], place)
        env.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def called(eqn, /):
    """The program that an equation only calls, or stands for by a rule; or None."""
    body = _compat.inlined_body(eqn)
    return _compat.rule_body(eqn) if body is None and _compat.is_rule(eqn) else body


def as_closed(body, /):
    """The closed program; rematerialisation holds an open one, without constants."""
    return body if hasattr(body, "consts") else _compat.ClosedJaxpr(body, ())
