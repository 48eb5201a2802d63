"""Tolerances as `jax.test_util` takes them: numbers, by dtype, zero, or none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_derivatives import linear_call

from gradstab.testing import check_grads
from gradstab.testing.tolerances import tolerances

pytestmark = [pytest.mark.cases, pytest.mark.usefixtures("quick_compiler")]

X = np.linspace(-1, 1, 5, dtype=np.float32)
QUICK = {"at": "given", "transformations": False, "locate": False}


def scaled(factor, value=lambda x: jnp.tanh(x)):
    f = jax.custom_vjp(value)
    f.defvjp(
        lambda x: (value(x), x),
        lambda x, w: (factor * jax.vjp(value, x)[1](w)[0],),
    )
    return f


@pytest.mark.parametrize(
    ("dtype", "tolerance", "expected"),
    [
        (np.float32, {np.float32: 1e-2}, 1e-2),
        (np.float32, {"float32": 1e-2, "float64": 1e-9}, 1e-2),
        (np.float32, {jnp.dtype("float64"): 1e-9}, 2e-3),
        (np.float32, {}, 2e-3),
        (np.float32, None, 2e-3),
        (np.float32, 0.25, 0.25),
        (np.float16, {np.float32: 1e-2}, 1e-2),
        (jnp.bfloat16, {jnp.bfloat16: 0.3}, 0.3),
        (np.complex64, {np.complex64: 0.3, np.float32: 1e-9}, 0.3),
    ],
)
def test_the_value_of_the_dtype_of_the_arguments_counts(dtype, tolerance, expected):
    found = tolerances((X.astype(dtype), 3), tolerance, tolerance)
    assert found.rtol == found.atol == expected


def test_of_several_dtypes_the_larger_tolerance_counts_as_in_jax():
    both = X, X.astype(np.float16)
    assert tolerances(both, {np.float16: 0.1, np.float32: 1e-5}, None).rtol == 0.1
    with jax.enable_x64(True):
        assert tolerances((X.astype(np.float64),), None, None).rtol == 1e-5


def test_numbers_by_dtype_are_tolerances():
    off = scaled(1 - 0.5e-2)
    check_grads(off, (X,), 1, rtol={np.float32: 1e-2}, **QUICK)
    check_grads(off, (X,), 1, atol={np.float32: 0.1}, rtol={"float32": 0}, **QUICK)
    with pytest.raises(AssertionError, match="wrong reverse"):
        check_grads(off, (X,), 1, rtol={np.float64: 1e-2}, **QUICK)


def test_zero_is_a_tolerance_of_zero():
    none = {"rtol": 0, "atol": 0.0, "modes": "rev"} | QUICK
    check_grads(scaled(1.0), (X,), 1, **none)
    with pytest.raises(AssertionError, match="wrong reverse"):
        check_grads(scaled(1 + 1e-8), (X,), 1, **none)
    check_grads(scaled(1.05), (X,), 1, **none | {"atol": 1.0})


@pytest.mark.slow
def test_what_cannot_be_seen_is_no_tolerance_of_zero():
    def noisy(x):
        return 1e9 + jnp.tanh(x)

    with pytest.raises(AssertionError, match="INCONCLUSIVE"):
        check_grads(noisy, (X,), 1, modes="rev", rtol=0, atol=0, **QUICK)


def transform(error):
    """A linear function whose transpose is good to some digits, as fast ones are."""
    forth = np.random.default_rng(0).standard_normal((5, 7))
    back = forth * (1 + error)
    return lambda x: linear_call(
        lambda R, x: R[0] @ x,
        lambda R, y: R[1].T @ y,
        (jnp.asarray(forth), jnp.asarray(back)),
        x,
    )


@pytest.mark.parametrize(
    ("error", "rtol"),
    [(1e-9, 0.1), pytest.param(1e-11, 1e-3, marks=pytest.mark.slow), (1e-5, 1e-3)],
)
def test_a_law_that_is_broken_by_less_than_the_tolerance_is_accepted(error, rtol):
    x = np.linspace(-1, 1, 7)
    check_grads(transform(error), (x,), 1, rtol=rtol, atol=rtol, **QUICK)


@pytest.mark.parametrize("rtol", [1e-3, 1e-2])
def test_a_law_that_is_broken_by_more_is_not(rtol):
    with pytest.raises(AssertionError):
        check_grads(transform(0.1), (np.linspace(-1, 1, 7),), 1, rtol=rtol, **QUICK)


def until_it_moves_little(factor=1.0):
    """The limit of x = cos(x) / 2 + t, iterated in float32's tolerance."""

    def run(t):
        def step(c):
            return jnp.cos(c[0]) / 2 + t, c[0], c[2] + 1

        def goes_on(c):
            return (jnp.max(jnp.abs(c[0] - c[1])) > 1e-5) & (c[2] < 100)

        return jax.lax.while_loop(goes_on, step, (t, t + 1, 0))[0]

    f = jax.custom_vjp(run)
    f.defvjp(lambda t: (f(t),) * 2, lambda x, w: (factor * w / (1 + jnp.sin(x) / 2),))
    return f


def test_the_truncation_of_an_iteration_is_within_the_default():
    t = np.float32([0.3, 0.9])
    check_grads(until_it_moves_little(), (t,), 1, ["rev"], **QUICK)
    with pytest.raises(AssertionError, match="wrong reverse"):
        check_grads(until_it_moves_little(1.01), (t,), 1, ["rev"], **QUICK)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (lambda x: x**3, np.zeros(3)),
        pytest.param(
            lambda x: jnp.prod(x), np.float32([0, 0, 2]), marks=pytest.mark.slow
        ),
        pytest.param(lambda x: jnp.sin(x) ** 3, np.zeros(2), marks=pytest.mark.slow),
        (
            lambda x: jnp.linalg.det(x),
            np.outer([1, 2, 3], [1, 1, 2]).astype(np.float32),
        ),
    ],
)
def test_a_derivative_of_zero_is_within_an_absolute_tolerance(f, x):
    check_grads(f, (x,), 1, atol=0.1, rtol=0.1, **QUICK)
    wrong = jax.custom_vjp(f)
    wrong.defvjp(lambda x: (f(x), x), lambda x, w: (jnp.ones_like(x) * jnp.sum(w),))
    with pytest.raises(AssertionError):
        check_grads(wrong, (x,), 1, ["rev"], atol=0.1, rtol=0.1, **QUICK)
