"""How far away from its argument a function is called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import compared

from gradstab.gradcheck import Verdict
from gradstab.gradcheck.differences.probes import Prober
from gradstab.gradcheck.subject.problem import problem

pytestmark = pytest.mark.cases

X = np.float32([0.5, 0.8])


class Recorded:
    """The function, and the largest magnitude that it was called with."""

    def __init__(self, f, slope):
        self.f, self.slope, self.largest = f, slope, 0.0

    def __call__(self, x):
        @jax.custom_jvp
        def call(x):
            like = jax.ShapeDtypeStruct(x.shape, x.dtype)
            return jax.pure_callback(self._host, like, x, vmap_method="expand_dims")

        call.defjvp(lambda x, v: (call(*x), self.slope(*x) * v[0]))
        return call(x)

    def _host(self, x):
        self.largest = max(self.largest, float(np.max(np.abs(x))))
        return np.asarray(self.f(np.asarray(x)), x.dtype)


@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (np.sin, jnp.cos),
        (np.tanh, lambda x: 1 - jnp.tanh(x) ** 2),
        (lambda x: x**2, lambda x: 2 * x),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 100.0])
def test_a_function_with_a_slope_is_called_within_twice_its_argument(f, slope, scale):
    recorded = Recorded(lambda x: f(x / scale), lambda x: slope(x / scale) / scale)
    assert compared(recorded, scale * X).verdict is Verdict.PASS
    assert recorded.largest <= 1.6 * scale


def test_a_function_without_a_slope_is_called_far_away_too():
    recorded = Recorded(lambda x: 0 * x + 3, jnp.zeros_like)
    assert compared(recorded, X).verdict is Verdict.PASS
    assert recorded.largest > 16


def test_an_iteration_ends_that_does_not_converge_a_little_farther_away():
    def run(t):
        return jax.lax.while_loop(
            lambda x: jnp.max(jnp.abs(x)) > 1e-6, lambda x: t * x, jnp.ones_like(t)
        )

    solve = jax.custom_vjp(run)
    solve.defvjp(
        lambda t: (solve(t), (t, solve(t))), lambda r, g: (g * r[1] / (1 - r[0]),)
    )
    # That it ends is the point: for |t| >= 1 this iteration never does.
    assert compared(solve, np.float32([0.05, 0.8])).verdict is not Verdict.PASS


def test_what_iterates_is_moved_by_an_eighth_of_its_size():
    def f(x):
        return jax.lax.while_loop(
            lambda c: jnp.max(jnp.abs(jnp.cos(c) - c)) > 0.3, jnp.cos, x
        )

    task = problem(jax.jit(f), (X,), modes=("forward",))
    assert task.iterates
    seen = Prober(task)(task.leaves, np.random.default_rng(0))
    assert max(seen.leaves[0].steps) <= seen.leaves[0].scale / 8


def test_a_small_function_costs_no_more_evaluations_than_its_near_steps():
    # 8 levels, 6 directions, 2 grids, both sides; and the rules.
    assert compared(jnp.sin, X).evaluations <= 192 + 44
