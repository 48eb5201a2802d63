"""What the arguments do not move costs a check no digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.gradcheck import Verdict, check

pytestmark = [pytest.mark.cases, pytest.mark.usefixtures("quick_compiler")]

X = np.linspace(-1, 1, 6, dtype=np.float32)
MATRIX = np.float32([[3, 1, 0], [1, 4, 2], [0.5, 0, 5]])
ONE = np.float32(1)


def in_a_rule(factor=1.0):
    def value(x):
        return jnp.sin(x), jnp.asarray(2.0, jnp.float32)

    f = jax.custom_vjp(value)
    f.defvjp(lambda x: (f(x), x), lambda x, w: (factor * jnp.cos(x) * w[0],))
    return f


BESIDE = {
    "a number": lambda x: (jnp.sin(x), ONE),
    "an array": lambda x: (jnp.sin(x), jnp.ones(3, jnp.bfloat16)),
    "computed": lambda x: (jnp.sin(x), jnp.asarray(2.0, jnp.float32) * 3),
    "a count": lambda x: (jnp.sin(x), jnp.sum(x > 0).astype(jnp.float32)),
    "a mask": lambda x: {"y": jnp.sin(x), "positive": (x > 0).astype(jnp.float16)},
    "in a jitted function": jax.jit(lambda x: (jnp.sin(x), ONE)),
    "in a rule": in_a_rule(),
    "steps of a loop": lambda x: jax.lax.fori_loop(
        0, 3, lambda _, c: (jnp.sin(c[0]), c[1]), (x, ONE)
    )[0],
    "used inside": lambda x: (
        jnp.sin(x) * jnp.asarray(1.5, jnp.bfloat16).astype(x.dtype)
    ),
}
OPTIONS = {"transformations": False, "locate": False, "at": "given"}


@pytest.mark.parametrize("f", BESIDE.values(), ids=BESIDE.keys())
def test_a_narrow_number_that_the_arguments_do_not_move_costs_no_digits(f):
    result = check(f, X, **OPTIONS)
    assert result.verdict is Verdict.PASS, str(result)
    assert result.precision == "float64"
    assert result.resolution < 1e-9
    assert not any("float64" in note for note in result.notes)


def test_a_solver_with_a_constant_beside_is_as_sharp_as_without():
    def beside(a, b):
        return jnp.linalg.solve(a, b), ONE

    assert check(beside, MATRIX, X[:3], **OPTIONS).resolution < 1e-8


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (jnp.sin(x), jnp.cos(x).astype(jnp.float32)),
        lambda x: (jnp.sin(x), jax.jit(lambda y: (y.astype(jnp.float32), ONE))(x)[0]),
        lambda x: jnp.sin(x.astype(jnp.float32)).astype(x.dtype),
    ],
)
def test_a_narrow_number_that_the_arguments_move_still_counts(f):
    result = check(f, X, **OPTIONS)
    assert any("rounds to float32" in note for note in result.notes)
    assert result.verdict is Verdict.PASS, str(result)


def test_a_wrong_rule_with_a_constant_beside_fails():
    f = in_a_rule(factor=1 + 1e-5)
    assert check(f, X, **OPTIONS).verdict is Verdict.FAIL


def test_a_rule_that_gives_a_constant_a_derivative_fails():
    f = jax.custom_vjp(lambda x: (jnp.sin(x), ONE))
    f.defvjp(
        lambda x: (f(x), x), lambda x, w: (jnp.cos(x) * w[0] + w[1].astype(x.dtype),)
    )
    assert check(f, X, **OPTIONS).verdict is Verdict.FAIL


def test_nothing_but_a_constant_has_the_derivative_zero():
    assert check(lambda x: ONE, X, **OPTIONS).verdict is Verdict.PASS
