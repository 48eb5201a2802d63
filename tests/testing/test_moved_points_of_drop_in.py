"""Points that the arguments exclude are no failures of the drop-in; real bugs are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.testing import check_grads, contract

pytestmark = [pytest.mark.cases, pytest.mark.usefixtures("quick_compiler")]

QUICK = {"transformations": False, "locate": False}
LOW, X, HIGH = (np.float32(x) for x in ([-1] * 3, [-2, 0.5, 3], [1] * 3))
SYMMETRIC = np.float64([[2, 1, 0], [1, 3, 1], [0, 1, 4]])


def scaled_between(x, low, high):
    """Right where low < high, whose slope it takes for positive."""
    f = jax.custom_jvp(lambda x, a, b: jnp.abs(b - a) * x)
    f.defjvp(
        lambda p, t: (
            f(*p),
            (p[2] - p[1]) * t[0] + p[0] * (t[2] - t[1]),
        )
    )
    return f(x, low, high)


@pytest.mark.parametrize(
    ("f", "args"),
    [
        pytest.param(jax.lax.clamp, (LOW, X, HIGH), marks=pytest.mark.slow),
        pytest.param(jnp.clip, (X, LOW, HIGH), marks=pytest.mark.slow),
        (scaled_between, (X, LOW, HIGH)),
    ],
)
def test_bounds_that_change_places_are_no_failure(f, args, caplog):
    check_grads(f, args, 1, **QUICK)
    assert not caplog.records or contract.ORDERED in caplog.text


@pytest.mark.slow
def test_a_rule_that_is_wrong_within_the_bounds_fails():
    """At the point given every entry is positive; with the bounds it is not."""

    def value(x, low, high):
        return jnp.abs(x) * (high - low)

    f = jax.custom_jvp(value)
    f.defjvp(
        lambda p, t: (value(*p), (p[2] - p[1]) * t[0] + jnp.abs(p[0]) * (t[2] - t[1]))
    )
    x = np.float32([0.2, 0.5, 0.7])
    with pytest.raises(AssertionError, match="signs"):
        check_grads(f, (x, LOW, HIGH), 1, **QUICK)


@pytest.mark.slow
def test_a_bug_at_a_moved_point_fails_where_arguments_have_no_order():
    """JAX's own, at zero."""
    exponents = np.int32([-3, 2])
    with pytest.raises(AssertionError, match="zeros"):
        check_grads(
            lambda x: jnp.ldexp(x, exponents), (np.float32([0.5, 0.8]),), 1, **QUICK
        )


def test_a_rule_that_is_wrong_for_the_other_sign_fails():
    f = jax.custom_jvp(jnp.abs)
    f.defjvp(lambda p, t: (jnp.abs(*p), t[0]))
    with pytest.raises(AssertionError, match="signs"):
        check_grads(f, (np.float32([0.5, 0.8]),), 1, **QUICK)


def declared_symmetric(a, b):
    def solve(_, b):
        return jnp.linalg.solve(a, b)

    return jax.lax.custom_linear_solve(lambda v: a @ v, b, solve, solve, symmetric=True)


@pytest.mark.slow
def test_a_function_of_symmetric_matrices_is_right_on_them():
    b = np.ones(3)
    check_grads(declared_symmetric, (SYMMETRIC, b), 2, at="given", **QUICK)


def test_a_rule_that_is_wrong_on_symmetric_matrices_fails():
    f = jax.custom_jvp(jnp.linalg.inv)
    f.defjvp(lambda p, t: (f(*p), f(*p) @ t[0] @ f(*p)))
    with pytest.raises(AssertionError):
        check_grads(f, (SYMMETRIC,), 1, **QUICK)


def test_the_order_of_arguments_is_kept_by_other_points():
    for low, x, high in contract.in_order((LOW, X, HIGH)):
        assert np.all(low < high)
        assert low.dtype == x.dtype == np.float32
    assert len(contract.in_order((LOW, {"b": HIGH}))) == 2
    assert contract.in_order((X, X)) == []
    assert contract.in_order((np.float32([0, 1]), np.float32([1, 0]))) == []
    assert contract.in_order((X,)) == []


def test_symmetric_arguments_are_seen():
    f = contract.symmetrized(lambda a: a, (SYMMETRIC,))
    np.testing.assert_array_equal(f(np.float64([[0, 2], [0, 0]])), [[0, 1], [1, 0]])
    hermitian = np.complex64([[1, 1j], [-1j, 2]])
    assert contract.symmetrized(lambda a: a, (hermitian,)) is not None
    assert contract.symmetrized(lambda a: a, (np.float32([[1, 2], [3, 4]]),)) is None
    assert contract.symmetrized(lambda a: a, (X, np.ones((1, 1)))) is None
