"""Checkpoints: whole, by name, and only into the structure they came from."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gradstab import training
from gradstab.training import checkpoints


@pytest.fixture
def run(network, blobs, settings, tmp_path):
    return training.fit(
        network,
        blobs,
        directory=tmp_path / "run",
        checkpoint_every=4,
        **settings | {"num_steps": 16},
    )


@pytest.mark.slow
def test_every_checkpoint_restores_the_model_of_its_step(
    run, network, blobs, settings, arrays
):
    steps = training.all_steps(run.directory)
    assert steps == [8, 12, 16]  # the three newest
    assert training.latest(run.directory) == 16
    for step in steps:
        restored = training.restore(run.directory, network, step=step)
        then = training.fit(network, blobs, **settings | {"num_steps": step})
        chex.assert_trees_all_equal(
            *(arrays(nnx.to_pure_dict(nnx.state(m))) for m in (restored, then.model))
        )
        assert restored.dropout.deterministic


def test_the_whole_state_comes_back_bitwise(run, network, optimizer, arrays):
    state = training.initial_state(network, optimizer)
    restored = checkpoints.restore_state(run.directory, state)
    chex.assert_trees_all_equal(arrays(restored), arrays(run.state))
    chex.assert_trees_all_equal_structs(restored, run.state)
    chex.assert_trees_all_equal_dtypes(arrays(restored), arrays(run.state))


def test_parameters_are_read_by_name_without_the_model(run):
    params = training.load_params(run.directory)
    assert set(params) == {
        *("first.bias", "first.kernel", "norm.bias", "norm.scale"),
        *("last.bias", "last.kernel"),
    }
    np.testing.assert_array_equal(
        params["last.kernel"], run.state.params["last"]["kernel"]
    )
    earlier = training.load_params(run.directory, step=8)
    assert not np.array_equal(earlier["last.kernel"], params["last.kernel"])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_lists_keys_and_narrow_dtypes_survive(dtype, tmp_path):
    class Stack(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.List(
                nnx.Linear(2, 2, param_dtype=dtype, rngs=rngs) for _ in range(11)
            )
            self.rngs = rngs

    optimizer = optax.sgd(0.1)
    saved = training.initial_state(Stack(nnx.Rngs(0)), optimizer)
    with checkpoints.Checkpoints(tmp_path) as manager:
        checkpoints.save(manager, saved)
    empty = training.initial_state(Stack(nnx.Rngs(1)), optimizer)
    restored = checkpoints.restore_state(tmp_path, empty)
    chex.assert_trees_all_equal(restored.params, saved.params)
    chex.assert_trees_all_equal_dtypes(restored.params, saved.params)
    keys = [s.model_state["rngs"]["default"]["key"] for s in (restored, saved)]
    assert jax.random.uniform(keys[0]) == jax.random.uniform(keys[1])


def test_a_checkpoint_that_is_missing_is_named(run, network, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 5; it has.* 8"):
        training.load_params(run.directory, step=5)
    with pytest.raises(FileNotFoundError, match=r"has no checkpoint; it has.*none"):
        training.restore(tmp_path / "nowhere", network)


def test_another_structure_is_refused_with_its_names(run):
    class Other(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(4, 8, rngs=rngs)
            self.tail = nnx.Linear(8, 5, rngs=rngs)

    other = Other(nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"tail.kernel float32\[8, 5\]") as info:
        training.restore(run.directory, other)
    assert "last.kernel float32[8, 3]" in str(info.value)
    with pytest.raises(ValueError, match="opt_state"):
        checkpoints.restore_state(
            run.directory, training.initial_state(run.model, optax.adam(1e-3))
        )
