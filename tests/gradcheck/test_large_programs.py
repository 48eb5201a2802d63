"""What is left out of the check of a large function, and what never is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.gradcheck.differences.directions import LARGE, directions, few_digits
from gradstab.gradcheck.differences.tables import norm
from gradstab.gradcheck.laws.transformations import transformations
from gradstab.gradcheck.subject.problem import problem

X = np.linspace(0.5, 1.5, 9, dtype=np.float32).reshape(3, 3)


def many(g):
    def f(x):
        for _ in range(70):
            x = jnp.sin(x) + x
        return g(x)

    return f


def with_rule(x):
    rule = jax.custom_vjp(lambda x: jnp.tanh(x))
    rule.defvjp(lambda x: (jnp.tanh(x), x), lambda x, w: (w / jnp.cosh(x) ** 2,))
    return rule(x)


def called_back(x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    y = jax.lax.stop_gradient(x)
    return x * jax.pure_callback(np.tanh, shape, y, vmap_method="expand_dims")


def test_a_large_function_of_jaxs_own_operations_is_compiled_once():
    assert problem(many(jnp.tanh), (X,)).once
    matrix_function = problem(jax.scipy.linalg.expm, (X,))
    # The newest JAX writes a part of it as a primitive with a rule.
    assert matrix_function.once or matrix_function.has_rules


@pytest.mark.parametrize("g", [with_rule, called_back, jax.nn.relu])
def test_rules_and_calls_of_the_host_are_asked_again(g):
    assert not problem(many(g), (X,)).once


def test_a_large_function_that_is_traced_to_another_program_is_asked_again():
    rng = np.random.default_rng(0)
    assert not problem(many(lambda x: x * rng.uniform()), (X,)).once


def test_no_small_function_is_compiled_once():
    assert not problem(jnp.tanh, (X,)).once


def test_forms_of_a_large_function_are_left_out_if_its_rules_are_jaxs_own():
    task = problem(many(jax.nn.relu), (X,))
    (only,) = transformations(task, task.leaves, np.random.default_rng(0))
    assert "rules are JAX's own" in only.detail


@pytest.mark.slow
def test_forms_of_a_linear_solver_are_tried_if_it_is_the_users():
    def solve(x):
        return jax.lax.custom_linear_solve(
            lambda v: 2 * v, x, lambda _, b: b / 2, symmetric=True
        )

    for g in (solve, with_rule):
        task = problem(many(g), (X,))
        found = transformations(task, task.leaves, np.random.default_rng(0))
        assert "vmap" in {i.name for i in found}


def test_digits_of_many_numbers_are_cut_as_those_of_few():
    a = np.random.default_rng(0).standard_normal(2 * LARGE)
    few = np.concatenate([few_digits(part, 12) for part in np.split(a, 4)])
    np.testing.assert_array_equal(few_digits(a, 12), few)


def test_many_directions_have_the_length_of_few():
    (v,) = directions(np.random.default_rng(0), [np.zeros(LARGE)], num=2)
    np.testing.assert_allclose(norm(v), np.sqrt(LARGE), rtol=1e-6)
