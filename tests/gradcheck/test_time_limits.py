"""A check ends: in loops that do not, and at the limit of its time."""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from gradstab import Verdict
from gradstab.gradcheck.subject.time_limit import (
    OutOfTimeError,
    still_in_time,
    time_limit,
)

pytestmark = pytest.mark.cases

quick = functools.partial(gs.check, transformations=False, locate=False)


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
