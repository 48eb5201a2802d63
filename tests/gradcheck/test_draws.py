"""Directions and steps whose products are exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.gradcheck.differences.draws import draw, steps
from gradstab.gradcheck.differences.probes import Prober
from gradstab.gradcheck.subject.problem import problem
from gradstab.program.compiling import quick_options

X = np.random.default_rng(0).standard_normal(8, np.float32)


def of_dtype(dtype):
    return problem(jnp.sin, (jnp.asarray(X, dtype),), precision="own")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("paired", [False, True])
def test_steps_times_directions_are_exact(dtype, paired):
    task = of_dtype(dtype)
    drawn = draw(task, task.leaves, np.random.default_rng(0), paired=paired)
    rng = np.random.default_rng(1)
    chosen = steps(task.leaves, drawn, rng, dtype=dtype, coarse=False)
    (v,) = (np.asarray(v, np.float64) for v in drawn.tangents)
    for h in (chosen.all[0], chosen.far[0]):
        products = np.einsum("k...,kn->k...n", h, v)
        rounded = np.asarray(products.astype(jnp.dtype(dtype)), np.float64)
        np.testing.assert_array_equal(rounded, products)


def test_paired_directions_are_sums_of_others():
    task = of_dtype("float32")
    drawn = draw(task, task.leaves, np.random.default_rng(0), paired=True)
    one, two, three, *sums = (np.float64(v) for v in drawn.tangents[0])
    expected = one + two, two + three, one - three
    for found, total in zip(sums, expected, strict=True):
        np.testing.assert_array_equal(found, total)


def test_all_leaves_together_are_moved_in_proportion_to_their_sizes():
    task = problem(lambda a, b: a * b, (X, 1000 * X), precision="own")
    weights = draw(task, task.leaves, np.random.default_rng(0), paired=False).weights
    np.testing.assert_array_equal(weights[:2], np.eye(2))
    ratio = weights[2, 1] / weights[2, 0]
    assert ratio == 1024  # the power of two next to it


def test_the_tables_of_moved_leaves_add_up():
    task = problem(lambda a, b: jnp.sin(a) * b, (X, 3 * X))
    seen = Prober(task)(task.leaves, np.random.default_rng(0))
    alone, together = seen.leaves[:2], seen.leaves[2]
    for mode in ("forward", "reverse"):
        weighted = sum(
            w * probes.rules[mode]
            for w, probes in zip(seen.draw.weights[2], alone, strict=True)
        )
        np.testing.assert_allclose(together.rules[mode], weighted, rtol=1e-12)


def test_a_measurement_in_turns_is_the_same_to_the_last_digits():
    task = problem(jnp.sin, (X,))
    whole = Prober(task)(task.leaves, np.random.default_rng(0))
    parts = Prober(task, max_bytes=2**11)(task.leaves, np.random.default_rng(0))
    one, other = (seen.leaves[0].residual for seen in (whole, parts))
    np.testing.assert_allclose(one, other, atol=1e-4 * np.max(np.abs(one)))


def test_a_program_compiled_fast_gives_the_same():
    options = quick_options()
    assert options is not None or jax.default_backend() != "cpu"
    f = lambda x: jnp.tanh(x) @ x  # noqa: E731
    np.testing.assert_allclose(
        jax.jit(f, compiler_options=options)(X), jax.jit(f)(X), rtol=1e-6
    )
