"""Spectral norms of weights and updates over width, and parametrisations that break."""

import re

import numpy as np
import pytest
from held import broken, measured

from experiments import spectral_condition as experiment

SMALL = {"widths": (64, 128, 256), "seeds": 8, "steps": 4}


@pytest.mark.slow
def test_the_condition_holds_where_features_are_learned_and_nowhere_else():
    assert not broken(measured(experiment, **SMALL), "those with the condition")


@pytest.mark.slow
def test_rates_of_the_wrong_shape_break_the_condition(monkeypatch):
    def transposed(optimizer, shape):
        return shape[0] / shape[1] if optimizer == "sgd" else 1 / shape[1]

    monkeypatch.setattr(experiment, "_shape_rate", transposed)
    monkeypatch.setattr(experiment, "SCHEMES", ("shapes",))
    config = experiment.Config(**SMALL)
    claims = experiment.claims(config, experiment.run(config))
    assert broken(claims, "shapes, sgd: updates after 1")
    assert broken(claims, "shapes, adam: updates after 1")
    assert not broken(claims, "shapes: weights")


def test_norms_that_go_as_theory_says_hold_and_flat_ones_do_not():
    config = experiment.Config()
    widths = np.array(config.widths)[:, None, None]
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal((4, 4, 4)))
    pairs = [(s, f"{s} {o} 1") for s in experiment.SCHEMES for o in experiment.RATES]
    kinds = [kind for pair in pairs for kind in pair]
    arrays = {k: noise * widths ** np.array(experiment._wanted(k)) for k in kinds}
    assert not broken(experiment.claims(config, arrays))
    text = experiment.report(config, arrays)
    assert re.search(r"standard, sgd: updates after 1 step \| -0.(49|5)", text)
    flat = experiment.claims(config, dict.fromkeys(kinds, noise))
    assert broken(flat, "standard, adam: updates after 1")
    assert broken(flat, "ntk: weights")
    assert not broken(flat, "mup")


def test_a_norm_is_that_over_the_root_of_out_over_in():
    weight = 3 * np.eye(2, 8)
    assert experiment._norms([weight]) == pytest.approx([3 / 2])
