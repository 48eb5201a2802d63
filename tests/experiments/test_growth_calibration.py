"""The law of growth knows its own resolution: a small part of the table."""

import pytest

from experiments.growth_calibration import Config, tally
from gradstab.spectra import growth


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["steps", "levels"])
@pytest.mark.parametrize("noise", [0.01, 0.3])
@pytest.mark.parametrize("depth", [6, 24])
def test_no_law_is_named_wrongly_and_intervals_cover(depth, noise, kind):
    found = tally(Config(cases=60), depth, noise, kind, seed=1)
    assert found.wrong <= 0.03 * found.cases
    assert found.overlooked <= 0.1 * found.changes
    assert found.covered >= 0.88 * found.named


def test_a_law_that_is_named_for_want_of_a_better_one_is_often_wrong(monkeypatch):
    """The mistake: the likeliest of all laws is taken, however likely the others."""
    monkeypatch.setattr(growth, "_EXCLUDED", 0.7)
    found = tally(Config(cases=15), 8, 0.1, "steps", seed=1)
    assert found.wrong > 0.05 * found.cases
