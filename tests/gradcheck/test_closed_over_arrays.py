"""A function may close over an array of NumPy's, in any dtype and precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from gradstab.gradcheck import check
from gradstab.gradcheck.findings import Verdict

pytestmark = pytest.mark.cases

SCALE = np.array([0.5, 1.0, 2.0])
PLACES = np.array([2, 0, 1])


def scaled(x):
    return jnp.sin(x * SCALE.astype(x.dtype) + jnp.asarray(SCALE, x.dtype))


def by_rule(factor):
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x * SCALE)

    def backward(x, w):
        return (factor * w * SCALE * jnp.cos(x * SCALE),)

    f.defvjp(lambda x: (f(x), x), backward)
    return f


FUNCTIONS = {
    "product": lambda x: jnp.sin(x * SCALE),
    "cast": scaled,
    "indices": lambda x: jnp.take(x, PLACES) ** 2,
    "under jit": jax.jit(lambda x: jnp.exp(x + SCALE)),
    "rule": by_rule(1.0),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_that_closes_over_an_array_is_checked(name, dtype):
    f, x = FUNCTIONS[name], np.linspace(0.1, 1.0, 3).astype(dtype)
    with jax.numpy_dtype_promotion("standard"):
        jax.jit(f)(x)  # as its user did before
        assert check(f, x, transformations=False).verdict is Verdict.PASS
        assert jax.jit(lambda x: f(x))(x).dtype == jnp.float32


def test_a_wrong_rule_that_closes_over_an_array_fails():
    with jax.numpy_dtype_promotion("standard"):
        result = check(by_rule(1.01), np.float32([0.1, 0.5, 1.0]), locate=False)
    assert result.verdict is Verdict.FAIL


def test_a_model_that_closes_over_an_array_is_analysed():
    weights = np.random.default_rng(0).standard_normal((2, 4, 4)) / 2

    def apply(bias, x):
        for w, b in zip(weights, bias, strict=True):
            x = jnp.tanh(x @ w + b[None])
        return x

    bias, x = np.zeros((2, 4)), np.ones((3, 4))
    with jax.numpy_dtype_promotion("standard"):
        jax.jit(apply)(bias, x)
        assert gs.analyze(apply, bias, x).layers[0].forward_rms > 0
