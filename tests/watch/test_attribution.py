"""The layers that drive the growth of the norm are named, with a rate that is right."""

import numpy as np
import pytest
from scipy import signal

from gradstab.watch.attribution import _rises, attribute
from gradstab.watch.trends import find_trend


def _noise(rng, shape, alike=0.5, size=0.05):
    """Noise that is like that of the step before, along the first axis."""
    draw = rng.normal(size=shape) * size
    draw[0] /= np.sqrt(1 - alike**2)
    for i in range(1, len(draw)):
        draw[i] += alike * draw[i - 1]
    return draw


# Trends


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num", "alike", "bend", "before"),
    [
        (300, 0.0, 0, 0.0),
        (300, 0.5, 0, 0.0),
        (300, 0.9, 0, 0.0),
        (300, 0.5, 100, 0.0),
        (300, 0.5, 100, -1.0),
        (3000, 0.0, 1000, 0.0),
        (3000, 0.9, 1000, 0.0),
        (60, 0.5, 20, 0.0),
    ],
)
def test_intervals_of_95_per_cent_hold_the_rate(num, alike, bend, before):
    """As often as they say, and seldom much more often; whatever the noise is like."""
    steps, rate = np.arange(num), 2 / (num - bend)
    line = rate * np.maximum(steps - bend, 0) - before * np.maximum(1 - steps / 100, 0)
    held, beside, trials = 0, [], 100
    for seed in range(trials):
        noise = _noise(np.random.default_rng(seed), num, alike, size=0.1)
        trend = find_trend(steps, line + noise)
        held += trend.low <= rate <= trend.high
        beside.append(abs(trend.since - bend) / num)
    # Of 100 trials with 95 % each, 90 to 100 with 98 %.
    assert held >= 90
    assert np.median(beside) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("alike", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("num", [60, 400])
def test_noise_seldom_grows_or_falls(num, alike):
    trials = 100
    trends = [
        find_trend(np.arange(num), _noise(np.random.default_rng(seed), num, alike))
        for seed in range(trials)
    ]
    # Each with 0.13 % if the noise were known.
    assert sum(trend.grows for trend in trends) <= 1
    assert sum(trend.falls for trend in trends) <= 1


@pytest.mark.slow
def test_a_slow_wander_is_seldom_taken_for_growth():
    """A random walk below the noise of batches: what a rate is most often read from."""
    said = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        wander = np.cumsum(rng.normal(size=300)) * 0.01
        trend = find_trend(np.arange(300), wander + 0.1 * rng.normal(size=300))
        said += trend.grows or trend.falls
    assert said <= 6


def test_a_line_is_found_to_the_digits_that_it_has():
    steps = np.arange(0, 1000, 10)
    trend = find_trend(steps, 3.0 + 0.25 * np.maximum(steps - 400, 0))
    # The bend is somewhere inside of a mean.
    np.testing.assert_allclose(trend.rate, 0.25, rtol=3e-3)
    assert abs(trend.since - 400) <= 10
    assert trend.grows
    assert not trend.falls
    np.testing.assert_allclose(trend.change, 0.25 * (990 - trend.since), rtol=1e-2)
    assert find_trend(steps, -0.25 * steps).falls


def test_the_unit_of_a_series_does_not_matter():
    series = np.maximum(np.arange(100) - 50, 0) + np.sin(np.arange(100.0))
    one = find_trend(np.arange(100), series)
    other = find_trend(1000 + 5 * np.arange(100), 7 - 1e-9 * series)
    np.testing.assert_allclose(other.rate, -1e-9 / 5 * one.rate, rtol=1e-6)
    np.testing.assert_allclose(other.low, -1e-9 / 5 * one.high, rtol=1e-6)
    assert abs(other.since - 1000 - 5 * one.since) <= 5


@pytest.mark.parametrize("num", [8, 9, 15, 250])
def test_what_does_not_move_does_not_grow(num):
    for series in (np.zeros(num), np.full(num, -1e8), np.ones(num)):
        trend = find_trend(np.arange(num), series)
        assert not trend.grows
        assert not trend.falls
        assert trend.low <= 0 <= trend.high


def test_numbers_that_are_not_finite_are_left_out():
    steps, series = np.arange(40), 0.1 * np.arange(40.0)
    series[[3, 7]] = np.nan, np.inf
    assert find_trend(steps, series).grows
    with pytest.raises(ValueError, match="a trend needs 8 steps"):
        find_trend(np.arange(9), [1, 2, 3, 4, 5, 6, 7, np.nan, np.inf])


# Layers


def _run(rate=0.02, num=300, since=150, radial=0.97, seed=0):
    """A trunk, a head that grows, and a small norm."""
    steps = 10 * np.arange(num)
    logs = _noise(np.random.default_rng(seed), (num, 3))
    logs[:, 1] += rate * np.maximum(np.arange(num) - since, 0)
    norms = np.exp(logs) * [1.0, 0.5, 0.1]
    cosines = np.sqrt(np.tile([0.01, radial, 0.0], (num, 1)))
    return ("trunk", "head", "norm"), steps, norms, cosines, np.ones(num)


def test_the_layer_that_grows_is_named_with_its_rate():
    found = attribute(*_run())
    (head,) = found.drivers
    assert head.layer == "head" == found.layers[0].layer
    assert head.growth > 0.95
    assert head.radial > 0.95
    assert head.trend is not None
    assert head.trend.low <= 0.002 <= head.trend.high
    assert abs(head.trend.since - 1500) < 200
    np.testing.assert_allclose(sum(one.growth for one in found.layers), 1)
    first, second = str(found).splitlines()
    assert first.startswith("since step ")
    assert "the norm of the gradient grows by +" in first
    assert second.startswith("head carries 9")
    assert "of the squared norm and 9" in second or "and 100 % of its" in second
    assert "; since step 1 " in second
    assert " its norm grows by +" in second
    assert second.endswith("its growth is radial (97 %): the loss does not see it")


def test_a_layer_that_grows_without_weight_is_no_driver():
    names, steps, norms, cosines, losses = _run()
    norms[:, 2] *= np.exp(0.01 * np.arange(300))
    found = attribute(names, steps, norms, cosines, losses)
    small = next(one for one in found.layers if one.layer == "norm")
    assert small.trend is not None
    assert small.trend.grows
    assert not small.drives


def test_growth_is_tangential_where_it_is():
    found = attribute(*_run(radial=0.02))
    assert "its growth is tangential (2 % along its parameters)" in str(found)


def test_growth_that_the_loss_sees_is_said():
    names, steps, norms, cosines, losses = _run()
    losses = losses + 1e-3 * np.maximum(steps - 1500, 0)
    found = attribute(names, steps, norms, cosines, losses)
    assert str(found).endswith("is radial (97 %): the loss rises with it")
    lost = attribute(names, steps, norms, cosines, np.full(300, np.nan))
    assert lost.loss_rises is None
    assert str(lost).endswith("its growth is radial (97 %)")


def test_the_loss_of_a_network_that_died_of_it_is_higher():
    names, steps, norms, cosines, losses = _run()
    away = np.exp(0.1 * np.maximum(np.arange(300) - 180, 0))
    losses = np.where(np.arange(300) > 280, losses + 1, losses * away)
    assert attribute(names, steps, norms, cosines, losses).loss_rises
    losses = np.where(np.arange(300) > 280, np.nan, losses)
    assert attribute(names, steps, norms, cosines, losses).loss_rises


def test_a_loss_that_drifts_as_it_did_before_does_not_rise():
    steps, rises = np.arange(300), []
    for seed in range(200):
        noise = np.random.default_rng(seed).standard_normal(300)
        drift = signal.lfilter([1], [1, -0.8], noise)
        rises.append(_rises(drift, steps, 200))
    assert np.mean(rises) <= 0.02


def test_what_was_not_measured_is_said():
    names, steps, norms, cosines, losses = _run()
    found = attribute(names, steps, norms, np.full_like(cosines, np.nan), losses)
    assert "not measured" in str(found)
    assert "radial (" not in str(found)
    # Full statistics at every tenth step are enough.
    cosines[np.arange(300) % 10 > 0] = np.nan
    found = attribute(names, steps, norms, cosines, losses)
    assert "radial (97 %)" in str(found)


def test_where_nothing_grows_no_layer_drives_it():
    found = attribute(*_run(rate=0.0))
    assert not found.drivers
    assert str(found).startswith("no layer drives it: the norm does not grow beyond")
    names, steps, norms, *others = _run(rate=0.0)
    norms *= np.exp(-0.01 * np.arange(300))[:, None]
    falling = attribute(names, steps, norms, *others)
    assert str(falling).startswith("no layer drives it: the norm falls by -")


def test_growth_of_all_layers_alike_is_driven_by_none():
    steps = np.arange(100)
    norms = np.exp(0.02 * steps[:, None] + _noise(np.random.default_rng(0), (100, 15)))
    names = [f"blocks.{i}" for i in range(15)]
    found = attribute(names, steps, norms, np.full_like(norms, np.nan), np.ones(100))
    assert not found.drivers
    assert "no layer drives it: none of 15 has a tenth of the growth" in str(found)


def test_a_spike_is_no_growth_and_hides_none():
    names, steps, norms, cosines, losses = _run(rate=0.0)
    norms[[290, 100], 1] *= 1000
    assert not attribute(names, steps, norms, cosines, losses).drivers
    names, steps, norms, cosines, losses = _run(rate=0.01)
    found = [attribute(names, steps, norms, cosines, losses).norm]
    norms[[50, 200, 201], 0] *= 1000
    found.append(attribute(names, steps, norms, cosines, losses).norm)
    widths = [trend.high - trend.low for trend in found]
    assert found[1].grows
    assert widths[1] < 1.5 * widths[0]


def test_norms_far_out_of_range_and_dead_layers_are_parted_too():
    names, steps, norms, cosines, losses = _run()
    for factor in (1e-200, 1e200):
        scaled = norms * factor * np.array([1, 1, 0])
        found = attribute(names, steps, scaled, cosines, losses)
        assert [one.layer for one in found.layers] == ["head", "trunk"]
        np.testing.assert_allclose(found.layers[0].growth, 1, atol=0.05)


def test_steps_and_layers_without_numbers_are_left_out():
    names, steps, norms, cosines, losses = _run()
    norms[[5, 50]] = np.nan
    norms[7, 1] = np.inf
    norms[:, 2] = np.nan
    found = attribute(names, steps, norms, cosines, losses)
    assert {one.layer for one in found.layers} == {"head", "trunk"}
    with pytest.raises(ValueError, match="a trend needs 8 steps"):
        attribute(names, steps[:7], norms[8:15], cosines[:7], losses[:7])


def test_a_norm_that_grew_and_rests_now_is_attributed_too():
    """What rests at the end has no last line that grows; the run as a whole has one."""
    names, steps, norms, cosines, losses = _run(rate=0.0)
    norms[:, 1] *= np.exp(3 * np.clip(np.arange(300) / 200, 0, 1))
    found = attribute(names, steps, norms, cosines, losses)
    (head,) = found.drivers
    assert head.trend is not None
    assert head.trend.grows
    assert "does not grow" not in str(found)
