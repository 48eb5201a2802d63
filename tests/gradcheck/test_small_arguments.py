"""Arguments so small that f does not change within their size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import compared, wrong_vjp

from gradstab.gradcheck import Verdict

pytestmark = pytest.mark.cases


SMOOTH = {
    "1 + x": lambda x: 1 + x,
    "3 + 2x": lambda x: 3 + 2 * x,
    "exp": jnp.exp,
    "sigmoid": jax.nn.sigmoid,
    "sqrt(1 + x)": lambda x: jnp.sqrt(1 + x),
    "cos(x + 1)": lambda x: jnp.cos(x + 1),
    "softplus": jax.nn.softplus,
    "mish": jax.nn.mish,
    "squareplus": jax.nn.squareplus,
    "log(2 + x)": lambda x: jnp.log(2 + x),
    "offset": lambda x: 1e4 + jnp.sin(x),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_a_right_rule_passes_at_a_small_argument(name):
    result = compared(SMOOTH[name], np.float32(1e-8))
    assert result.verdict is Verdict.PASS, str(result)


@pytest.mark.parametrize(
    "x",
    [1e-10, 1e-20, *(pytest.param(x, marks=pytest.mark.slow) for x in (1e-14, 1e-30))],
)
def test_an_error_of_one_per_cent_fails_however_small_the_argument(x):
    x = np.float32([x, -2 * x])
    for factor, verdict in ((1.0, Verdict.PASS), (1.01, Verdict.FAIL)):
        rule = wrong_vjp(
            lambda x: 2 + jnp.sin(x), lambda _, w, g, k=factor: (k * g[0],)
        )
        result = compared(rule, x)
        assert result.verdict is verdict, str(result)


@pytest.mark.parametrize("x", [1e-12, pytest.param(1e-20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("slope", [0.0, 1.5, -1.0])
def test_a_wrong_slope_is_not_taken_for_a_flat_function(x, slope):
    rule = wrong_vjp(lambda x: 1 + x, lambda x, w, g: (slope * w,))
    assert compared(rule, np.float32(x)).verdict is Verdict.FAIL


@pytest.mark.parametrize("x", [1e-8, 1e-10, 1e-20])
def test_the_value_expected_is_true_at_a_small_argument(x):
    rule = wrong_vjp(lambda x: jnp.exp(x), lambda x, w, g: (1.5 * g[0],))
    (place,) = compared(rule, np.float32(x), locate=True).locations
    assert abs(place.expected - 1) <= place.bar < 0.1


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.sin(1e8 * x),
        lambda x: 1 + jnp.sin(1e4 * x),
        lambda x: 1e3 + jnp.tanh(3e6 * x),
    ],
)
def test_a_function_that_changes_on_its_own_small_length_passes(f):
    result = compared(f, np.float32([1e-8, 3e-8]))
    assert result.verdict is Verdict.PASS, str(result)


@pytest.mark.parametrize("f", [jnp.cos, jnp.cosh, lambda x: 1 + x**2])
def test_what_is_flat_at_zero_is_flat_nearly_there(f):
    assert compared(f, np.float32(1e-8)).verdict is Verdict.PASS


def test_small_arguments_beside_a_large_one_each_have_their_steps():
    def f(a, b):
        return 1 + a + jnp.sin(b)

    result = compared(f, np.float32(1e-8), np.float32([0.5, 2]))
    assert result.verdict is Verdict.PASS, str(result)
    rule = wrong_vjp(f, lambda x, w, g: (0.9 * g[0], g[1]))
    result = compared(rule, np.float32(1e-8), np.float32([0.5, 2]))
    assert result.verdict is Verdict.FAIL
    assert "args[0]" in result.reason
    assert "args[1]" not in result.reason


def test_code_in_float32_is_moved_farther_too():
    result = compared(lambda x: 1 + x, np.float32(1e-5), precision="own")
    assert result.verdict is Verdict.PASS, str(result)
