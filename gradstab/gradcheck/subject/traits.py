"""What the program of a function tells before it is run."""

import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat
from gradstab.gradcheck.subject.dependence import moved_equations
from gradstab.program.primitives import Kind, is_a, is_named, names

LOOPS = names(Kind.LOOP)

_WHERE = ("_where", "where")

# A program of more equations takes seconds to compile with all that is asked of it. A
# sampler is one equation and some hundred operations.
LARGE = 64

# The dtypes that numbers are rounded to, the one of most digits first.
_NARROW = (jnp.float32, jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn, jnp.float8_e5m2)

_JAX = str(pathlib.Path(jax.__file__).parent)


def roundings(jaxpr, /) -> set:
    """The dtypes to which a program rounds a wider number inside, constants apart."""
    found = set()
    for eqn in moved_equations(jaxpr):
        widest = max((_bits(v) for v in eqn.invars), default=0)
        narrow = [v.aval for v in eqn.outvars if 0 < _bits(v) < widest]
        found.update(jnp.finfo(aval.dtype).dtype for aval in narrow)
        if is_named(eqn, "reduce_precision"):
            found.update(_with_digits(eqn.params["mantissa_bits"], eqn.outvars[0].aval))
    return found


def _with_digits(digits, aval) -> set:
    """The dtype of no more digits than that; none if those of the array are no more."""
    if digits >= jnp.finfo(aval.dtype).nmant:
        return set()
    fewer = [d for d in _NARROW if jnp.finfo(d).nmant <= digits] or _NARROW[-1:]
    return {np.dtype(fewer[0])}


def largest_array(jaxpr, /) -> int:
    """The bytes of the largest result of an equation, at any depth."""
    sizes = (_bytes(v) for eqn in equations(jaxpr) for v in eqn.outvars)
    return max(sizes, default=0)


def has_rules(jaxpr, /) -> bool:
    """Whether the program holds a custom rule of differentiation."""
    return any(map(_compat.is_rule, equations(jaxpr)))


def has_rules_of_users(jaxpr, /) -> bool:
    """Whether one of the rules is not JAX's own."""
    return any(map(is_of_users, filter(_compat.is_rule, equations(jaxpr))))


def is_plain(eqn: _compat.JaxprEqn, /) -> bool:
    """Whether JAX itself says how to differentiate and map the equation."""
    if is_a(eqn, Kind.OPAQUE) or _compat.is_rule(eqn):
        return False
    solves = is_named(eqn, "custom_linear_solve")
    return not solves or _compat.rule_source(eqn).startswith(_JAX)


def is_large_and_plain(jaxpr, /) -> bool:
    """Whether a program costs much to compile, and is JAX's own all through.

    Then it has no two values for the same arguments, mapped or not, and the laws of
    its derivatives are JAX's own.
    """
    eqns = list(equations(jaxpr))
    plain = all(is_plain(eqn) and not is_a(eqn, Kind.RANDOM) for eqn in eqns)
    large = len(eqns) > LARGE or samples(jaxpr)
    return large and plain and not jaxpr.effects


def is_of_users(eqn: _compat.JaxprEqn, /) -> bool:
    """Whether someone else than JAX says it: its rule is not in JAX's own files."""
    rule = _compat.is_rule(eqn) and _compat.rule_source(eqn).startswith(_JAX)
    return not rule and not is_plain(eqn)


def is_nothing_but_rules(f: Callable[..., Any], point: Sequence[Any], /) -> bool:
    """Whether f calls custom rules, and besides only moves numbers around."""
    return _are_rules(jax.make_jaxpr(f)(point))


def chooses(f: Callable[..., Any], point: Sequence[Any], /) -> bool:
    """Whether f itself, and not what it calls, takes one of two values."""
    return any(
        is_named(eqn, "select_n") or _compat.called_name(eqn) in _WHERE
        for eqn in jax.make_jaxpr(f)(point).eqns
    )


def _are_rules(jaxpr) -> bool:
    bodies = [(eqn, _compat.inlined_body(eqn)) for eqn in jaxpr.eqns]
    return all(
        _are_rules(body) if body is not None else _is_plain(eqn) for eqn, body in bodies
    )


def _is_plain(eqn: _compat.JaxprEqn) -> bool:
    return _compat.is_rule(eqn) or is_a(eqn, Kind.BINARY)


def names_several_device_sets(jaxpr, /) -> bool:
    """Whether parts of the program lie on different devices: it cannot be compiled."""
    sets = set().union(*(_compat.device_sets(eqn) for eqn in jaxpr.eqns))
    return len(sets) > 1


def convolves(jaxpr, /) -> bool:
    """Whether the program holds a convolution, slow without a compiler's efforts."""
    return any(is_named(eqn, "conv_general_dilated") for eqn in equations(jaxpr))


def loops(jaxpr, /) -> bool:
    """Whether the program holds a loop."""
    return any(is_a(eqn, Kind.LOOP) for eqn in equations(jaxpr))


def waits(jaxpr, /) -> bool:
    """Whether the program holds a loop of which only running it tells how long."""
    return any(_compat.while_parts(eqn) is not None for eqn in equations(jaxpr))


def samples(jaxpr, /) -> bool:
    """Whether the program draws from a gamma distribution, or one made of it.

    That is `jax.random.gamma`, and so beta, chisquare, dirichlet, loggamma and t.

    The derivatives of such draws are those of the distribution on purpose: along the
    path of one seed, on which candidates are rejected, they are others.
    """
    return any(is_a(eqn, Kind.SAMPLER) for eqn in equations(jaxpr))


def iterates(jaxpr, /) -> bool:
    """Whether the program holds a loop that may not end for other arguments."""
    return any(map(may_not_end, equations(jaxpr)))


def may_not_end(eqn: _compat.JaxprEqn, /) -> bool:
    """Whether the equation is a loop whose end depends on the real numbers it carries.

    Others count: they end for any arguments.
    """
    if (parts := _compat.while_parts(eqn)) is None:
        return False
    num_carry = len(eqn.outvars)
    asked, grown = set(), _carried(parts.condition, [0], num_carry)
    while asked != grown:
        asked, grown = grown, grown | _carried(parts.body, sorted(grown), num_carry)
    return any(_bits(eqn.outvars[place]) for place in asked)


def _carried(closed: _compat.ClosedJaxpr, wanted, num_carry) -> set[int]:
    """Of what a loop carries, the places that some results of its program depend on."""
    _, used = _compat.needed_program(closed, wanted)
    return {place for place, keep in enumerate(used[-num_carry:]) if keep}


def equations(jaxpr, /):
    """All equations of a program, those of inner programs included."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in _compat.inner_programs(eqn):
            yield from equations(inner)


def _bits(variable: _compat.Var) -> int:
    dtype = getattr(variable.aval, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        return 0
    return jnp.finfo(dtype).nmant


def _bytes(variable: _compat.Var) -> int:
    aval = variable.aval
    itemsize = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return itemsize * math.prod(getattr(aval, "shape", ()))
