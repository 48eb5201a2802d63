"""Where the best learning rate goes as a model grows."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import gradstab as gs
from gradstab.scaling import LearningRates, Trend, load_learning_rates
from gradstab.scaling.optima import optimum

RATES = tuple(2 ** (-n / 2) for n in range(16, 1, -1))


def valley(width, key):
    """Its curvature is the width: gradient descent arrives in one step of 1/width."""
    scale = jnp.exp(0.05 * jax.random.normal(key))
    return lambda p, x: jnp.sqrt(width) * p * x, scale


def searched(**options):
    options = {
        "widths": (8, 16, 32),
        "loss": lambda y: 0.5 * jnp.mean(y**2),
        "optimizer": optax.sgd,
        "learning_rates": RATES,
        "steps": 1,
        "seeds": 2,
        "progress": False,
    } | options
    return gs.scaling.learning_rate_transfer(valley, jnp.ones(4), **options)


@pytest.fixture(scope="module")
def found():
    return searched()


def test_an_optimum_of_one_over_the_width_shrinks_with_slope_minus_one(found):
    np.testing.assert_allclose(found.optima, [1 / 8, 1 / 16, 1 / 32], rtol=0.1)
    assert found.verdict is Trend.SHRINKS
    assert abs(found.slope.value + 1) < 0.02
    assert found.factor == pytest.approx(4, rel=0.05)
    assert not found.at_edge.any()


def test_a_rate_that_goes_with_the_width_keeps_the_optimum():
    def per_width(rate, width):
        return optax.sgd(rate * 8 / width)

    found = searched(optimizer=per_width)
    assert found.verdict is Trend.FLAT
    np.testing.assert_allclose(found.optima, 1 / 8, rtol=0.1)
    assert found.factor < 1.05


def test_losses_are_those_of_training_one_by_one(found):
    made = [
        [
            valley(
                width, jax.random.fold_in(jax.random.fold_in(jax.random.key(0), i), j)
            )
            for j in range(2)
        ]
        for i, width in enumerate(found.widths)
    ]
    for i, width in enumerate(found.widths):
        for j, (_, start) in enumerate(made[i]):
            end = float(start) * (1 - width * np.array(RATES))
            wanted = 0.5 * width * end**2
            # Rounding is that of the start, the end of a step being a difference.
            atol = width * (1e-6 * float(start)) ** 2
            np.testing.assert_allclose(found.losses[i, j], wanted, rtol=1e-4, atol=atol)


def test_what_diverges_is_infinite_and_no_optimum():
    found = searched(steps=400)
    assert np.isinf(found.losses[-1, :, -1]).all()
    assert not np.isnan(found.losses).any()
    assert (found.optima < 2 / np.array(found.widths)).all()


def test_an_optimum_outside_of_the_rates_is_not_called_flat():
    found = searched(learning_rates=(1e-5, 2e-5, 4e-5))
    assert found.at_edge.all()
    assert found.verdict is Trend.UNKNOWN
    assert "give lower or higher" in found.sentences()[0]


def test_if_every_rate_diverges_nothing_is_said():
    losses = np.full((2, 2, 3), np.inf)
    found = LearningRates(
        losses, np.array([1.0, 2.0, 4.0]), widths=(8, 16), num_steps=9
    )
    assert np.isnan(found.optima).all()
    assert found.verdict is Trend.UNKNOWN


def test_the_vertex_of_a_parabola_is_found_on_any_grid():
    rates = np.array([0.1, 0.25, 1.0, 2.0])
    losses = np.exp(0.2 * (np.log(rates) - np.log(0.4)) ** 2)
    assert optimum(rates, losses) == pytest.approx(0.4)
    assert optimum(rates, np.array([3.0, 1.0, np.inf, np.inf])) == 0.25
    # Losses below zero have no logarithm.
    assert optimum(rates, losses - 5) == pytest.approx(0.4, rel=0.2)


def test_how_far_a_loss_diverged_does_not_move_the_optimum():
    rates = 2.0 ** np.arange(-4, 3)
    losses = np.exp(0.2 * np.log2(rates) ** 2)
    large, larger = losses.copy(), losses.copy()
    large[6:], larger[6:] = 1e4, np.inf
    assert optimum(rates, large) == pytest.approx(optimum(rates, larger))
    assert optimum(rates, large) == pytest.approx(1.0, rel=0.5)
    below = np.where(losses < 1e3, losses - 2, losses)
    assert optimum(rates, below) == pytest.approx(1.0)


def test_noise_in_a_broad_valley_moves_the_optimum_by_less_than_between_three_rates():
    rates = 2.0 ** np.arange(-4, 5)
    powers = np.log2(rates)
    rng = np.random.default_rng(0)
    noisy = np.exp(0.05 * powers**2 + 0.05 * rng.standard_normal((400, len(rates))))
    found = np.log2([optimum(rates, one) for one in noisy])
    three = []
    for one in noisy:
        best = np.clip(np.argmin(one), 1, len(rates) - 2)
        left, middle, right = one[best - 1 : best + 2]
        bend = left + right - 2 * middle
        three.append(powers[best] + (0.5 * (left - right) / bend if bend > 0 else 0))
    assert abs(np.mean(found)) < 0.1
    assert np.std(found) < 0.8 * np.std(three)


def test_the_optimum_lies_between_the_neighbours_of_the_best_rate():
    rates = 2.0 ** np.arange(5)
    steep = np.array([1.01, 1.0, 0.99, 2.0, 3.0])
    assert rates[1] <= optimum(rates, steep) <= rates[3]


def test_batches_are_drawn_and_targets_go_with_their_inputs():
    x = jnp.arange(1.0, 9.0)

    def make(width, key):
        return lambda p, x: p * x, jnp.zeros(())

    found = gs.scaling.learning_rate_transfer(
        make,
        x,
        targets=3 * x,
        batch_size=2,
        widths=(8, 16),
        loss=lambda y, t: jnp.mean((y - t) ** 2),
        optimizer=optax.sgd,
        learning_rates=(1e-3, 5e-3, 1e-2),
        steps=200,
        seeds=1,
        progress=False,
    )
    # Were rows of inputs and targets mixed up, no factor would fit them.
    assert found.losses[..., -1].max() < 1e-6
    np.testing.assert_array_equal(found.losses[0], found.losses[1])


def test_arrays_that_only_the_function_holds_are_those_of_each_seed():
    def make(width, key):
        fixed = jax.random.normal(key)
        return lambda p, x: p * x + fixed, jnp.zeros(())

    found = gs.scaling.learning_rate_transfer(
        make,
        jnp.ones(4),
        widths=(8, 16),
        loss=lambda y: jnp.mean(y**2),
        optimizer=optax.sgd,
        learning_rates=(1e-9, 2e-9, 3e-9),
        steps=1,
        seeds=2,
        progress=False,
    )
    assert len(np.unique(found.losses[..., 0])) == 4


def test_a_width_compiles_once_for_all_seeds_and_rates():
    calls = []

    def counted(rate):
        calls.append(rate)
        return optax.sgd(rate)

    searched(optimizer=counted, seeds=4, widths=(8, 16))
    assert len(calls) == 2


def test_it_is_shown_drawn_and_kept(found, tmp_path):
    stream = io.StringIO()
    found.show(Console(file=stream, width=80))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "shrinks with the width" in " ".join(lines)
    assert len(found.plot().axes[0].lines) == 6
    found.save(tmp_path / "rates.json")
    again = load_learning_rates(tmp_path / "rates.json")
    np.testing.assert_array_equal(again.losses, found.losses)
    assert (again.widths, again.verdict) == (found.widths, found.verdict)
    with pytest.raises(ValueError, match="holds no gradstab transfer"):
        gs.scaling.load(tmp_path / "rates.json")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rates": (0.1, 0.2)}, "learning_rates must be at least 3"),
        ({"learning_rates": (0.0, 0.1, 0.2)}, "a learning rate must be"),
        ({"widths": (16, 8)}, "widths must be at least 2"),
        ({"batch_size": 2}, "batch_size needs targets"),
        ({"optimizer": optax.sgd(0.1)}, "a function of the learning rate"),
        ({"optimizer": lambda rate: None}, "must give an optax transformation"),
    ],
)
def test_what_cannot_be_searched_is_said(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        searched(**options)


@pytest.mark.slow
def test_the_optimum_of_an_mlp_moves_with_the_width_and_not_under_mup():
    data = gs.data.load("digits")
    x, y = jnp.asarray(data.x_train[:512]), jnp.asarray(data.y_train[:512])

    def make(width, key):
        rngs = jax.random.split(key, 3)
        shapes = ((64, width), (width, width), (width, 10))
        return _apply, [
            jax.random.normal(k, s) / s[0] ** 0.5
            for k, s in zip(rngs, shapes, strict=True)
        ]

    def _apply(params, x):
        for w in params[:-1]:
            x = jax.nn.relu(x @ w)
        return x @ params[-1]

    rules = gs.parametrize(make, base_width=32, optimizer="adam", inputs=x[:4])

    def search(make, optimizer):
        return gs.scaling.learning_rate_transfer(
            make,
            x,
            targets=y,
            batch_size=64,
            widths=(32, 128),
            loss=gs.training.cross_entropy,
            optimizer=optimizer,
            learning_rates=tuple(2.0**-n for n in range(12, 2, -1)),
            steps=20,
            seeds=2,
            progress=False,
        )

    standard = search(make, optax.adam)
    mup = search(
        rules.make, lambda rate: optax.chain(optax.adam(rate), rules.transform)
    )
    assert standard.slope.value < -0.2
    assert mup.slope.value > standard.slope.value + 0.3
