"""Rules that hold for the limit of an iteration, and functions that stop before it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import quick
from jax.experimental.ode import odeint

from gradstab import Verdict
from gradstab.gradcheck.subject import traits
from gradstab.gradcheck.subject.iterations import ENDLESS, further, limit, limited
from gradstab.gradcheck.subject.settings import settings

pytestmark = pytest.mark.cases

X = jnp.linspace(0.5, 2, 5, dtype=jnp.float32)
T = np.float32([0.3, 0.9])


def with_vjp(f, backward):
    rule = jax.custom_vjp(f)
    rule.defvjp(lambda *args: ((y := f(*args)), (args, y)), backward)
    return rule


def newton(x, *, length=8):
    step = lambda y, _: (0.5 * (y + x / y), None)  # noqa: E731
    return jax.lax.scan(step, x, length=length)[0]


def newton_by_fori(x):
    return jax.lax.fori_loop(0, 9, lambda _, y: 0.5 * (y + x / y), x)


def newton_over_counts(x):
    step = lambda y, _: (0.5 * (y + x / y), y)  # noqa: E731
    return jax.lax.scan(step, x, jnp.arange(8))[0]


def of_root(res, w):
    return (w / (2 * res[1]),)


def of_positive_root(res, w):
    return (jnp.where(res[0][0] > 4, 0.9, 1.0) * w / (2 * res[1]),)


ROOTS = {"scan": newton, "fori": newton_by_fori, "counts": newton_over_counts}


@pytest.mark.parametrize("root", ROOTS.values(), ids=ROOTS.keys())
def test_the_rule_of_a_root_passes_where_newton_does_not_reach_it_elsewhere(root):
    result = quick(with_vjp(root, of_root), X)
    assert result.verdict is Verdict.PASS, str(result)
    assert dict(result.moved)["with signs changed"] == "not converged"
    assert dict(result.moved)["16 times as large"] == "right"


@pytest.mark.parametrize("root", ROOTS.values(), ids=ROOTS.keys())
def test_the_rule_of_a_root_fails_if_it_is_wrong_where_newton_reaches_it(root):
    result = quick(with_vjp(root, of_positive_root), X)
    assert result.verdict is Verdict.FAIL


def test_a_function_is_named_that_comes_near_its_limit_at_no_moved_point():
    # Two steps are enough near one only.
    two = functools.partial(newton, length=2)
    rule = with_vjp(two, lambda res, w: (w / (2 * jnp.sqrt(res[0][0])),))
    assert quick(rule, X).verdict is not Verdict.PASS


def sinkhorn(cost, *, steps=50):
    """The plan of entropic optimal transport between uniform weights."""
    a = jnp.full(len(cost), 1 / len(cost), cost.dtype)

    def step(state, _):
        _, g = state
        f = jnp.log(a) - jax.nn.logsumexp(g[None] - cost, axis=1)
        g = jnp.log(a) - jax.nn.logsumexp(f[:, None] - cost, axis=0)
        return (f, g), None

    (f, g), _ = jax.lax.scan(step, (0 * a, 0 * a), length=steps)
    return jnp.exp(f[:, None] + g[None] - cost)


def of_plan(res, w, *, factor=1.0):
    """By the implicit function theorem, for the limit only."""
    p = res[1]
    n = len(p)
    rows, columns = p.sum(1), p.sum(0)
    # dP = P * (df + dg - dC), with marginals that do not change.
    m = jnp.block([[jnp.diag(rows), p], [p.T, jnp.diag(columns)]])
    wp = w * p
    right = jnp.concatenate([wp.sum(1), wp.sum(0)])
    # A number may be moved from f to g: the last one of g is zero.
    z = jnp.append(jnp.linalg.solve(m[:-1, :-1], right[:-1]), jnp.zeros((), p.dtype))
    return (factor * (p * (z[:n, None] + z[None, n:]) - wp),)


COST = jnp.abs(jnp.linspace(0, 1, 4)[:, None] - jnp.linspace(0.2, 1.5, 4)[None]) ** 2


@pytest.mark.slow
def test_sinkhorn_with_an_implicit_rule_passes_and_fails_if_it_is_off():
    result = quick(with_vjp(sinkhorn, of_plan), COST)
    assert result.verdict is Verdict.PASS, str(result)
    off = functools.partial(of_plan, factor=0.999)
    assert quick(with_vjp(sinkhorn, off), COST).verdict is Verdict.FAIL


@pytest.mark.slow
def test_few_steps_of_sinkhorn_pass_by_the_limit_that_more_of_them_reach():
    few = functools.partial(sinkhorn, steps=6)
    result = quick(with_vjp(few, of_limit_of_plan), COST, at="given")
    assert result.verdict is Verdict.PASS, str(result)
    assert "f iterates, and stops before its limit" in " ".join(result.notes)


def of_limit_of_plan(res, w):
    (cost,), _ = res
    return of_plan(((cost,), sinkhorn(cost)), w)


def fixed_point(t, *, tolerance=1e-5):
    """x = cos(x) / 2 + t, until it moves by less than the tolerance."""

    def moves(carry):
        x, before, count = carry
        return (jnp.max(jnp.abs(x - before)) > tolerance) & (count < 100)

    def step(carry):
        x, _, count = carry
        return jnp.cos(x) / 2 + t, x, count + 1

    return jax.lax.while_loop(moves, step, (t, t + 1, 0))[0]


def of_fixed_point(res, w):
    return (w / (1 + jnp.sin(res[1]) / 2),)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_truncated_fixed_point_with_the_rule_of_its_limit_passes(dtype):
    result = quick(with_vjp(fixed_point, of_fixed_point), T.astype(dtype))
    assert result.verdict is Verdict.PASS, str(result)
    assert set(dict(result.moved).values()) == {"right"}


def unrolled(res, w, *, steps):
    """By automatic differentiation of so many steps."""

    def run(t):
        return jax.lax.fori_loop(0, steps, lambda _, x: jnp.cos(x) / 2 + t, t)

    return jax.vjp(run, res[0][0])[1](w)


@pytest.mark.slow
def test_a_truncated_fixed_point_passes_with_its_own_derivative_too():
    steps = (limit(jax.make_jaxpr(fixed_point)(T), (T,)) - 200) // 8
    own = functools.partial(unrolled, steps=steps)
    assert quick(with_vjp(fixed_point, own), T, at="given").verdict is Verdict.PASS
    # One that is truncated far before f is not that of the limit.
    few = functools.partial(unrolled, steps=5)
    assert quick(with_vjp(fixed_point, few), T, at="given").verdict is Verdict.FAIL


FIXED_POINTS = {
    "factor": lambda res, w: (2 * of_fixed_point(res, w)[0],),
    "per mille": lambda res, w: (1.001 * of_fixed_point(res, w)[0],),
    "sign": lambda res, w: (w / (1 - jnp.sin(res[1]) / 2),),
    "negative": lambda res, w: (
        jnp.where(res[0][0] < 0, w, of_fixed_point(res, w)[0]),
    ),
    "above four": lambda res, w: (
        jnp.where(res[0][0] > 4, w, of_fixed_point(res, w)[0]),
    ),
}


@pytest.mark.parametrize("rule", FIXED_POINTS.values(), ids=FIXED_POINTS.keys())
def test_a_wrong_rule_of_a_fixed_point_fails(rule):
    assert quick(with_vjp(fixed_point, rule), T).verdict is Verdict.FAIL


def test_an_iteration_that_stops_very_early_is_not_accused_and_does_not_pass():
    # The rule is as far off as the limit is away.
    early = functools.partial(fixed_point, tolerance=1e-2)
    result = quick(with_vjp(early, of_fixed_point), T, at="given")
    assert result.verdict is Verdict.INCONCLUSIVE, str(result)
    assert "stops too far from its limit" in result.reason


def powers(t):
    """1, t, t^2, ... until it is small: the limit and its derivative are zero."""
    return jax.lax.while_loop(
        lambda x: jnp.max(jnp.abs(x)) > 1e-6, lambda x: t * x, jnp.ones_like(t)
    )


@pytest.mark.slow
def test_a_limit_whose_derivative_is_zero_is_not_accused_of_its_truncation():
    rule = with_vjp(powers, lambda res, w: (w * res[1] / (1 - res[0][0]),))
    t = np.float32([0.05, 0.2])
    assert quick(rule, t).verdict is not Verdict.FAIL
    wrong = with_vjp(powers, lambda res, w: (w,))
    assert quick(wrong, t).verdict is Verdict.FAIL


A = np.float32([[3, 1, 0], [1, 2, 0.5], [0, 0.5, 4]])


@pytest.mark.slow
def test_conjugate_gradients_pass_with_jax_own_rule():
    solve = lambda a, b: jax.scipy.sparse.linalg.cg(  # noqa: E731
        lambda x: (a + a.T) @ x / 2, b, tol=1e-3
    )[0]
    result = quick(solve, A, np.float32([1, 0.2, 0.3]), at="given")
    assert result.verdict is not Verdict.FAIL, str(result)


@pytest.mark.slow
def test_time_stepping_is_no_iteration_towards_a_limit():
    def flow(x):
        step = lambda c: (c[0] + 0.125, c[1] + 0.125 * jnp.sin(c[1]))  # noqa: E731
        return jax.lax.while_loop(lambda c: c[0] < 1, step, (jnp.float32(0), x))[1]

    def backward(res, w, *, factor=1.0):
        euler = lambda x: jax.lax.fori_loop(  # noqa: E731
            0, 8, lambda _, x: x + 0.125 * jnp.sin(x), x
        )
        return (factor * jax.vjp(euler, res[0][0])[1](w)[0],)

    assert quick(with_vjp(flow, backward), X).verdict is Verdict.PASS
    wrong = functools.partial(backward, factor=1.01)
    assert quick(with_vjp(flow, wrong), X).verdict is Verdict.FAIL


def traced(f, *args):
    return jax.make_jaxpr(f)(*args)


def test_a_loop_that_counts_ends_and_one_that_waits_may_not():
    counts = traced(lambda x, n: jax.lax.fori_loop(0, n, lambda _, y: y * x, x), T, 3)
    assert not traits.iterates(counts)
    assert not traits.iterates(traced(newton, X))
    for waits in (powers, fixed_point, jax.jit(fixed_point)):
        assert traits.iterates(traced(waits, T))
    # What stops it is a boolean that real numbers decide.
    flagged = lambda x: jax.lax.while_loop(  # noqa: E731
        lambda c: ~c[1], lambda c: (c[0] / 2, jnp.max(c[0]) < 1), (x, False)
    )
    assert traits.iterates(traced(flagged, T))


def test_what_does_not_end_is_not_a_number_one_point_at_a_time():
    run = limited(powers, 50)
    points = np.float32([[0.05, 0.2], [0.05, 1.2], [0.5, -0.5]])
    found = jax.vmap(run)(points)
    np.testing.assert_array_equal(
        np.isnan(found), [[False, False], [True, True], [False, False]]
    )
    np.testing.assert_array_equal(found[0], powers(points[0]))


def test_the_limit_counts_the_longest_loop():
    halvings = lambda x: jax.lax.while_loop(  # noqa: E731
        lambda y: y > 1, lambda y: y / 2, x
    )
    both = lambda p: (halvings(p), jax.lax.map(halvings, jnp.stack([p, 8 * p])))  # noqa: E731
    point = jnp.float32(15)
    assert limit(traced(both, point), (point,)) == 8 * 7 + 200
    assert limit(traced(newton, point), (point,)) == 0


def test_only_what_converges_is_continued():
    def f(point):
        (x,) = point
        total = jax.lax.fori_loop(0, 4, lambda i, c: c + x[0], jnp.float32(0))
        return (newton(x, length=3), total)

    (root, total), drift = further(f, (X,), most=9)((X,))
    np.testing.assert_allclose(root, np.sqrt(X), rtol=1e-6)
    np.testing.assert_allclose(total, 4 * X[0], rtol=1e-6)
    assert np.min(drift) < 1e-2 < np.max(drift)
    assert further(lambda p: (jnp.sin(p[0]),), (X,), most=9) is None


def test_a_loop_that_walks_through_blocks_is_no_iteration():
    """The sum of exponentials, block by block beside its running maximum."""
    x = np.linspace(0, 1, 8)

    def in_blocks(point):
        (x,) = point

        def step(i, carry):
            block = jax.lax.dynamic_slice_in_dim(x, 4 * i, 4)
            most = jnp.maximum(carry[0], block.max())
            rest = carry[1] * jnp.exp(carry[0] - most)
            return most, rest + jnp.exp(block - most).sum()

        start = 0 * x[0] - 1e9, 0 * x[0]
        most, total = jax.lax.fori_loop(0, 2, step, start)
        return (most + jnp.log(total),)

    def halved(point):
        return (jax.lax.fori_loop(0, 60, lambda i, y: y / 2 + point[0], point[0]),)

    with settings(wide=True):
        assert further(in_blocks, (x,), most=ENDLESS) is None
        assert further(halved, (x,), most=ENDLESS) is not None


@pytest.mark.slow
def test_a_solver_that_stops_by_its_tolerance_is_accused_at_no_moved_point():
    # The exact derivative at the point with a hundredth of each argument is that of the
    # adjoint to five digits; the solver's own differences are off by 6e-4 of it.
    def f(y0, a):
        times = jnp.linspace(0.0, 1.0, 5)
        return odeint(lambda y, t, a: jnp.sin(t) - a * y, y0, times, a)

    def backward(kept, w):
        g0, g1 = jax.vjp(f, *kept[0])[1](w)
        return g0, jnp.where(jnp.abs(kept[0][1]) < 0.1, 1.1, 1.0) * g1

    args = jnp.array([1.0, 0.5, -0.3]), jnp.float32(0.7)
    assert quick(f, *args).verdict is Verdict.PASS
    assert quick(with_vjp(f, backward), *args).verdict is Verdict.FAIL
