import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.gradcheck.differences.steps import (
    REPLICATES,
    estimate,
    ladder,
    num_resolved,
)

STEPS = ladder(jnp.float64)
GRID = STEPS[:, None, None] * np.array(REPLICATES)[None, :, None]
NONE = np.zeros_like(STEPS)


def quotients(law, *, noise=0.0, seed=0, entries=72):
    """Central differences that err by ``law(h)`` and by noise / h."""
    rng = np.random.default_rng(seed)
    jitter = rng.uniform(0.9, 1.1, (1, len(REPLICATES), entries))
    h = GRID * jitter
    return law(h) + noise / h * rng.standard_normal(h.shape)


def rms(a):
    return np.sqrt(np.mean(a**2))


@pytest.mark.parametrize("noise", [1e-16, 1e-12, 1e-8, 1e-4])
@pytest.mark.parametrize("curvature", [0.0, 1e-3, 1.0, 1e3])
def test_the_bar_covers_the_error_of_a_smooth_function(noise, curvature):
    for seed in range(20):
        table = quotients(
            lambda h: 3 + curvature * h**2 + curvature**2 * h**4,
            noise=noise,
            seed=seed,
        )
        best = estimate(table, NONE, STEPS)
        assert rms(best.value - 3) <= best.bar


def test_the_bar_comes_near_the_best_that_extrapolation_can_do():
    noise = 1e-12
    best = estimate(quotients(lambda h: np.cosh(h), noise=noise), NONE, STEPS)
    # With errors of h^8 the noise of a step near 1/8 remains; six of them in a bar,
    # and a factor four for the coefficients of the extrapolation.
    assert best.bar < 6 * 4 * noise * 8


def test_extrapolation_removes_the_even_powers_of_the_step():
    best = estimate(quotients(lambda h: 1 + h**2 - h**4 + h**6), NONE, STEPS)
    # The replicates see different steps and no noise; rounding remains.
    assert best.bar < 1e-13
    np.testing.assert_allclose(best.value, 1, rtol=1e-13)


def test_a_kink_out_of_reach_of_the_small_steps_does_no_harm():
    table = quotients(lambda h: np.where(h > 1e-4, 0.5 * (1 - 1e-4 / h), 0.0))
    best = estimate(table, STEPS * 0 + 1e-16, STEPS)
    np.testing.assert_allclose(best.value, 0, atol=1e-9)
    assert best.bar < 1e-9


def test_a_narrow_bar_that_finer_steps_contradict_is_not_believed():
    # Constant beyond 0.1, with little noise there: both replicates agree, wrongly.
    table = quotients(lambda h: np.where(h > 0.1, 1.0, 0.0), noise=1e-6)
    best = estimate(table, NONE, STEPS)
    assert rms(best.value) <= best.bar < 0.01


@pytest.mark.parametrize("power", [-0.5, -1.0])
def test_a_slope_without_bound_is_never_resolved(power):
    h = GRID * np.ones(72)  # no jitter: the replicates are exactly a factor two apart
    best = estimate(h**power, NONE, STEPS)
    assert best.bar > rms(best.value)


def test_levels_that_are_not_finite_are_left_out():
    table = quotients(lambda h: np.where(h > 0.01, np.nan, 2 + h**2))
    best = estimate(table, NONE, STEPS)
    np.testing.assert_allclose(best.value, 2, atol=1e-12)
    assert best.step <= 0.02


def test_nothing_is_estimated_without_a_finite_level():
    assert estimate(np.full_like(GRID, np.inf), NONE, STEPS) is None


def test_rounding_of_the_value_is_a_lower_limit_of_the_bar():
    # A saturated function: every difference is exactly zero, and says nothing.
    best = estimate(0 * quotients(lambda h: h), NONE + 1e-16, STEPS)
    assert best.bar >= 1e-16 / best.step


def test_a_function_that_moves_in_stairs_is_resolved_above_them_only():
    rounding = NONE + 1e-16
    assert num_resolved(STEPS, rounding, STEPS) == len(STEPS)
    assert num_resolved(STEPS**3, rounding, STEPS) == len(STEPS)
    stairs = np.where(STEPS > 1e-3, STEPS, 0.0)
    assert num_resolved(stairs, rounding, STEPS) == np.sum(STEPS > 1e-3)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_ladder_falls_and_stops_above_rounding(dtype):
    steps = ladder(jnp.dtype(dtype))
    assert len(steps) >= 4
    assert np.all(np.diff(steps) < 0)
    # To rounding: the powers are not exact.
    assert steps[-1] >= min(2.0**-4, 0.999 * float(jnp.finfo(dtype).eps) ** 0.7)
