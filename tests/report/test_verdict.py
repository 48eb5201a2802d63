"""One word for a network, from its signals."""

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
    assert "too few comparable layers" in found.reasons[0]


def test_a_gradient_that_underflowed_is_vanishing_not_cut_off():
    gradients = np.where(L < 5, 0.0, 1e-45 * 1e3 ** np.maximum(L - 5, 0))
    found = report(network(ONE, gradients))
    assert found.verdict == "vanishing"


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
