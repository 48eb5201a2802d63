r"""Second derivatives, as first derivatives of the rules.

The VJP :math:`(x, w) \mapsto J(x)^\top w` and the JVP :math:`(x, v) \mapsto J(x) v` are
functions like any other, of two arguments that have nothing to do with each other:
whatever checks a function against differences of its value checks them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradstab._attempt import Refusal, attempt
from gradstab.gradcheck.findings import Identity
from gradstab.gradcheck.laws.law import LUCK, judge, law, not_tried
from gradstab.gradcheck.subject.abilities import LOOP
from gradstab.gradcheck.subject.modes import traced_jvp
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.vectors import dot, exact_combinations, norm

_SYMMETRY = "symmetric Hessian"

_OFF_DOMAIN = (
    "second derivatives commute along symmetric directions of {} only: f may be "
    "defined on symmetric arguments only; check f((a + a.T) / 2)"
)


def second_order(problem: Problem, /, *, seed: int = 0) -> tuple[tuple, ...]:
    """The functions whose first-order check is the second-order check of f.

    The cotangent (or tangent) is random and independent of the point: the second
    derivative is seen where x or f(x) is zero, too.

    Args:
        problem: what is checked.
        seed: of the cotangent and the tangent.

    Returns:
        Tuples ``(name, g, (leaves, w))`` with `name` one of ``forward over reverse``,
        ``reverse over reverse`` and ``reverse over forward``. ``g(leaves, w)`` is the
        inner derivative; the first word of the name is the mode in which to check it.
        What does not exist is left out: see `missing_second_order`.

    >>> from gradstab.gradcheck.subject.problem import problem
    >>> task = problem(jax.numpy.sin, (np.float32([0, 1]),), modes=("reverse",))
    >>> [name for name, g, args in second_order(task)]
    ['forward over reverse', 'reverse over reverse']
    """
    found = _candidates(problem, seed)
    return tuple(
        (name, g, args)
        for name, g, args in found
        if not _obstacle(problem, name, g, args)
    )


def missing_second_order(problem: Problem, /) -> tuple[str, ...]:
    """Notes on the second derivatives that do not exist, each with its reason."""
    notes = []
    for name, g, args in _candidates(problem, 0):
        if refusal := _obstacle(problem, name, g, args):
            notes.append(f"{name} does not exist: {refusal}")
    if "forward" not in problem.modes:
        notes.append("reverse over forward was not checked: the JVP was not either")
    return tuple(notes)


def hessian_symmetry(
    problem: Problem,
    point: Sequence[Any],
    rng: np.random.Generator,
    /,
    *,
    rtol: float = 0.0,
) -> tuple[Identity, ...]:
    r"""Tries whether second derivatives commute.

    For a random cotangent :math:`w` the gradient of :math:`\langle w, f \rangle` has
    the derivative :math:`H`, and :math:`\langle u, H v \rangle = \langle v, H u
    \rangle` for random tangents. A vector field that is no gradient breaks this, and so
    does a wrong derivative of a right one. A rule that differs from the derivative on
    purpose may break it rightly: it is for the second order only.

    A function of symmetric matrices, such as a solver that uses the symmetry, need not
    be consistent beside them. If the law is broken, and matrices are symmetric at the
    point, it is tried along directions that keep them so, and holds if it does there.

    Args:
        problem: what is checked.
        point: one array per leaf of the problem.
        rng: draws the cotangent and the tangents.
        rtol: a smaller relative error is not accused.

    Returns:
        One record, or none if the VJP is not checked. See also `off_domain`.

    Cost:
        One compilation of a Hessian-vector product, run twice; again along symmetric
        directions, if that matters.
    """
    if "reverse" not in problem.modes:
        return ()
    if problem.engine == LOOP:
        return (not_tried(_SYMMETRY, "f cannot be traced"),)
    with problem.context():
        point = tuple(map(np.asarray, point))
        (w, *_) = exact_combinations(rng, problem.outputs)
        tangents = [exact_combinations(rng, point)[0] for _ in range(2)]
        inputs = [(point, w, v) for v in tangents]
        product = _hessian_product(problem, inputs[0])
        if isinstance(product, Refusal):
            return (not_tried(_SYMMETRY, product),)
        found = _judged(problem, product, inputs, rng, rtol)
        alike = [i for i, x in enumerate(point) if _is_symmetric(x)]
        if alike and not found[0].holds:
            inputs = [(point, w, _symmetrised(v, alike)) for v in tangents]
            again = _judged(problem, product, inputs, rng, rtol)
            if again[0].holds:
                names = ", ".join(problem.names[i] for i in alike)
                detail = _OFF_DOMAIN.format(names)
                return (dataclasses.replace(again[0], detail=detail),)
        return found


def off_domain(laws: tuple[Identity, ...], /) -> tuple[str, ...]:
    """Notes on laws of `hessian_symmetry` that hold along symmetric directions only."""
    start = _OFF_DOMAIN.partition("{")[0]
    return tuple(law.detail for law in laws if law.detail.startswith(start))


def _judged(
    problem: Problem,
    product,
    inputs: Sequence[Any],
    rng: np.random.Generator,
    rtol: float,
):
    tangents = [v for _, _, v in inputs]
    return judge(
        product,
        inputs,
        lambda runs: [_symmetric(tangents, runs)],
        problem=problem,
        rng=rng,
        rtol=rtol,
    )


def _is_symmetric(x) -> bool:
    square = x.ndim >= 2 and x.shape[-1] == x.shape[-2] > 1
    return bool(square and np.array_equal(x, np.swapaxes(x, -1, -2)))


def _symmetrised(v: Sequence[jax.Array], alike):
    """The tangent with the upper triangles of some matrices on both sides."""
    return tuple(
        np.triu(a) + np.swapaxes(np.triu(a, 1), -1, -2) if i in alike else a
        for i, a in enumerate(v)
    )


def _candidates(problem: Problem, seed):
    f, rng = problem.f, np.random.default_rng(seed)

    def vjp(leaves: Sequence[Any], w: Sequence[jax.Array]):
        return jax.vjp(f, leaves)[1](w)[0]

    def jvp(leaves: Sequence[Any], v: Sequence[jax.Array]):
        return jax.jvp(f, (leaves,), (v,))[1]

    # On the host float64 needs no setting to exist.
    leaves = tuple(map(np.asarray, problem.leaves))
    w = exact_combinations(rng, problem.outputs)[0]
    v = exact_combinations(rng, leaves)[0]
    if "reverse" in problem.modes:
        yield "forward over reverse", vjp, (leaves, w)
        yield "reverse over reverse", vjp, (leaves, w)
    if "forward" in problem.modes:
        yield "reverse over forward", jvp, (leaves, v)


def _obstacle(problem: Problem, name: str, g, args: Sequence[Any]) -> Refusal | None:
    """What tracing the derivative of g raises."""
    with problem.context():
        if name.startswith("reverse"):
            traced = attempt(jax.eval_shape, lambda a: _pulled(g, a), args)
        else:
            traced = attempt(traced_jvp, lambda a, t: jax.jvp(g, a, t)[1], args, args)
    return traced if isinstance(traced, Refusal) else None


def _pulled(g, args: Sequence[Any]):
    value, pullback = jax.vjp(g, *args)
    return pullback(value)


def _hessian_product(problem: Problem, given: Sequence[Any]) -> Callable | Refusal:
    """From a point, a cotangent and a tangent to the product, in a mode that exists."""
    f = problem.f

    def gradient(point: Sequence[Any], w: Sequence[jax.Array]):
        return jax.vjp(f, point)[1](w)[0]

    def forward(point: Sequence[Any], w: Sequence[jax.Array], v: Sequence[jax.Array]):
        return jax.jvp(lambda p: gradient(p, w), (point,), (v,))[1]

    def reverse(point: Sequence[Any], w: Sequence[jax.Array], v: Sequence[jax.Array]):
        return jax.vjp(lambda p: gradient(p, w), point)[1](v)[0]

    traced = attempt(traced_jvp, forward, *given)
    if not isinstance(traced, Refusal):
        return forward
    traced = attempt(jax.eval_shape, reverse, *given)
    return traced if isinstance(traced, Refusal) else reverse


@np.errstate(invalid="ignore", over="ignore")
def _symmetric(tangents, runs):
    (u, v), (of_u, of_v) = tangents, runs
    sizes = norm(u) * norm(of_v) + norm(v) * norm(of_u)
    # Both near the norm of H, as the product is near that of the error.
    units = LUCK * max(norm(of_u), norm(of_v))
    return law(
        _SYMMETRY,
        [""],
        [np.array([dot(u, of_v)])],
        [np.array([dot(v, of_u)])],
        like=[np.array([sizes])],
        units=[units],
        detail="<u, H v> and <v, H u>",
    )
