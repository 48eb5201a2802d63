"""`check_grads` takes what `jax.test_util.check_grads` takes, and is right."""

import inspect

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from gradstab.testing import check_grads

pytestmark = pytest.mark.usefixtures("quick_compiler")

X = np.linspace(-1, 1, 5, dtype=np.float32)
QUICK = {"at": "given", "transformations": False, "locate": False}


def scaled(factor, value=lambda x: jnp.tanh(x)):
    """Tanh with a VJP that is off by a factor."""
    f = jax.custom_vjp(value)
    f.defvjp(
        lambda x: (value(x), x),
        lambda x, w: (factor * jax.vjp(value, x)[1](w)[0],),
    )
    return f


def test_the_signature_is_that_of_jax():
    ours, theirs = map(inspect.signature, (check_grads, jax.test_util.check_grads))
    names = list(theirs.parameters)
    assert list(ours.parameters)[: len(names)] == names
    for name in names:
        assert ours.parameters[name].default == theirs.parameters[name].default


def test_right_gradients_pass_without_a_word():
    check_grads(jnp.tanh, (X,), 1)
    check_grads(jnp.tanh, [X], order=1, modes="rev", eps=1e-3, **QUICK)


@pytest.mark.slow
def test_a_zero_gradient_of_a_small_function_raises_here_and_not_in_jax():
    small = scaled(0.0, lambda x: 1e-4 * jnp.sum(x**2))
    jax.test_util.check_grads(small, (X,), 1, modes=("rev",))
    with pytest.raises(AssertionError, match="wrong reverse derivative"):
        check_grads(small, (X,), 1, modes=("rev",), **QUICK)


def test_the_forward_mode_of_a_custom_vjp_is_left_out():
    check_grads(scaled(1.0), (X,), 1, **QUICK)
    with pytest.raises(TypeError, match="forward"):
        check_grads(scaled(1.0), (X,), 1, modes=("fwd",), **QUICK)


@pytest.mark.slow
def test_linearised_is_forward():
    half = jax.custom_jvp(jnp.tanh)
    half.defjvp(lambda x, v: (jnp.tanh(*x), (1 - jnp.tanh(x[0])) * v[0]))
    with pytest.raises(AssertionError, match="wrong forward derivative"):
        check_grads(half, (X,), 1, modes=("lin",), **QUICK)


@pytest.mark.parametrize(
    ("error", "rtol"),
    [(0.5e-2, 1e-2), pytest.param(0.9e-3, 1e-3, marks=pytest.mark.slow)],
)
def test_errors_up_to_the_relative_tolerance_are_accepted(error, rtol):
    check_grads(scaled(1 - error), (X,), 1, rtol=rtol, **QUICK)
    with pytest.raises(AssertionError):
        check_grads(scaled(1 - 2.5 * error), (X,), 1, rtol=rtol, **QUICK)


@pytest.mark.parametrize(
    ("dtype", "error"),
    [(np.float32, 0.5e-2), pytest.param(jnp.bfloat16, 1e-2, marks=pytest.mark.slow)],
)
def test_larger_errors_than_the_default_of_the_dtype_are_not_accepted(dtype, error):
    """In bfloat16 the original allows a tenth, which its differences need."""
    with pytest.raises(AssertionError):
        check_grads(scaled(1 - error), (X.astype(dtype),), 1, **QUICK)
    check_grads(scaled(1 - error / 10), (X.astype(dtype),), 1, **QUICK)


@pytest.mark.slow
def test_errors_up_to_the_absolute_tolerance_are_accepted():
    """The Jacobian is diagonal with 2 x: of norm 2 |X|, and an error of 1 % of that."""
    f = scaled(0.99, lambda x: x**2)
    norm = 2 * np.linalg.norm(X)
    # The norm is estimated from eight directions: a standard error below one half.
    check_grads(f, (X,), 1, atol=0.05 * norm, **QUICK)
    with pytest.raises(AssertionError):
        check_grads(f, (X,), 1, atol=0.002 * norm, **QUICK)


@pytest.mark.slow
def test_the_absolute_tolerance_follows_the_scale_of_the_function():
    check_grads(scaled(0.5, lambda x: 1e-6 * x), (X,), 1, atol=1e-4, **QUICK)
    with pytest.raises(AssertionError):
        check_grads(scaled(0.5, lambda x: 1e6 * x), (X,), 1, atol=1e-4, **QUICK)


@pytest.mark.slow
def test_the_absolute_tolerance_is_that_of_every_leaf_by_itself():
    """The Jacobian in x has norm 1e-3 sqrt(5): half of it is below 1e-2."""

    def f(x, y):
        return 1e-3 * x + 1e4 * y

    half = jax.custom_vjp(f)
    half.defvjp(lambda x, y: (f(x, y), None), lambda _, w: (0.5e-3 * w, 1e4 * w))
    check_grads(half, (X, X), 1, atol=1e-2, **QUICK)


def test_tolerances_excuse_no_value_that_is_not_that_of_the_function():
    f = jax.custom_vjp(jnp.tanh)
    f.defvjp(
        lambda x: (jnp.tanh(x) + 0.1, x),
        lambda x, w: (0.995 * w * (1 - jnp.tanh(x) ** 2),),
    )
    with pytest.raises(AssertionError):
        check_grads(f, (X,), 1, rtol=1e-2, **QUICK)


def test_tolerances_excuse_no_gradient_that_is_not_finite():
    with pytest.raises(AssertionError):
        check_grads(scaled(np.nan), (X,), 1, atol=1e3, rtol=0.4, **QUICK)


@pytest.mark.slow
def test_what_cannot_be_seen_raises_unless_told_to_warn():
    def saturated(x):
        return jax.nn.sigmoid(x + 40)

    with pytest.raises(AssertionError, match="INCONCLUSIVE"):
        check_grads(saturated, (X,), 1, **QUICK)
    with pytest.warns(UserWarning, match="INCONCLUSIVE"):
        check_grads(saturated, (X,), 1, inconclusive="warn", **QUICK)


def detached(order):
    """The cube with derivatives that are right below an order, and wrong from it on."""

    def slope(x):
        return 3 * x**2 if order > 2 else jax.lax.stop_gradient(3 * x**2)

    if order > 2:
        inner = jax.custom_jvp(lambda x: 3 * x**2)
        inner.defjvp(lambda x, v: (inner(*x), jax.lax.stop_gradient(6 * x[0]) * v[0]))
        slope = inner
    f = jax.custom_jvp(lambda x: x**3)
    f.defjvp(lambda x, v: (f(*x), slope(x[0]) * v[0]))
    return f


@pytest.mark.slow
@pytest.mark.parametrize("wrong_from", [2, 3])
def test_derivatives_up_to_the_order_are_checked(wrong_from):
    f = detached(wrong_from)
    check_grads(f, (X,), wrong_from - 1, **QUICK)
    with pytest.raises(AssertionError):
        check_grads(f, (X,), wrong_from, **QUICK)


def test_unknown_modes_and_orders_are_refused():
    with pytest.raises(ValueError, match=r"some of \('fwd', 'lin', 'rev'\)"):
        check_grads(jnp.sin, (X,), 1, modes=("reverse",))
    with pytest.raises(ValueError, match="order is not negative"):
        check_grads(jnp.sin, (X,), -1)
    with pytest.raises(ValueError, match="inconclusive is one of"):
        check_grads(jnp.sin, (X,), 1, inconclusive="ignore")
