"""What may warn before a loss diverges: forms of judging a number."""

import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from gradstab.watch.indicators import (
    ALARMS,
    INDICATORS,
    LEAST,
    Form,
    Indicator,
    Scale,
    Scorer,
    largest,
)


def judged(values, form, **options):
    """The scores of a series, ``(steps,)``, or of layers, ``(steps, names)``."""
    indicator = Indicator("x", lambda get: get("x"), form, **options)
    rows = indicator.values(lambda name: np.asarray(values, float))
    scorer = Scorer(indicator)
    return np.stack([largest(scorer.look(row)) for row in rows])


def test_a_rise_is_the_logarithm_of_the_factor_over_the_median():
    steady = [1.0, 2.0, 4.0] * 10
    scores = judged([*steady, 16.0], Form.RISE)
    assert np.isnan(scores[:LEAST]).all()
    assert scores[-1] == pytest.approx(math.log(8))
    assert judged([*steady, 0.25], Form.RISE)[-1] == pytest.approx(-math.log(8))
    fall = judged([*steady, 0.25], Form.RISE, two_sided=True)
    assert fall[-1] == pytest.approx(math.log(8))


def test_only_the_hundred_steps_before_are_the_yardstick():
    scores = judged([1e6] * 100 + [1.0] * 99 + [4.0, 4.0], Form.RISE)
    assert scores[199] == pytest.approx(math.log(4))  # 99 of the hundred are 1


def test_a_level_is_judged_from_the_first_step_on():
    assert judged([2.0, 3.0], Form.LEVEL).tolist() == pytest.approx(np.log([2, 3]))
    odds = judged([0.9], Form.LEVEL, scale=Scale.LOG_ODDS)
    assert odds[0] == pytest.approx(math.log(9))


def test_a_z_score_is_that_of_the_history():
    values = np.random.default_rng(0).normal(size=150)
    scores = judged(values, Form.Z_SCORE, scale=Scale.LINEAR)
    expected = gs.watch.z_score(values)
    np.testing.assert_allclose(scores[LEAST:], expected[LEAST:], rtol=1e-9)


def test_a_cusum_adds_what_is_above_half_a_deviation_and_never_falls_below_zero():
    values = np.random.default_rng(1).normal(size=150)
    scores = judged(values, Form.CUSUM, scale=Scale.LINEAR)
    total, expected = 0.0, []
    for z in gs.watch.z_score(values)[LEAST:]:
        total = max(total + z - 0.5, 0.0)
        expected.append(total)
    np.testing.assert_allclose(scores[LEAST:], expected, rtol=1e-9)
    assert max(expected) > 0


def test_a_cusum_sees_a_slow_climb_that_no_single_step_shows():
    noise = np.random.default_rng(2).normal(size=300)
    climb = noise + np.maximum(np.arange(300) - 200, 0) * 0.03
    one = {"scale": Scale.LINEAR}
    still, up = (judged(x, Form.CUSUM, **one)[200:].max() for x in (noise, climb))
    assert up > 2 * still
    assert judged(climb, Form.Z_SCORE, **one)[200:].max() < 5


@pytest.mark.parametrize("form", Form)
def test_runs_side_by_side_are_judged_as_each_alone(form):
    values = np.exp(np.random.default_rng(3).normal(size=(60, 3, 4)))
    indicator = Indicator("x", lambda get: get("x"), form)
    together = Scorer(indicator)
    found = np.stack([largest(together.look(np.log(row))) for row in values])
    for run in range(3):
        np.testing.assert_allclose(found[:, run], judged(values[:, run], form))


@pytest.mark.parametrize("form", [f for f in Form if f is not Form.LEVEL])
def test_a_step_that_is_not_finite_silences_nothing(form):
    values = np.exp(np.random.default_rng(4).normal(size=(80, 2)) / 10)
    values[40, 1] = np.nan
    values[50, 1] = 0.0
    values[79, 1] = 1e6
    scores = judged(values, form)
    assert np.isfinite(scores[LEAST:]).all()
    assert scores[79] > 3 * np.nanmax(scores[:79])


@pytest.mark.parametrize("every", [10, 20])
def test_what_is_measured_seldom_is_judged_by_as_many_steps(every):
    indicator = Indicator("x", lambda get: get("x"), Form.RISE)
    scorer = Scorer(indicator, every=every)
    looks = [scorer.look(np.zeros(1)).item() for _ in range(100 // every)]
    assert np.isnan(looks[:2]).all()
    assert np.isfinite(looks[2:]).all()
    assert scorer.look(np.ones(1)).item() == 1.0


def test_every_indicator_is_computed_from_the_statistics_of_a_step_as_from_a_history():
    def loss(ws, x):
        for w in ws:
            x = jnp.tanh(x @ w)
        return jnp.mean(x**2)

    ws = [jnp.eye(4) * 0.5, jnp.eye(4) * 0.7]

    @jax.jit
    def step(scale):
        (_, stats), grads = gs.value_and_grad(loss)(ws, scale * jnp.ones((3, 4)))
        return stats.with_updates(grads, ws)

    steps = [jax.device_get(step(1.0 + i)) for i in range(3)]
    stacked = jax.tree.map(lambda *a: np.stack(a), *steps)
    for indicator in INDICATORS:
        whole = indicator.values(lambda name: getattr(stacked, name))
        assert np.isfinite(whole).any(), indicator.name
        for i, one in enumerate(steps):
            row = indicator.values(lambda name, one=one: getattr(one, name)[None])
            np.testing.assert_array_equal(row[0], whole[i])


def test_the_document_has_the_thresholds_and_the_rates_that_are_in_use():
    document = pathlib.Path(gs.__file__).parent.parent / "docs" / "metrics.md"
    lines = document.read_text().splitlines()
    for alarm in ALARMS:
        (line,) = (x for x in lines if x.startswith(f"| {alarm.indicator.name} |"))
        assert f"{math.exp(alarm.threshold):.3g}" in line
        assert line.endswith(f"| {alarm.false} of {alarm.healthy} |")
