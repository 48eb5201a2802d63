"""A run stops before the step that would break it, and says where it broke."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gradstab import clipping, training

STEP = 7  # the one that breaks, in the middle of the second dispatch of four
GOOD, BAD = 1.0, 0.0


class TwoLayers(nnx.Module):
    """Two layers with an activation between them."""

    def __init__(self, rngs, activation=jnp.tanh):
        self.first = nnx.Linear(2, 2, use_bias=False, rngs=rngs)
        self.second = nnx.Linear(2, 1, rngs=rngs)
        self.activation = activation

    def __call__(self, x):
        return self.second(self.activation(self.first(x)))


class WithAuxiliaryHead(TwoLayers):
    """The same with a second head on the first layer, as in deep supervision."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.auxiliary = nnx.Linear(2, 1, rngs=rngs)

    def __call__(self, x):
        h = self.first(x)
        return self.second(jnp.tanh(h)), (self.auxiliary(h),)


def root_of_square(x):
    """The absolute value, with 0 times infinity for the slope at 0."""
    return jnp.sqrt(jnp.square(x))


def root_loss(output, y):
    """Finite at y = 0, where its gradient is 0 times infinity."""
    return jnp.mean(jnp.sqrt(jnp.square(output) * y))


def reciprocal_loss(output, y):
    """Infinite at y = 0, whatever the layers give."""
    return jnp.mean((1 + jnp.square(output)) / y)


def batches(num, bad=STEP, x_bad=1.0, y_bad=GOOD):
    def batch(number):
        is_bad = number == bad
        x = np.full((4, 2), 0.5 + 0.1 * number, np.float32) * (x_bad if is_bad else 1)
        return x, np.full((4, 1), y_bad if is_bad else GOOD, np.float32)

    return [batch(number) for number in range(1, num + 1)]


@pytest.fixture
def settings():
    return {
        "optimizer": optax.sgd(0.01),
        "loss": root_loss,
        "num_steps": 20,
        "steps_per_dispatch": 4,
        "progress": False,
    }


@pytest.fixture
def model():
    return TwoLayers(nnx.Rngs(0))


def stop(model, data, settings, **changes):
    with pytest.raises(training.NonFiniteLossError) as info:
        training.fit(model, data, **settings | changes)
    return info.value


def expect_state_of_step_before(error, model, data, settings):
    run = training.fit(model, data, **settings | {"num_steps": STEP - 1})
    chex.assert_tree_all_finite(error.run.state.params)
    chex.assert_trees_all_equal(error.run.state.params, run.state.params)
    assert error.run.num_steps == STEP - 1
    np.testing.assert_array_equal(error.run.history["loss"], run.history["loss"])


@pytest.mark.slow
def test_an_infinite_input_stops_the_run_at_its_step(model, settings, tmp_path):
    data = batches(20, x_bad=np.inf)
    error = stop(model, data, settings, directory=tmp_path, loss=reciprocal_loss)
    # tanh(inf) is finite, but inf - inf in the first layer is not.
    assert (error.step, error.layer, error.where) == (STEP, "first", "forward")
    assert f"step {STEP}" in str(error)
    assert "'first'" in str(error)
    assert str(tmp_path) in str(error)
    expect_state_of_step_before(
        error, model, data, settings | {"loss": reciprocal_loss}
    )
    assert training.latest(tmp_path) == STEP - 1
    assert len(training.read_metrics(tmp_path)) == STEP - 1
    kept = training.restore(tmp_path, model)
    chex.assert_trees_all_equal(
        nnx.to_pure_dict(nnx.state(kept, nnx.Param)), error.run.state.params
    )


def test_a_loss_that_breaks_by_itself_is_named(model, settings):
    data = batches(20, y_bad=BAD)
    error = stop(model, data, settings, loss=reciprocal_loss)
    assert (error.step, error.layer, error.where) == (STEP, "loss", "forward")
    assert "look at the loss function" in str(error)
    assert "no directory" in str(error)


def test_a_gradient_that_is_not_finite_stops_the_run(model, settings):
    data = batches(20, y_bad=BAD)
    error = stop(model, data, settings)
    assert (error.step, error.layer, error.where) == (STEP, "loss", "backward")
    assert "gradient is not finite" in str(error)
    expect_state_of_step_before(error, model, data, settings)


@pytest.mark.slow
def test_a_layer_that_breaks_the_gradient_is_named(settings):
    model = TwoLayers(nnx.Rngs(0), root_of_square)
    error = stop(model, batches(20, x_bad=0.0), settings)
    assert (error.step, error.layer, error.where) == (STEP, "first", "backward")
    assert "'first' (backward)" in str(error)


@pytest.mark.filterwarnings("error")
def test_a_skipped_gradient_does_not_stop_the_run(model, settings):
    optimizer = clipping.skip_nonfinite(settings["optimizer"])
    run = training.fit(
        model, batches(20, y_bad=BAD), **settings | {"optimizer": optimizer}
    )
    assert run.num_steps == 20
    norms = run.history["update_norm"]
    np.testing.assert_array_equal(norms == 0, np.arange(1, 21) == STEP)


def test_an_update_that_is_not_finite_stops_the_run(model, settings):
    optimizer = optax.chain(
        optax.sgd(0.01),
        optax.scale_by_schedule(lambda n: jnp.where(n == STEP - 1, jnp.inf, 1.0)),
    )
    data = batches(20)
    error = stop(model, data, settings, optimizer=optimizer)
    assert (error.step, error.layer, error.where) == (STEP, None, "update")
    expect_state_of_step_before(error, model, data, settings | {"optimizer": optimizer})


@pytest.mark.parametrize("bad", [1, 4, 5, 20])
def test_the_first_bad_step_is_found_wherever_it_is_in_a_dispatch(model, settings, bad):
    error = stop(model, batches(20, bad=bad, y_bad=BAD), settings)
    assert error.step == bad
    assert error.run.num_steps == bad - 1


def test_nothing_happens_after_a_step_that_was_not_taken(model, settings):
    """In the same dispatch, and in one that was already under way."""
    optimizer = settings["optimizer"]
    graphdef = nnx.graphdef(model)
    steps = training.make_steps(graphdef, optimizer, loss=root_loss)
    x, y = np.ones((2, 2), np.float32), np.array([[GOOD], [BAD]], np.float32)
    plan = np.array([[0], [1], [0], [0]], np.int32)
    state, records = steps(training.initial_state(model, optimizer), x, y, plan, 100)
    np.testing.assert_array_equal(records["taken"], [True, False, False, False])
    params = jax.tree.map(np.asarray, state.params)
    state, records = steps(state, x, y, plan[::2], 100)
    assert not records["taken"].any()
    assert int(state.step) == 1
    chex.assert_trees_all_equal(state.params, params)


@pytest.mark.slow
def test_a_run_that_stopped_stops_again_when_resumed(model, settings, tmp_path):
    data = batches(20, y_bad=BAD)
    stop(model, data, settings, directory=tmp_path)
    assert stop(model, data, settings, directory=tmp_path, resume=True).step == STEP
    mended = batches(20)
    run = training.fit(model, mended, directory=tmp_path, resume=True, **settings)
    assert run.num_steps == 20


@pytest.mark.slow
def test_a_model_with_dropout_and_statistics_is_searched_as_well(network, optimizer):
    x, y = np.ones((8, 4), np.float32), np.zeros(8, np.int32)
    bad = x * np.float32("nan")
    error = stop(
        network,
        [(x, y), (bad, y)],
        {"optimizer": optimizer, "num_steps": 4, "progress": False},
    )
    assert (error.step, error.layer, error.where) == (2, "first", "forward")


def test_a_model_with_auxiliary_heads_is_searched_as_well(settings):
    loss = training.with_auxiliary(training.mean_squared_error)
    data = batches(20, x_bad=np.inf)
    error = stop(WithAuxiliaryHead(nnx.Rngs(0)), data, settings, loss=loss)
    assert (error.step, error.layer, error.where) == (STEP, "first", "forward")
