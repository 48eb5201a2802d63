"""The training loop: what it computes, in which order, and what it refuses."""

import json
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gradstab import training
from gradstab.data import batch_plan
from gradstab.training.step import as_model, graphdefs


def test_gradient_descent_on_a_quadratic_follows_the_closed_form():
    """w_t - w* = (I - 2 eta X'X / n)^t (w_0 - w*) for the mean squared error."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((32, 3)).astype(np.float32)
    best = rng.standard_normal((3, 1)).astype(np.float32)
    model = nnx.Linear(3, 1, use_bias=False, rngs=nnx.Rngs(0))
    start = np.asarray(model.kernel[...], np.float64)
    run = training.fit(
        model,
        (x, x @ best),
        loss=training.mean_squared_error,
        optimizer=optax.sgd(0.05),
        num_steps=30,
        batch_size=32,
    )
    shrink = np.eye(3) - 2 * 0.05 * x.T.astype(np.float64) @ x / 32
    expected = best + np.linalg.matrix_power(shrink, 30) @ (start - best)
    # 30 steps, each with a rounding error of a few eps of numbers near 1.
    chex.assert_trees_all_close(
        run.state.params["kernel"], expected.astype(np.float32), atol=30 * 4 * 1.2e-7
    )


@pytest.mark.slow
def test_a_step_is_bitwise_the_hand_written_one(network, blobs, optimizer, settings):
    x, y = blobs
    graphdef, _ = graphdefs(network)
    state = training.initial_state(network, optimizer)

    @jax.jit
    def by_hand(params, model_state, opt_state, x, y):
        def loss(params):
            model = nnx.merge(graphdef, params, model_state)
            value = training.cross_entropy(model(x), y)
            return value, nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))

        grads, model_state = jax.grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), model_state, opt_state

    expected = (state.params, state.model_state, state.opt_state)
    plan = batch_plan(0, 0, 4, num_examples=48, batch_size=8)
    for rows in plan:
        expected = by_hand(*expected, x[rows], y[rows])
    found = training.fit(network, blobs, **settings | {"num_steps": 4}).state
    chex.assert_trees_all_equal((found.params, found.opt_state), expected[::2])
    # The compiler may contract a product and a sum of the running averages.
    chex.assert_trees_all_close_ulp(
        found.model_state["norm"], expected[1]["norm"], maxulp=4
    )


def test_the_loss_falls_and_the_classes_are_told_apart(network, blobs, settings):
    run = training.fit(network, blobs, **settings | {"num_steps": 100})
    assert run.history["loss"][-10:].mean() < 0.3 * run.history["loss"][0]
    assert training.evaluate(run.model, *blobs)["accuracy"] > 0.95


@pytest.mark.parametrize("steps_per_dispatch", [1, 7, 50])
def test_the_steps_per_dispatch_change_nothing_beyond_rounding(
    network, blobs, settings, steps_per_dispatch
):
    one = training.fit(network, blobs, **settings)
    other = training.fit(
        network, blobs, **settings | {"steps_per_dispatch": steps_per_dispatch}
    )
    # 22 steps that amplify a rounding error of 1e-7 by less than a hundred.
    chex.assert_trees_all_close(one.state.params, other.state.params, atol=1e-5)
    assert one.num_steps == other.num_steps == 22


def test_a_run_depends_on_its_seed_alone(network, blobs, settings, arrays):
    first = training.fit(network, blobs, **settings)
    again = training.fit(network, blobs, **settings)
    other = training.fit(network, blobs, seed=1, **settings)
    chex.assert_trees_all_equal(arrays(first.state), arrays(again.state))
    assert not np.array_equal(first.history["loss"], other.history["loss"])


def test_batches_of_an_iterable_train_as_those_of_the_arrays(network, blobs, settings):
    x, y = blobs
    plan = batch_plan(0, 0, 22, num_examples=48, batch_size=8)
    batches = [(x[rows], y[rows]) for rows in plan]
    streamed = training.fit(network, batches, **settings | {"batch_size": None})
    resident = training.fit(network, blobs, **settings)
    chex.assert_trees_all_close(streamed.state.params, resident.state.params, atol=1e-6)


def test_an_iterable_begins_again_and_an_exhausted_one_is_an_error(network, blobs):
    batch = tuple(a[::6] for a in blobs)
    common = {"optimizer": optax.sgd(0.1), "steps_per_dispatch": 2, "progress": False}
    assert training.fit(network, [batch] * 3, num_steps=5, **common).num_steps == 5
    with pytest.raises(ValueError, match="ended after 1 passes"):
        training.fit(network, iter([batch] * 3), num_steps=5, **common)


def test_fit_leaves_the_given_model_alone(network, blobs, settings, arrays):
    before = arrays(nnx.to_pure_dict(nnx.state(network)))
    was_training = not network.norm.use_running_average
    run = training.fit(network, blobs, **settings)
    chex.assert_trees_all_equal(before, arrays(nnx.to_pure_dict(nnx.state(network))))
    assert was_training == (not network.norm.use_running_average)
    assert run.model.dropout.deterministic


def test_dropout_and_statistics_are_live_in_training_only(network, blobs, settings):
    run = training.fit(network, blobs, **settings)
    assert int(run.state.model_state["dropout"]["rngs"]["count"]) == 22
    assert not np.allclose(run.state.model_state["norm"]["mean"], 0)
    first, second = (training.evaluate(run.model, *blobs) for _ in range(2))
    assert first == second


def test_the_step_is_traced_once(network, blobs, settings):
    chex.clear_trace_counter()
    loss = chex.assert_max_traces(lambda *args: training.cross_entropy(*args), n=1)
    for _ in range(2):
        training.fit(network, blobs, loss=loss, **settings)


def test_history_has_a_number_for_every_step(network, blobs, settings):
    run = training.fit(network, blobs, **settings)
    assert set(run.history) == {
        *("step", "loss", "accuracy", "update_norm", "time"),
        *("pre_norm", "post_norm", "clipped", "clip_cosine", "nonfinite_count"),
    }
    chex.assert_shape(list(run.history.values()), (22,))
    np.testing.assert_array_equal(run.history["step"], np.arange(1, 23))
    norms = run.history["post_norm"]
    # Clipped at 0.5, up to rounding.
    np.testing.assert_allclose(
        norms, np.minimum(run.history["pre_norm"], 0.5), rtol=1e-6
    )
    np.testing.assert_array_equal(
        run.history["clipped"], run.history["pre_norm"] > norms
    )
    # Without momentum's past, the first update is the clipped gradient times the rate.
    np.testing.assert_allclose(run.history["update_norm"][0], 0.1 * norms[0], rtol=1e-6)


def test_update_norms_out_of_the_range_of_squares_are_exact():
    model = nnx.Linear(1, 2, use_bias=False, rngs=nnx.Rngs(0))
    for scale in (1e-30, 1.0, 1e25):
        run = training.fit(
            model,
            (np.ones((2, 1), np.float32), np.zeros((2, 2), np.float32)),
            loss=lambda output, y: jnp.sum(output - y) / 2,
            optimizer=optax.sgd(scale),
            num_steps=1,
            batch_size=2,
        )
        # Every entry of the gradient is 1.
        np.testing.assert_allclose(
            run.history["update_norm"], scale * np.sqrt(2), rtol=1e-6
        )


def test_validation_comes_after_its_multiples_and_at_the_end(network, blobs, settings):
    x, y = blobs
    data = types.SimpleNamespace(x_train=x, y_train=y, x_val=x[::2], y_val=y[::2])
    data.x_test, data.y_test = x[::3], y[::3]
    run = training.fit(network, data, validate_every=6, **settings)
    known = np.isfinite(run.history["val_loss"])
    # Ends of dispatches at or after 6, 12, 18, and the end.
    np.testing.assert_array_equal(run.history["step"][known], [8, 12, 20, 22])
    expected = training.evaluate(run.model, data.x_val, data.y_val)
    assert run.history["val_accuracy"][-1] == expected["accuracy"]
    assert run.test == training.evaluate(run.model, data.x_test, data.y_test)


@pytest.mark.parametrize("batch_size", [5, 24, 100])
def test_evaluation_is_the_mean_over_all_examples(network, blobs, batch_size):
    x, y = (a[:24] for a in blobs)
    _, graphdef = graphdefs(network)
    model = as_model(graphdef, training.initial_state(network, optax.sgd(0.1)))
    found = training.evaluate(network, x, y, batch_size=batch_size)
    expected = float(training.cross_entropy(model(x), y))
    # A mean of 24 float32 numbers near 1, summed in another order.
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-6)


def test_parameters_can_come_from_another_run(network, blobs, settings, tmp_path):
    first = training.fit(network, blobs, directory=tmp_path / "first", **settings)
    second = training.fit(
        network,
        blobs,
        directory=tmp_path / "second",
        init_from=tmp_path / "first",
        **settings | {"optimizer": optax.sgd(0.0)},
    )
    chex.assert_trees_all_equal(first.state.params, second.state.params)
    assert second.num_steps == 22
    config = training.read_config(tmp_path / "second")
    assert config["settings"]["init_from"] == str(tmp_path / "first")


def test_files_hold_what_the_run_returned(network, blobs, settings, tmp_path):
    run = training.fit(
        network, blobs, directory=tmp_path, config={"depth": 2}, **settings
    )
    config = training.read_config(tmp_path)
    assert config["config"] == {"depth": 2}
    assert config["settings"]["seed"] == 0
    assert config["settings"]["num_examples"] == 48
    assert set(config) >= {"versions", "device", "command", "python", "platform"}
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    for name in ("loss", "update_norm", "accuracy", "step"):
        column = [json.loads(line)[name] for line in lines]
        np.testing.assert_array_equal(column, run.history[name])


def test_tensorboard_files_are_written_when_asked_for(
    network, blobs, settings, tmp_path
):
    training.fit(network, blobs, directory=tmp_path, tensorboard=True, **settings)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"update_norm" in events.read_bytes()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_steps": 0}, ValueError, "num_steps is 0"),
        ({"steps_per_dispatch": 2.5}, ValueError, "steps_per_dispatch is 2.5"),
        ({"steps_per_dispatch": 0}, ValueError, "steps_per_dispatch is 0"),
        ({"num_steps": True}, ValueError, "num_steps is True"),
        ({"keep": 0}, ValueError, "keep is 0; expected a whole number from 1"),
        ({"keep": -1}, ValueError, "keep is -1"),
        ({"batch_size": None}, ValueError, "need batch_size="),
        ({"batch_size": 49}, ValueError, "batch of 49 cannot be drawn from 48"),
        ({"resume": True}, ValueError, "need directory="),
        ({"checkpoint_every": 4}, ValueError, "need directory="),
        ({"tensorboard": True}, ValueError, "need directory="),
        ({"init_from": "no/such/run"}, FileNotFoundError, "has no checkpoint"),
        ({"loss": training.mean_squared_error}, ValueError, "equal shapes"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_contradictory_settings_are_refused(
    network, blobs, settings, changes, error, message
):
    with pytest.raises(error, match=message):
        training.fit(network, blobs, **settings | changes)


def test_data_of_another_kind_are_refused(network, blobs, settings):
    x, y = blobs
    with pytest.raises(TypeError, match="data is a ndarray"):
        training.fit(network, x, **settings)
    with pytest.raises(ValueError, match="equally many"):
        training.fit(network, (x, y[:-1]), **settings)
    with pytest.raises(ValueError, match="the data come in batches"):
        training.fit(network, [(x, y)], **settings)
    with pytest.raises(ValueError, match="all must be alike"):
        training.fit(
            network, [(x, y), (x[:3], y[:3])], **settings | {"batch_size": None}
        )


def test_settings_that_are_not_json_are_refused(network, blobs, settings, tmp_path):
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        training.fit(network, blobs, directory=tmp_path, config={"f": len}, **settings)
