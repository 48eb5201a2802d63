"""Whatever `jax.test_util` can be called with: here nothing else is to be changed."""

import functools
import inspect

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from gradstab import testing
from gradstab.testing import check_grads, check_jvp, check_vjp

pytestmark = [pytest.mark.cases, pytest.mark.usefixtures("quick_compiler")]

X = np.linspace(-1, 1, 5, dtype=np.float32)
QUICK = {"at": "given", "transformations": False, "locate": False}


def doubled():
    f = jax.custom_vjp(jnp.tanh)
    f.defvjp(lambda x: (f(x), x), lambda x, w: (2 * w * (1 - jnp.tanh(x) ** 2),))
    return f


@pytest.mark.parametrize("name", ["check_jvp", "check_vjp"])
def test_the_signatures_are_those_of_jax(name):
    ours = inspect.signature(getattr(testing, name)).parameters
    theirs = inspect.signature(getattr(jax.test_util, name)).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    assert ours["err_msg"].default == theirs["err_msg"].default


@pytest.mark.parametrize(
    "modes", [("rev",), ["rev"], {"rev"}, "rev", ("rev", "lin")], ids=str
)
def test_modes_come_in_any_collection(modes):
    with pytest.raises(AssertionError, match="wrong reverse"):
        check_grads(doubled(), (X,), 1, modes, **QUICK)


def test_modes_may_be_drawn_from_a_generator():
    with pytest.raises(AssertionError, match="wrong reverse"):
        check_grads(doubled(), (X,), 1, (m for m in ("fwd", "rev")), **QUICK)


@pytest.mark.parametrize("modes", [(), [], iter(())], ids=["tuple", "list", "iterator"])
def test_without_modes_nothing_is_checked(modes):
    check_grads(doubled(), (X,), 1, modes)
    jax.test_util.check_grads(doubled(), (X,), 1, modes)


def test_order_zero_is_order_one():
    check_grads(jnp.sin, (X,), 0, **QUICK)
    with pytest.raises(AssertionError, match="wrong reverse"):
        check_grads(doubled(), (X,), 0, ("rev",), **QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("order", [3, 4])
def test_high_orders_are_checked(order):
    check_grads(jnp.sin, (X[:2],), order, ("rev",), **QUICK)


EMPTY = np.zeros((0, 3), np.float32)


@pytest.mark.parametrize(
    ("f", "args"),
    [
        (jnp.sin, (EMPTY,)),
        (lambda x: x[:0], (X,)),
        (lambda x, n: x * n, (EMPTY, np.int32(3))),
        (lambda x: {"a": x["x"][:0], "b": jnp.zeros(0)}, ({"x": X},)),
        (lambda x, y: jnp.concatenate([x, y]), (EMPTY, EMPTY)),
    ],
)
def test_empty_arrays_pass(f, args):
    check_grads(f, args, 1)


def test_what_an_empty_call_raises_is_raised():
    with pytest.raises(TypeError, match="add got incompatible shapes"):
        check_grads(lambda x: jax.lax.add(x, jnp.zeros((4, 5))), (EMPTY,), 1)


def test_no_floating_argument_is_no_empty_one():
    with pytest.raises(ValueError, match="nothing to check"):
        check_grads(lambda n: n * 2, (np.arange(3),), 1)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (jnp.sin, np.float32([np.nan, 1])),
        (jax.nn.softplus, np.float32(-np.inf)),
        (jnp.tanh, np.float32([np.inf, 0.3])),
        (jnp.sqrt, np.float32([-1, 4])),
    ],
)
def test_nan_is_like_nan_and_infinite_like_infinite(f, x):
    check_grads(f, (x,), 1, **QUICK)


def test_a_number_in_the_place_of_nan_is_an_error():
    f = jax.custom_jvp(lambda x: jnp.where(x > 0, jnp.nan, 2 * x))
    f.defjvp(lambda p, t: (f(*p), jnp.where(p[0] > 0, 1, 2) * t[0]))
    with pytest.raises(AssertionError):
        check_grads(f, (np.float32([0.5, -0.5]),), 1, ["fwd"], **QUICK)


def polynomial(x, y):
    return {"a": x**2 * y, "b": jnp.sum(x) * y}


ARGS = X[:3], np.float32([0.3, 2.0, -1.0])


def test_right_rules_given_as_functions_pass():
    check_jvp(polynomial, functools.partial(jax.jvp, polynomial), ARGS, **QUICK)
    check_vjp(polynomial, functools.partial(jax.vjp, polynomial), list(ARGS), **QUICK)


def test_integers_beside_are_passed_on():
    def f(x, n):
        return x * n

    args = X[:3], np.int32([1, 2, 3])
    check_vjp(f, functools.partial(jax.vjp, f), args, **QUICK)
    check_jvp(f, functools.partial(jax.jvp, f), args, **QUICK)


@pytest.mark.parametrize(
    "f_jvp",
    [
        lambda p, t: (jnp.sin(*p), 1.01 * jnp.cos(p[0]) * t[0]),
        lambda p, t: (jnp.sin(p[0]) + 0.1, jnp.cos(p[0]) * t[0]),
        lambda p, t: (jnp.sin(*p), jnp.cos(p[0]) * t[0][::-1]),
    ],
    ids=["slope", "value", "order"],
)
def test_a_wrong_jvp_fails_with_the_message(f_jvp):
    with pytest.raises(AssertionError, match=r"^mine FAIL"):
        check_jvp(jnp.sin, f_jvp, (X,), err_msg="mine", **QUICK)


@pytest.mark.parametrize(
    "f_vjp",
    [
        lambda x: (jnp.sin(x), lambda w: (1.01 * w * jnp.cos(x),)),
        lambda x: (jnp.sin(x) + 0.1, lambda w: (w * jnp.cos(x),)),
        lambda x: (jnp.sin(x), lambda w: (w * jnp.cos(x).at[2].set(0),)),
    ],
    ids=["slope", "value", "entry"],
)
def test_a_wrong_vjp_fails_with_the_message(f_vjp):
    with pytest.raises(AssertionError, match=r"^mine FAIL"):
        check_vjp(jnp.sin, f_vjp, (X,), err_msg="mine", **QUICK)


def test_rules_given_as_functions_have_tolerances():
    def f_jvp(p, t):
        return jnp.sin(*p), 1.01 * jnp.cos(p[0]) * t[0]

    check_jvp(jnp.sin, f_jvp, (X,), 0.0, {np.float32: 0.05}, 1e-3, **QUICK)


# Of the functions that the tests of JAX check, in small.
FUNCTIONS_OF_JAX = {
    "derivative inside": (lambda x: jax.jacobian(jnp.sin)(x), X, 1),
    "conversion": (lambda x: jnp.sin(x.astype(jnp.float32)), np.float16([1, 2]), 2),
    "flat": (jax.nn.relu, -1.0, 3),
    "constant of another dtype": (
        lambda z: jnp.arange(5, dtype=jnp.complex64),
        (X + 1j).astype(np.complex64),
        2,
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS_OF_JAX)
def test_what_jax_tests_of_its_own_is_accepted(name):
    f, x, order = FUNCTIONS_OF_JAX[name]
    check_grads(f, (x,), order, rtol=0.02, **QUICK)


@pytest.mark.slow
def test_a_sparse_solver_that_calls_the_host_is_accepted():
    from jax.experimental import sparse

    dense = 3 * np.eye(6, dtype=np.float32) + np.diag(np.ones(5, np.float32), 1)
    matrix = sparse.BCSR.fromdense(dense)

    def solve(data, b):
        return sparse.linalg.spsolve(data, matrix.indices, matrix.indptr, b, tol=1e-8)

    args = np.asarray(matrix.data), np.ones(6, np.float32)
    check_grads(solve, args, 1, rtol=0.05, atol=0.05, **QUICK)
