"""Integers, masks and counts are varied, and if not, that is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import quick, with_vjp

from gradstab.gradcheck import Verdict
from gradstab.gradcheck.elsewhere import INTEGERS
from gradstab.gradcheck.subject.other_integers import not_varied, other_integers

pytestmark = pytest.mark.cases

X = np.random.default_rng(0).standard_normal(8, np.float32)
ALL = np.ones(8, bool)
EACH = np.arange(8)


def masked(x, mask):
    return jnp.where(mask, x * x, 0)


def gathered(x, ids):
    return 2 * x[ids]


def summed(x, ids):
    return jax.ops.segment_sum(jnp.sin(x), ids, 8)


def cut(x, length):
    return jnp.where(jnp.arange(8) < length, jnp.sin(x), 0)


def forgets_the_length(args, w):
    return w * jnp.cos(args[0]), None


def cut_at(x, length):
    rule = with_vjp(lambda x: cut(x, length), lambda args, w: (w * jnp.cos(args[0]),))
    return rule(x)


def cross_entropy(x, labels):
    chosen = jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], axis=1)
    return -jnp.sum(chosen)


def without_label_0(args, w):
    x, labels = args
    target = jax.nn.one_hot(labels, x.shape[1], dtype=x.dtype).at[:, 0].set(0)
    return w * (jax.nn.softmax(x) - target), None


WRONG = {
    "a label that none of the examples has": (
        with_vjp(cross_entropy, without_label_0),
        X.reshape(2, 4),
        np.array([3, 1]),
    ),
    "mask": (with_vjp(masked, lambda a, w: (2 * w * a[0], None)), X, ALL),
    "gather": (
        with_vjp(
            gathered, lambda a, w: (jnp.zeros(8, w.dtype).at[a[1]].set(2 * w), None)
        ),
        X,
        EACH,
    ),
    "segments": (
        with_vjp(summed, lambda a, w: (w * jnp.cos(a[0]), None)),
        X,
        EACH,
    ),
    "length of an array": (with_vjp(cut, forgets_the_length), X, np.int32(8)),
    "length in Python": (cut_at, X, 8),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_a_rule_that_ignores_what_is_not_floating_fails(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.FAIL, str(result)
    assert dict(result.moved)[INTEGERS] == "wrong"


RIGHT = {
    "mask": (
        with_vjp(masked, lambda a, w: (jnp.where(a[1], 2 * w * a[0], 0), None)),
        X,
        ALL,
    ),
    "gather": (
        with_vjp(
            gathered, lambda a, w: (jnp.zeros(8, w.dtype).at[a[1]].add(2 * w), None)
        ),
        X,
        EACH,
    ),
    "segments": (
        with_vjp(summed, lambda a, w: (w[a[1]] * jnp.cos(a[0]), None)),
        X,
        EACH,
    ),
}


@pytest.mark.parametrize("case", RIGHT.values(), ids=RIGHT.keys())
def test_a_rule_for_all_integers_and_masks_passes(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.PASS, str(result)
    assert dict(result.moved)[INTEGERS] == "right"
    assert "not varied" not in " ".join(result.notes)


def test_what_f_is_defined_for_alone_is_kept_with_a_note():
    def f(x, mask):
        if not np.all(mask):
            raise ValueError("a full mask is needed")
        return with_vjp(jnp.sin, lambda args, w: (w * jnp.cos(args[0]),))(x)

    result = quick(f, X, ALL)
    assert result.verdict is Verdict.PASS, str(result)
    assert dict(result.moved)[INTEGERS] == "not defined"
    assert any("not varied: args[1] (mask, all true)" in n for n in result.notes)


def test_other_integers_are_those_that_may_be_there_with_repetitions():
    ids, labels = np.array([3, 1, 2, 7]), np.int32([2, 2, 2])
    args = X, ids, labels, np.array([0, 2, 5, 6]), 8, True, "name", 5
    new, known, *_ = other_integers(args, np.random.default_rng(0), counts=True)
    assert set(new[1]) <= set(range(8))
    assert 0 in new[1]
    assert set(known[1]) <= set(ids)
    assert len(set(new[1])) < len(ids)
    assert set(new[2]) <= {1, 2}
    assert new[2].dtype == np.int32
    assert np.all(np.diff(new[3]) >= 0)
    assert new[4:] == (4, True, "name", 5)  # the length of X is halved, no other number
    np.testing.assert_array_equal(new[0], X)


def test_no_row_of_a_mask_is_left_empty():
    mask = np.tril(np.ones((8, 8), bool))
    ((new,),) = list(other_integers((mask,), np.random.default_rng(0), counts=True))[:1]
    assert np.all(np.any(new, axis=-1))
    assert np.any(new != mask)


def test_what_is_not_varied_is_named():
    args = X, ALL, EACH, {"n": np.int32(1)}
    assert not_varied(args, all_kept=True) == [
        "args[1] (mask, all true)",
        "args[2] (integers without duplicates)",
        "args[3].n (a count)",
    ]
    assert not_varied(args, all_kept=False) == ["args[3].n (a count)"]
    assert not list(
        other_integers((X, 3.0, None), np.random.default_rng(0), counts=True)
    )
