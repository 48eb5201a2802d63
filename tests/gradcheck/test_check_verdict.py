"""A rule against an oracle, as numbers."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.gradcheck.differences import verdict
from gradstab.gradcheck.differences.probes import Probes
from gradstab.gradcheck.differences.verdict import Truth, autodiff, bend, compare, kink
from gradstab.gradcheck.states import Outcome

ENTRIES = np.random.default_rng(0).standard_normal(72)
STEPS = np.array([32.0, 0.5, 0.1, 0.01, 1e-6])
PROBES = Probes(
    rules={},
    anchor=np.zeros(72),
    residual=np.zeros((5, 2, 72)),
    rounding=np.full(5, 1e-16),
    moved=STEPS,
    bend=STEPS,
    jump=np.inf,
    steps=STEPS,
    scale=1.0,
    value=1.0,
)


def truth(bar, **changes):
    return dataclasses.replace(Truth(ENTRIES, bar, 0.1, None, 0.0, "paper"), **changes)


def state(rule, oracle, *, rtol=1e-2, probes=PROBES):
    given = {"leaf": "x", "mode": "reverse", "dtype": np.float64, "rtol": rtol}
    return compare(rule, oracle, probes, **given).state


@pytest.mark.parametrize(
    ("factor", "bar", "expected"),
    [
        (1.0, 1e-6, Outcome.AGREES),
        (1.0 + 4e-4, 1e-6, Outcome.AGREES),  # twenty times as much is below 1e-2
        # Too large to pass, too small to be accused.
        (1.001, 1e-6, Outcome.SLIGHT),
        (1.01, 1e-6, Outcome.DIFFERS),
        (1.01, 2e-2, Outcome.HIDDEN),
        (0.0, 1e-6, Outcome.DIFFERS),
        (0.0, 2.0, Outcome.VANISHES),
        # A bar as large as all that is seen accuses no one.
        (5.0, 2.0, Outcome.VANISHES),
        (np.nan, 1e-6, Outcome.DIFFERS),
        (np.nan, 1.0, Outcome.UNBOUNDED),
    ],
)
def test_a_verdict_weighs_error_bar_and_the_resolution_asked_for(factor, bar, expected):
    assert state(factor * ENTRIES, truth(bar)) == expected


def test_a_rule_between_the_slopes_of_a_kink_is_said_to_be():
    assert state(1.5 * ENTRIES, truth(1e-6, kink=0.5)) == Outcome.KINK
    assert state(3.0 * ENTRIES, truth(1e-6, kink=0.5)) == Outcome.DIFFERS


def test_what_limits_the_oracle_is_the_reason():
    assert state(1.01 * ENTRIES, truth(2e-2, limit=Outcome.STAIRS)) == Outcome.STAIRS


STILL = dataclasses.replace(PROBES, moved=np.zeros(5))
SMALL = dataclasses.replace(PROBES, sizes=np.array([1.0, 1e-4]))

# One for each row of the table, in its order: factor of the rule, truth, probes.
ROWS = [
    (1.0, truth(1e-6), PROBES, Outcome.AGREES),
    (1.0, truth(1e-5), SMALL, Outcome.OVERSHADOWED),
    (1.01, truth(2e-2, limit=Outcome.STAIRS), PROBES, Outcome.STAIRS),
    (1.01, truth(2e-2), PROBES, Outcome.HIDDEN),
    (0.0, truth(2.0), PROBES, Outcome.VANISHES),
    (1.5, truth(1e-6, kink=0.5), PROBES, Outcome.KINK),
    (np.nan, truth(1.0), PROBES, Outcome.UNBOUNDED),
    (5.0, truth(2.0, limit=Outcome.STAIRS), PROBES, Outcome.STAIRS),
    (5.0, truth(2.0), PROBES, Outcome.VANISHES),
    (1.001, truth(1e-6), PROBES, Outcome.SLIGHT),
    (5e-3, truth(1e-9, entries=np.zeros(72)), STILL, Outcome.SLIGHT),
    (1.01, truth(1e-6), PROBES, Outcome.DIFFERS),
]


@pytest.mark.parametrize("number", range(len(verdict._TABLE)))
def test_every_row_of_the_table_decides_something(number, monkeypatch):
    factor, oracle, probes, expected = ROWS[number]
    above, row = verdict._TABLE[:number], verdict._TABLE[number]
    monkeypatch.setattr(verdict, "_TABLE", (*above, row))
    assert state(factor * ENTRIES, oracle, probes=probes) == expected
    monkeypatch.setattr(verdict, "_TABLE", (*above, row._replace(state=Outcome.HELD)))
    assert state(factor * ENTRIES, oracle, probes=probes) == Outcome.HELD


def test_the_error_and_the_resolution_are_relative_to_the_truth():
    given = {"leaf": "x", "mode": "reverse", "dtype": np.float64, "rtol": 1e-2}
    found = compare(1.001 * ENTRIES, truth(1e-6), PROBES, **given)
    np.testing.assert_allclose(found.error, 1e-3, rtol=1e-9)
    # Ten times of what was seen: an error of rank one may hide so much.
    np.testing.assert_allclose(found.resolution, 1e-2, rtol=2e-2)


def test_the_bend_of_a_smooth_function_vanishes_and_that_of_a_kink_does_not():
    assert kink(PROBES) <= 1e-6
    corner = np.array([0.0, 0.3, 0.4, 0.4, 0.4])  # many kinks seem none from far away
    assert kink(dataclasses.replace(PROBES, bend=corner)) == pytest.approx(0.4)
    # Down to a step of 0.01 only: a smooth function bends by as much.
    assert bend(PROBES, finest=0.005) == pytest.approx(0.01)


def test_the_bend_that_rounding_makes_is_no_kink():
    noise = np.full(5, 1e-3)
    bend = noise / STEPS  # as of a straight line in a dtype of few digits
    assert kink(dataclasses.replace(PROBES, rounding=noise, bend=bend)) == 0


def test_a_derivative_that_is_not_finite_is_no_oracle():
    entries = np.where(np.arange(72) == 3, np.nan, ENTRIES)
    found = autodiff(entries, dtype=jnp.float64, oracle="a reference")
    assert found.entries is None
    assert state(ENTRIES, found) == found.limit
