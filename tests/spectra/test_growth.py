"""Laws of growth recovered from data whose law is known."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.records import NORMAL_95
from gradstab.spectra import fit_growth
from gradstab.theory import residual

LAYERS = np.arange(1.0, 41)
LAWS = {
    "power": LAYERS**-0.5,
    "exp-sqrt": np.exp(0.7 * np.sqrt(LAYERS)),
    "exponential": 0.9**LAYERS,
}
RATES = {"power": -0.5, "exp-sqrt": 0.7, "exponential": np.log(0.9)}


@pytest.mark.parametrize("seed", range(10))
def test_a_residual_tanh_network_of_60_layers_grows_like_the_root(seed):
    # Theory's gains of x + tanh(W x) from a mean square of 0.394, and steps that
    # scatter like their size at width 256. A power of depth plus 10 fits no worse.
    gains = residual(jnp.tanh, 60, sigma_w=1.0, p0=0.394).gains
    noise = np.random.default_rng(seed).standard_normal(60) / np.sqrt(1 + np.arange(60))
    steps = np.log(gains) / 2 + 0.01 * noise
    levels = np.append(0, np.cumsum(steps))
    assert fit_growth(np.exp(-levels)).law == "exp-sqrt"


@pytest.mark.parametrize("law", LAWS)
def test_a_law_without_noise_is_recovered_exactly(law):
    found = fit_growth(LAWS[law])
    assert found.law == law
    assert found.rate == pytest.approx(RATES[law], rel=1e-12)
    assert found.error < 1e-14
    assert found.change == pytest.approx(LAWS[law][-1] / LAWS[law][0], rel=1e-10)


BENT = {
    "power": (LAYERS + 3.7) ** -0.5,
    "exp-sqrt": np.exp(0.7 * np.sqrt(LAYERS + 3.7)),
    "exponential": np.exp(np.log(0.9) * LAYERS + 2 * np.exp(-LAYERS / 3.7)),
    "constant": np.exp(2 * np.exp(-LAYERS / 3.7)),
}


@pytest.mark.parametrize("law", BENT)
def test_what_comes_before_the_law_is_recovered_with_it(law):
    found = fit_growth(BENT[law])
    assert found.law == law
    # The grid closes in on the shape to 1e-3 of it; the rate follows.
    assert found.rate == pytest.approx(RATES.get(law, 0.0), rel=2e-3)
    assert found.offset == pytest.approx(3.7 * (law in ("power", "exp-sqrt")), rel=1e-2)
    expected = 3.7 * (law in ("exponential", "constant"))
    assert found.settling == pytest.approx(expected, rel=1e-2)
    assert found.change == pytest.approx(BENT[law][-1] / BENT[law][0], rel=1e-3)


# Of two bent laws through noise, one is now and then the likelier by chance.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "least"), [("power", 0.85), ("exp-sqrt", 0.78), ("exponential", 0.93)]
)
def test_a_law_is_recovered_through_the_noise_of_a_random_walk(law, least):
    """Steps scatter by 2 %, as in a random network of width 200."""
    rng, hits, rates = np.random.default_rng(0), 0, []
    for _ in range(100):
        walk = np.cumsum(rng.normal(0, 0.02, len(LAYERS)))
        found = fit_growth(LAWS[law] * np.exp(walk))
        hits += found.law == law
        rates += [found.rate] * (found.law == law)
    assert hits >= 100 * least
    assert np.mean(rates) == pytest.approx(RATES[law], rel=0.05)


def _ordered_tanh(sigma_w, depth, rng):
    """The length of a tanh network, q -> E tanh(sigma_w sqrt(q) z)^2, walking."""
    z = np.linspace(-8, 8, 400)
    weight = np.exp(-np.square(z) / 2)
    weight /= weight.sum()
    q = [1.0]
    for _ in range(depth - 1):
        q.append(weight @ np.square(np.tanh(sigma_w * np.sqrt(q[-1]) * z)))
    return np.sqrt(q) * np.exp(np.cumsum(rng.normal(0, 0.02, depth)))


def _found(sigma_w, depth, num=20):
    rng = np.random.default_rng(3)
    return [fit_growth(_ordered_tanh(sigma_w, depth, rng)) for _ in range(num)]


def _reached(found):
    """Exponentials that are as deep as their depth scale."""
    return sum(growth.depth_scale <= growth.depth for growth in found)


def test_an_exponential_is_told_behind_the_transient_that_bends_it():
    """Below criticality tanh is exponential in the end: ln 0.9 a layer at 0.9."""
    assert _reached(_found(0.9, 60)) >= 18
    found = _found(0.9, 30)
    assert _reached(found) >= 12
    assert all("exponential" in growth.compatible for growth in found)


@pytest.mark.parametrize("depth", [20, 40, 100])
def test_at_criticality_no_exponential_reaches_its_depth_scale(depth):
    found = _found(1.0, depth)
    assert _reached(found) <= 2
    assert depth == 20 or sum(growth.law == "power" for growth in found) >= 16
    assert all("power" in growth.compatible for growth in found)


def test_laws_without_a_transient_take_an_exponential_for_a_bent_law(monkeypatch):
    """The mistake: what a transient bends is called critical in most networks."""
    monkeypatch.setattr("gradstab.spectra.growth_laws._BENT_STEPS", 1000)
    assert _reached(_found(0.9, 30)) <= 3


def test_a_layer_that_adds_one_part_in_l_scatters_less_the_deeper_it_is():
    """Residual networks: sqrt(l), whose steps scatter like 1 / l."""
    rng, laws = np.random.default_rng(4), []
    depth = np.arange(1.0, 61)
    for _ in range(20):
        # A mean that adds up and a variance that adds up: l and sqrt(l) together.
        level = np.sqrt(depth + 1 + 0.3 * depth**2)
        walk = np.cumsum(rng.normal(0, 0.02, 60) / depth)
        laws.append(fit_growth(level * np.exp(walk)).law)
    assert laws.count("power") >= 15


@pytest.mark.parametrize("law", ["exponential", "constant"])
def test_a_signal_that_starts_at_the_end_may_have_its_transient_there(law):
    """The gradient of an LSTM: of its output alone at first, then of what lasts."""
    levels = RATES.get(law, 0.0) * LAYERS - 2 * np.exp((LAYERS - 40) / 3.7)
    found = fit_growth(np.exp(levels), from_end=True)
    assert found.law == law
    assert found.rate == pytest.approx(RATES.get(law, 0.0), rel=2e-3)
    assert found.settling == pytest.approx(3.7, rel=1e-2)
    # Its start may settle all the same.
    found = fit_growth(BENT[law], from_end=True)
    assert found.law == law
    assert found.settling == pytest.approx(3.7, rel=1e-2)


def test_without_knowing_where_it_starts_the_rate_of_a_bent_end_is_wrong():
    levels = 0.03 * LAYERS - 2 * np.exp((LAYERS - 40) / 3.7)
    assert fit_growth(np.exp(levels), from_end=True).rate == pytest.approx(0.03, 0.01)
    assert abs(fit_growth(np.exp(levels)).rate - 0.03) > 0.01


def test_short_networks_do_not_show_a_bend():
    assert fit_growth(BENT["constant"][:8]).settling == 0
    assert fit_growth(BENT["power"][:8]).offset == 0


def test_the_depth_scale_is_that_of_an_exponential():
    assert fit_growth(0.9**LAYERS).depth_scale == pytest.approx(9.4912, rel=1e-4)
    assert fit_growth(LAYERS**-0.5).depth_scale == np.inf
    assert fit_growth(1.1**LAYERS).depth == 40


def _rates(fit, drift, depth=30, num=300):
    rng, found = np.random.default_rng(1), []
    for _ in range(num):
        steps = drift + rng.normal(0, 0.1, depth - 1)
        found.append(fit(np.exp(np.concatenate([[0.0], np.cumsum(steps)]))))
    return np.array(found)


def _of_steps(norms):
    growth = fit_growth(norms)
    assert growth.law == "exponential"
    return growth.rate, growth.error


def _of_levels(norms):
    """The mistake: a straight line through the levels, whose errors are not alike."""
    layer = np.arange(1.0, len(norms) + 1)
    (rate, _), covariance = np.polyfit(layer, np.log(norms), 1, cov=True)
    return rate, np.sqrt(covariance[0, 0])


def _calibrated(fit):
    """Whether 95 % intervals cover, within the sampling error of 300 walks.

    A drift of 2 a layer leaves no doubt about the law.
    """
    rate, error = _rates(fit, drift=2.0).T
    covered = np.mean(np.abs(rate - 2.0) < NORMAL_95 * error)
    return abs(covered - 0.95) < 3 * np.sqrt(0.95 * 0.05 / len(rate))


@pytest.mark.slow
def test_the_standard_error_is_calibrated():
    assert _calibrated(_of_steps)


@pytest.mark.slow
def test_the_standard_error_knows_of_the_transient():
    """The z scores of the rate behind a transient of four layers."""
    rng, scores = np.random.default_rng(5), []
    transient = 4 * (1 - np.exp(-np.arange(40) / 4.0))
    for _ in range(200):
        walk = np.cumsum(rng.normal(2.0, 0.05, 40))
        found = fit_growth(np.exp(walk + transient))
        assert found.law == "exponential"
        assert found.settling > 0
        scores.append((found.rate - 2.0) / found.error)
    # Student's variance at 36 degrees of freedom is 36/34; its error over 200 is 0.11.
    assert 0.75 < np.var(scores) < 1.4
    assert abs(np.mean(scores)) < 0.3


def test_an_error_from_a_fit_to_the_levels_is_rejected():
    assert not _calibrated(_of_levels)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [4, 6, 12, 50])
def test_a_random_walk_without_drift_gets_no_law_of_growth(depth):
    rng, num = np.random.default_rng(2), 150
    steps = rng.normal(0, 0.3, (num, depth - 1))
    walks = np.concatenate([np.zeros((num, 1)), np.cumsum(steps, axis=1)], axis=1)
    found = [fit_growth(np.exp(walk)) for walk in walks]
    assert sum(growth.law in ("constant", "unknown") for growth in found) >= 0.98 * num
    assert all(g.law != "constant" or g.bound ** (depth - 1) <= np.e for g in found)


@pytest.mark.parametrize("depth", [4, 6, 12, 50])
def test_a_quiet_walk_without_drift_is_constant(depth):
    rng = np.random.default_rng(2)
    walks = np.cumsum(rng.normal(0, 0.01, (50, depth)), axis=1)
    assert sum(fit_growth(np.exp(w)).law == "constant" for w in walks) >= 48


# Of the issue: three sigmoid layers; relu with the scale of LeCun, 5 x 30; tanh of
# width 8, 12 layers, in which the signal falls six- to twelvefold.
SHORT = {
    "three layers": [0.059, 0.242, 1.0],
    "five layers": 0.707 ** np.arange(5) * np.exp([0.1, -0.1, 0.05, 0.1, -0.12]),
    "twelve narrow layers": np.exp(-0.2 * np.arange(12))
    * np.exp(0.3 * np.sin([1, 5, 2, 8, 3, 9, 4, 7, 6, 0, 2, 5])),
    "a time axis of eight": 10.0 ** -(np.arange(8) / 7) * np.exp([0, 0.2, 0, -0.2] * 2),
    "four layers that grow": [1.0, 2.5, 2.2, 4.0],
    "two layers": [1.0, 7.0],
}


@pytest.mark.parametrize("norms", SHORT.values(), ids=SHORT.keys())
def test_what_the_fit_cannot_reject_is_not_asserted(norms):
    found = fit_growth(norms)
    assert found.law != "constant"
    assert found.change == pytest.approx(norms[-1] / norms[0], rel=1e-12)


@pytest.mark.parametrize(
    ("factor", "depth"), [(1.05127, 8), (1.05127, 9), (1.0305, 12), (0.96, 10)]
)
def test_a_law_is_chosen_before_it_is_asked_whether_it_matters(factor, depth):
    found = fit_growth(factor ** np.arange(depth))
    assert found.law == "constant"
    assert found.change == pytest.approx(factor ** (depth - 1))
    assert np.log(found.bound) == pytest.approx(abs(np.log(factor)), rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_levels_that_scatter_leave_the_trend_through_them_its_small_error(seed):
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.3, 64)
    found = fit_growth(np.exp(0.2 * np.arange(64) + noise))
    assert found.law == "exponential"
    # Of least squares: sigma sqrt(12 / L^3) = 0.002; of a walk 0.3 / 8 = 0.04.
    assert 0.001 < found.error < 0.004
    assert abs(found.rate - 0.2) < 4 * found.error


def test_a_change_below_a_factor_of_one_and_a_half_is_constant():
    assert fit_growth(1.01 ** np.arange(20)).law == "constant"
    assert fit_growth(1.01 ** np.arange(60)).law == "exponential"


def test_examples_are_averaged_in_the_logarithm():
    one, other = 1.1**LAYERS, 1.3**LAYERS
    found = fit_growth(np.stack([one, other], axis=1))
    assert found.factor == pytest.approx(np.sqrt(1.1 * 1.3), rel=1e-12)


def test_layers_whose_norm_underflowed_are_left_out():
    norms = 0.5**LAYERS
    norms[:5] = 0
    norms[20] = np.nan
    found = fit_growth(norms, [str(i) for i in range(40)])
    assert found.factor == pytest.approx(0.5, rel=1e-9)
    assert len(found.layers) == 34
    assert "20" not in found.layers


def test_a_step_over_missing_layers_counts_as_that_many(monkeypatch):
    """Under equal scatter the likeliest drift is the whole change over all layers."""
    monkeypatch.setattr("gradstab.spectra.growth_noise._SCATTERS", (0.0,))
    norms = np.exp([0.0, 1.1, 2.2, 0, 0, 0, 0, 8.0, 9.1])
    norms[3:7] = 0
    assert fit_growth(norms).rate == pytest.approx(9.1 / 8, rel=1e-12)


def test_a_constant_tells_how_large_a_drift_may_be():
    steps = np.random.default_rng(6).normal(0, 0.05, 40)
    found = fit_growth(np.exp(np.cumsum(steps)))
    assert found.law == "constant"
    # The mean of 39 steps and 1.96 of its errors; a transient in the fit widens both.
    bound = abs(np.mean(steps[1:])) + 1.96 * 0.05 / np.sqrt(39)
    assert bound < np.log(found.bound) < 2 * bound


def test_an_example_without_a_gradient_does_not_hide_the_others():
    norms = np.stack([0.5**LAYERS, np.zeros(40), np.full(40, np.nan)], axis=1)
    found = fit_growth(norms)
    assert found.law == "exponential"
    assert found.factor == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize(
    "norms", [[1.0, 2.0], [0.0] * 5, [np.nan] * 5, np.zeros((4, 2)), [0, 0, 0, 1, 2]]
)
def test_with_fewer_than_three_usable_layers_the_law_is_unknown(norms):
    found = fit_growth(norms)
    assert found.law == "unknown"
    assert np.isnan(found.rate)
    assert np.isnan(found.factor)


def test_names_of_the_layers_must_match():
    with pytest.raises(ValueError, match="zip"):
        fit_growth([1.0, 2.0, 3.0], ["a", "b"])


def test_a_change_out_of_range_is_infinite_not_an_error():
    norms = 10.0 ** (6.0 * np.arange(-50, 51))  # 600 orders of magnitude
    found = fit_growth(norms)
    assert found.change == np.inf
    assert found.factor == pytest.approx(1e6, rel=1e-9)
