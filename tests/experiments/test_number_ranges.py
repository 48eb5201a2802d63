"""Forecasts of what leaves the range of a dtype, against a run in that dtype."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import number_ranges

CASES = number_ranges.cases(number_ranges.Config())
IN_RANGE = [name for name in CASES if name != number_ranges.SATURATED]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", IN_RANGE)
def test_what_is_forecast_is_what_a_run_shows(name, dtype):
    forecast, actual, kept = number_ranges.compare(*CASES[name], dtype)
    assert kept.sum() > 2
    assert np.abs(forecast - actual)[:, kept].max() < 0.02


@pytest.mark.slow
def test_both_ends_of_a_range_are_met():
    for name, end in (
        ("sigmoid, vanishing", 0),
        ("relu, growing data", 1),
        ("relu, growing gradients", 1),
    ):
        _, actual, kept = number_ranges.compare(*CASES[name], jnp.float16)
        assert actual[end][kept].max() > 0.02, name


@pytest.mark.slow
def test_a_forecast_for_another_dtype_is_seen_to_be_wrong():
    case = CASES["sigmoid, vanishing"]
    _, actual, kept = number_ranges.compare(*case, jnp.float16)
    _, stats = number_ranges.counted(*case, jnp.float32)
    wrong = np.stack([np.asarray(x) for x in stats.shares_outside("float8_e4m3fn")])
    assert (
        np.abs(wrong - actual)[:, kept].max() > 0.02
    )  # what a right one may be off by
    order = np.stack([actual[1], actual[0]])  # underflow for overflow
    assert np.abs(order - actual)[:, kept].max() > 0.02
