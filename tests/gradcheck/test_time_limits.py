"""A check ends: in loops that do not, and at the limit of its time."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import quick

import gradstab as gs
from gradstab import Verdict, testing
from gradstab.gradcheck.subject.time_limit import (
    OutOfTimeError,
    share_of_time,
    still_in_time,
    time_limit,
)

pytestmark = pytest.mark.cases


def powers(t):
    """1, t, t^2, ... until it is small: for ever if t is one or more."""
    return jax.lax.while_loop(
        lambda x: jnp.max(jnp.abs(x)) > 1e-6, lambda x: t * x, jnp.ones_like(t)
    )


def halvings(t):
    """Subtracts t until nothing is left: for ever if t is zero or less."""
    left = jax.lax.while_loop(lambda x: x > 0, lambda x: x - t, jnp.ones_like(t))
    return t**2 + 0 * left


def search(t):
    """Doubles until it is large, from t: for ever from zero."""
    end = jax.lax.while_loop(lambda x: x < 100, lambda x: 2 * x, t)
    return jnp.sin(t) + jax.lax.stop_gradient(end * 0)


ENDLESS_ELSEWHERE = {
    "powers": (powers, np.float32([0.05, 0.2])),
    "subtractions": (halvings, np.float32(0.3)),
    "doublings": (search, np.float32(3)),
}


@pytest.mark.parametrize(
    ("f", "x"), ENDLESS_ELSEWHERE.values(), ids=ENDLESS_ELSEWHERE.keys()
)
def test_a_loop_that_does_not_end_elsewhere_is_not_waited_for(f, x):
    rule = jax.custom_vjp(f)
    rule.defvjp(
        lambda t: (f(t), t),
        lambda t, w: jax.vjp(lambda t: t**2 if f is halvings else jnp.sin(t), t)[1](w),
    )
    result = quick(rule if f is not powers else powers, x)
    assert result.verdict is not Verdict.FAIL, str(result)
    assert "not defined" in dict(result.moved).values()


def test_a_rule_that_does_not_end_elsewhere_is_not_waited_for():
    rule = jax.custom_vjp(jnp.sin)
    rule.defvjp(
        lambda t: (jnp.sin(t), t),
        lambda t, w: (w * jnp.cos(t) + 0 * powers(t / 20),),
    )
    result = quick(rule, np.float32([1, 2]))
    assert result.verdict is not Verdict.FAIL, str(result)


def slow(seconds):
    def sleeps(x):
        time.sleep(seconds)
        return np.sin(x)

    @jax.custom_jvp
    def f(x):
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(sleeps, like, x, vmap_method="sequential")

    f.defjvp(lambda x, v: (f(*x), jnp.cos(x[0]) * v[0]))
    return f


def test_a_check_out_of_time_is_inconclusive_and_says_so():
    start = time.monotonic()
    result = quick(slow(0.01), np.float64([0.3, 0.5]), max_seconds=0.3)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "within max_seconds=0.3" in result.reason
    assert time.monotonic() - start < 20


def test_a_function_in_python_is_stopped_between_two_calls():
    def f(x):
        time.sleep(0.02)
        return x**2 if x > 0 else -x

    start = time.monotonic()
    result = quick(f, np.float32(0.3), max_seconds=0.5)
    assert result.verdict is Verdict.INCONCLUSIVE, str(result)
    assert "max_seconds=0.5" in result.reason
    assert time.monotonic() - start < 10


def test_what_was_found_wrong_in_time_stays_wrong():
    rule = jax.custom_jvp(jnp.sin)
    rule.defjvp(lambda x, v: (jnp.sin(*x), 2 * jnp.cos(x[0]) * v[0]))
    assert gs.check(rule, np.float32([1, 2]), max_seconds=60).verdict is Verdict.FAIL


def test_enough_time_changes_nothing():
    x = np.float32([0.3, 0.5])
    free, limited = quick(jnp.sin, x), quick(jnp.sin, x, max_seconds=1000)
    assert str(free) == str(limited)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_limit_that_is_not_positive_is_refused(seconds):
    with pytest.raises(ValueError, match="max_seconds"):
        gs.check(jnp.sin, 1.0, max_seconds=seconds)


def test_of_two_limits_the_earlier_holds():
    with time_limit(1e-9), time_limit(1000):
        time.sleep(0.001)
        with pytest.raises(OutOfTimeError):
            still_in_time()
    still_in_time()


def test_what_one_does_not_use_of_its_share_of_the_time_is_left_to_the_next():
    with time_limit(0.4):
        with share_of_time(2):
            still_in_time()
        with share_of_time(1):
            time.sleep(0.25)
            still_in_time()
        with share_of_time(4):
            time.sleep(0.1)
            with pytest.raises(OutOfTimeError, match="its share of max_seconds"):
                still_in_time()
        still_in_time()


def two_rules(x):
    return slow(0.02)(x) + slow(0.03)(jnp.sum(x))


def test_an_audit_out_of_time_lists_every_rule_and_says_why_it_is_open():
    start = time.monotonic()
    found = gs.audit(two_rules, np.array([0.3, 0.5]), max_seconds=0.5)
    assert time.monotonic() - start < 20
    assert len(found.rules) == 2
    for rule in found.rules:
        assert rule.check.verdict is Verdict.INCONCLUSIVE
        assert "max_seconds=0.5" in rule.check.reason


def test_an_audit_in_time_says_what_it_says_without_a_limit():
    x = np.array([0.3, -0.5], np.float32)
    free, limited = (gs.audit(jax.nn.relu, x, max_seconds=s) for s in (None, 1000))
    assert str(free) == str(limited)


def test_an_audit_refuses_a_limit_that_is_not_positive():
    with pytest.raises(ValueError, match="max_seconds"):
        gs.audit(jax.nn.relu, np.array([1.0], np.float32), max_seconds=0)


@pytest.mark.parametrize("assertion", ["assert_grads", "check_grads", "check_jvp"])
def test_an_assertion_out_of_time_raises_that_it_is_inconclusive(assertion):
    f, x = slow(0.02), np.array([0.3, 0.5])
    calls = {
        "assert_grads": lambda: testing.assert_grads(f, x, max_seconds=0.4),
        "check_grads": lambda: testing.check_grads(f, (x,), 3, max_seconds=0.4),
        "check_jvp": lambda: testing.check_jvp(
            f, functools.partial(jax.jvp, f), (x,), max_seconds=0.4
        ),
    }
    start = time.monotonic()
    with pytest.raises(AssertionError, match=r"INCONCLUSIVE.*\bmax_seconds=0\.4"):
        calls[assertion]()
    assert time.monotonic() - start < 20
