"""Where ranks are tied a rule shares one gradient, and gives it to no one twice."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import mostly_slow, quick, with_vjp

from gradstab.gradcheck import Verdict
from gradstab.gradcheck.differences.points import NEIGHBOURS, TIES, moved

pytestmark = pytest.mark.cases

MIXED = np.float32([0.3, -1.0, 2.0, 0.7, 1.1])
ROWS = np.random.default_rng(0).standard_normal((4, 6), np.float32)


def chosen(f, share, axis=-1):
    """A function that takes one entry along an axis, and gives it the gradient back.

    ``share`` makes of the mask of all entries that have its value what each of them is
    given.
    """

    def backward(args, w):
        x = args[0]
        equal = (x == jnp.expand_dims(f(x, axis), axis)).astype(x.dtype)
        return (jnp.expand_dims(w, axis) * share(equal, axis), *args[1:])

    return with_vjp(lambda x: f(x, axis), backward)


def whole(equal, axis):
    return equal


def even(equal, axis):
    return equal / equal.sum(axis, keepdims=True)


def first(equal, axis):
    return equal * (jnp.cumsum(equal, axis) == 1)


def last(equal, axis):
    after = jnp.flip(jnp.cumsum(jnp.flip(equal, axis), axis), axis)
    return equal * (after == 1)


def median(x, axis):
    """The lower median, which is an entry for every number of entries."""
    return jnp.take(jnp.sort(x, axis), (x.shape[axis] - 1) // 2, axis)


def windows(x):
    n, m = x.shape
    blocks = x.reshape(n // 2, 2, m // 2, 2)
    return blocks.transpose(0, 2, 1, 3).reshape(n // 2, m // 2, 4)


def pooled(x, axis=None):
    return windows(x).min(-1)


def pool(share):
    """The smallest of every two by two entries."""

    def backward(args, w):
        blocks = windows(args[0])
        d = w[..., None] * share((blocks == blocks.min(-1, keepdims=True)) + 0.0, -1)
        d = d.reshape(*w.shape, 2, 2).transpose(0, 2, 1, 3)
        return (d.reshape(args[0].shape),)

    return with_vjp(pooled, backward)


def scaled(share):
    """The smallest entry times a number beside."""

    def backward(args, w):
        x, scale = args
        low = x.min()
        return w * scale * share((x == low) + 0.0, -1), w * low

    return with_vjp(lambda x, scale: scale * x.min(), backward)


def nearest(share):
    """The distance to the nearest of some points."""

    def distances(x, y):
        return jnp.abs(x[:, None] - y)

    def backward(args, w):
        x, y = args
        d = distances(x, y)
        given = w[:, None] * share((d == d.min(-1, keepdims=True)) + 0.0, -1)
        signed = given * jnp.sign(x[:, None] - y)
        return signed.sum(1), -signed.sum(0)

    return with_vjp(lambda x, y: distances(x, y).min(-1), backward)


def ties(share):
    return {
        "minimum": (chosen(jnp.min, share), MIXED),
        "minimum of negative ones": (chosen(jnp.min, share), -np.abs(MIXED)),
        "minimum of two": (chosen(jnp.min, share), MIXED[:2]),
        "maximum of two": (chosen(jnp.max, share), MIXED[:2]),
        "minimum of three": (chosen(jnp.min, share), MIXED[:3]),
        "minimum of columns": (chosen(jnp.min, share, axis=0), ROWS),
        "maximum of columns": (chosen(jnp.max, share, axis=0), ROWS),
        "median": (chosen(median, share), MIXED),
        "median of rows": (chosen(median, share), ROWS[:, :5]),
        "second smallest": (
            chosen(lambda x, axis: jnp.sort(x, axis)[..., 1], share),
            ROWS,
        ),
        "pool": (pool(share), ROWS),
        "scaled by a negative number": (scaled(share), MIXED, np.float32(-0.5)),
        "nearest": (nearest(share), MIXED, -MIXED[:4] / 3),
    }


@pytest.mark.parametrize("case", mostly_slow(ties(whole), "minimum", "median", "pool"))
def test_the_whole_gradient_for_every_entry_of_one_rank_fails(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.FAIL, str(result)
    assert {where for where, answer in result.moved if answer == "wrong"} <= {
        NEIGHBOURS,
        TIES,
    }


RIGHT = {
    f"{name}, {share.__name__}": case
    for share in (even, first, last)
    for name, case in ties(share).items()
}


@pytest.mark.parametrize(
    "case", mostly_slow(RIGHT, "minimum, even", "median, first", "pool, last")
)
def test_every_way_to_share_it_passes(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.PASS, str(result)


def sorted_by_rank(args, w):
    order = jnp.argsort(args[0])
    return (jnp.zeros_like(w).at[order].set(w),)


def inverted(args, w):
    y = jnp.linalg.inv(args[0])
    return (-y.T @ w @ y.T,)


def of_eigenvalues(args, w):
    values, vectors = jnp.linalg.eigh(args[0])
    return ((vectors * (w * 2 * values)) @ vectors.T,)


def normalised(x):
    d = x - x.mean(-1, keepdims=True)
    return d / jnp.sqrt((d * d).mean(-1, keepdims=True) + 1e-5)


SQUARE = ROWS[:, :4] @ ROWS[:, :4].T + 2 * np.eye(4, dtype=np.float32)
SMOOTH = {
    "sort": (with_vjp(jnp.sort, sorted_by_rank), MIXED),
    "inverse": (with_vjp(jnp.linalg.inv, inverted), SQUARE),
    "square of a symmetric matrix": (
        with_vjp(
            lambda a: jnp.sum(jnp.linalg.eigvalsh(a, symmetrize_input=True) ** 2),
            of_eigenvalues,
        ),
        SQUARE,
    ),
    "normalised rows": (
        with_vjp(normalised, lambda args, w: jax.vjp(normalised, *args)[1](w)),
        ROWS,
    ),
    "logarithm of a sum": (
        with_vjp(jax.nn.logsumexp, lambda args, w: (w * jax.nn.softmax(args[0]),)),
        MIXED,
    ),
}


@pytest.mark.parametrize("case", mostly_slow(SMOOTH, "sort", "normalised rows"))
def test_a_rule_that_is_right_where_entries_are_equal_passes(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.PASS, str(result)


def test_every_entry_is_like_one_beside_it_along_every_axis():
    leaves = ROWS[:3, :5], MIXED[:1], np.float32(2.0)
    points = dict(moved(leaves, np.random.default_rng(0), neighbours=True))
    x, one, number = points[NEIGHBOURS]
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[1:], x[:2])
    np.testing.assert_array_equal(x, ROWS[[0, 0, 0]][:, [0, 0, 2, 2, 2]])
    assert (one, number) == (MIXED[:1], 2)
    assert NEIGHBOURS not in dict(moved(leaves, np.random.default_rng(0)))
    single = dict(moved(leaves[1:], np.random.default_rng(0), neighbours=True))
    assert NEIGHBOURS not in single


def test_what_is_jaxs_own_costs_no_further_point():
    assert NEIGHBOURS not in dict(quick(jax.nn.relu, MIXED).moved)


def to_both(f, *, first=operator.ge, second=operator.le, slope=jnp.ones_like):
    """A choice of two, with the gradient of each where it is chosen."""

    def bwd(args, w):
        x, y = args
        return w * slope(x) * first(x, y), w * slope(y) * second(x, y)

    return with_vjp(f, bwd), np.float32(0.3), np.float32(1.2)


LOW, HIGH = np.float32([0.1, 0.4, 0.5]), np.float32([0.9, 1.4, 0.8])
ORDERED = {
    "maximum": to_both(jnp.maximum),
    "maximum, neither": to_both(jnp.maximum, first=operator.gt, second=operator.lt),
    "minimum": to_both(jnp.minimum, first=operator.le, second=operator.ge),
    "square": to_both(lambda x, y: jnp.maximum(x, y) ** 2, slope=lambda x: 2 * x),
    "arrays": (to_both(jnp.maximum)[0], LOW, HIGH),
}


@pytest.mark.parametrize("case", mostly_slow(ORDERED, "maximum"))
def test_two_arguments_of_which_one_is_below_do_not_both_get_it_all(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.FAIL, str(result)
    assert "with equal arguments" in result.reason


def distance(x, y):
    return jnp.abs(x - y)


def towards_first(args, w):
    side = jnp.where(args[0] >= args[1], w, -w)
    return side, -side


CHOSEN = {
    "maximum, first": to_both(jnp.maximum, second=operator.lt),
    "minimum, last": to_both(jnp.minimum, first=operator.lt, second=operator.ge),
    "distance": (with_vjp(distance, towards_first), np.float32(0.3), np.float32(1.2)),
    "ends": (
        with_vjp(
            lambda lo, hi: jnp.clip(0.7, lo, hi),
            lambda args, w: (w * (args[0] > 0.7), w * (args[1] < 0.7)),
        ),
        np.float32(0.3),
        np.float32(1.2),
    ),
    "arrays": (to_both(jnp.maximum, second=operator.lt)[0], LOW, HIGH),
}


@pytest.mark.parametrize("case", mostly_slow(CHOSEN, "distance"))
def test_one_of_two_arguments_may_get_it_all(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.PASS, str(result)
