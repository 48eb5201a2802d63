"""Averages that are interpolated, against those that are integrated one by one."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.theory.averages import averaged
from gradstab.theory.quadrature import Expectations

pytestmark = pytest.mark.usefixtures("quick_compiler")


def kinked(x):
    """Between its kinks, at small variances, the averages change like exp(-1 / q)."""
    return jnp.where(x > 0, x, 0.1 * x) + jnp.abs(x - 1)


@pytest.fixture(scope="module", params=[jnp.tanh, kinked], ids=["tanh", "kinked"])
def averages(request):
    return Expectations(request.param)


@pytest.mark.parametrize("mean", [0.0, 0.3])
def test_interpolated_averages_have_twelve_digits(averages, mean):
    variances = np.exp(np.random.default_rng(0).uniform(-8, 4, (3, 10)))
    moments = averages.many(variances.ravel(), mean)
    exact = moments.mean, moments.square, moments.slope_square
    # A mean of zero is known to the rounding of the values that it is summed from.
    sizes = np.sqrt(moments.square), moments.square, moments.slope_square
    for values, expected, size in zip(
        averaged(averages, variances, mean), exact, sizes, strict=True
    ):
        assert values.shape == variances.shape
        # Slopes are zero near the mean, and rounding is of slopes of size one.
        assert np.all(np.abs(values.ravel() - expected) <= 1e-11 * size + 1e-15)


def test_what_was_integrated_once_serves_all_variances_near_it(averages, monkeypatch):
    variances = np.array([[1.1, 1.3], [2.0, 2.4]])
    averaged(averages, variances, 0.0)
    monkeypatch.setattr(averages, "many", None)  # nobody may ask again
    for values in averaged(averages, variances + 0.01, 0.0):
        assert np.all(np.isfinite(values))


def test_a_variance_of_zero_has_the_limit_there(averages):
    values = averaged(averages, np.array([0.0, 1.0]), 0.0)
    moments = averages.many([0.0])
    assert values[1][0] == moments.square[0]
    assert values[2][0] == moments.slope_square[0]


def test_an_average_that_is_not_a_number_is_refused():
    averages = Expectations(lambda x: jnp.where(jnp.abs(x) < 20.0, x, jnp.nan))
    for values in averaged(averages, np.array([1.0, 2.8]), 0.0):
        assert np.all(np.isfinite(values))
    with pytest.raises(ValueError, match="not a number"):
        averaged(averages, np.array([1.0, 100.0]), 0.0)
