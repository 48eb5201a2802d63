"""Redrawn rounding errors are as large as the real ones, and no larger than need be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.gradcheck.laws.rounding import iterates, redrawn

pytestmark = pytest.mark.usefixtures("quick_compiler")

X = np.random.default_rng(0).standard_normal(64, np.float32)
EPS = np.finfo(np.float32).eps


def spread(f, *args, draws=8):
    """The largest change of the results over a few draws, relative to their norm."""
    closed = jax.make_jaxpr(f)(*args)
    run = jax.jit(redrawn(closed))
    seen = [np.asarray(run(np.uint32(seed), *args)[0]) for seed in range(draws)]
    exact = np.asarray(jax.jit(f)(*args))
    return max(np.linalg.norm(a - exact) for a in seen) / np.linalg.norm(exact)


def test_one_operation_errs_by_one_rounding():
    # Two units at most, uniformly: two thirds of that is the root mean square of two.
    assert 0.3 * EPS < spread(jnp.tanh, X) < 3 * EPS


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_what_cancels_is_as_wrong_as_what_it_was_cancelled_from(offset):
    seen = spread(lambda x: (x + offset) - offset, X)
    assert 0.1 * offset * EPS < seen < 10 * offset * EPS


def test_a_sum_that_cancels_errs_by_its_terms():
    x = np.append(1e3 * X, -np.sum(1e3 * X, dtype=np.float64)).astype(np.float32)
    x[0] += 1  # so the sum is near one, of terms near a thousand
    assert 1e3 * EPS < spread(jnp.sum, x) < 1e6 * EPS


def test_the_error_of_a_sum_grows_with_the_number_of_its_terms():
    size = 4096
    x = np.append(np.resize(np.float32([1, -1]), size), np.float32(1))  # the sum is one
    # Partial sums that wander err by eps times their number, at most.
    assert 0.5 * size * EPS < spread(jnp.sum, x) < 8 * size * EPS


def test_an_ill_conditioned_system_errs_by_its_condition():
    index = np.arange(5)
    hilbert = (1 / (1 + index[:, None] + index)).astype(np.float32)
    condition = np.linalg.cond(hilbert)  # 5e5
    seen = spread(jnp.linalg.solve, hilbert, X[:5])
    assert 1e-2 * condition * EPS < seen < 1e2 * condition * EPS


def test_errors_grow_along_a_scan():
    def chaos(x):  # errors double at every step, and grow by four at most
        step = lambda x, _: (4 * x * (1 - x), None)  # noqa: E731
        return jax.lax.scan(step, x, None, length=12)[0]

    seen = spread(chaos, jax.nn.sigmoid(X))
    assert 2**9 * EPS < seen < 2**21 * EPS  # the numbers are near one


def test_a_comparison_falls_on_either_side_of_a_computed_tie():
    def f(x):
        return jnp.where(jnp.sin(x) ** 2 + jnp.cos(x) ** 2 > 1, 1.0, 2.0)

    assert spread(f, X) > 0.1


def test_what_is_not_rounded_is_not_moved():
    def f(x):
        return jnp.max(jnp.sort(-jnp.abs(x[::2]))[3:].reshape(1, -1), axis=1)

    assert spread(f, X) == 0


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_numbers_are_moved_by_their_own_rounding(dtype):
    eps = float(jnp.finfo(dtype).eps)
    x = np.asarray(X, dtype)
    closed = jax.make_jaxpr(jnp.tanh)(x)
    run = jax.jit(redrawn(closed))
    pairs = [np.float32(run(np.uint32(seed), x)[0]) for seed in range(2)]
    assert 0.3 * eps < np.linalg.norm(pairs[0] - pairs[1]) / 8 < 3 * eps


def test_the_program_inside_of_a_jit_a_remat_or_a_rule_is_redrawn_too():
    def cancelling(x):
        return (x + 1e6) - 1e6

    rule = jax.custom_jvp(cancelling)
    rule.defjvp(lambda x, v: (cancelling(*x), v[0]))
    for f in (jax.jit(cancelling), jax.checkpoint(cancelling), rule):
        assert spread(f, X) > 1e4 * EPS


def test_loops_that_end_when_a_number_is_small_are_told_from_counted_ones():
    def solve(b):
        return jax.scipy.sparse.linalg.cg(lambda x: 2 * x, b)[0]

    def count(x):
        return jax.lax.fori_loop(0, 5, lambda _, x: jnp.sin(x), x)

    assert iterates(jax.make_jaxpr(jax.jit(solve))(X))
    assert not iterates(jax.make_jaxpr(count)(X))
    assert not iterates(jax.make_jaxpr(jax.nn.softmax)(X))
