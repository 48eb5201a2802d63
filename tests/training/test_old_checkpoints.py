"""Checkpoints of older versions, written by Orbax's first interface, are read."""

import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as orbax
import pytest
from flax import nnx

from gradstab import training
from gradstab.training import checkpoints

pytestmark = pytest.mark.skipif(
    not hasattr(orbax, "CheckpointManager"), reason="this Orbax cannot write them"
)


def save_as_before(folder, state, *, keep=None):
    """What was written until Orbax's second interface became the one in use."""
    step = np.asarray(int(state.step))
    parts = {
        part: checkpoints._named(getattr(state, part)) for part in checkpoints.PARTS
    }
    rest = {
        f"{part}/{name}": array
        for part in checkpoints.PARTS[1:]
        for name, array in parts[part].items()
    }
    options = orbax.CheckpointManagerOptions(max_to_keep=keep)
    with orbax.CheckpointManager(folder / "checkpoints", options=options) as manager:
        manager.save(
            int(step),
            args=orbax.args.Composite(
                params=orbax.args.StandardSave(parts["params"]),
                rest=orbax.args.StandardSave(rest | {"step": step}),
            ),
        )


def rewritten_as_before(run):
    """The folder of a run, its checkpoints in the old form."""
    shutil.rmtree(run.directory / "checkpoints")
    save_as_before(run.directory, run.state)


@pytest.fixture
def short(network, blobs, settings, tmp_path):
    options = settings | {"num_steps": 8, "directory": tmp_path / "run"}
    return training.fit(network, blobs, **options)


def test_the_whole_state_of_an_old_checkpoint_comes_back_bitwise(
    short, network, optimizer, arrays
):
    rewritten_as_before(short)
    assert training.all_steps(short.directory) == [8]
    restored = checkpoints.restore_state(
        short.directory, training.initial_state(network, optimizer)
    )
    chex.assert_trees_all_equal(arrays(restored), arrays(short.state))
    chex.assert_trees_all_equal_dtypes(arrays(restored), arrays(short.state))


def test_an_old_run_is_resumed_bitwise(
    short, network, blobs, settings, arrays, tmp_path
):
    rewritten_as_before(short)
    longer = settings | {"num_steps": 16, "checkpoint_every": 4}
    run = training.fit(network, blobs, resume=True, directory=short.directory, **longer)
    whole = training.fit(network, blobs, directory=tmp_path / "whole", **longer)
    chex.assert_trees_all_equal(arrays(run.state), arrays(whole.state))
    # Old and new lie side by side; the newest are kept.
    assert training.all_steps(short.directory) == [8, 12, 16]
    assert set(training.load_params(short.directory, step=8)) == set(
        training.load_params(short.directory)
    )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_lists_keys_and_narrow_dtypes_of_old_checkpoints_survive(dtype, tmp_path):
    class Stack(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.List(
                nnx.Linear(2, 2, param_dtype=dtype, rngs=rngs) for _ in range(11)
            )
            self.rngs = rngs

    optimizer = optax.sgd(0.1)
    saved = training.initial_state(Stack(nnx.Rngs(0)), optimizer)
    save_as_before(tmp_path, saved)
    empty = training.initial_state(Stack(nnx.Rngs(1)), optimizer)
    restored = checkpoints.restore_state(tmp_path, empty)
    chex.assert_trees_all_equal(restored.params, saved.params)
    chex.assert_trees_all_equal_dtypes(restored.params, saved.params)
    keys = [s.model_state["rngs"]["default"]["key"] for s in (restored, saved)]
    assert jax.random.uniform(keys[0]) == jax.random.uniform(keys[1])


def test_an_old_checkpoint_of_another_structure_is_refused_with_its_names(
    short, optimizer
):
    rewritten_as_before(short)

    class Other(nnx.Module):
        def __init__(self, rngs):
            self.tail = nnx.Linear(8, 5, rngs=rngs)

    with pytest.raises(ValueError, match=r"tail.kernel float32\[8, 5\]"):
        training.restore(short.directory, Other(nnx.Rngs(0)))


def test_new_checkpoints_are_read_by_the_old_interface(short):
    """So a run can go back to the version of gradstab that it was begun with."""
    with orbax.CheckpointManager(short.directory / "checkpoints") as manager:
        loaded = manager.restore(
            8, args=orbax.args.Composite(params=orbax.args.StandardRestore())
        )
    chex.assert_trees_all_equal(
        dict(loaded["params"]), training.load_params(short.directory)
    )


def test_what_is_being_written_is_no_checkpoint_yet(short):
    folder = short.directory / "checkpoints"
    shutil.copytree(folder / "8", folder / "12.orbax-checkpoint-tmp-3")
    assert training.all_steps(short.directory) == [8]


def test_a_checkpoint_from_before_directions_were_recorded_is_gone_on_from(
    network, blobs, settings, tmp_path, monkeypatch
):
    options = settings | {"directory": tmp_path / "run"}
    named = checkpoints._named

    def without(tree):
        return {n: a for n, a in named(tree).items() if not n.endswith("clip_cosine")}

    with monkeypatch.context() as old:
        old.setattr(checkpoints, "_named", without)
        training.fit(network, blobs, **options | {"num_steps": 8})
    resumed = training.fit(network, blobs, resume=True, **options)
    whole = training.fit(network, blobs, **settings)
    chex.assert_trees_all_equal(resumed.state.params, whole.state.params)
