"""Optimisers by name are those of optax, clipped and recorded."""

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from gradstab import clipping, training

PARAMS = {"dense": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5, 0.5])}}
GRADS = {"dense": {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.array([0.0, 0.0])}}


def updates(optimizer, num=3, grads=GRADS):
    state, update = optimizer.init(PARAMS), None
    # Adam's bias correction in optax promotes an integer to a float.
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(num):
            update, state = optimizer.update(grads, state, PARAMS)
    return update, state


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("sgd", {}, optax.sgd(0.1)),
        ("momentum", {}, optax.sgd(0.1, momentum=0.9)),
        ("momentum", {"momentum": 0.5}, optax.sgd(0.1, momentum=0.5)),
        ("adam", {}, optax.adam(0.1)),
        ("adamw", {"weight_decay": 0.1}, optax.adamw(0.1, weight_decay=0.1)),
    ],
)
def test_a_name_is_the_optimiser_of_that_name(name, options, expected):
    found, state = updates(training.build(name, 0.1, **options))
    chex.assert_trees_all_equal(found, updates(expected)[0])
    assert float(optax.tree.get(state, "pre_norm")) == 5.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clip", "threshold"),
    [
        ("value", 0.1),
        ("global-norm", 1.0),
        ("layer-norm", 1.0),
        ("block-rms", 0.1),
        ("adaptive", 0.01),
    ],
)
def test_every_way_to_clip_changes_the_update_and_is_counted(clip, threshold):
    clipped, state = updates(training.build("sgd", 0.1, clip=clip, threshold=threshold))
    plain, _ = updates(training.build("sgd", 0.1))
    assert float(optax.tree.norm(clipped)) < 0.5 * float(optax.tree.norm(plain))
    assert float(clipping.clip_fraction(state)) == 1.0


@pytest.mark.parametrize("clip", ["percentile", "zscore"])
def test_running_thresholds_need_only_one_number(clip):
    _, state = updates(training.build("sgd", 0.1, clip=clip, threshold=2.0))
    assert float(clipping.clip_fraction(state)) == 0.0  # all norms are equal


def test_penalties_pull_on_the_weights_but_not_on_the_biases():
    plain, _ = updates(training.build("sgd", 1.0), num=1)
    for penalty, slope in ({"l1": 0.5}, jnp.sign), ({"l2": 0.5}, lambda w: w):
        found, _ = updates(training.build("sgd", 1.0, **penalty), num=1)
        kernel = PARAMS["dense"]["kernel"]
        chex.assert_trees_all_close(
            found["dense"]["kernel"], plain["dense"]["kernel"] - 0.5 * slope(kernel)
        )
        chex.assert_trees_all_equal(found["dense"]["bias"], plain["dense"]["bias"])


def test_gradients_that_are_not_finite_are_skipped_when_asked_for():
    bad = {"dense": GRADS["dense"] | {"bias": jnp.array([jnp.nan, 0.0])}}
    optimizer = training.build("adam", 0.1, skip_nonfinite=True)
    update, _ = updates(optimizer, grads=bad)
    assert float(optax.tree.norm(update)) == 0.0


def test_unknown_names_list_the_known_ones():
    with pytest.raises(KeyError, match=r"no optimiser named 'adma'; known: sgd.*adamw"):
        training.build("adma", 0.1)
    with pytest.raises(KeyError, match="'norm'; known: value, global-norm"):
        training.build("sgd", 0.1, clip="norm", threshold=1.0)
    with pytest.raises(ValueError, match="give both or neither"):
        training.build("sgd", 0.1, clip="value")
    with pytest.raises(ValueError, match="give both or neither"):
        training.build("sgd", 0.1, threshold=1.0)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["learning_rate", "l1", "l2"])
def test_numbers_that_cannot_be_meant_are_refused(name, value):
    numbers = {"learning_rate": 0.1, name: value}
    said = f"{name} is {value}; expected a finite number from 0"
    with pytest.raises(ValueError, match=said):
        training.build("sgd", numbers.pop("learning_rate"), **numbers)


def _kernels_tenfold():
    """Updates of kernels times ten, such as a parametrisation's."""

    def update(updates, state, params=None):
        dense = updates["dense"]
        return {"dense": dense | {"kernel": 10 * dense["kernel"]}}, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_rates_scale_what_an_optimiser_makes_but_not_the_decay_of_weights(name):
    options = {"weight_decay": 0.1} if name == "adamw" else {}
    plain, _ = updates(training.build(name, 0.1, **options), num=1)
    found, _ = updates(
        training.build(name, 0.1, rates=_kernels_tenfold(), **options), num=1
    )
    decay = -0.1 * 0.1 * PARAMS["dense"]["kernel"] if options else 0.0
    wanted = 10 * (plain["dense"]["kernel"] - decay) + decay
    chex.assert_trees_all_close(found["dense"]["kernel"], wanted, rtol=1e-6)
    chex.assert_trees_all_equal(found["dense"]["bias"], plain["dense"]["bias"])
