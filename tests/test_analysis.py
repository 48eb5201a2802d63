"""From a model and a batch to a verdict: truths known on paper."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from analysis_samples import (
    WIDTH,
    diagonal,
    normal,
    run,
    scanned,
    square_loss,
)
from flax import nnx

from gradstab import models
from gradstab.network import find_layers, propagate
from gradstab.report import GrowthPair, judge
from gradstab.spectra import fit_growth

DEPTH, EXAMPLES = 20, 3

pytestmark = pytest.mark.usefixtures("quick_compiler")


def _linear_scan(scale):
    return run(scanned(), diagonal(scale, DEPTH), normal(0, EXAMPLES, WIDTH))


def _linear_list(scale):
    def apply(ws, x):
        for w in ws:
            x = x @ w
        return x

    return run(apply, [scale * jnp.eye(WIDTH)] * DEPTH, normal(0, 3, WIDTH))


def _linear_mlp(scale):
    model = models.MLP(
        WIDTH,
        WIDTH,
        widths=(WIDTH,) * (DEPTH - 1),
        activation="identity",
        kernel_init=lambda key, shape, dtype: scale * jnp.eye(*shape, dtype=dtype),
        rngs=nnx.Rngs(0),
    )
    return run(model, normal(0, EXAMPLES, WIDTH))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "scale", "verdict"),
    [
        (_linear_scan, 1.5, "exploding"),
        (_linear_scan, 0.5, "vanishing"),
        (_linear_list, 1.5, "exploding"),
        (_linear_mlp, 0.5, "vanishing"),
    ],
)
def test_a_linear_network_grows_by_its_weight_at_every_layer(make, scale, verdict):
    report = make(scale)
    assert len(report.layers) == DEPTH
    assert report.verdict == verdict
    forward, backward = report.growth
    assert forward.law == backward.law == "exponential"
    # float32 holds 0.9 and 1.2 to 2e-8.
    assert forward.factor == pytest.approx(scale, rel=1e-7)
    # The gradient is counted from the input too: it falls where the signal grows.
    assert backward.factor == pytest.approx(1 / scale, rel=1e-7)
    for layer in report.layers:
        np.testing.assert_allclose(layer.jacobian.values, scale, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "total"), [(0.9, 0.1216), (1.2, 38.34)])
def test_twenty_layers_multiply_their_factors(scale, total):
    x = normal(0, EXAMPLES, WIDTH)
    report = run(scanned(), diagonal(scale, DEPTH), x)
    before = math.sqrt(float(jnp.mean(jnp.square(x))))
    assert report.layers[-1].forward_rms / before == pytest.approx(total, rel=5e-4)
    # The random cotangents have norm one: what is left of them at the first layer.
    first = report.layers[0].gradient_norm
    np.testing.assert_allclose(first, scale ** (DEPTH - 1), rtol=1e-6)


@pytest.fixture(scope="module")
def sigmoids():
    """Ten sigmoid layers whose weights have spectral norm one."""
    keys = jax.random.split(jax.random.key(0), 10)
    ws = jax.vmap(lambda key: jax.random.orthogonal(key, 6))(keys)
    x = 3 * normal(1, 5, 6)
    return run(scanned(jax.nn.sigmoid), {"blocks": ws}, x), ws, x


@pytest.mark.slow
def test_a_sigmoid_layer_stays_within_the_bound_of_one_quarter(sigmoids):
    report, _, _ = sigmoids
    largest = np.array([layer.jacobian.values[:, 0] for layer in report.layers])
    assert np.all(largest <= 0.25)
    assert np.max(largest) > 0.2  # the bound is nearly reached
    assert np.all(np.prod(largest, axis=0) <= 0.25**10)


def test_ten_sigmoid_layers_pass_less_than_a_millionth(sigmoids):
    _, ws, x = sigmoids

    def whole(x):
        return scanned(jax.nn.sigmoid)({"blocks": ws}, x[None])[0]

    jacobians = jax.vmap(jax.jacfwd(whole))(x)
    assert float(jnp.max(jnp.linalg.norm(jacobians, ord=2, axis=(1, 2)))) <= 9.5e-7


@pytest.mark.parametrize(
    ("stddev", "variance"), [(0.1, 1.0), (0.5, 25.0), (0.01, 0.01)]
)
def test_a_layer_of_a_hundred_inputs_has_the_variance_of_its_weights(stddev, variance):
    num = 4000
    w = stddev * normal(0, 100, 50)
    report = run(lambda w, x: x @ w, w, normal(1, num, 100), layers=())
    found = report.layers[0].forward_rms ** 2
    # 5000 weights and 4000 x 100 inputs: relative errors of their squares' means.
    error = math.sqrt(2 / 5000 + 2 / (num * 100))
    assert found == pytest.approx(variance, rel=4 * error)


@functools.cache
def _random_network(activation, depth, width):
    """A network whose programs are compiled once for all weights."""
    params, x = {"blocks": jnp.zeros((depth, width, width))}, jnp.zeros((16, width))
    return find_layers(scanned(activation), params, (x,))


def _verdict(activation, sigma_w, depth, width, seed):
    network = _random_network(activation, depth, width)
    params = {"blocks": sigma_w * width**-0.5 * normal(seed, depth, width, width)}
    x = normal(seed + 100, 16, width)
    signals = propagate(network, params, (), (x,), loss=square_loss).signals
    growth = GrowthPair(
        fit_growth(signals.forward_rms), fit_growth(signals.gradient_norms)
    )
    return judge((), growth, ())[0], growth


@pytest.mark.slow
def test_a_tanh_network_at_its_critical_scale_is_critical():
    """Its signal falls like the root of the depth, and its gradient with it.

    Its log-norms are random walks, so that an exponential cannot always be excluded.
    """
    found = [_verdict(jnp.tanh, 1.0, 50, 200, seed) for seed in range(4)]
    assert {verdict for verdict, _ in found} <= {"critical", "unknown"}
    for _, growth in found:
        assert "power" in growth.forward.compatible
        if growth.forward.law == "power":
            assert growth.forward.rate == pytest.approx(-0.5, abs=0.15)


def test_theory_decides_where_the_scatter_of_the_layers_leaves_it_open():
    params = {"blocks": 2**0.5 * 0.1 * normal(1, 20, 100, 100)}
    x = normal(101, 16, 100)
    report = run(scanned(jax.nn.relu), params, x, layers=(), theory=True)
    assert report.growth.forward.law == "unknown"
    assert report.verdict == "stable"
    assert any("theory says" in reason for reason in report.reasons)


@pytest.mark.parametrize(
    ("activation", "sigma_w", "expected"),
    [
        (jax.nn.relu, math.sqrt(2), "unknown"),
        (jax.nn.relu, 1.0, "vanishing"),
        (jax.nn.relu, 2.0, "exploding"),
        (jnp.tanh, 0.5, "vanishing"),
        (jnp.tanh, 3.0, "exploding"),
        (jax.nn.sigmoid, 1.0, "vanishing"),
    ],
)
def test_the_verdict_on_random_networks_is_that_of_mean_field_theory(
    activation, sigma_w, expected
):
    verdict, _ = _verdict(activation, sigma_w, 20, 100, seed=0)
    assert verdict == expected


@pytest.mark.slow
def test_a_relu_network_loses_the_root_of_two_per_layer_without_its_gain():
    width = 200
    ws = width**-0.5 * normal(3, 30, width, width)
    x = normal(103, 16, width)
    growth = run(scanned(jax.nn.relu), {"blocks": ws}, x, layers=()).growth
    # The mean of a logarithm lies below the logarithm of the mean, by half the variance
    # 5 / width of a squared norm: Hanin (2018), at first order.
    truth = math.log(2) / 2 + 5 / (4 * width)
    assert abs(growth.forward.rate + truth) < 4 * growth.forward.error
    assert abs(growth.backward.rate - truth) < 4 * growth.backward.error


@pytest.mark.slow
@pytest.mark.parametrize("with_loss", [True, False])
def test_a_network_cut_by_stop_gradient_is_broken(with_loss):
    def apply(ws, x):
        for i, w in enumerate(ws):
            x = jnp.tanh(x @ w)
            x = jax.lax.stop_gradient(x) if i == 2 else x
        return x

    loss = square_loss if with_loss else None
    report = run(apply, [jnp.eye(3)] * 6, normal(0, 4, 3), loss=loss)
    assert report.verdict == "broken"
    assert report.reasons[0] == "no gradient reaches 2 layers: 0, 1" or (
        report.reasons[0] == "no gradient reaches 3 layers: 0, 1, 2"
    )


@pytest.mark.slow
def test_a_network_that_produces_nan_is_broken_at_the_layer_where_it_starts():
    ws = [jnp.eye(3), jnp.full((3, 3), jnp.nan), jnp.eye(3), jnp.eye(3)]

    def apply(ws, x):
        for w in ws:
            x = x @ w
        return x

    report = run(apply, ws, normal(0, 4, 3), loss=square_loss)
    assert report.verdict == "broken"
    assert report.reasons[0] == "1: its output is not finite"
    assert np.all(np.isnan(report.layers[1].jacobian.values))
