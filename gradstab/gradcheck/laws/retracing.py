"""Laws of a rule that may keep something between its calls: tracing it shows them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradstab import _compat
from gradstab._attempt import Refusal, attempt
from gradstab.gradcheck.findings import Identity
from gradstab.gradcheck.laws.dependence import read_by
from gradstab.gradcheck.laws.law import judge, law, not_tried
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.sameness import same

_AGAIN = "traced again"
_BETWEEN = "calls that overlap"


def program_of(f: Callable[..., Any], point: Sequence[Any], /):
    """The program of a function of leaves; None if it changes when traced again."""
    # A new function each time: JAX remembers those that it has traced.
    first, second = (jax.make_jaxpr(lambda p: f(p))(point) for _ in range(2))
    return first if same(first, second) else None


def retraced(
    problem: Problem, given: tuple, rng: np.random.Generator, /, *, rtol: float = 0.0
) -> tuple[Identity, ...]:
    """Tries whether the VJP depends on how often, and on what else, it was called.

    * A second and a third trace of the VJP make the same program, or at least one that
      computes the same numbers.
    * A second forward pass between a forward pass and its backward pass has no say in
      the gradient: none of its inputs is used.

    Args:
        problem: what is checked.
        given: the point and a cotangent.
        rng: draws rounding errors, if they matter.
        rtol: a smaller relative error is not accused.

    Returns:
        One record per law; none if f has no reverse mode, and none if f itself gives
        another value each time it is traced.

    Cost:
        Five traces of f. Nothing is compiled unless two programs differ.
    """
    if "reverse" not in problem.modes:
        return ()
    first, second = (_traced(problem.f, given) for _ in range(2))
    if same(first, second):
        found = (_held(_AGAIN, "tracing the VJP again makes the same program"),)
    else:
        found = _compared(problem, given, first, second, rng, rtol)
    return (*found, *_overlapping(problem, given))


def _traced(f: Callable[..., Any], given: Sequence[Any]):
    def values_and_gradients(point: Sequence[Any], w: Sequence[jax.Array]):
        value, pullback = jax.vjp(f, point)
        return [*value, *pullback(w)[0]]

    return jax.make_jaxpr(values_and_gradients)(*given)


def _compared(
    problem: Problem,
    given: tuple,
    first,
    second,
    rng: np.random.Generator,
    rtol: float,
):
    count = len(problem.outputs)
    other, flat = jax.jit(_compat.closed_function(second)), jax.tree.leaves(given)

    def laws(runs):
        once, again = runs
        values = again[:count], once[:count]
        detail = "the same VJP, traced and compiled again"
        return [
            law("value", [""] * count, *values, once=True, exact=True),
            law(
                _AGAIN,
                problem.names,
                again[count:],
                once[count:],
                detail=detail,
                once=True,
            ),
        ]

    value, gradient = judge(
        lambda *arrays: _compat.closed_function(first)(*jax.tree.leaves(arrays)),
        [given],
        laws,
        problem=problem,
        rng=rng,
        rtol=rtol,
        again=lambda run: [(0, [np.asarray(a) for a in other(*flat)])],
    )
    return (gradient,) if value.holds else ()


def _overlapping(problem: Problem, given: Sequence[Any]):
    point, w = given

    def overlapping(point: Sequence[Any], other, w: Sequence[jax.Array]):
        _, pullback = jax.vjp(problem.f, point)
        jax.vjp(problem.f, other)
        return pullback(w)

    closed = attempt(jax.make_jaxpr(overlapping), point, point, w)
    if isinstance(closed, Refusal):
        return (not_tried(_BETWEEN, closed),)
    if closed.effects:  # those are kept, whatever needs them
        return ()
    concerned = read_by(closed)[len(point) : 2 * len(point)]
    detail = "a gradient uses what another call, between its two passes, was given"
    if not any(concerned):
        return (_held(_BETWEEN, "a gradient is of its own call alone"),)
    leaf = problem.names[concerned.index(True)]
    return (Identity(1.0, 0.0, _BETWEEN, leaf, False, detail),)


def _held(name: str, detail):
    return Identity(0.0, 0.0, name, "", True, detail)
