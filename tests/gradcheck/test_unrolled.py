"""An iteration that is written out in Python is one, as if it were a loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import mostly_slow, normal, quick, with_vjp

from gradstab import _compat
from gradstab.gradcheck import Verdict
from gradstab.gradcheck.subject.bodies import stays_finite
from gradstab.gradcheck.subject.iterations import further
from gradstab.gradcheck.subject.unrolled import rolled

pytestmark = [pytest.mark.cases, pytest.mark.usefixtures("quick_compiler")]

COST = np.abs(normal(0, 4, 5))
ROWS, COLUMNS = np.full(4, 1 / 4, np.float32), np.full(5, 1 / 5, np.float32)
POSITIVE = np.float32([0.5, 1.0, 2.0])
MATRIX = normal(1, 4, 4) / 4
BATCH = normal(2, 2, 4)


def sinkhorn(cost, *, steps):
    """The plan of entropic optimal transport between uniform weights."""
    kernel, v = jnp.exp(-cost), jnp.ones(cost.shape[1], cost.dtype)
    for _ in range(steps):
        u = ROWS / (kernel @ v)
        v = COLUMNS / (kernel.T @ u)
    return u[:, None] * kernel * v[None]


def by_steps(args, w, *, steps, factor=1.0):
    """Its gradient, from the last step to the first."""
    kernel, vs, us = jnp.exp(-args[0]), [jnp.ones_like(args[0][0])], []
    for _ in range(steps):
        us.append(ROWS / (kernel @ vs[-1]))
        vs.append(COLUMNS / (kernel.T @ us[-1]))
    wk, total = w * kernel, w * us[-1][:, None] * vs[-1][None]
    du, dv = wk @ vs[-1], wk.T @ us[-1]
    for u, v in zip(us[::-1], vs[-2::-1], strict=True):
        dt = -dv * COLUMNS / (kernel.T @ u) ** 2
        du = du + kernel @ dt
        ds = -du * ROWS / (kernel @ v) ** 2
        total = total + u[:, None] * dt[None] + ds[:, None] * v[None]
        du, dv = jnp.zeros_like(u), kernel.T @ ds
    return (-factor * total * kernel,)


def of_plan(args, w, *, factor=1.0):
    """By the implicit function theorem, for the limit only."""
    p = sinkhorn(*args, steps=50)
    m = jnp.block([[jnp.diag(p.sum(1)), p], [p.T, jnp.diag(p.sum(0))]])
    right = jnp.concatenate([(w * p).sum(1), (w * p).sum(0)])
    # A number may be moved from f to g: the last one of g is zero.
    z = jnp.append(jnp.linalg.solve(m[:-1, :-1], right[:-1]), jnp.zeros((), p.dtype))
    return (factor * (p * (z[:4, None] + z[None, 4:]) - w * p),)


def root(x, *, steps=6):
    """Newton's, which converges from anywhere, but not in so many steps."""
    y = jnp.ones_like(x)
    for _ in range(steps):
        y = (y + x / y) / 2
    return y


def of_root(args, w, *, factor=1.0):
    return (factor * w / (2 * jnp.sqrt(args[0])),)


def fixed(x):
    y = jnp.zeros_like(x)
    for _ in range(30):
        y = jnp.tanh(y / 2 + x)
    return y


def of_fixed(args, w, *, factor=1.0):
    slope = 1 - fixed(*args) ** 2
    return (factor * w * slope / (1 - slope / 2),)


def descent(x):
    """The root of y + y^3 = x by steps with momentum."""
    y, v = x / 2, 0 * x
    for _ in range(60):
        v = 0.5 * v - 0.1 * (y + y**3 - x)
        y = y + v
    return y


def of_descent(args, w, *, factor=1.0):
    return (factor * w / (1 + 3 * descent(*args) ** 2),)


def neumann(x):
    """(1 - M)^-1 x, by its series."""
    y = x
    for _ in range(40):
        y = x + MATRIX.astype(x.dtype) @ y
    return y


def of_neumann(args, w, *, factor=1.0):
    m = jnp.eye(4, dtype=w.dtype) - MATRIX.astype(w.dtype)
    return (factor * jnp.linalg.solve(m.T, w),)


RIGHT = {
    "Sinkhorn, by steps": (functools.partial(sinkhorn, steps=12), by_steps, COST),
    "Sinkhorn, two steps": (functools.partial(sinkhorn, steps=2), by_steps, COST),
    "Sinkhorn, implicit": (functools.partial(sinkhorn, steps=50), of_plan, COST),
    "root": (root, of_root, POSITIVE),
    "fixed point": (fixed, of_fixed, normal(3, 3)),
    "momentum": (descent, of_descent, normal(4, 3)),
    "series": (neumann, of_neumann, normal(5, 4)),
}


def rule(name, **options):
    """The function with its rule, and its argument."""
    f, bwd, x = RIGHT[name]
    if bwd is by_steps:
        options["steps"] = f.keywords["steps"]
    return with_vjp(f, functools.partial(bwd, **options)), x


@pytest.mark.parametrize(
    "name", mostly_slow({n: n for n in RIGHT}, "Sinkhorn, two steps", "root")
)
def test_a_right_rule_of_an_iteration_that_is_written_out_is_not_accused(name):
    f, x = rule(name)
    result = quick(f, x)
    assert result.verdict is Verdict.PASS, str(result)


@pytest.mark.parametrize(
    "name", mostly_slow({n: n for n in RIGHT}, "Sinkhorn, two steps", "root")
)
def test_a_wrong_one_fails(name):
    f, x = rule(name, factor=0.99)
    assert quick(f, x).verdict is Verdict.FAIL


def layers(x, *weights):
    for weight in weights:
        x = jnp.tanh(x @ weight)
    return x


def dominant(m):
    """The largest eigenvalue, by the power method."""
    v = jnp.ones(len(m), m.dtype)
    for _ in range(9):
        v = m @ v
        v = v / jnp.linalg.norm(v)
    return v @ m @ v


LOOPS = {
    "root": (root, (POSITIVE,), (6, 5)),
    "Sinkhorn": (functools.partial(sinkhorn, steps=8), (COST,), (8, 7)),
    "momentum": (descent, (POSITIVE,), (60, 59)),
    "power method": (dominant, (MATRIX @ MATRIX.T,), (9, 8)),
    "one layer again and again": (
        lambda x, m: layers(x, *[m] * 5),
        (BATCH, MATRIX),
        (5, 4),
    ),
}


@pytest.mark.parametrize("case", LOOPS.values(), ids=LOOPS.keys())
def test_what_is_repeated_becomes_one_loop_with_the_same_results(case):
    f, args, lengths = case
    program = jax.make_jaxpr(f)(*args)
    loop = rolled(program)
    (scan,) = filter(None, map(_compat.scan_parts, loop.jaxpr.eqns))
    # The first repetition may differ, as it begins with what is not moved.
    assert scan.length in lengths
    (result,) = _compat.closed_function(loop)(*args)
    np.testing.assert_allclose(result, f(*args), rtol=1e-6)


def history(x):
    """All steps of Newton's method."""
    y, steps = jnp.ones_like(x), []
    for _ in range(6):
        y = (y + x / y) / 2
        steps.append(y)
    return jnp.stack(steps)


def power(x):
    y = x
    for _ in range(8):
        y = y * x
    return y


def polynomial(x):
    y = 0 * x
    for k in range(8):
        y = y * x + k
    return y


STRAIGHT = {
    "layers": (layers, BATCH, *[MATRIX + k for k in range(5)]),
    "all steps are returned": (history, POSITIVE),
    "a power": (power, POSITIVE),
    "coefficients": (polynomial, POSITIVE),
    "two steps": (functools.partial(root, steps=2), POSITIVE),
}


@pytest.mark.parametrize("case", STRAIGHT.values(), ids=STRAIGHT.keys())
def test_what_is_not_repeated_alike_is_left_as_it_is(case):
    f, *args = case
    program = jax.make_jaxpr(f)(*args)
    assert rolled(program) is program


def test_an_iteration_inside_of_a_rule_is_continued():
    f, x = with_vjp(root, of_root), POSITIVE
    run = further(lambda point: (f(*point),), (x,), most=9)
    assert run is not None
    (result,), drift = run((x,))
    np.testing.assert_allclose(result, np.sqrt(x), rtol=1e-6)
    assert drift.shape == (1,)


def test_what_overflows_on_the_way_is_seen_inside_of_rules_too():
    careless = with_vjp(lambda x: 1 / (1 + jnp.exp(-x)), lambda args, w: (w,))
    for x, finite in ((-50.0, True), (-100.0, False)):
        assert stays_finite(careless, (jnp.float32(x),)) is finite
        assert np.isfinite(careless(jnp.float32(x)))


@pytest.mark.slow
def test_a_rule_fails_where_both_it_and_jax_fail_as_f_was_written_carelessly():
    def bwd(args, w):
        e = jnp.exp(-args[0])
        return (w * e / (1 + e) ** 2,)

    careless = with_vjp(lambda x: 1 / (1 + jnp.exp(-x)), bwd)
    result = quick(careless, np.linspace(-2, 3, 7, dtype=np.float32))
    assert result.verdict is Verdict.FAIL
    assert "is not finite" in result.reason
