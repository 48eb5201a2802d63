"""Points at which the first derivative has a corner, and at most the second jumps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import quick

from gradstab import Verdict
from gradstab.gradcheck.differences.steps import estimate, ladder

BORDERED = {
    "elu": jax.nn.elu,
    "celu": lambda x: jax.nn.celu(x, 1.0),
    "the square of relu": lambda x: jax.nn.relu(x) ** 2,
    "x times its magnitude": lambda x: x * jnp.abs(x),
    "huber": lambda x: jnp.where(jnp.abs(x) < 1, x**2 / 2, jnp.abs(x) - 0.5),
    "softsign": jax.nn.soft_sign,
    "hard_silu with smooth ends": lambda x: jnp.where(x > 0, jnp.expm1(x / 40) * 40, x),
}
POINTS = {
    "moderate": [-1.0, 0.0, 1.0, 2.0],
    "large": [-30.0, 0.0, 30.0],
    "all on the border": [0.0, 1.0, -1.0],
}


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS.keys())
@pytest.mark.parametrize("f", BORDERED.values(), ids=BORDERED.keys())
def test_where_the_second_derivative_jumps_the_first_is_seen(f, point):
    result = quick(f, np.array(point, np.float32), at="given")
    assert result.verdict is Verdict.PASS, str(result)
    assert result.resolution < 1e-7


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS.keys())
def test_a_rule_that_is_slightly_off_fails_there(point):
    f = jax.custom_jvp(lambda x: jax.nn.elu(x))
    off = lambda x: jax.grad(lambda x: jax.nn.elu(x).sum())(x) * (1 + 3e-6)  # noqa: E731
    f.defjvp(lambda x, v: (f(*x), off(*x) * v[0]))
    result = quick(f, np.array(point, np.float32), at="given")
    assert result.verdict is Verdict.FAIL, str(result)


def test_a_series_in_the_step_is_extrapolated_as_one_in_its_square_is():
    steps = ladder(jnp.float64)
    grids = steps[:, None] * np.array([1.0, 0.5])
    rounding = np.full(len(steps), 1e-16)
    for power in (1, 2):
        residual = 3 + grids**power - grids ** (2 * power) / 7
        found = estimate(residual[:, :, None], rounding, steps)
        assert found is not None
        assert abs(found.value[0] - 3) <= found.bar < 1e-9
