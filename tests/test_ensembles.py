"""Many initialisations in one program: their signals, their growth, their errors."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from analysis_samples import run, square_loss
from flax import nnx
from scipy import special

import gradstab as gs
from gradstab.analysis import ensemble as ensembles
from gradstab.analysis.ensemble import ensemble_signals, growth_over_seeds, summarize
from gradstab.analysis.initialization import member
from gradstab.analysis.trunk import find_trunk
from gradstab.network import find_layers, propagate
from gradstab.network.adapters import as_target
from gradstab.network.losses import as_loss
from gradstab.records import NORMAL_95
from gradstab.report import OverSeeds
from gradstab.theory.finite_width import relu_log_law

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compiler")]

WIDTH, DEPTH, SEEDS = 8, 5, 2000


def _relu(params, x):
    x = jax.nn.relu(x @ params["first"])
    return jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), x, params["rest"])[0]


def _he(key):
    key_first, key_rest = jax.random.split(key)
    first = jax.random.normal(key_first, (4, WIDTH)) * (2 / 4) ** 0.5
    rest = jax.random.normal(key_rest, (DEPTH - 1, WIDTH, WIDTH))
    return {"first": first, "rest": rest * (2 / WIDTH) ** 0.5}


@pytest.fixture(scope="module")
def relu_networks():
    """Signals of 2000 relu networks with He's initialisation, one example."""
    params = gs.initializations(_he, jax.random.key(0), SEEDS)
    x = jax.random.normal(jax.random.key(1), (1, 4))
    network = find_layers(_relu, member(params, 0), (x,))
    found = ensemble_signals(network, params, (), (x,), loss=jnp.sum)
    return summarize(found, find_trunk(network))


class Noisy(nnx.Module):
    """With statistics of the batch and dropout: state and keys beside parameters."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(3)])
        self.norm = nnx.BatchNorm(3, rngs=rngs, use_fast_variance=False)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x):
        """Three layers, the second one normalised, the third one with dropout."""
        x = jnp.tanh(self.layers[0](x))
        x = jnp.tanh(self.norm(self.layers[1](x)))
        return self.dropout(self.layers[2](x))


@pytest.fixture(scope="module")
def noisy():
    """Five initialisations of a model with state."""

    def make(key):
        return Noisy(nnx.Rngs(params=key, dropout=3))

    return gs.initializations(make, jax.random.key(2), 5)


def _signals(target, first, **options):
    network = find_layers(target.apply, *first[:1], target.inputs, state=first[1])
    arrays = target.params, target.state, target.inputs
    return network, ensemble_signals(network, *arrays, **options)


def test_every_seed_has_the_signals_of_its_own_network(noisy):
    x = jax.random.normal(jax.random.key(3), (4, 3))
    target = as_target(noisy, (x,))
    members = [member((target.params, target.state), i) for i in range(5)]
    with jax.numpy_dtype_promotion("standard"):
        network, found = _signals(target, members[0], loss=square_loss)
        for number, arrays in enumerate(members):
            one = propagate(network, *arrays, target.inputs, loss=square_loss)
            same = jax.tree.map(lambda array, i=number: array[i], found.signals)
            chex.assert_trees_all_close(same, one.signals, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(found.loss[number], one.loss, rtol=1e-5)


@pytest.mark.slow
def test_a_limit_on_bytes_changes_nothing_but_the_memory(relu_networks):
    params = gs.initializations(_he, jax.random.key(0), 5)
    x = jnp.ones((2, 4))
    network = find_layers(_relu, member(params, 0), (x,))
    key = jax.random.key(4)
    whole = ensemble_signals(network, params, (), (x,), loss=jnp.sum, key=key)
    two = 2 * ensembles._bytes_per_seed(network, params)
    key = jax.random.clone(key)
    parts = ensemble_signals(
        network, params, (), (x,), loss=jnp.sum, key=key, max_bytes=two
    )
    assert parts.mean_square.shape == (5, DEPTH)
    chex.assert_trees_all_close(parts, whole, rtol=1e-5)


@pytest.mark.parametrize("num", [1, 5, 8])
@pytest.mark.parametrize("fits", [0, 1, 3, 4, 100])
def test_seeds_are_split_into_equal_parts_that_fit(num, fits):
    rows = ensembles._chunks(num, 10, 10 * fits + 9)
    assert rows.shape[1] <= max(fits, 1)
    assert list(dict.fromkeys(rows.ravel().tolist())) == list(range(num))
    assert rows.size < num + rows.shape[0]


@pytest.mark.slow
def test_the_estimate_of_memory_is_of_the_right_size():
    """Within a factor of two of what XLA says that the program needs."""
    params = gs.initializations(_he, jax.random.key(0), 16)
    x = jnp.ones((64, 4))
    network = find_layers(_relu, member(params, 0), (x,))
    keys = jax.random.split(jax.random.key(0), 16)
    loss, constants = as_loss(jnp.sum, network.program.output_shapes)
    arguments = (params, (), (x,), constants, keys, jnp.arange(16)[None])
    program = jax.jit(lambda *args: ensembles._of_all(network, loss, *args))
    needed = program.lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    estimate = 16 * ensembles._bytes_per_seed(network, params)
    assert needed / 2 < estimate < needed * 2


def test_relu_networks_of_any_width_follow_their_exact_law(relu_networks):
    """Mean and variance over seeds of ln |h'|^2 / |h|^2, given that h' is not zero."""
    _, ensemble, _ = relu_networks
    law = relu_log_law(WIDTH)
    levels = 2 * np.log(np.where(ensemble.forward_rms.values > 0, 1, np.nan))
    levels += 2 * np.log(np.maximum(ensemble.forward_rms.values, 1e-30))
    steps = np.diff(levels, axis=1)
    steps = steps[np.isfinite(steps)]
    error = math.sqrt(law.variance / len(steps))
    assert abs(steps.mean() - law.mean) < 4 * error
    # The law has heavier tails than a normal one: four times its error of a variance.
    assert abs(steps.var() / law.variance - 1) < 4 * math.sqrt(2 * 2 / len(steps))
    # The logarithm of the mean ratio is zero: another number by many errors.
    assert abs(law.mean) > 20 * error


def test_dead_networks_are_counted_and_left_out(relu_networks):
    _, ensemble, _ = relu_networks
    alive = relu_log_law(4, WIDTH).alive ** np.arange(1, DEPTH + 1)
    error = np.sqrt(alive * (1 - alive) / SEEDS)
    assert np.all(np.abs(ensemble.forward_rms.count / SEEDS - alive) < 4 * error)
    assert ensemble.num_seeds == SEEDS
    assert np.all(np.isfinite(ensemble.gradient_norm.mean))


def test_the_mean_squared_singular_value_is_that_of_theory(relu_networks):
    """Half of the gates are open: |J|_F^2 / n_in = n_out / n_in with He's weights.

    Networks that died before the layer have no open gates. The weights come from the
    key from which probes are drawn by default: neither must see the other.
    """
    _, ensemble, _ = relu_networks
    squares = ensemble.mean_square
    alive = np.append(1.0, ensemble.forward_rms.count[:-1] / SEEDS)
    expected = alive * np.array([WIDTH / 4] + [1.0] * (DEPTH - 1))
    assert np.all(np.abs(squares.mean - expected) < 4 * squares.error)
    assert np.all(squares.error < 0.03 * expected)


def test_without_a_loss_every_seed_has_its_own_unit_cotangents():
    params = jax.tree.map(lambda a: jnp.stack([a] * 3), _he(jax.random.key(0)))
    x = jnp.ones((2, 4))
    network = find_layers(_relu, member(params, 0), (x,))
    signals = ensemble_signals(network, params, (), (x,)).signals
    chex.assert_trees_all_close(signals.gradient_norms[:, -1], jnp.ones((3, 2)))
    first = np.asarray(signals.gradient_norms[:, 0, 0])
    assert len(np.unique(first.round(4))) == 3
    assert np.all(np.isnan(signals.param_gradient_norm))


def _wider(num_seeds):
    """The 95 % interval of Student's distribution over the normal one's."""
    return special.stdtrit(num_seeds - 1, 0.975) / NORMAL_95


def test_the_rate_is_the_mean_over_seeds_and_its_error_their_scatter():
    rates = np.random.default_rng(0).normal(-0.2, 0.03, 40)
    layer = np.arange(1, 21)
    norms = np.exp(rates[:, None] * layer)
    growth, found = growth_over_seeds(norms)
    np.testing.assert_allclose(found.values, rates, rtol=1e-9)
    assert growth.law == "exponential"
    np.testing.assert_allclose(growth.rate, rates.mean(), rtol=1e-9)
    expected = rates.std(ddof=1) / 40**0.5 * _wider(40)
    np.testing.assert_allclose(growth.error, expected, rtol=1e-9)


@pytest.mark.parametrize("law", ["power", "exp-sqrt"])
def test_all_seeds_are_fitted_with_the_law_of_the_ensemble(law):
    curve = {"power": np.log, "exp-sqrt": np.sqrt}[law](np.arange(1.0, 41.0))
    rates = np.random.default_rng(1).normal(1.0, 0.1, 10)
    growth, found = growth_over_seeds(np.exp(rates[:, None] * curve))
    assert growth.law == law
    np.testing.assert_allclose(found.values, rates, rtol=1e-3)


def test_a_transient_is_not_taken_for_the_rate():
    layer = np.arange(1.0, 41.0)
    levels = -0.1 * layer + 3 * np.exp(-layer / 4)
    noise = np.random.default_rng(2).normal(0, 1e-3, (10, 40))
    growth, found = growth_over_seeds(np.exp(levels + noise))
    assert growth.law == "exponential"
    np.testing.assert_allclose(found.values, -0.1, atol=1e-3)


@pytest.mark.parametrize(("scatter", "law"), [(1.0, "unknown"), (0.05, "constant")])
def test_a_rate_within_the_scatter_of_the_seeds_is_no_growth(scatter, law):
    """Every network has a rate; the ensemble has none if their mean is small."""
    rates = scatter * np.linspace(-0.5, 0.58, 12)
    growth, found = growth_over_seeds(np.exp(rates[:, None] * np.arange(1, 21)))
    assert growth.law == law
    assert "constant" in growth.compatible
    np.testing.assert_allclose(found.values, rates, rtol=1e-9)
    expected = rates.std(ddof=1) / 12**0.5 * _wider(12)
    if law == "unknown":
        np.testing.assert_allclose(growth.rate, rates.mean(), rtol=1e-9)
        np.testing.assert_allclose(growth.error, expected, rtol=1e-9)
    else:
        assert growth.rate == 0
        assert growth.bound**19 < math.e


def test_seeds_whose_signal_dies_have_no_rate():
    norms = np.exp(-0.3 * np.arange(1, 11) * np.ones((4, 1)))
    norms[2, 5:] = 0
    growth, found = growth_over_seeds(norms)
    assert found.count == 3
    assert np.isnan(found.values[2])
    np.testing.assert_allclose(growth.rate, -0.3, rtol=1e-9)
    none, _ = growth_over_seeds(np.zeros((3, 5)))
    assert none.law == "unknown"


def test_two_layers_have_no_law():
    growth, found = growth_over_seeds(np.ones((4, 2)))
    assert growth.law == "unknown"
    assert found.count == 0


def test_statistics_over_seeds_are_those_of_numpy():
    values = np.array([[1.0, 2.0], [4.0, 0.0], [2.0, 6.0]])
    plain = OverSeeds(values)
    np.testing.assert_allclose(plain.mean, values.mean(axis=0))
    np.testing.assert_allclose(plain.variance, values.var(axis=0, ddof=1))
    np.testing.assert_allclose(plain.error, values.std(axis=0, ddof=1) / 3**0.5)
    root = np.sqrt(values.mean(axis=0) ** 2 + values.var(axis=0, ddof=1))
    np.testing.assert_allclose(plain.log_root_mean_square, np.log(root))
    logs = OverSeeds(values, logarithmic=True)
    assert logs.count.tolist() == [3, 2]
    np.testing.assert_allclose(logs.typical, [2.0, 12**0.5])
    apart = [np.log([1, 4, 2]), np.log([2, 6])]
    np.testing.assert_allclose(logs.variance, [a.var(ddof=1) for a in apart])


def test_the_root_mean_square_of_a_lognormal_number_is_found_from_few_draws():
    """E[x^2] = exp(2 mu + 2 sigma^2), far above any draw in a sample of 100."""
    draws = np.exp(np.random.default_rng(3).normal(0.5, 2.0, (100, 200)))
    found = OverSeeds(draws, logarithmic=True).log_root_mean_square
    # The variance of a sample variance of 100 normal numbers is 2 sigma^4 / 99.
    assert abs(found.mean() - (0.5 + 4)) < 4 * math.sqrt((4 / 100 + 32 / 99) / 200)
    naive = np.log(np.mean(draws**2, axis=0)) / 2
    assert naive.mean() < found.mean() - 0.5


def test_a_typical_network_has_the_geometric_means_of_the_norms(relu_networks):
    signals, ensemble, _ = relu_networks
    np.testing.assert_allclose(signals.forward_rms, ensemble.forward_rms.typical)
    assert signals.gradient_norms.shape == (DEPTH, 1)
    fraction = 1 - 2.0**-1
    np.testing.assert_allclose(signals.zero_fraction[0], fraction, atol=0.02)
    assert not signals.disconnected.any()
    assert ensembles._geometric(np.array([0.0, 0.0, 3.0])) == 0


@pytest.mark.slow
def test_analyze_reports_the_whole_ensemble():
    def make(key):
        normal = jax.nn.initializers.normal(0.5)
        return gs.models.MLP(
            3,
            3,
            widths=[3] * 4,
            activation="tanh",
            kernel_init=normal,
            rngs=nnx.Rngs(params=key),
        )

    models = gs.initializations(make, jax.random.key(5), 4)
    x = jax.random.normal(jax.random.key(6), (3, 3))
    report = run(models, x, loss=square_loss, ensemble=True)
    assert report.ensemble.num_seeds == 4
    assert report.ensemble.names == tuple(layer.name for layer in report.layers)
    expected = float(report.ensemble.backward_rate.error) * _wider(4)
    assert report.growth.backward.error == pytest.approx(expected, rel=1e-12)
