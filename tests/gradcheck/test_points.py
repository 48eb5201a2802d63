"""Points beside the one given: what they are, and what is found there only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import quick, with_vjp

from gradstab.gradcheck import Verdict, check
from gradstab.gradcheck.differences.points import EQUAL, TIES, beside, moved

X = np.random.default_rng(0).standard_normal(8, np.float32) + np.float32(2)


def test_moved_points_keep_shapes_and_dtypes_and_scale_exactly():
    leaves = (X, np.zeros((2, 2), np.float64))
    found = dict(moved(leaves, np.random.default_rng(0)))
    assert len(found) == 5
    for point in found.values():
        assert [(x.shape, x.dtype) for x in point] == [
            (x.shape, x.dtype) for x in leaves
        ]
    np.testing.assert_array_equal(found["16 times as large"][0], 16 * X)
    np.testing.assert_array_equal(found["with signs changed"][0], -X)
    # A zero that is only scaled says nothing new.
    assert np.all(found["16 times as large"][1] != 0)


def test_one_moved_point_has_zeros_and_equal_entries_in_and_across_leaves():
    one, two = dict(moved((X, 2 * X), np.random.default_rng(0)))[TIES]
    assert np.sum(one == 0) == 2
    assert np.sum(one == X.max()) >= 3
    np.testing.assert_array_equal(one[[0, 2, 3, 4, 6]], two[[0, 2, 3, 4, 6]])
    np.testing.assert_array_equal(one[[1, 5, 7]], X[[1, 5, 7]])


def test_a_point_beside_is_no_farther_than_an_eighth_of_the_argument():
    (point,) = beside((X,), np.random.default_rng(0))
    away = np.sqrt(np.mean((point - X) ** 2) / np.mean(X**2))
    np.testing.assert_allclose(away, 1 / 8, rtol=1e-6)


# Each is right at the point given, where all entries are positive and differ.
WRONG_ELSEWHERE = {
    "with signs changed": (lambda x: x**2, lambda x, w: 2 * w * jnp.abs(x)),
    "with zeros and ties": (
        jnp.sin,
        lambda x, w: jnp.where(x == 0, 0, w * jnp.cos(x)),
    ),
    "16 times as large": (
        jnp.tanh,
        lambda x, w: jnp.where(jnp.abs(x) > 9, 3, 1 / jnp.cosh(x) ** 2) * w,
    ),
    "128 times as small": (
        lambda x: x**3,
        lambda x, w: 3 * w * jnp.where(jnp.abs(x) < 0.1, 0, x**2),
    ),
}


@pytest.mark.parametrize("where", WRONG_ELSEWHERE)
def test_a_rule_that_is_wrong_elsewhere_only_fails_and_says_where(where):
    f, gradient = WRONG_ELSEWHERE[where]
    rule = with_vjp(f, lambda res, w: (gradient(res[0], w),))
    result = quick(rule, X)
    assert result.verdict is Verdict.FAIL, str(result)
    assert where in result.reason
    assert dict(result.moved)[where] == "wrong"
    assert result.findings[0].point == where
    assert quick(rule, X, at="given").verdict is Verdict.PASS


def test_a_rule_that_is_wrong_for_two_arguments_at_once_fails():
    rule = jax.custom_jvp(lambda a, b: a * b)

    @rule.defjvp
    def _(point, tangents):
        (a, b), (va, vb) = point, tangents
        return a * b, a * vb + b * va + va * vb  # exact for steps, not a derivative

    result = quick(rule, X, X[::-1], at="given", modes=("forward",))
    assert result.verdict is Verdict.FAIL
    wrong = [g for g in result.findings if g.state == "differs"]
    assert [g.leaf for g in wrong] == ["all arguments together"]


def test_a_point_where_f_is_not_finite_is_counted_and_no_fault():
    result = quick(jnp.log, X)
    assert result.verdict is Verdict.PASS
    answers = [answer for _, answer in result.moved]
    assert answers == ["right", "right", "right", "not defined", "not defined"]
    assert "moved points: 3 right, 2 not defined" in str(result)


def test_an_infinite_or_missing_slope_at_a_moved_point_is_no_fault():
    for f in (lambda x: jnp.sqrt(x**2), lambda x: jnp.sum(jnp.cbrt(x)), jnp.floor):
        result = quick(f, X)
        assert result.verdict is Verdict.PASS, str(result)
        assert dict(result.moved)[TIES] == "undecided"


def test_a_rule_that_is_wrong_for_equal_arguments_is_found_there():
    def backward(args, w):
        x, y = args
        share = jnp.where(jnp.all(x == y), 0.5, 1.0)
        return share * w * y, share * w * x

    rule = with_vjp(lambda x, y: x * y, backward)
    result = quick(rule, X, X + 1)
    assert result.verdict is Verdict.FAIL
    assert EQUAL in result.reason
    assert quick(lambda x, y: jnp.maximum(x, y) * x, X, X + 1).verdict is Verdict.PASS


def test_equal_arguments_are_tried_only_where_shapes_agree():
    names = dict(moved((X, np.ones(3, np.float32)), np.random.default_rng(0)))
    assert EQUAL not in names
    one, two = dict(moved((X, 2 * X), np.random.default_rng(0)))[EQUAL]
    np.testing.assert_array_equal(one, two)


def test_where_f_ends_near_a_small_entry_entries_move_in_proportion_to_themselves():
    x = np.float32([1e-6, 1, 2])
    own = {"precision": "own", "at": "given"}
    right = quick(jnp.log, x, **own)
    assert right.verdict is Verdict.PASS
    assert any("in proportion" in note for note in right.notes)

    wrong = jax.custom_jvp(jnp.log)
    wrong.defjvps(lambda v, y, x: jnp.where(x < 1e-3, 1.1, 1.0).astype(x.dtype) * v / x)
    assert quick(wrong, x, **own).verdict is Verdict.FAIL


TIED = np.float32([[1, 3, 3], [2, 2, 0], [5, 1, 4]])


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (lambda x: jnp.max(x, axis=-1), (TIED,)),
        (jnp.maximum, (TIED, TIED)),
        (lambda a, b: jnp.where(a > b, a, b), (TIED, TIED)),
        (jnp.sort, (TIED,)),
        (jax.nn.relu, (TIED - 3,)),
    ],
    ids=["max", "maximum", "where", "sort", "relu"],
)
def test_a_share_of_the_gradient_for_every_tie_is_accepted(f, args):
    assert quick(f, *args, at="given").verdict is Verdict.PASS


@pytest.mark.parametrize("args", [(TIED,), (TIED, TIED)], ids=["one", "two"])
def test_the_whole_gradient_for_every_tie_is_not(args):
    def maximum(*args):
        return jnp.max(jnp.concatenate(args, axis=-1), axis=-1)

    def whole(args, w):
        return tuple((x == maximum(*args)[:, None]) * w[:, None] for x in args)

    result = quick(with_vjp(maximum, whole), *args, at="given")
    assert result.verdict is Verdict.FAIL


def summed_in_blocks(size):
    """The sine, with a rule that forgets what does not fill a block."""

    def backward(args, w):
        (x,) = args
        whole = x.size // size * size
        return ((w * jnp.cos(x)).at[whole:].set(0),)

    return with_vjp(jnp.sin, backward)


def test_a_last_block_that_is_not_full_is_met():
    result = check(summed_in_blocks(4), X, transformations=False)
    assert result.verdict is Verdict.FAIL
    assert "odd number of entries" in result.reason
    (place,) = result.locations
    assert place.total == len(X) - 1
    assert "last 3 of 7" in place.hint


def test_a_function_that_needs_its_shape_is_not_accused():
    def f(x):
        return summed_in_blocks(1)(x.reshape(2, 4))

    result = quick(f, X)
    assert result.verdict is Verdict.PASS
    assert dict(result.moved)["with an odd number of entries"] == "not defined"
