"""What a report holds beside the signals, against the model differentiated whole."""

import io
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from analysis_samples import normal, run
from rich.console import Console

import gradstab as gs
from gradstab.analysis import machine
from gradstab.analysis.cost import estimate_cost
from gradstab.analysis.selection import checked_limits, select_layers
from gradstab.analysis.subject import find_subject
from gradstab.network.adapters import as_target

DEPTH, WIDTH, EXAMPLES = 6, 24, 3

pytestmark = pytest.mark.usefixtures("quick_compiler")


def make(key):
    return list(jax.random.normal(key, (DEPTH, WIDTH, WIDTH)) / WIDTH**0.5)


def apply(params, x):
    for w in params:
        x = jnp.tanh(x @ w)
    return x


def square_sum(output):
    return jnp.sum(jnp.square(output))


WEIGHTS, X = make(jax.random.key(0)), normal(1, 4, WIDTH)


@pytest.fixture(scope="module")
def report():
    return run(apply, WEIGHTS, X, loss=square_sum, examples=EXAMPLES, theory=True)


@pytest.fixture(scope="module")
def jacobians():
    """(layers, examples, out, in), by hand: diag(1 - h^2) W^T."""
    h, found = np.asarray(X, np.float64), []
    for w in np.asarray(WEIGHTS, np.float64):
        h = np.tanh(h @ w)
        found.append((1 - h**2)[:, :, None] * w.T)
    return np.stack(found)[:, :EXAMPLES]


@pytest.mark.slow
def test_exponents_are_those_of_the_product_of_all_layers(report, jacobians):
    whole = np.stack([np.linalg.multi_dot(js[::-1]) for js in jacobians.swapaxes(0, 1)])
    expected = np.log(np.linalg.svd(whole, compute_uv=False)) / DEPTH
    # The product by itself loses its smallest values: 1e-16 of the largest.
    clear = expected > expected[:, :1] + np.log(1e-10) / DEPTH
    assert clear.sum() > EXAMPLES * WIDTH / 2
    chex.assert_shape(report.exponents, (EXAMPLES, WIDTH))
    np.testing.assert_allclose(report.exponents[clear], expected[clear], atol=1e-6)
    assert np.all(report.exponent_errors < 1e-5)


def test_alignment_is_of_the_leading_directions_between_two_layers(report, jacobians):
    assert report.layers[0].alignment is None
    left = np.linalg.svd(jacobians[0])[0][:, :, 0]
    right = np.linalg.svd(jacobians[1])[2][:, 0, :]
    expected = np.abs(np.sum(left * right, axis=1))
    np.testing.assert_allclose(report.layers[1].alignment, expected, rtol=1e-5)


@pytest.mark.slow
def test_cosines_are_of_the_gradients_of_single_examples(report):
    with jax.enable_x64(True):
        weights = [jnp.asarray(w, jnp.float64) for w in WEIGHTS]
        x = jnp.asarray(X[:EXAMPLES], jnp.float64)
        gradient = jax.grad(lambda w, x: square_sum(apply(w, x[None])))
        rows = jax.vmap(gradient, (None, 0))(weights, x)[2].reshape(EXAMPLES, -1)
        rows = np.asarray(rows)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    found = report.layers[2].gradient_cosines
    np.testing.assert_allclose(found, rows @ rows.T, rtol=1e-9)


def test_theory_stands_beside_every_layer(report):
    assert report.theory.names == tuple(layer.name for layer in report.layers)
    assert set(report.theory.activations) == {"tanh"}
    # Width 24: the error of a layer's gain is some per cent, its z of order one.
    assert np.all(np.abs(report.theory.forward_z) < 6)
    assert np.all(np.abs(report.theory.gradient_z) < 6)
    measured = report.theory.measured_gradient_factor[1:]
    norms = np.stack([layer.gradient_norm for layer in report.layers])
    steps = np.sqrt(np.mean(np.square(norms[:-1] / norms[1:]), axis=1))
    np.testing.assert_allclose(measured, steps, rtol=1e-6)


def test_everything_is_kept_and_printed(report, tmp_path):
    report.save(tmp_path / "whole.json")
    again = gs.load(tmp_path / "whole.json")
    np.testing.assert_array_equal(again.exponents, report.exponents)
    chex.assert_trees_all_equal(again.theory, report.theory)
    assert again.ranges == report.ranges
    chex.assert_trees_all_equal(again.layers[1], report.layers[1])
    console = Console(file=io.StringIO(), width=100)
    again.show(console)
    printed = console.file.getvalue()
    assert "mean-field theory beside the measurement" in printed
    assert "growth exponents" in printed


@pytest.mark.slow
def test_only_the_layers_asked_for_are_looked_at_closely(report):
    some = run(apply, WEIGHTS, X, layers="[12]", examples=EXAMPLES)
    found = [layer.jacobian for layer in some.layers]
    assert [jacobian is not None for jacobian in found] == [
        name in "12" for name in "012345"
    ]
    values = report.layers[2].jacobian.values
    np.testing.assert_allclose(found[2].values, values, rtol=1e-9)
    assert some.exponents is None
    assert some.notes == ("growth exponents: only some layers were asked for",)


def test_top_k_cuts_values_and_exponents(report):
    some = run(apply, WEIGHTS, X, top_k=2, examples=EXAMPLES)
    for cut, whole in zip(some.layers, report.layers, strict=True):
        expected = whole.jacobian.values[:, :2]
        np.testing.assert_allclose(cut.jacobian.values, expected, rtol=1e-6)
    np.testing.assert_allclose(some.exponents, report.exponents[:, :2], atol=1e-5)


@pytest.mark.slow
def test_an_ensemble_has_means_and_errors_over_its_initialisations():
    weights = gs.initializations(make, jax.random.key(5), 8)
    whole = run(apply, weights, X, ensemble=True, layers=())
    assert whole.ensemble.num_seeds == 8
    single = [run(apply, [w[i] for w in weights], X, layers=()) for i in (0, 7)]
    for number, one in zip((0, 7), single, strict=True):
        found = whole.ensemble.forward_rms.values[number]
        expected = [layer.forward_rms for layer in one.layers]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    rms = whole.ensemble.forward_rms.values
    geometric = np.exp(np.mean(np.log(rms), axis=0))
    found = [layer.forward_rms for layer in whole.layers]
    np.testing.assert_allclose(found, geometric, rtol=1e-6)
    assert "over 8 initialisations" in whole.notes[-1]


@pytest.mark.slow
def test_theory_is_compared_with_all_initialisations():
    # A layer's mean squared gain is chi; a geometric mean over examples is less by
    # their variance, which is of order one over the width.
    weights = gs.initializations(make, jax.random.key(6), 64)
    options = {"ensemble": True, "layers": (), "theory": True}
    theory = run(apply, weights, X, **options).theory
    assert np.isnan(theory.gradient_z[0])
    gap = np.log(theory.measured_gradient_factor / theory.gradient_factor)[1:]
    assert np.max(np.abs(gap)) < 3 / WIDTH
    z = gap / theory.gradient_error[1:]
    np.testing.assert_allclose(theory.gradient_z[1:], z, rtol=1e-9)
    assert np.all(theory.gradient_error[1:] < 0.02)
    doubled = run(apply, [2 * w for w in weights], X, **options).theory
    np.testing.assert_allclose(doubled.sigma_w, 2 * theory.sigma_w, rtol=1e-6)


def test_parameters_of_one_initialisation_are_no_ensemble():
    with pytest.raises(ValueError, match="initializations"):
        run(lambda w, x: x * w, jnp.ones(()), X, ensemble=True)


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ("tail", ValueError, "stem, body"),
        (["tail"], KeyError, "stem, body"),
        ([2], KeyError, "no layer 2"),
    ],
)
def test_layers_that_there_are_not_are_named_with_those_there_are(
    which, error, message
):
    with pytest.raises(error, match=message):
        select_layers(["stem", "body"], which)


@pytest.mark.parametrize(
    "limits",
    [
        (0, None, 1, 2**20),
        (1, 0, 1, 2**20),
        (1, None, -1, 2**20),
        (1, 1, 1, 9),
        (1, 1, 1, 2**20, "gpu"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits):
    with pytest.raises(ValueError, match="must"):
        checked_limits(*limits)


def _cost(width, wanted=True, **changes):
    limits = {"examples": 4, "top_k": None, "max_dense": 1024, "max_bytes": 2**28}
    arrays = jnp.zeros((width, width)), jnp.ones((4, width))
    target = as_target(lambda w, x: x @ w, arrays)
    subject = find_subject(target, output=None, loss=None, precision="own")
    limits = checked_limits(*(limits | changes).values())
    return estimate_cost(subject, [wanted], limits)


def test_the_estimate_grows_with_the_cube_of_the_width():
    small, large = (dict(_cost(width).parts)["jacobians"] for width in (256, 512))
    assert large / small == pytest.approx(8, rel=0.25)


def test_the_estimate_is_of_where_spectra_are_computed(monkeypatch):
    rates = {True: 1e6, False: 1e12}
    monkeypatch.setattr(machine, "decompositions", rates.__getitem__)
    on = {where: _cost(256, spectra_on=where) for where in ("auto", "host", "device")}
    seconds = {where: dict(cost.parts)["jacobians"] for where, cost in on.items()}
    assert seconds["device"] > 100 * seconds["host"]
    assert seconds["auto"] == pytest.approx(seconds["host"])


def test_the_speed_of_decompositions_is_measured_on_the_device_as_well():
    assert 1e6 < machine.decompositions(True) < 1e17


def test_the_estimate_knows_what_is_not_computed(monkeypatch):
    # On a busy machine the speeds that are measured do not fit each other.
    speed = machine.Speed(flop=5e-11, byte=2e-10, function=2e-9, call=2e-6)
    monkeypatch.setattr(machine, "speed", lambda wide: speed)
    monkeypatch.setattr(machine, "decompositions", lambda on_device=False: 1e10)
    whole = _cost(512)
    assert _cost(512, wanted=False).seconds < whole.seconds
    assert _cost(512, top_k=4).seconds < whole.seconds
    assert _cost(512, examples=1).seconds < whole.seconds
    assert _cost(512, max_bytes=2**20).num_bytes < whole.num_bytes


def test_the_speed_of_a_machine_that_is_busy_all_along_is_the_processors(monkeypatch):
    clocks = {"perf_counter": 5.0, "process_time": 1.0}
    for name, seconds in clocks.items():
        ticks = itertools.count(step=seconds)
        monkeypatch.setattr(machine.time, name, lambda ticks=ticks: next(ticks))
    assert machine._fastest(lambda: None) == 1


def test_cotangents_are_not_the_weights_drawn_with_the_same_seed():
    key = jax.random.split(jax.random.key(0), 4)[0]
    weights = [jax.random.normal(key, (64, 64)) / 8] * 2
    options = {"layers": (), "seed": 0, "precision": "own"}
    first, _ = run(apply_linear, weights, normal(2, 64, 64), **options).layers
    # Mean 1, error sqrt(2 / 64 / 64); the rows of the weights themselves would give 2.
    assert np.mean(np.square(first.gradient_norm)) == pytest.approx(1, abs=0.3)


def apply_linear(params, x):
    for w in params:
        x = x @ w
    return x
