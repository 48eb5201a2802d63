"""Which modes of differentiation a function has.

JAX refuses a missing mode at different times: when a derivative is traced; or, the JVP
of a custom_vjp, only when it is compiled, because it might be on its way to be
transposed: until then it leaves a mark in the program. Whatever asks for a mode that
need not exist asks here.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from gradstab import _compat
from gradstab._attempt import Refusal, attempt
from gradstab.errors import UserTypeError

# What JAX raises at a program that it cannot trace, map or differentiate: one that
# exists in one precision only, a loop in reverse mode, a rule without the mode.
REFUSALS = (TypeError, ValueError, NotImplementedError, AssertionError)

_NO_JVP = "can't apply forward-mode autodiff (jvp) to a custom_vjp"

# Errors that say that a mode is missing, and what notes say of them.
_USUAL = {
    _NO_JVP: "f has a custom_vjp, which has no JVP",
    "Reverse-mode differentiation does not work": "f holds a loop that has no VJP",
    "for jvp support, subclass": "f has a hijax primitive, which has no JVP",
    "for grad support, subclass": "f has a hijax primitive, which has no VJP",
}
# A primitive with a JVP that keeps the values of f from being told from the tangents.
_UNSPLIT = "Linearization failed to produce known values"


@dataclasses.dataclass(frozen=True)
class Missing:
    """A mode that a function has not.

    Attributes:
        reason: why, in words.
        error: what JAX raised.
        usual: whether that error says no more than that the mode is missing.
    """

    reason: str
    error: Exception
    usual: bool


def traced_jvp(jvp: Callable, /, *args):
    """The program of a function that takes a JVP.

    Raises:
        TypeError: there is none, because of a custom_vjp.
    """
    traced = jax.make_jaxpr(jvp)(*args)
    if any(map(_compat.lacks_jvp, traced.eqns)):
        raise UserTypeError(f"{_NO_JVP} function")
    return traced


def missing_jvp(
    f: Callable[..., Any], point: Sequence[Any], closed: _compat.ClosedJaxpr, /
) -> Missing | None:
    """Why f has no forward mode; None if it has one.

    Args:
        f: a function of a tuple of arrays.
        point: the tuple.
        closed: the program of f; None if it cannot be traced, and is called.

    Raises:
        UnexpectedTracerError: a custom_vjp closes over an argument of f.
        Exception: what a broken rule of f raises.
    """

    def jvp(v: Sequence[jax.Array]):
        return jax.jvp(f, (point,), (v,))[1]

    def trace():
        zeros = jax.tree.map(jnp.zeros_like, point)
        return jvp(zeros) if closed is None else traced_jvp(jvp, zeros)

    return _missing(trace, closed)


def missing_vjp(
    f: Callable[..., Any],
    point: Sequence[Any],
    outputs: tuple,
    closed,
    /,
) -> Missing | None:
    """Why f has no reverse mode; None if it has one.

    Args:
        f: a function of a tuple of arrays.
        point: the tuple.
        outputs: shapes and dtypes of its results.
        closed: the program of f; None if it cannot be traced, and is called.

    Raises:
        UnexpectedTracerError: a custom_vjp closes over an argument of f.
        Exception: what a broken rule of f raises.
    """

    def vjp(w: Sequence[jax.Array]):
        return jax.vjp(f, point)[1](w)

    def trace():
        if closed is None:
            return vjp(tuple(jnp.zeros(y.shape, y.dtype) for y in outputs))
        traced = jax.make_jaxpr(vjp)(outputs)
        # Some releases only find out when the program is compiled.
        if _tracers(traced) - _tracers(closed):
            raise jax.errors.UnexpectedTracerError("in the backward pass of a rule")
        return traced

    return _missing(trace, closed)


def has_vjp(
    f: Callable[..., Any],
    point: Sequence[Any],
    outputs: tuple,
    /,
    *,
    traced: bool = True,
) -> bool:
    """Whether JAX finds a reverse mode; what a broken rule raises is raised.

    Args:
        f: a function of a tuple of arrays.
        point: the tuple.
        outputs: shapes and dtypes of its results.
        traced: whether f can be traced; else it is called.
    """
    closed = jax.make_jaxpr(f)(point) if traced else None
    return missing_vjp(f, point, outputs, closed) is None


def _missing(trace, closed: _compat.ClosedJaxpr) -> Missing | None:
    refusal = attempt(trace)
    if not isinstance(refusal, Refusal):
        return None
    error = refusal.error
    if _compat.is_leak(error) and (named := _closing_over(closed)):
        raise named from error
    if not isinstance(error, REFUSALS):
        raise error
    return _read(error, closed)


def _read(error, closed: _compat.ClosedJaxpr) -> Missing:
    """What an error says of a mode; a broken rule's error is raised again."""
    for text, reason in _USUAL.items():
        if text in str(error):
            return Missing(reason, error, usual=True)
    reason = Refusal(error).words(100)
    of_jax = isinstance(error, NotImplementedError) or _UNSPLIT in str(error)
    if not of_jax and (closed is None or any(_rules(closed))):
        raise error  # which may come of the user's own code
    return Missing(reason, error, usual=False)


def _rules(program):
    """The equations with a custom rule, at any depth."""
    for eqn in getattr(program, "jaxpr", program).eqns:
        if _compat.is_rule(eqn):
            yield eqn
        for inner in _compat.inner_programs(eqn):
            yield from _rules(inner)


def _tracers(closed: _compat.ClosedJaxpr):
    values = [value for _, value in _compat.constants(closed)]
    return {id(value) for value in values if isinstance(value, Tracer)}


def _closing_over(closed: _compat.ClosedJaxpr) -> Exception | None:
    """An error with the names of the rules that close over an argument; or None."""
    eqns = [] if closed is None else list(_rules(closed))
    parts = [(_compat.rule_name(eqn), _compat.rule_parts(eqn)) for eqn in eqns]
    backward = [
        (name, p.num_consts) for name, p in parts if p and p.kind != "custom_jvp"
    ]
    closing = [name for name, num_consts in backward if num_consts]
    names = dict.fromkeys(closing or [name for name, _ in backward])
    if not names:
        return None
    return jax.errors.UnexpectedTracerError(
        f"the rule of {' or '.join(names)} closes over an argument of the function "
        "that is checked, or over what is computed from one. A rule has no derivative "
        "in what it closes over: pass it as an argument, and return its cotangent."
    )
