"""Oracles besides the differences: a reference, an expectation, the body, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import compared, with_vjp

from gradstab.gradcheck import Verdict
from gradstab.gradcheck.findings import BODY, EXPECTED, REFERENCE, ROUNDING

X = np.random.default_rng(0).standard_normal(8, np.float32)


def by_oracle(result, oracle):
    return [g for g in result.findings if g.oracle == oracle]


def straight_through(x):
    return x + jax.lax.stop_gradient(jnp.round(x) - x)


def test_a_straight_through_estimator_passes_if_its_gradient_is_expected():
    result = compared(straight_through, 3 * X, expect=lambda x: x)
    assert result.verdict is Verdict.PASS
    assert {g.oracle for g in result.findings} == {EXPECTED, ROUNDING}
    assert compared(straight_through, 3 * X).verdict is not Verdict.PASS


def test_a_gradient_that_is_not_the_expected_one_fails():
    result = compared(straight_through, 3 * X, expect=lambda x: 1.01 * x)
    assert result.verdict is Verdict.FAIL
    # Right by the differences, and still not what is meant.
    assert compared(jnp.sin, X, expect=lambda x: x).verdict is Verdict.FAIL


def test_a_reference_is_one_more_oracle():
    result = compared(jnp.tanh, X, reference=lambda x: 1 - 2 / (1 + jnp.exp(2 * x)))
    assert result.verdict is Verdict.PASS
    assert len(by_oracle(result, REFERENCE)) == 2
    assert len([g for g in result.findings if "differences" in g.oracle]) == 2


@pytest.mark.slow
def test_a_reference_decides_where_differences_see_nothing():
    def noisy(x):
        return 1e8 + jnp.sin(x.astype(jnp.float32))

    for factor, verdict in ((1.0, Verdict.PASS), (1.05, Verdict.FAIL)):
        slope = lambda res, w, k=factor: (k * w * jnp.cos(res[0]),)  # noqa: E731
        rule = with_vjp(lambda x: noisy(x), slope)
        own = {"precision": "own"}
        assert compared(rule, X, **own).verdict is Verdict.INCONCLUSIVE or factor == 1.0
        assert compared(rule, X, reference=noisy, **own).verdict is verdict
        assert compared(rule, X, reference=noisy).verdict is verdict


@pytest.mark.slow
def test_the_body_of_a_rule_acquits_where_differences_see_nothing():
    def f(x):
        return 1e8 + jnp.sin(x.astype(jnp.float32))

    right = with_vjp(f, lambda res, w: (w * jnp.cos(res[0]),))
    result = compared(right, X, precision="own")
    assert result.verdict is Verdict.PASS, str(result)
    assert by_oracle(result, BODY)
    wrong = with_vjp(f, lambda res, w: (1.05 * w * jnp.cos(res[0]),))
    assert compared(wrong, X).verdict is Verdict.FAIL
    result = compared(wrong, X, precision="own")
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "own body" in result.reason


def test_a_rule_that_is_better_than_its_body_is_not_accused():
    # The body's derivative is 0 / 0 at zero; the rule knows the limit.
    def sinc(x):
        return jnp.where(x == 0, 1.0, jnp.sin(x) / x)

    def slope(res, w):
        (x,) = res
        safe = jnp.where(x == 0, 1.0, x)
        return (jnp.where(x == 0, 0, w * (jnp.cos(x) - sinc(x)) / safe),)

    point = X.copy()
    point[0] = 0
    result = compared(with_vjp(sinc, slope), point)
    assert result.verdict is Verdict.PASS, str(result)


def test_digits_that_a_rule_loses_in_its_own_dtype_are_found():
    def careless(res, w):
        return (w * (1 - 1 / (1 + jnp.exp(-res[0]))),)  # right, but for float32

    rule = with_vjp(lambda x: jax.nn.log_sigmoid(x), careless)
    result = compared(rule, 15 + X)
    assert result.verdict is Verdict.FAIL, str(result)
    assert "loses its digits" in result.reason
    assert result.findings[0].oracle == ROUNDING
    assert all(g.state == "agrees" for g in result.findings if g.oracle != ROUNDING)
    assert compared(jax.nn.log_sigmoid, 15 + X).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda x: jax.nn.sigmoid(x), 16 + X),
        (lambda x: jnp.sin((x + 1e6) - 1e6), X),
        (lambda x: jax.nn.relu(x - jnp.mean(x)), np.full(8, 0.1, np.float32)),
    ],
    ids=["saturated", "cancelled", "kink"],
)
def test_digits_that_the_function_loses_too_are_no_fault_of_the_rule(f, x):
    result = compared(f, x)
    assert result.verdict is not Verdict.FAIL, str(result)
    assert all(g.state != "differs" for g in by_oracle(result, ROUNDING))


def test_nothing_is_said_of_rounding_where_the_arguments_are_in_float64():
    with jax.enable_x64(True):
        result = compared(jnp.tanh, np.float64(X))
    assert not by_oracle(result, ROUNDING)


def test_the_precision_asked_for_is_the_one_that_is_used():
    assert compared(jnp.tanh, X).precision == "float64"
    own = compared(jnp.tanh, X, precision="own")
    assert own.precision == "float32"
    assert own.verdict is Verdict.PASS

    def spectrum(x):
        return jnp.real(jnp.fft.fft(x.astype(jnp.float32)))

    with pytest.raises(TypeError, match=r"cannot be checked in float64.*rounds"):
        compared(spectrum, X, precision="float64")


def test_differences_of_float32_are_accumulated_in_float64():
    # 1e5 outputs that cancel in the sum, but for their derivative.
    def f(x):
        return jnp.outer(x, jnp.ones(10_000, x.dtype))

    result = compared(f, X, precision="own")
    # An exact function: nothing but the differences' own arithmetic could lose digits.
    assert result.resolution < 1e-5


@pytest.mark.slow
def test_a_rule_that_is_not_finite_where_its_body_is_fails_however_coarse_the_dtype():
    def inverse_of_the_large(x):
        large = jnp.abs(x) > 0.5
        return jnp.where(large, 1 / jnp.where(large, x, 1), 0)

    rule = with_vjp(
        inverse_of_the_large,
        lambda args, w: ((jnp.abs(args[0]) > 0.5) * (-w / args[0] ** 2),),
    )

    def coarse(f):
        return lambda x: f(x.astype(jnp.bfloat16)).astype(x.dtype)

    x = np.float32([0, 1, 2, -3])
    assert compared(coarse(rule), x).verdict is Verdict.FAIL
    result = compared(coarse(rule), x, precision="own")
    assert result.verdict is Verdict.FAIL
    assert any(np.isinf(g.error) and g.oracle == BODY for g in result.findings)
    assert compared(coarse(inverse_of_the_large), x).verdict is not Verdict.FAIL
