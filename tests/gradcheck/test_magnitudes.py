"""A rule is finite wherever its function is, in the dtype of the arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import mostly_slow, quick, with_vjp

from gradstab.gradcheck import Verdict, check

pytestmark = pytest.mark.cases

X = np.linspace(-2, 3, 7, dtype=np.float32)


def softplus(x):
    return jnp.logaddexp(x, jnp.zeros_like(x))


def logistic(x):
    return jax.nn.sigmoid(x)


def naive_softplus(args, w):
    e = jnp.exp(args[0])
    return (w * e / (1 + e),)


def naive_logistic(args, w):
    e = jnp.exp(-args[0])
    return (w * e / (1 + e) ** 2,)


def naive_tanh(args, w):
    e = jnp.exp(2 * args[0])
    return (w * (1 - (e - 1) ** 2 / (e + 1) ** 2),)


def naive_weights(args, w):
    e = jnp.exp(args[0])
    return (w * e / jnp.sum(e),)


def naive_softmax(args, w):
    y = jnp.exp(args[0]) / jnp.sum(jnp.exp(args[0]))
    return (y * (w - jnp.sum(w * y)),)


@jax.custom_jvp
def silu(x):
    return jax.nn.silu(x)


@silu.defjvp
def _(point, tangents):
    (x,), (v,) = point, tangents
    e = jnp.exp(x)
    return silu(x), v * e * (1 + e + x) / (1 + e) ** 2


def scaled_softplus(x, b):
    return softplus(x) * b


def naive_scaled_softplus(args, w):
    x, b = args
    return w * b * jnp.exp(x) / (1 + jnp.exp(x)), jnp.sum(w * softplus(x))


NAIVE = {
    "softplus": (with_vjp(softplus, naive_softplus), X),
    "softplus in float64": (with_vjp(softplus, naive_softplus), np.float64(X)),
    "two branches": (
        with_vjp(lambda x: jnp.where(x > 20, x, jnp.log1p(jnp.exp(x))), naive_softplus),
        X,
    ),
    "logistic": (with_vjp(logistic, naive_logistic), X),
    "positive arguments": (with_vjp(logistic, naive_logistic), np.abs(X)),
    "tanh": (with_vjp(jnp.tanh, naive_tanh), X),
    "logsumexp": (with_vjp(lambda x: jax.nn.logsumexp(x), naive_weights), X),
    "softmax": (with_vjp(lambda x: jax.nn.softmax(x), naive_softmax), X),
    "one of two arguments": (
        with_vjp(scaled_softplus, naive_scaled_softplus),
        X,
        np.float32(2),
    ),
    "forward": (silu, X),
    "exponential": (
        with_vjp(jnp.exp, lambda a, w: (w * jnp.exp(2 * a[0]) / jnp.exp(a[0]),)),
        X,
    ),
    "logarithm": (
        with_vjp(jnp.log, lambda a, w: (w * a[0] / a[0] ** 2,)),
        np.abs(X) + np.float32(0.1),
    ),
}


@pytest.mark.parametrize(
    "case", mostly_slow(NAIVE, "softplus", "logistic", "logarithm", "exponential")
)
def test_a_rule_that_overflows_where_f_does_not_fails(case):
    f, *args = case
    result = quick(f, *args)
    assert result.verdict is Verdict.FAIL, str(result)
    assert "is not finite" in result.reason
    assert "entries near" in result.reason
    assert check(f, *args, at="given", transformations=False).verdict is Verdict.PASS


def normalized(x):
    return x * jax.lax.rsqrt(jnp.mean(x**2) + 1e-6)


def by_hand(args, w):
    (x,) = args
    r = jax.lax.rsqrt(jnp.mean(x**2) + 1e-6)
    return (r * w - x * jnp.mean(x * w) * r**3,)


OF_JAX = {
    "exp": jnp.exp,
    "cube": lambda x: x**3,
    "reciprocal": lambda x: 1 / x,
    "logarithm": jnp.log,
    "root": jnp.sqrt,
    "softplus": softplus,
    "logsumexp": lambda x: jax.nn.logsumexp(x),
    "norm": lambda x: jnp.linalg.norm(x),
    "gelu": lambda x: jax.nn.gelu(x),
    "tangent": jnp.tan,
    "normalized": normalized,
}


@pytest.mark.parametrize("f", mostly_slow(OF_JAX, "reciprocal", "logarithm", "gelu"))
def test_a_rule_is_not_accused_where_f_or_its_slope_ends(f):
    rule = with_vjp(f, lambda args, w: jax.vjp(f, *args)[1](w))
    result = quick(rule, np.abs(X) + np.float32(0.1))
    assert result.verdict is Verdict.PASS, str(result)


def test_a_branch_that_overflows_in_f_itself_fails():
    def f(x):
        return jnp.where(x > 20, x, jnp.log1p(jnp.exp(x)))

    result = quick(f, X)
    assert result.verdict is Verdict.FAIL, str(result)
    assert "is not finite" in result.reason
    safe = quick(
        lambda x: jnp.where(x > 20, x, jnp.log1p(jnp.exp(jnp.minimum(x, 20)))), X
    )
    assert safe.verdict is Verdict.PASS, str(safe)


def test_a_formula_for_a_norm_is_not_accused_where_squares_end():
    result = quick(with_vjp(normalized, by_hand), X)
    assert result.verdict is Verdict.PASS, str(result)
    assert dict(result.moved)["with entries of any size in float32"] == "right"


def test_the_fault_of_what_is_around_a_rule_is_a_note():
    double = with_vjp(lambda x: 2 * x, lambda args, w: (2 * w,))

    def f(x):
        return double(jnp.where(x > 20, x, jnp.log1p(jnp.exp(x))))

    result = quick(f, X)
    assert result.verdict is Verdict.PASS, str(result)
    assert "without its custom rules" in " ".join(result.notes)
