"""One word for a network, from its signals."""

import dataclasses

import numpy as np
import pytest
from report_samples import layer, network, recurrence, report

from gradstab.report import GrowthPair, judge
from gradstab.spectra import fit_growth

L = np.arange(1.0, 21)
ONE = np.ones(20)

# forward signal, gradient norm at every layer, verdict
CASES = {
    "nothing changes": (ONE, ONE, "stable"),
    "gradient shrinks on its way back": (ONE, 2.0**L, "vanishing"),
    "gradient grows on its way back": (ONE, 0.5**L, "exploding"),
    "signal dies": (0.5**L, ONE, "vanishing"),
    "signal blows up": (2.0**L, ONE, "exploding"),
    "both die": (0.25**L, 4.0**L, "vanishing"),
    "exploding is worse than vanishing": (0.5**L, 0.5**L, "exploding"),
    "a critical network": (L**-0.5, L**0.5, "critical"),
    "a normalised residual one": (L**0.73, L**-0.73, "critical"),
    "a stretched law": (ONE, np.exp(np.sqrt(L)), "critical"),
    "an exponential that is shallow": (ONE, 1.03**L, "critical"),
    "the same the other way": (ONE, 0.97**L, "critical"),
    "an exponential that is just deep enough": (ONE, np.exp(L / 19.9), "vanishing"),
    "a transient, then nothing": (np.exp(2 * 0.5**L), ONE, "stable"),
    "a transient that hides what follows": (
        ONE,
        np.exp(2 * (1 - 0.7**L) - 0.1 * L),
        "exploding",
    ),
    "gradient nan": (ONE, np.where(L < 5, np.nan, 1.0), "broken"),
    "gradient infinite": (ONE, np.where(L < 5, np.inf, 1.0), "broken"),
    "signal nan": (np.where(L > 5, np.nan, 1.0), ONE, "broken"),
    "signal infinite": (np.where(L > 5, np.inf, 1.0), ONE, "broken"),
    "gradient cut off": (ONE, np.where(L < 5, 0.0, 1.0), "broken"),
    "no gradient at all": (ONE, 0 * L, "broken"),
}


@pytest.mark.parametrize(
    ("rms", "gradients", "verdict"), CASES.values(), ids=CASES.keys()
)
def test_the_verdict_of_a_network_known_on_paper(rms, gradients, verdict):
    assert report(network(rms, gradients)).verdict == verdict


def test_two_layers_are_too_few_to_tell():
    found = report(network([1.0, 5.0], [1.0, 5.0]))
    assert found.verdict == "unknown"
    assert "a factor 0.2 over" in found.reasons[0]
    assert "too few layers to tell a law" in found.reasons[0]


def test_a_gradient_that_underflowed_is_vanishing_not_cut_off():
    gradients = np.where(L < 5, 0.0, 1e-45 * 1e3 ** np.maximum(L - 5, 0))
    found = report(network(ONE, gradients))
    assert found.verdict == "vanishing"


def test_a_layer_without_a_path_to_the_loss_is_cut_off_however_small_the_others():
    first, *others = network(ONE, 1e-40 * ONE)
    cut = dataclasses.replace(first, disconnected=True)
    found = report([cut, *others])
    assert found.verdict == "broken"
    assert found.reasons[0] == "no gradient reaches one layer: blocks.0"
    assert report([first, *others]).verdict == "stable"


def test_the_layers_that_no_gradient_reaches_are_named():
    gradients = np.where(L < 6, 0.0, 1.0)
    (reason, *_) = report(network(ONE, gradients)).reasons
    assert reason.startswith("no gradient reaches 5 layers: blocks.0, blocks.1")


def test_the_first_layer_with_a_bad_output_is_named():
    (reason, *_) = report(network(np.where(L > 6, np.nan, 1.0), ONE)).reasons
    assert reason == "blocks.6: its output is not finite"


def test_the_reasons_name_the_rate_and_its_direction():
    reasons = report(network(ONE, 2.0**L)).reasons
    assert "shrinks by a factor 0.5 per layer on its way back" in reasons[0]
    assert "rate +0.6931" in reasons[0]
    reasons = report(network(1.5**L, 1.5 ** (-L))).reasons
    assert "the gradient grows by a factor 1.5 per layer" in reasons[0]
    assert any("the signal grows by a factor 1.5 per layer" in r for r in reasons)


def test_the_factor_over_the_network_is_told_in_the_direction_of_travel():
    reasons = report(network(3.0**L, 2.0**L)).reasons
    assert any(f"a factor {2.0**-19:.3g} over" in reason for reason in reasons)
    assert any(f"a factor {3.0**19:.3g} over" in reason for reason in reasons)
    reasons = report(network(L**0.5, ONE)).reasons
    assert any(f"a factor {20**0.5:.3g} over" in reason for reason in reasons)


def test_a_state_that_explodes_along_time_is_exploding():
    growing = recurrence(1.3 ** np.arange(30.0), np.ones(30))
    assert report(network(ONE, ONE), [growing]).verdict == "exploding"


def test_a_recurrent_layer_is_judged_along_time():
    steps = 0.8 ** np.arange(30.0)
    vanishing = recurrence(np.ones(30), steps[::-1])
    found = report(network(ONE, ONE), [vanishing])
    assert found.verdict == "vanishing"
    assert (
        "cell, along time: the gradient shrinks by a factor 0.8 per time step"
        in (found.reasons[0])
    )
    exploding = recurrence(np.ones(30), steps)
    assert report(network(ONE, ONE), [exploding]).verdict == "exploding"


def test_a_state_that_settles_from_zero_is_no_alarm():
    settling = recurrence(np.arange(1.0, 31) ** 0.5, np.ones(30))
    assert report(network(ONE, ONE), [settling]).verdict == "stable"


def test_the_same_rate_is_critical_in_a_shallow_network_and_vanishing_in_a_deep_one():
    words = []
    for depth in (20, 33, 34, 60):
        growth = fit_growth(np.exp(0.03 * np.arange(depth)))
        assert growth.law == "exponential"
        words.append(judge((), GrowthPair(growth, growth), ())[0])
    # The depth scale is 1 / 0.03 = 33.3 layers.
    assert words == ["critical", "critical", "exploding", "exploding"]


def test_a_shallow_network_says_how_slow_its_exponential_is():
    (reason, *_) = report(network(ONE, np.exp(0.03 * L))).reasons
    assert "shrinks by a factor 0.9704 per layer" in reason
    assert ", e-fold in 33.3 layers" in reason
    (reason, *_) = report(network(ONE, np.exp(0.3 * L))).reasons
    assert "e-fold" not in reason


def test_a_transient_is_told():
    reasons = report(network(np.exp(2 * 0.5**L), ONE)).reasons
    assert any("besides a transient of 1.4 layers" in reason for reason in reasons)


def judged(rms, gradients, dtypes, recurrences=()):
    made = report(network(rms, gradients), recurrences)
    return judge(made.layers, made.growth, recurrences, dtypes=dtypes)


def test_a_mild_law_that_leaves_the_range_of_the_models_dtype_is_no_mild_verdict():
    # 3.05e-8 at layer 4, 1.95e-8 at layer 5; float16 rounds 2^-25, 2.98e-8, to zero.
    falling = 1e-3 * L**-2.0 / 2**11
    assert judged(falling, ONE, ["float32"])[0] == "critical"
    verdict, reasons = judged(falling, ONE, ["float16", "float32"])
    assert verdict == "vanishing"
    assert reasons[0] == (
        "blocks.4: the signal is lost, as half of its entries round to zero in float16"
    )
    verdict, reasons = judged(ONE, 1e4 * L**-1.5 * 20**1.5, ["float16"])
    assert verdict == "exploding"
    assert "the gradient rises above the largest number of float16" in reasons[0]


def test_a_gradient_that_starts_below_the_range_asks_for_another_scale_of_the_loss():
    assert judged(ONE, 1e-8 * ONE, ["float16"])[0] == "stable"


def test_one_that_starts_below_it_and_falls_on_is_judged_by_its_law():
    assert judged(ONE, 1e-9 * L, ["float16"])[0] == "critical"
    assert judged(ONE, 5e-8 * L / 20, ["float16"])[0] == "vanishing"


def test_a_gradient_that_keeps_its_size_at_the_edge_of_the_range_does_too():
    edge = 2.0**-25 * (1 + 0.05 * np.cos(3 * L))
    assert judged(ONE, edge, ["float16"])[0] == "stable"
    settling = np.exp(-3 * 0.6**L)  # 0.17 to 1 of what leaves the last layer
    assert judged(ONE, 1e-7 * settling, ["float16"])[0] == "vanishing"


def test_a_dtype_of_no_interest_has_no_say():
    assert judged(1e-3 * L**-2.0, ONE, [])[0] == "critical"


def test_the_range_holds_along_time_as_well():
    steps = np.arange(1.0, 31)
    falling = recurrence(np.ones(30), 5e-6 * (steps / 30) ** 2)
    assert judged(ONE, ONE, ["float32"], [falling])[0] == "critical"
    verdict, reasons = judged(ONE, ONE, ["float16"], [falling])
    assert verdict == "vanishing"
    # The gradient of an entry: 5e-6 (l / 30)^2 / sqrt(2) < 2^-25 up to l = 2.
    assert reasons[0].startswith("cell, along time: step 1: the gradient is lost")


def test_the_worst_finding_comes_first():
    found = report(network(2.0**L, np.where(L < 5, 0.0, 1.0)))
    assert found.verdict == "broken"
    assert "no gradient reaches" in found.reasons[0]


def test_an_extreme_change_is_told_and_raises_nothing():
    """A fit over a thousand layers can exceed the range of a float."""
    depth = np.arange(1000.0)
    rms = np.exp(-0.7 * depth)
    for gradients in (np.exp(0.7 * depth), np.exp(-0.7 * depth)):
        growth = GrowthPair(fit_growth(rms), fit_growth(gradients))
        verdict, reasons = judge((), growth, ())
        assert verdict in ("vanishing", "exploding")
        assert len(reasons) == 2


def test_one_layer_has_no_law():
    assert report([layer("only")]).verdict == "unknown"
