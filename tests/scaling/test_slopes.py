"""Slopes of log sizes: their intervals, and what is said of them."""

import numpy as np
import pytest

from gradstab.scaling.slopes import MARGIN, Slope, Trend, fit

WIDTHS = np.array([64, 128, 256, 512])


def powers(slope, noise, seed, *, seeds=3, bend=0.0, power=1.0):
    rng = np.random.default_rng(seed)
    logs = slope * np.log(WIDTHS) + bend * (WIDTHS[0] / WIDTHS) ** power
    return np.exp(logs[:, None] + noise * rng.normal(size=(len(WIDTHS), seeds)))


@pytest.mark.parametrize("slope", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_a_power_law_without_noise_has_its_slope(slope):
    found = fit(WIDTHS, powers(slope, 0, 0))
    assert abs(found.value - slope) < 1e-9
    assert found.half_width < 1e-4


@pytest.mark.parametrize("noise", [0.003, 0.01, 0.03, 0.1, 0.3])
@pytest.mark.parametrize(
    ("bend", "power"), [(0.0, 1.0), (0.1, 1.0), (-0.15, 1.0), (0.1, 0.5), (-0.1, 0.5)]
)
def test_95_per_cent_intervals_hold_the_slope_at_large_sizes(noise, bend, power):
    """Of models that at the smallest size are off the power law by a tenth and more."""
    rows = [powers(0.5, noise, seed, bend=bend, power=power) for seed in range(300)]
    found = [fit(WIDTHS, row) for row in rows]
    inside = np.mean([abs(one.value - 0.5) <= one.half_width for one in found])
    # 95 % less three standard deviations; more where the prior asks for more.
    assert inside >= 0.91


def test_precise_slopes_are_not_moved_by_terms_that_are_not_there():
    found = [fit(WIDTHS, powers(0.5, 0.01, seed)) for seed in range(200)]
    assert abs(np.median([one.value for one in found]) - 0.5) < 0.005
    assert np.median([one.half_width for one in found]) < 0.1


def test_a_term_in_one_over_n_is_no_slope():
    found = [fit(WIDTHS, powers(0.5, 0.005, seed, bend=0.2)) for seed in range(200)]
    assert abs(np.median([one.value for one in found]) - 0.5) < 0.03


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.4])
def test_what_grows_by_more_than_the_margin_is_not_called_flat(noise):
    found = [fit(WIDTHS, powers(MARGIN + 0.05, noise, seed)) for seed in range(400)]
    assert np.mean([one.trend is Trend.FLAT for one in found]) < 0.05


def test_words_for_clear_slopes():
    trends = [Slope(v, 0.01, 10, 3).trend for v in (0.0, 0.5, -0.5)]
    assert trends == [Trend.FLAT, Trend.GROWS, Trend.SHRINKS]
    assert Slope(0.3, 0.3, 10, 3).trend is Trend.UNKNOWN


def test_so_many_seeds_as_are_asked_for_settle_it():
    rows = [powers(0.4, 0.5, seed) for seed in range(40)]
    open_ = [fit(WIDTHS, row) for row in rows]
    needed = [one.seeds_needed for one in open_ if one.trend is Trend.UNKNOWN]
    assert needed
    assert min(needed) > 3
    many = int(np.median(needed))
    again = [fit(WIDTHS, powers(0.4, 0.5, 99 + i, seeds=many)) for i in range(100)]
    settled = np.mean([one.trend is not Trend.UNKNOWN for one in again])
    before = np.mean([one.trend is not Trend.UNKNOWN for one in open_])
    assert settled > max(before, 0.5)


def test_zeros_have_no_slope():
    found = fit(WIDTHS, np.zeros((4, 3)))
    assert np.isnan(found.value)
    assert found.trend is Trend.NOTHING
    assert str(found) == ""


def test_one_seed_at_two_widths_has_no_error():
    found = fit(WIDTHS[:2], np.array([[1.0], [2.0]]))
    assert found.value == 1.0
    assert found.trend is Trend.UNKNOWN
