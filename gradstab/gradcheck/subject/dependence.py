"""Which equations of a program the arguments can move, and which results.

A constant beside a function, a counter of steps or a mask say nothing about the
precision in which its derivative exists.
"""

from collections.abc import Iterator, Sequence

from gradstab import _compat
from gradstab.program.walk import called


def moved_results(closed: _compat.ClosedJaxpr, /) -> list[bool]:
    """Whether the floating inputs of a program can move its results, one by one.

    >>> import jax, jax.numpy as jnp
    >>> moved_results(jax.make_jaxpr(lambda x: (x + 1, 1.0 + jnp.sum(x > 0)))(2.0))
    [True, False]
    """
    results, _ = _walked(closed, [True] * len(_jaxpr(closed).invars))
    return results


def moved_equations(closed: _compat.ClosedJaxpr, /) -> Iterator:
    """The equations that floating inputs of a program can move, at any depth.

    One that only calls a program is not among them: its equations are.
    """
    _, equations = _walked(closed, [True] * len(_jaxpr(closed).invars))
    return iter(equations)


def _walked(program, moved: Sequence[bool]):
    """Of the results which are moved, and the equations that are."""
    jaxpr = _jaxpr(program)
    reached = {v for v, m in zip(jaxpr.invars, moved, strict=True) if m and _floats(v)}
    equations = []
    for eqn in jaxpr.eqns:
        operands = [_is_in(atom, reached) for atom in eqn.invars]
        if not any(operands):
            continue
        body = called(eqn)
        if body is not None and len(_jaxpr(body).invars) == len(operands):
            results, inside = _walked(body, operands)
        else:
            results, inside = [True] * len(eqn.outvars), [eqn, *_all_inside(eqn)]
        equations += inside
        pairs = zip(eqn.outvars, results, strict=True)
        reached |= {v for v, m in pairs if m and _floats(v)}
    return [_is_in(atom, reached) for atom in jaxpr.outvars], equations


def _all_inside(eqn: _compat.JaxprEqn) -> list:
    found = []
    for body in _compat.inner_programs(eqn):
        for inner in body.eqns:
            found += [inner, *_all_inside(inner)]
    return found


def _is_in(atom, reached) -> bool:
    return not isinstance(atom, _compat.Literal) and atom in reached


def _floats(variable: _compat.Var) -> bool:
    # What has no dtype, a reference or a token, may carry anything.
    has_dtype = hasattr(variable.aval, "dtype")
    return not has_dtype or _compat.is_floating(variable)


def _jaxpr(program):
    return getattr(program, "jaxpr", program)
