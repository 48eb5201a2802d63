"""Is a derivative the same under jit, vmap, scan, remat and shard_map?

A rule may be dropped by a transformation, or have a second form for it. All forms are
computed by one program, at the point and at one beside it, and each is compared with
the plain call.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

from gradstab import _compat
from gradstab._attempt import Refusal, attempt
from gradstab.gradcheck.findings import Identity
from gradstab.gradcheck.laws.law import judge, law, not_tried
from gradstab.gradcheck.laws.retracing import program_of
from gradstab.gradcheck.laws.rounding import equations
from gradstab.gradcheck.subject import traits
from gradstab.gradcheck.subject.abilities import LOOP, MAP, misshapen_under_vmap
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.vectors import exact_combinations
from gradstab.program import primitives

_ALL = "transformations"
_PARTLY = "vmap over some arguments"
_MAPPED = "vmap"

# Run eagerly, every kind of operation is compiled by itself; so many are worth it.
_MAX_EAGER = 16

# How far beside: every entry by up to 1/64 of itself, so none leaves a half line.
_BESIDE = 2.0**-6


def transformations(
    problem: Problem,
    point: Sequence[Any],
    rng: np.random.Generator,
    /,
    *,
    rtol: float = 0.0,
) -> tuple[Identity, ...]:
    """Compares value and derivative under transformations with those without any.

    The VJP (the JVP, if f has only that one) is taken of f, of ``jit(f)``,
    ``checkpoint(f)``, ``shard_map(f)`` on a mesh of one device, and of ``vmap(f)`` and
    ``scan`` over f for the point and another one beside; it is also mapped itself by
    `jax.vmap`, over all arguments and over every other one, and called outside of
    `jax.jit`, twice. A transformation is accused only if it differs at both points by
    more than rounding explains, and by more than ``rtol``: exact ties may fall either
    way. Nothing is done if f is made of JAX's own operations: only custom rules and
    batching rules, callbacks and kernels have more than one form.

    Args:
        problem: what is checked.
        point: one array per leaf of the problem.
        rng: draws the cotangent and the point beside.
        rtol: a smaller relative error is not accused.

    Returns:
        One record per transformation, named after it. What f's code does not allow,
        such as a vmap of a callback, holds with the reason in its `detail`.

    Cost:
        One compilation of nine forms of f with its derivative, run three times; the
        eager calls compile every kind of operation by itself, and are left out if f
        has more than 16 of them.
    """
    if problem.engine == LOOP:
        return (not_tried(_ALL, "f cannot be traced"),)
    with problem.context():
        point = tuple(map(np.asarray, point))
        program = program_of(problem.f, point)
        if program is None:
            return (not_tried(_ALL, "f is traced to another program each time"),)
        if reason := _nothing_to_try(program):
            return (not_tried(_ALL, reason),)
        return _tried(problem, point, rng, rtol)


def _tried(
    problem: Problem, point: Sequence[Any], rng: np.random.Generator, rtol: float
):
    plain = _plain_derivative(problem)
    beside = _beside(point, rng)
    like = problem.outputs if "reverse" in problem.modes else point
    direction = exact_combinations(rng, like)[0]
    inputs = [(point, beside, direction), (beside, point, direction)]
    forms, untried = _traced(problem, plain, inputs[0])
    eager = _eager(problem, forms["plain"], plain, inputs)
    if isinstance(eager, Identity):
        untried, eager = [*untried, eager], []
    compare = functools.partial(_compare, problem, inputs, rng, rtol, eager)
    found = compare(forms, redraw=False)
    if suspects := {name for name, i in found.items() if not i.holds}:
        # Now with their rounding redrawn, and without the forms that are right.
        kept = {n: form for n, form in forms.items() if n in {"plain", *suspects}}
        again = compare(kept, redraw=True)
        found |= {name: again[name] for name in suspects}
    return (*found.values(), *untried)


def _compare(
    problem: Problem,
    inputs: Sequence[Any],
    rng: np.random.Generator,
    rtol: float,
    eager,
    forms,
    *,
    redraw,
):
    """The records of some forms, the plain one among them."""
    found = judge(
        functools.partial(_all_forms, forms),
        inputs,
        lambda runs: _laws(problem, list(forms), runs),
        problem=problem,
        rng=rng,
        rtol=rtol,
        again=lambda run: eager,
        redraw=redraw,
    )
    return {i.name: i for i in _confirmed(found)}


@dataclasses.dataclass(frozen=True)
class _Form:
    """The traced derivative of f in one form, and the structure of its result."""

    closed: object
    tree: object

    def __call__(self, *arrays):
        flat = _compat.closed_function(self.closed)(*jax.tree.leaves(arrays))
        return jax.tree.unflatten(self.tree, flat)


def _nothing_to_try(closed: _compat.ClosedJaxpr) -> str:
    """Why no rule or kernel of a program is worth its price; empty if one is."""
    special = [eqn for eqn in equations(closed) if not traits.is_plain(eqn)]
    if not special:
        return "f has no rule or kernel of its own to be dropped"
    size = sum(1 for _ in equations(closed))
    if size > traits.LARGE and not any(map(traits.is_of_users, special)):
        return "f is large, and its rules are JAX's own"
    return ""


def _plain_derivative(problem: Problem) -> Callable:
    """From a function, a point and a direction to its value and derivative."""
    if "reverse" not in problem.modes:
        return lambda f, point, v: jax.jvp(f, (point,), (v,))

    def value_and_vjp(
        f: Callable[..., Any], point: Sequence[Any], w: Sequence[jax.Array]
    ):
        value, pullback = jax.vjp(f, point)
        return value, pullback(w)[0]

    return value_and_vjp


def _beside(point: Sequence[Any], rng: np.random.Generator):
    """A point nearby."""
    return tuple(
        np.asarray(x * (1 + _BESIDE * rng.uniform(-1, 1, x.shape))).astype(x.dtype)
        for x in point
    )


def _traced(problem: Problem, plain, given: Sequence[Any]):
    """Each form as a program, and records of those that cannot be traced."""
    forms, untried, point = {}, [], given[0]
    wrong = ""
    if problem.engine == MAP:
        wrong = misshapen_under_vmap(problem.f, point, problem.outputs)
        untried += [_broken(wrong)] * bool(wrong)
    for name, alternatives in _FORMS.items():
        if (name == _PARTLY and len(point) < 2) or (wrong and name in _OF_VMAP):
            continue
        for build in alternatives:
            derivative = functools.partial(build, problem.f, plain)
            traced = attempt(jax.make_jaxpr(derivative, return_shape=True), *given)
            if not isinstance(traced, Refusal):
                closed, shape = traced
                forms[name] = _Form(closed, jax.tree.structure(shape))
                break
        else:
            untried.append(not_tried(name, traced))
    return forms, untried


def _broken(what: str) -> Identity:
    """The record of a map that does not give an array for every point."""
    return Identity(np.inf, 0.0, _MAPPED, "", False, f"f {what}")


def _all_forms(
    forms, a: Sequence[jax.Array], b: Sequence[jax.Array], w: Sequence[jax.Array]
):
    return {name: form(a, b, w) for name, form in forms.items()}


def _alone(transform):
    """The derivative of the transformed function at the first point."""
    return (lambda f, plain, a, b, w: plain(transform(f), a, w),)


def _together(transform):
    """The derivative of a function of both points, from both directions."""

    def form(
        f: Callable[..., Any],
        plain,
        a: Sequence[jax.Array],
        b: Sequence[jax.Array],
        w: Sequence[jax.Array],
    ):
        return plain(transform(f), _stacked(a, b), _stacked(w, w))

    return (form,)


def _mapped_derivative(
    f: Callable[..., Any],
    plain,
    a: Sequence[jax.Array],
    b: Sequence[jax.Array],
    w: Sequence[jax.Array],
):
    derivative = functools.partial(plain, f)
    return jax.vmap(derivative)(_stacked(a, b), _stacked(w, w))


def _partly_mapped(
    f: Callable[..., Any],
    plain,
    a: Sequence[jax.Array],
    b: Sequence[jax.Array],
    w: Sequence[jax.Array],
):
    """The derivative at ``a`` twice, as a lane of maps over every other argument.

    So are gradients of single examples computed, with parameters that all share. The
    first map runs over the even arguments at ``a`` and ``b``, the second over the odd
    ones at ``b`` and ``a``; what a map does not run over stands at ``a``. Both run over
    the directions.
    """

    def mapped(first, second, parity):
        chosen = [i % 2 == parity for i in range(len(a))]
        pairs = zip(first, second, chosen, strict=True)
        lanes = tuple(
            jnp.stack([x, y]) if c else z for (x, y, c), z in zip(pairs, a, strict=True)
        )
        axes = tuple(0 if c else None for c in chosen)
        derivative = functools.partial(plain, f)
        return jax.vmap(derivative, in_axes=(axes, 0))(lanes, _stacked(w, w))

    evens, odds = mapped(a, b, 0), mapped(b, a, 1)
    return jax.tree.map(lambda x, y: jnp.stack([x[0], y[1]]), evens, odds)


def _stacked(a: Sequence[jax.Array], b: Sequence[jax.Array]):
    return jax.tree.map(lambda x, y: jnp.stack([x, y]), a, b)


def _scanned(f: Callable[..., Any]):
    return lambda points: jax.lax.scan(
        lambda _, x: (None, f(x)), None, points, unroll=2
    )[1]


def _sharded(f: Callable[..., Any], *, check_vma):
    mesh = jax.make_mesh(
        (1,), ("device",), axis_types=(AxisType.Auto,), devices=jax.local_devices()[:1]
    )
    everywhere = PartitionSpec()
    return jax.shard_map(
        f, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=check_vma
    )


# Each with its alternatives: the first that can be traced is taken.
_FORMS = {
    "plain": _alone(lambda f: f),
    "jit": _alone(lambda f: jax.jit(lambda p: f(p))),
    "remat": _alone(lambda f: jax.checkpoint(lambda p: f(p))),
    "shard_map": (
        *_alone(functools.partial(_sharded, check_vma=True)),
        *_alone(functools.partial(_sharded, check_vma=False)),
    ),
    _MAPPED: _together(jax.vmap),
    "vmap of the derivative": (_mapped_derivative,),
    _PARTLY: (_partly_mapped,),
    "scan": _together(_scanned),
}
_OF_VMAP = {_MAPPED, "vmap of the derivative", _PARTLY}
_OF_BOTH = {_MAPPED, "vmap of the derivative", "scan"}


def _eager(problem: Problem, form, plain, inputs: Sequence[Any]):
    """Calls outside of jit, with the number of their input; or why there are none."""
    kinds = {
        (primitives.name_of(eqn), *map(str, _avals(eqn))) for eqn in form.closed.eqns
    }
    if len(kinds) > _MAX_EAGER:
        return not_tried("eager", f"f has more than {_MAX_EAGER} kinds of operations")
    calls = []
    for number in (0, 1, 0):
        a, _, w = jax.tree.map(jnp.asarray, inputs[number])
        result = attempt(plain, problem.f, a, w)
        if isinstance(result, Refusal):
            return not_tried("eager", result)
        calls.append((number, {"plain": jax.tree.map(np.asarray, result)}))
    return calls


def _avals(eqn: _compat.JaxprEqn):
    return (variable.aval for variable in eqn.invars)


def _laws(problem: Problem, names: Sequence[str], runs):
    """For each form two laws: at the point, and at the one beside."""
    here, there, *eager = runs
    if not all(np.all(np.isfinite(y)) for y in there["plain"][0]):
        there = here  # no f beside
    compare = functools.partial(_law, problem)
    found = []
    for name in names[1:]:
        if name == _PARTLY:
            at_point, at_beside = (
                tuple(_lane(run[name], n) for n in (0, 1)) for run in (here, there)
            )
        elif name in _OF_BOTH:
            lanes = [[_lane(run[name], n) for n in (0, 1)] for run in runs[:2]]
            at_point = lanes[0][0], lanes[1][1]
            at_beside = at_point if there is here else (lanes[0][1], lanes[1][0])
        else:
            at_point, at_beside = (here[name],), (there[name],)
        found.append(compare(name, at_point, [here["plain"]] * len(at_point)))
        found.append(compare(name, at_beside, [there["plain"]] * len(at_beside)))
    if eager:
        first, beside, again = (call["plain"] for call in eager)
        found.append(compare("eager", (first, again), [here["plain"]] * 2))
        found.append(compare("eager", (beside,), [there["plain"]]))
    return found


def _law(problem: Problem, name: str, left, right):
    """The law that results (value, derivative) are equal, one by one."""
    outputs = problem.output_names
    derivatives = problem.names if "reverse" in problem.modes else outputs
    leaves = [*(f"the value, {o}" for o in outputs), *derivatives]
    return law(
        name,
        leaves * len(left),
        [a for result in left for part in result for a in part],
        [a for result in right for part in result for a in part],
        detail=f"value and derivative {_DETAILS.get(name, 'under ' + name)}, and plain",
        once=name == "eager",
    )


_DETAILS = {
    "eager": "outside of jit, twice",
    "vmap of the derivative": "in the form of a mapped derivative",
    _PARTLY: "of a map over every other argument",
}


def _lane(result, n):
    return jax.tree.map(lambda a: a[n], result)


def _confirmed(found):
    """One record for each pair: broken only if it is broken at both points."""
    return tuple(
        dataclasses.replace(here, holds=here.holds or there.holds)
        for here, there in zip(found[::2], found[1::2], strict=True)
    )
