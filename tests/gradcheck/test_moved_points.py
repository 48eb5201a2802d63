"""At other points a rule must be right, finite, and no more than that."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import mostly_slow, quick, with_vjp

from gradstab.gradcheck import Verdict, check
from gradstab.gradcheck.differences.points import (
    DOWN,
    EQUAL,
    GENERIC,
    TIES,
    at_random,
    moved,
    ordered,
)
from gradstab.gradcheck.differences.structure import lost

pytestmark = pytest.mark.cases

X = np.float32([0.3, -1.0, 2.0, 0.7, 1.1])
POSITIVE = np.abs(X)
MATRIX = np.random.default_rng(0).standard_normal((5, 5), np.float32)


def positive_definite(n):
    return MATRIX[:n, :n] @ MATRIX[:n, :n].T + n * np.eye(n, dtype=np.float32)


def divided(args, w):
    x, y = args[0], jnp.cumprod(args[0])
    return (jnp.cumsum((w * y)[::-1])[::-1] / x,)


def huber(x):
    return jnp.where(jnp.abs(x) < 1, x * x / 2, jnp.abs(x) - 0.5)


def slope_of_huber(args, w):
    (x,) = args
    return (w * jnp.where(jnp.abs(x) < 1, x * (x / x), jnp.sign(x)),)


NOT_FINITE = {
    "sine over x": (lambda x: jnp.where(x == 0, 1, jnp.sin(x) / x), X),
    "of a number": (lambda x: jnp.where(x == 0, 1, jnp.sin(x) / x), X[0]),
    "expm1 over x": (
        lambda x: jnp.where(jnp.abs(x) < 1e-6, 1 + x / 2, jnp.expm1(x) / x),
        X,
    ),
    "square of a root": (lambda x: jnp.sqrt(x**2) ** 2, X),
    "cube of a root": (lambda x: jnp.sqrt(x**2) ** 3, X),
    "logarithm times zero": (
        lambda x: jnp.where(x > 0, 0 * jnp.log(x) + x, x),
        POSITIVE,
    ),
    "product by division": (
        with_vjp(jnp.prod, lambda a, w: (w * jnp.prod(a[0]) / a[0],)),
        X,
    ),
    "products by division": (with_vjp(jnp.cumprod, divided), X),
    "Huber": (with_vjp(huber, slope_of_huber), X),
    "distance": (lambda x, y: jnp.linalg.norm(x - y) ** 2, X, X + 1),
}


@pytest.mark.parametrize(
    "case", mostly_slow(NOT_FINITE, "sine over x", "of a number", "product by division")
)
def test_a_rule_that_is_not_finite_where_f_is_smooth_fails(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.FAIL, str(result)
    assert 'at="given"' in result.notes[0]


BORDERS = {
    "xlogy": (lambda x: jax.scipy.special.xlogy(x, x), POSITIVE),
    "arctan2": (jnp.arctan2, X, POSITIVE),
    "norm": (jnp.linalg.norm, X),
    "distance": (lambda x, y: jnp.linalg.norm(x - y), X, X + 1),
    "cube root": (jnp.cbrt, X),
    "infinite slope": (lambda x: jnp.where(x == 0, 0, x * jnp.log(jnp.abs(x))), X),
    "no value beside": (jax.scipy.special.xlog1py, *np.float32([[0, 1], [-0.3, 2]])),
}


@pytest.mark.parametrize("case", mostly_slow(BORDERS, "xlogy", "norm"))
def test_where_f_ends_or_bends_a_slope_may_be_missing(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.PASS, str(result)


def solved(args, w):
    a, b = args
    y, u = jnp.linalg.solve(a, b), jnp.linalg.solve(a, w)
    return -jnp.outer(u, y), u


def inverted(args, w):
    y = jnp.linalg.inv(args[0])
    return (-y @ w @ y,)


NOT_TRANSPOSED = {
    "inverse of 3": (jnp.linalg.inv, inverted, positive_definite(3)),
    "inverse of 4": (jnp.linalg.inv, inverted, positive_definite(4)),
    "inverse of 5": (jnp.linalg.inv, inverted, positive_definite(5)),
    "solution": (jnp.linalg.solve, solved, positive_definite(4), X[:4]),
    "log determinant": (
        lambda a: jnp.linalg.slogdet(a)[1],
        lambda args, w: (w * jnp.linalg.inv(args[0]),),
        positive_definite(3),
    ),
    "quadratic form": (
        lambda a, x: x @ a @ x,
        lambda args, w: (w * jnp.outer(args[1], args[1]), 2 * w * (args[0] @ args[1])),
        positive_definite(3),
        X[:3],
    ),
    "identity": (
        jnp.matmul,
        lambda args, w: (jnp.outer(w, args[1]), args[0] @ w),
        np.eye(3, dtype=np.float32),
        X[:3],
    ),
    "orthogonal": (
        jnp.matmul,
        lambda args, w: (jnp.outer(w, args[1]), jnp.linalg.solve(args[0], w)),
        np.linalg.qr(MATRIX[:4, :4])[0],
        X[:4],
    ),
}


@pytest.mark.parametrize(
    "case", mostly_slow(NOT_TRANSPOSED, "inverse of 4", "identity")
)
def test_a_rule_that_is_right_for_special_matrices_only_fails(case):
    f, bwd, *args = case
    result = quick(with_vjp(lambda *args: f(*args), bwd), *args)
    assert result.verdict is Verdict.FAIL, str(result)
    assert dict(result.moved)[GENERIC] == "wrong"
    words = dict(result.outside)[GENERIC]
    assert "symmetric" in words or "triangular" in words or "norm one" in words
    assert words in " ".join(result.notes)


SPECIAL = {
    "inverse": (jnp.linalg.inv, positive_definite(4)),
    "Cholesky factor": (jnp.linalg.cholesky, positive_definite(4)),
    "eigenvalues": (jnp.linalg.eigvalsh, positive_definite(4)),
}


@pytest.mark.parametrize("case", mostly_slow(SPECIAL, "inverse"))
def test_a_rule_that_is_right_for_all_matrices_passes(case):
    f, *args = case
    assert quick(f, *args).verdict is Verdict.PASS


def soft_threshold(x, t):
    return jnp.sign(x) * jax.nn.relu(jnp.abs(x) - t)


def between(x, low, high):
    return jnp.minimum(jnp.maximum(x, low), high)


def closed(args, w):
    x, low, high = args
    return w * ((x >= low) & (x <= high)), w * (x < low), w * (x > high)


def opened(args, w):
    x, low, high = args
    return w * ((x > low) & (x < high)), w * (x <= low), w * (x >= high)


def median(a, b, c):
    return jnp.maximum(jnp.minimum(a, b), jnp.minimum(jnp.maximum(a, b), c))


def overlap(a, b, c, d):
    common = jnp.maximum(0, jnp.minimum(b, d) - jnp.maximum(a, c))
    return common / ((b - a) + (d - c) - common)


def common_area(low, high, other_low, other_high):
    sides = jnp.minimum(high, other_high) - jnp.maximum(low, other_low)
    return jnp.prod(jnp.maximum(0, sides))


INSIDE = np.float32([-1.2, -0.3, 0.2, 0.6, 1.4])
LOW, HIGH = np.full(5, -0.5, np.float32), np.full(5, 0.7, np.float32)
BOUNDS = {
    "clip": (jnp.clip, INSIDE, -0.5, 0.7),
    "clip between arrays": (jnp.clip, INSIDE, LOW, HIGH),
    "clip to one bound": (lambda x, a: jnp.clip(x, 0, a), INSIDE, np.float32(1)),
    "clamp": (jax.lax.clamp, LOW, INSIDE, HIGH),
    "soft threshold": (soft_threshold, INSIDE, np.float32(0.3)),
    "soft thresholds": (soft_threshold, INSIDE, HIGH),
    "closed interval": (with_vjp(between, closed), INSIDE, LOW, HIGH),
    "open interval": (with_vjp(between, opened), INSIDE, LOW, HIGH),
    "median of numbers": (median, *np.float32([0.3, 1.0, -0.4])),
    "median of arrays": (median, X, INSIDE, X[::-1].copy()),
    "overlap": (overlap, LOW, HIGH, LOW + 1, HIGH + 1),
    "common area": (common_area, *np.float32([[0, 0], [2, 2], [1, 0.5], [3, 2.5]])),
}


@pytest.mark.parametrize("case", mostly_slow(BOUNDS, "clip", "closed interval"))
def test_where_bounds_meet_every_slope_around_is_accepted(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.PASS, str(result)


def one_for_every_tie(args, w):
    x, y = args
    return w * (x >= y), w * (y >= x)


def maximum(x):
    return jnp.max(x, axis=-1)


def one_for_every_maximum(args, w):
    (x,) = args
    return (w[..., None] * (x == maximum(x)[..., None]),)


def zero_at_zero(args, w):
    x, b = args
    slope = jnp.where(x == 0, 0, jax.nn.relu(b) / jnp.cosh(x) ** 2)
    return w * slope, jnp.sum(w * jnp.tanh(x) * (b > 0))


WRONG_AT_TIES = {
    "the whole for every tie": (
        with_vjp(jnp.maximum, one_for_every_tie),
        X,
        INSIDE,
    ),
    "the whole for every maximum": (with_vjp(maximum, one_for_every_maximum), X),
    "the whole for every maximum of rows": (
        with_vjp(maximum, one_for_every_maximum),
        MATRIX[:, :4],
    ),
    "zero at zero beside a kink": (
        with_vjp(lambda x, b: jnp.tanh(x) * jax.nn.relu(b), zero_at_zero),
        X,
        np.float32(0.5),
    ),
}


@pytest.mark.parametrize("locate", [False, True])
@pytest.mark.parametrize("case", WRONG_AT_TIES.values(), ids=WRONG_AT_TIES.keys())
def test_a_rule_that_is_wrong_at_zeros_or_ties_only_still_fails(case, locate):
    f, *args = case
    result = check(f, *args, transformations=False, locate=locate)
    assert result.verdict is Verdict.FAIL, str(result)
    assert {where for where, answer in result.moved if answer == "wrong"} <= {
        TIES,
        EQUAL,
    }


def test_a_single_number_beside_others_is_never_made_zero():
    leaves = (X, np.float32(0.5), np.float32([2.0]))
    points = dict(moved(leaves, np.random.default_rng(0)))
    assert all(np.all(y != 0) for p in points.values() for y in p[1:])
    single = dict(moved((np.float32(0.5), np.float32(2)), np.random.default_rng(0)))
    assert [float(x) for x in single[TIES]] == [0, 2]


def test_what_is_below_stays_below():
    leaves = (LOW, INSIDE, HIGH)
    assert ordered(leaves) == [(0, 2)]
    for point in dict(moved(leaves, np.random.default_rng(0))).values():
        assert np.all(point[0] <= point[2])
    low, _, high = dict(moved(leaves, np.random.default_rng(0)))["with signs changed"]
    np.testing.assert_array_equal(low, -HIGH)
    np.testing.assert_array_equal(high, -LOW)


def test_a_point_at_random_has_no_structure_and_no_zeros():
    eye = np.eye(4, dtype=np.float32)
    (point,) = at_random((eye,), np.random.default_rng(0))
    assert point.dtype == np.float32
    assert np.all(point != 0)
    assert len(np.unique(point)) == point.size
    assert len(lost((eye,), (point,), ("a",))) == 4
    (near,) = at_random((X,), np.random.default_rng(0))
    assert np.all(np.abs(near / X - 1) < 0.2)


def test_one_sentence_names_all_moved_points():
    rule = with_vjp(lambda x: x**2, lambda args, w: (2 * w * args[0] / POSITIVE * X,))
    result = quick(rule, POSITIVE, rtol=1e-2)
    assert result.verdict is Verdict.FAIL
    assert result.reason.count("wrong reverse derivative") == 1


def root_beside(x):
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def half_of_root(at_zero, share=0.5):
    def backward(args, w):
        (x,) = args
        slope = share / jnp.sqrt(jnp.where(x > 0, x, 1))
        return (w * jnp.where(x > 0, slope, at_zero),)

    return with_vjp(root_beside, backward)


def no_number_below(f):
    return lambda x: f(jax.nn.relu(x))


ONE_ZERO = np.float32([0.5, 0, 2])
STEEP = {
    "root": (no_number_below(jnp.sqrt), "FAIL"),
    "cube root": (no_number_below(jnp.cbrt), "FAIL"),
    "root of a maximum": (lambda x: jnp.sqrt(jnp.maximum(x, 0)), "FAIL"),
    "root of what is not below": (lambda x: jnp.where(x < 0, 0, jnp.sqrt(x)), "FAIL"),
    "wrong below": (half_of_root(0.3), "FAIL"),
    "wrong above": (half_of_root(0, 0.6), "FAIL"),
    "root with a zero slope below": (root_beside, "PASS"),
    "its rule by hand": (half_of_root(0), "PASS"),
    "root from zero on": (jnp.sqrt, "PASS"),
    "power": (no_number_below(lambda x: x**1.5), "PASS"),
    "root of what is never zero": (no_number_below(lambda x: jnp.sqrt(x + 1)), "PASS"),
}


@pytest.mark.parametrize("seed", [0, pytest.param(2, marks=pytest.mark.slow), 5])
@pytest.mark.parametrize(
    "case", mostly_slow(STEEP, "root", "wrong below", "root with a zero slope below")
)
def test_beside_a_zero_both_sides_are_seen_whatever_the_seed(case, seed):
    f, verdict = case
    result = quick(f, ONE_ZERO, seed=seed)
    assert result.verdict.value == verdict, str(result)


def test_zeros_are_moved_up_and_down_and_only_where_there_are_some():
    points = dict(moved((ONE_ZERO,), np.random.default_rng(0)))
    assert points[GENERIC][0][1] > 0 > points[DOWN][0][1]
    assert DOWN not in dict(moved((X, np.zeros(3)), np.random.default_rng(0)))
