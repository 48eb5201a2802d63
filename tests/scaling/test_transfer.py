"""Coordinate checks: slopes, verdicts, causes, and runs that are interrupted."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from rich.console import Console

import gradstab as gs
from gradstab.scaling import Trend, load

WIDTHS = (32, 64, 128)
INPUTS = jax.random.normal(jax.random.key(7), (4, 8))
LABELS = jnp.array([[1.0], [-1.0], [0.5], [-0.5]])


def mlp(width, key):
    """Two hidden layers, standard parametrisation."""
    shapes = {"a_in": (8, width), "b_hidden": (width, width), "c_out": (width, 1)}
    keys = jax.random.split(key, 3)
    params = {
        name: jax.random.normal(k, shape) / shape[0] ** 0.5
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }
    return apply, params


def apply(params, x):
    for name in ("a_in", "b_hidden"):
        x = jnp.tanh(x @ params[name])
    return x @ params["c_out"]


def loss(output):
    return jnp.mean((output - LABELS) ** 2)


def check(make, optimizer, **options):
    options = {"widths": WIDTHS, "steps": 1, "seeds": 2, "progress": False} | options
    return gs.transfer(make, INPUTS, loss=loss, optimizer=optimizer, **options)


def scaled(optimizer, scheme="mup"):
    return gs.parametrize(
        mlp, base_width=32, scheme=scheme, optimizer=optimizer, inputs=INPUTS
    )


def factors(*pairs):
    """An optax transformation: updates of one parameter times a power of its width."""

    def update(updates, state, params=None):
        for name, power in pairs:
            width = max(updates[name].shape)
            updates = updates | {name: updates[name] * (width / 32) ** power}
        return updates, state

    return optax.GradientTransformation(lambda params: (), update)


@pytest.fixture(scope="module")
def standard():
    return check(mlp, optax.adam(1e-4))


@pytest.fixture(scope="module")
def mup():
    rules = scaled("adam")
    return check(rules.make, optax.chain(optax.adam(1e-4), rules.transform), seeds=4)


def test_one_learning_rate_makes_hidden_updates_grow_with_the_width(standard):
    assert standard.verdict is Trend.GROWS
    slopes = {row.name: row.slope for row in standard.parameters}
    assert abs(slopes["a_in"]) < 0.1
    assert abs(slopes["b_hidden"] - 1) < 0.15
    assert abs(slopes["c_out"] - 1) < 0.25


def test_the_causes_of_the_standard_parametrisation_are_the_rules_of_mup(standard):
    causes = {(c.name, c.what): c.multiplier for c in standard.causes}
    assert causes == {
        ("c_out", "initial values"): -0.5,
        ("b_hidden", "learning rate"): -1.0,
        ("c_out", "learning rate"): -1.0,
    }
    assert ("standard", "adam") in standard.schemes


def test_what_follows_from_faster_learning_is_no_cause(standard):
    """A wide model learns faster, and later gradients of it are smaller."""
    powers = np.array(WIDTHS)[:, None, None] ** -0.6

    def longer(values, factor):
        values = np.asarray(values)
        return np.concatenate([values, values[:, :, -1:] * factor], axis=2)

    arrays = ("activation", "update", "gradient", "added", "weight", "change")
    arrays += ("entering", "gain", "passed")
    run = dataclasses.replace(
        standard,
        own=longer(standard.own, powers[..., None]),
        loss=longer(standard.loss, powers),
        **{name: longer(getattr(standard, name), 1.0) for name in arrays},
    )
    assert run.num_steps == 2
    assert run.parameter("a_in").verdict is Trend.SHRINKS
    assert run.causes == standard.causes


@pytest.mark.slow
def test_of_a_residual_network_no_vector_is_accused():
    def make(width, key):
        return Residual(width, nnx.Rngs(key))

    found = gs.transfer(
        make,
        jax.random.normal(jax.random.key(1), (32, 8)),
        widths=WIDTHS,
        loss=lambda y: optax.softmax_cross_entropy_with_integer_labels(
            y, jnp.arange(32) % 10
        ).mean(),
        optimizer=optax.adam(3e-3),
        seeds=2,
        progress=False,
    )
    assert {c.name for c in found.causes} == {"h.kernel", "o.kernel", "out.kernel"}


class Residual(nnx.Module):
    """A block of a transformer without attention."""

    def __init__(self, width, rngs):
        self.inp = nnx.Linear(8, width, rngs=rngs)
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.h = nnx.Linear(width, 4 * width, rngs=rngs)
        self.o = nnx.Linear(4 * width, width, rngs=rngs)
        self.out = nnx.Linear(width, 10, rngs=rngs)

    def __call__(self, x):
        with jax.numpy_dtype_promotion("standard"):
            x = self.inp(x)
            x = x + self.o(jax.nn.gelu(self.h(self.norm(x))))
            return self.out(x)


@pytest.mark.slow
def test_the_causes_under_gradient_descent_are_the_rules_of_mup():
    found = check(mlp, optax.sgd(1e-2), seeds=4)
    assert {(c.name, c.what): c.multiplier for c in found.causes} == {
        ("c_out", "initial values"): -0.5,
        ("a_in", "learning rate"): 1.0,
        ("c_out", "learning rate"): -1.0,
    }
    assert found.schemes == (("standard", "sgd"),)


def test_mup_is_flat(mup):
    assert mup.verdict is Trend.FLAT
    assert mup.causes == ()
    assert ("mup", "adam") in mup.schemes


@pytest.mark.parametrize("name", ["a_in", "b_hidden", "c_out"])
@pytest.mark.parametrize("power", [-1.0, 1.0])
def test_a_wrong_learning_rate_is_named_with_its_multiplier(name, power):
    rules = scaled("adam")
    wrong = optax.chain(optax.adam(1e-4), rules.transform, factors((name, power)))
    (cause,) = check(rules.make, wrong, seeds=4).causes
    assert (cause.name, cause.what, cause.multiplier) == (name, "learning rate", -power)


@pytest.mark.parametrize("name", ["b_hidden", "c_out"])
def test_wrong_initial_values_are_named_with_their_multiplier(name):
    rules = scaled("adam")

    def make(width, key):
        function, params = rules.make(width, key)
        return function, params | {name: params[name] * (width / 32) ** -0.5}

    optimizer = optax.chain(optax.adam(1e-4), rules.transform)
    first, *_ = check(make, optimizer, seeds=4).causes
    assert (first.name, first.what, first.multiplier) == (name, "initial values", 0.5)


def test_the_effect_of_an_update_is_that_of_the_product_by_hand(standard):
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), 0)
    _, params = mlp(64, key)
    slopes = jax.grad(lambda p: loss(apply(p, INPUTS)))(params)
    optimizer = optax.adam(1e-4)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = optimizer.update(slopes, optimizer.init(params), params)
    hidden = jnp.tanh(INPUTS @ params["a_in"])
    wanted = jnp.sqrt(jnp.mean((hidden @ updates["b_hidden"]) ** 2))
    found = standard.own[1, 0, 1, standard.parameter_names.index("b_hidden")]
    assert abs(found / wanted - 1) < 1e-3


def test_an_interrupted_check_goes_on_where_it_was(standard, tmp_path):
    made = []

    def interrupted(width, key):
        made.append(width)
        if len(made) == 5:
            raise KeyboardInterrupt
        return mlp(width, key)

    with pytest.raises(KeyboardInterrupt):
        check(interrupted, optax.adam(1e-4), folder=tmp_path)
    made.clear()

    def counted(width, key):
        made.append(width)
        return mlp(width, key)

    again = check(counted, optax.adam(1e-4), folder=tmp_path)
    np.testing.assert_array_equal(again.own, standard.own)
    np.testing.assert_array_equal(again.update, standard.update)
    assert len(made) < 6


def test_a_folder_of_another_check_is_refused(tmp_path):
    check(mlp, optax.adam(1e-4), folder=tmp_path, seeds=1)
    with pytest.raises(ValueError, match="steps differ"):
        check(mlp, optax.adam(1e-4), folder=tmp_path, seeds=1, steps=2)


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ({"optimizer": optax.adam(2e-4)}, "optimizer"),
        ({"make": lambda w, k: (lambda p, x: apply(p, 2 * x), mlp(w, k)[1])}, "model"),
        ({"inputs": INPUTS + 1}, "inputs"),
        ({"loss": lambda output: jnp.mean((output - 2 * LABELS) ** 2)}, "loss"),
    ],
)
def test_runs_of_another_model_or_optimiser_are_not_taken(options, differs, tmp_path):
    given = {"make": mlp, "inputs": INPUTS, "optimizer": optax.adam(1e-4), "loss": loss}

    def run(make, inputs, **options):
        fixed = {"widths": (8, 16), "steps": 1, "seeds": 1, "progress": False}
        return gs.transfer(make, inputs, folder=tmp_path, **fixed, **options)

    run(**given)
    with pytest.raises(ValueError, match=f"{differs} differ"):
        run(**given | options)
    run(**given)


def test_a_saved_check_is_read_as_it_was(standard, tmp_path):
    standard.save(tmp_path / "check.json")
    again = load(tmp_path / "check.json")
    assert again.layers == standard.layers
    assert again.causes == standard.causes
    with pytest.raises(FileExistsError):
        standard.save(tmp_path / "check.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no gradstab transfer"):
        load(tmp_path / "other.json")


def test_the_tables_fit_a_narrow_terminal_and_name_the_cause(standard):
    console = Console(file=io.StringIO(), width=80, record=True)
    standard.show(console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "b_hidden (hidden)" in text
    assert "…" not in text
    assert "width^-1" in text


def test_the_figure_has_a_panel_for_each_quantity(standard):
    assert len(standard.plot().axes) == 4
    assert "own" not in standard.plot(quantity="update").axes[0].get_title()
    with pytest.raises(ValueError, match="quantity must be one of"):
        standard.plot(quantity="size")


def residual(power):
    def make(depth, key):
        keys = jax.random.split(key, depth + 2)
        scale = depth**-power
        blocks = jnp.stack([jax.random.normal(k, (16, 16)) / 4 for k in keys[2:]])
        params = {
            "blocks": blocks,
            "embed": jax.random.normal(keys[0], (8, 16)) / 8**0.5,
            "head": jax.random.normal(keys[1], (16, 1)) / 4,
        }

        def apply(params, x):
            def block(x, w):
                return x + scale * jnp.tanh(x @ w), None

            x, _ = jax.lax.scan(block, x @ params["embed"], params["blocks"])
            return x @ params["head"]

        return apply, params

    return make


@pytest.mark.slow
@pytest.mark.parametrize(("power", "wanted"), [(0.0, Trend.GROWS), (0.5, Trend.FLAT)])
def test_residual_blocks_grow_with_depth_unless_they_are_scaled(power, wanted):
    found = check(
        residual(power), optax.sgd(1e-4), widths=(4, 8, 16, 32), seeds=4, vary="depth"
    )
    assert found.layer("blocks.last").activation.trend is wanted


@pytest.mark.slow
def test_batch_sizes_take_the_first_examples():
    found = gs.transfer(
        lambda size, key: mlp(16, key),
        INPUTS,
        widths=(2, 4),
        loss=lambda y: jnp.mean(y**2),
        optimizer=optax.sgd(1e-3),
        steps=1,
        seeds=1,
        vary="batch",
        progress=False,
    )
    assert found.sizes == (2, 4)
    assert found.causes == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (64,)}, "at least two"),
        ({"widths": (64, 32)}, "larger than the one before"),
        ({"widths": (0, 32)}, "a width must be a whole number"),
        ({"steps": 0}, "steps must be"),
        ({"seeds": 0}, "seeds must be"),
        ({"vary": "colour"}, "vary must be one of"),
    ],
)
def test_a_check_that_makes_no_slope_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check(mlp, optax.sgd(1.0), **options)


def test_what_is_no_optimiser_is_refused():
    with pytest.raises(TypeError, match="optax transformation"):
        check(mlp, 0.1)
    with pytest.raises(TypeError, match="make must be a function"):
        check(None, optax.sgd(1.0))


def test_causes_of_one_kind_are_one_sentence():
    def deep(width, key):
        keys = jax.random.split(key, 4)
        names = ("h0", "h1", "h2", "h3")
        params = {
            name: jax.random.normal(k, (width, width)) / width**0.5
            for k, name in zip(keys, names, strict=True)
        }

        def apply(params, x):
            x = jnp.tile(x, width // 8)
            for name in names:
                x = jnp.tanh(x @ params[name])
            return x[:, :1]

        return apply, params

    found = check(deep, optax.adam(1e-4), widths=(16, 32), seeds=3)
    console = Console(file=io.StringIO(), width=80, record=True)
    found.show(console)
    words = " ".join(console.export_text().split())
    assert "hidden parameters (" in words
    assert "multiply their learning rate by width^" in words
