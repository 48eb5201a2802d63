"""Derivatives that are zero, and entries of very different sizes in one leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import compared, wrong_vjp

from gradstab.gradcheck import Verdict
from gradstab.gradcheck.differences.ladders import Ladder, levels

pytestmark = pytest.mark.cases


RANK_ONE = np.outer(np.float32([1, 2, 3]), np.float32([0.5, -1, 2]))
ZERO = np.zeros(3, np.float32)

# Their derivatives are zero, and they move as a higher power of the step.
FLAT = {
    "cube": (lambda x: x**3, 0.0),
    "cubes": (lambda x: jnp.sum(x**3), ZERO),
    "cube on one": (lambda x: 1 + x * x * x, 0.0),
    "fifth power": (lambda x: x**5, ZERO),
    "x |x|": (lambda x: x * jnp.abs(x), ZERO),
    "square of relu": (lambda x: jax.nn.relu(x) ** 2, ZERO),
    "cube of the sine": (lambda x: jnp.sin(x) ** 3, ZERO[:2]),
    "x - sin x": (lambda x: x - jnp.sin(x), ZERO),
    "product with two zeros": (jnp.prod, np.float32([0, 1.3, 0, 2, 0.7])),
    "determinant": (jnp.linalg.det, RANK_ONE),
    "zero below": (jax.nn.softplus, np.float32(-1000)),
    "underflow": (jnp.exp, np.float32([-800, -900])),
    "dead": (jax.nn.relu, np.float32([-3, -0.1])),
    "trilinear": (lambda x: x[0] * x[1] * x[2], ZERO),
}


@pytest.mark.parametrize("name", FLAT)
def test_a_zero_derivative_is_right_to_an_absolute_resolution(name):
    f, x = FLAT[name]
    result = compared(f, x)
    assert result.verdict is Verdict.PASS, str(result)
    differences = [g for g in result.findings if "differences" in g.oracle]
    assert all(g.absolute for g in differences)


@pytest.mark.parametrize("wrong", [1.0, pytest.param(1e-3, marks=pytest.mark.slow)])
# Of a function that is zero itself no one knows how large a slope is.
@pytest.mark.parametrize(
    "name", sorted(FLAT.keys() - {"zero below", "underflow", "dead"})
)
def test_a_rule_that_says_something_else_than_zero_fails(name, wrong):
    f, x = FLAT[name]
    rule = wrong_vjp(
        lambda x: f(x), lambda x, w, g: (g[0] + wrong * jnp.mean(w) * (1 + x[0]),)
    )
    result = compared(rule, x)
    assert result.verdict is Verdict.FAIL, str(result)


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (jax.nn.sigmoid, np.full(8, 40, np.float32)),
        (jnp.tanh, np.float32([25.0])),
        (jax.scipy.special.erf, np.float32([9.0, 8.0])),
        (lambda x: jax.nn.sigmoid(100 * (x - 0.6)), np.float32([1.0])),
        (lambda x: 1 - jnp.exp(-(x**2)), np.float32([7.0, 8.0])),
    ],
)
def test_a_saturated_function_is_not_taken_for_a_flat_one(f, x):
    assert compared(f, x).verdict is Verdict.INCONCLUSIVE


def test_no_slope_is_taken_for_none_where_f_is_noisy():
    def f(x):
        return 10**5.7 + jnp.sin(x.astype(jnp.float32))

    rule = wrong_vjp(f, lambda x, w, g: (0 * g[0],))
    for seed in range(3):
        x = np.random.default_rng(seed).standard_normal(8, np.float32)
        result = compared(rule, x, precision="own", seed=seed)
        assert result.verdict is not Verdict.PASS, str(result)


SIZES = np.float32([1e-6, 1, 1e6])
AT = np.float32([5e5, 0.5, 5e-7])


def waves(x):
    return jnp.sin(x * SIZES.astype(x.dtype))


@pytest.mark.parametrize(
    ("f", "x"),
    [
        (waves, AT),
        (lambda x: jnp.sum(waves(x) ** 2), AT),
        (lambda x: jnp.exp(-x / AT.astype(x.dtype)), AT),
        (lambda x: jnp.tanh(x[0] / 1e9) * jnp.cos(x[1] * 1e4), np.float32([1e9, 1e-4])),
    ],
)
def test_entries_of_very_different_sizes_are_moved_by_their_own(f, x):
    result = compared(f, x)
    assert result.verdict is Verdict.PASS, str(result)


@pytest.mark.parametrize("entry", range(3))
def test_an_error_in_an_entry_of_any_size_fails_with_the_true_value(entry):
    rule = wrong_vjp(waves, lambda x, w, g: (g[0].at[entry].multiply(0.5),))
    result = compared(rule, AT, locate=True)
    assert result.verdict is Verdict.FAIL, str(result)
    (place,) = result.locations
    assert place.index == (entry,)
    x, k = (a.astype(np.float64)[entry] for a in (AT, SIZES))
    true = k * np.cos(k * x)
    assert abs(place.expected - true) <= place.bar < 1e-3 * true


def test_a_note_says_that_errors_count_in_proportion():
    assert any("differ in size" in note for note in compared(waves, AT).notes)


def test_steps_over_many_periods_resolve_nothing():
    def ladder(f, scale):
        steps = scale * levels(jnp.float64)
        ends = f(0.5 + steps), f(0.5 - steps)
        quotients = (ends[0] - ends[1]) / (2 * steps)
        bends = (ends[0] + ends[1] - 2 * f(0.5)) / (2 * steps)
        return Ladder(
            steps, quotients[:, None], bends[:, None], np.array([1e-16]), 2e-16
        )

    one = np.ones((1, 1))
    assert ladder(np.sin, 1.0).resolves(one)
    assert not ladder(lambda x: np.sin(1e12 * x), 1.0).resolves(one)
    # A slope of zero that is known is resolved.
    assert ladder(lambda x: 0 * x + 1, 1.0).resolves(one)
