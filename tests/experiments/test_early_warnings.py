"""Leads and false alarms of indicators are counted as the experiment says."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

import gradstab as gs
from experiments import _collapses, early_warnings
from experiments._collapses import FAULTS, HEALTHY


def test_a_loss_diverges_where_it_stays_above_its_best():
    falls = np.linspace(2.3, 0.5, 100)
    rises = np.concatenate([falls, np.full(50, 3.0)])
    assert early_warnings.divergence(falls) == 100
    assert early_warnings.divergence(rises) == 100
    passing = np.concatenate([falls, [3.0] * 3, np.full(47, 0.5)])
    assert early_warnings.divergence(passing) == len(passing)
    tenfold = np.concatenate([falls, [9.0], np.full(49, 0.5)])
    assert early_warnings.divergence(tenfold) == 100
    large = np.concatenate([1000 * falls, np.full(50, 600.0)])  # above, but not by half
    assert early_warnings.divergence(large) == len(large)
    assert early_warnings.divergence(np.array([np.nan, 1.0])) == 0
    assert early_warnings.divergence(np.array([1.0, np.nan, 1.0])) == 1


@pytest.mark.parametrize(("share", "rung"), [(0.0, 0), (0.05, 2), (0.26, 10)])
def test_the_threshold_is_what_this_share_of_runs_is_above(share, rung):
    maxima = np.random.default_rng(0).normal(size=40)
    limit = early_warnings.threshold(maxima, share)
    assert (maxima > limit).sum() == rung


def test_the_interval_of_a_share_is_that_of_clopper_and_pearson():
    assert early_warnings.interval(0, 80) == pytest.approx((0, 1 - 0.025 ** (1 / 80)))
    low, high = early_warnings.interval(4, 80)
    assert (low, high) == pytest.approx((0.01379, 0.12310), abs=1e-5)
    assert early_warnings.interval(80, 80)[1] == 1


def test_a_lead_is_counted_from_the_first_alarm_after_the_fault_began():
    steps = 100
    loss = np.full(steps, 1.0)
    lost = np.where(np.arange(steps) < 80, 1.0, 9.0)
    faults = [HEALTHY] * 4 + [FAULTS[0]] * 5
    clean = np.stack([loss] * 4 + [lost, lost, lost, lost, loss])
    scores = np.zeros((len(early_warnings.ALL), len(faults), steps))
    scores[:, 1, 5] = 2.0  # a false alarm of a run that does not set the threshold
    scores[:, 4, [10, 60]] = 2.0  # before the fault, and in it
    scores[:, 5, 80] = 2.0  # as late as the divergence
    scores[:, 7, 30:] = 0.5  # never above
    scores[:, 6, 50] = scores[:, 8, 50] = 2.0
    scores[:, 0, 7] = scores[:, 2, 3] = 1.0
    begin = np.array([0] * 4 + [40] * 5)
    arrays = {"fault": np.array(faults), "begin": begin, "clean": clean}
    one = early_warnings.measure(early_warnings.Config(), arrays | {"scores": scores})
    assert one[0].leads[FAULTS[0]].tolist() == [20, 0, 30, 0]
    assert (one[0].false, one[0].healthy) == (1, 2)
    assert one[0].threshold == 1.0


def _network(kind):
    layers = _collapses.chain(_collapses.Setting(kind))
    params = _collapses.initialise(layers, jax.random.key(0), 1.0)
    return layers, params, jax.random.normal(jax.random.key(1), (2, 8, 8))


@pytest.mark.slow
@pytest.mark.parametrize("kind", _collapses.KINDS)
def test_the_largest_singular_values_are_those_of_the_whole_jacobians(kind):
    layers, params, x = _network(kind)
    largest, _ = _collapses.spectra(layers, params, x)
    sizes = []
    for h in x:
        norms = []
        for layer in layers:
            apply = functools.partial(layer.apply, params[layer.name])
            jacobian, h = jax.jacfwd(apply)(h), apply(h)
            matrix = np.asarray(jacobian, np.float64).reshape(h.size, -1)
            norms.append(np.linalg.norm(matrix, 2))
        sizes.append(norms)
    np.testing.assert_allclose(largest, np.mean(sizes, axis=0), rtol=0.02)


def test_the_leading_directions_are_those_of_a_matrix_with_a_gap():
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(n, 5)))[0] for n in (12, 9))
    matrix = u * np.array([5.0, 4.0, 1.0, 0.5, 0.1]) @ v.T
    left, size, right = _collapses._leading(matrix.astype(np.float32))
    assert float(size) == pytest.approx(5, rel=1e-5)
    assert abs(left @ u[:, 0]) == pytest.approx(1, abs=1e-5)
    assert abs(right @ v[:, 0]) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_singular_values_are_those_of_the_analysis_up_to_the_head():
    layers, params, x = _network("transformer")
    largest, _ = _collapses.spectra(layers, params, x)
    report = gs.analyze(
        lambda params, x: jax.vmap(lambda h: _collapses.forward(layers, params, h))(x),
        params,
        x,
        theory=False,
    )
    names = [layer.name for layer in report.layers]
    assert names == [layer.name for layer in layers]
    # The mean over tokens is before the head there, and in it here.
    found = [np.mean(layer.jacobian.values[:, 0]) for layer in report.layers[:4]]
    np.testing.assert_allclose(largest[:4], found, rtol=1e-3)


SMALL = {"healthy": 2, "faulty": 1, "steps": 120, "width": 8}


@pytest.mark.slow
def test_a_small_measurement_has_a_row_for_every_indicator():
    config = dataclasses.replace(early_warnings.Config(), **SMALL)
    arrays = early_warnings.run(config)
    equal, in_use = early_warnings.report(config, arrays).split("\n\n")
    assert len(equal.splitlines()) == 2 + len(early_warnings.ALL)
    assert len(in_use.splitlines()) == 2 + len(early_warnings.ALARMS) + 3
    claims = early_warnings.claims(config, arrays)
    (healthy,) = (c for c in claims if "healthy runs that diverge" in c.text)
    assert healthy.held
    assert early_warnings.plot(config, arrays).axes
