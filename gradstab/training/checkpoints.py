"""Checkpoints of a run: its whole state, by name, in its folder.

Arrays are saved as NumPy arrays under dotted names, so a checkpoint made on one kind of
device is read on any other, and its parameters can be looked at without the model.
"""

import collections
import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gradstab import _tree
from gradstab.errors import UserValueError
from gradstab.training import checkpoint_files
from gradstab.training.checkpoint_files import Checkpoints as Checkpoints
from gradstab.training.checkpoint_files import all_steps as all_steps
from gradstab.training.checkpoint_files import set_aside as set_aside
from gradstab.training.step import State

PARTS = ("params", "model_state", "opt_state")
# What optimisers have recorded since later versions: it starts as in a new run.
_LATER = ("clip_cosine",)


def save(checkpoints: Checkpoints, state: State, /, **items) -> None:
    """Copy the state to the host and write it in the background.

    A checkpoint appears whole or not at all. One that is there already is kept.

    Args:
        checkpoints: where to.
        state: of the run.
        **items: more to keep beside it, dictionaries of arrays.

    Raises:
        OSError: the checkpoint before could not be written.
    """
    # Only the parameters are an item of their own: they can be read by themselves.
    rest = {part: _named(getattr(state, part)) for part in PARTS[1:]}
    step = int(state.step)
    checkpoints.save(
        step,
        {
            "params": _named(state.params),
            "rest": {
                f"{part}/{name}": a for part in rest for name, a in rest[part].items()
            }
            | {"step": np.asarray(step)},
            **items,
        },
    )


def latest(directory: str | pathlib.Path, /) -> int | None:
    """The step of the last checkpoint in a run's folder, or None without any.

    >>> latest("no/such/folder") is None
    True
    """
    return max(all_steps(directory), default=None)


def load_params(
    directory: str | pathlib.Path, /, *, step: int | None = None
) -> dict[str, np.ndarray]:
    """The parameters of a checkpoint, by dotted name, without the model.

    Args:
        directory: the run's folder.
        step: which checkpoint; if None the last one, or, with a `DamageWarning`, the
            last one that is not damaged.

    Returns:
        Arrays by name, ``{"blocks.0.kernel": ...}``.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        DamagedCheckpointError: it is damaged.
    """
    return checkpoint_files.read(directory, step, "params")[1]["params"]


def restore(
    directory: str | pathlib.Path, model: Any, /, *, step: int | None = None
) -> nnx.Module:
    """The model as it was at a checkpoint, with its batch statistics and random keys.

    Args:
        directory: the run's folder.
        model: a model of the same structure; it is not changed.
        step: which checkpoint; if None the last one, or, with a `DamageWarning`, the
            last one that is not damaged.

    Returns:
        A new model, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged (a `DamagedCheckpointError`), is of a model of
            another structure.
    """
    _, loaded = checkpoint_files.read(directory, step, "params", "rest")
    copy = nnx.clone(model)
    _, params, model_state = nnx.split(copy, nnx.Param, ...)
    for part, state in (("params", params), ("model_state", model_state)):
        values = nnx.to_pure_dict(state)
        nnx.replace_by_pure_dict(state, _filled(values, _part(loaded, part), part))
        nnx.update(copy, state)
    copy.eval()
    return copy


def restore_state(
    directory: str | pathlib.Path, state: State, /, *, step: int | None = None
) -> State:
    """The whole state of a run at a checkpoint, to go on from.

    Args:
        directory: the run's folder.
        state: from `initial_state` of the same model and optimiser.
        step: which checkpoint; if None the last one, or, with a `DamageWarning`, the
            last one that is not damaged.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged (a `DamagedCheckpointError`), is of another model
            or optimiser.
    """
    _, loaded = checkpoint_files.read(directory, step, "params", "rest")
    parts = {
        part: _filled(getattr(state, part), _part(loaded, part), part) for part in PARTS
    }
    return State(
        **parts,
        step=jnp.asarray(loaded["rest"]["step"], jnp.int32),
        failed=jnp.zeros((), bool),
    )


def restore_params(
    directory: str | pathlib.Path, state: State, /, *, step: int | None = None
) -> State:
    """The state with the parameters of a checkpoint, and all else as it is."""
    params = _filled(state.params, load_params(directory, step=step), "params")
    return State(params, state.model_state, state.opt_state, state.step, state.failed)


def _part(loaded, part):
    if part == "params":
        return loaded["params"]
    return {
        name.removeprefix(f"{part}/"): array
        for name, array in loaded["rest"].items()
        if name.startswith(f"{part}/")
    }


def _named(tree: Any) -> dict[str, np.ndarray]:
    leaves = map(_key_data, jax.tree.leaves(tree))
    names = _tree.paths(tree)
    _expect_unique(names)
    # A copy: on a CPU the host would otherwise share the buffer that is donated next.
    return {name: np.array(a) for name, a in zip(names, leaves, strict=True)}


def _filled(tree: Any, named: dict[str, np.ndarray], part: str):
    """The tree with every leaf replaced by the array of its name."""
    leaves, treedef = jax.tree.flatten(tree)
    names = _tree.paths(tree)
    expected = {name: _key_data(leaf) for name, leaf in zip(names, leaves, strict=True)}
    for name, leaf in expected.items():
        if name.rpartition(".")[2] in _LATER and name not in named:
            named = named | {name: np.asarray(leaf)}
    _expect_same(expected, named, part)
    return treedef.unflatten(
        _like(leaf, named[name]) for name, leaf in zip(names, leaves, strict=True)
    )


def _expect_unique(names: Iterable[str]):
    double = [name for name, n in collections.Counter(names).items() if n > 1]
    if double:
        raise UserValueError(f"two arrays of the state are called {', '.join(double)}.")


def _expect_same(expected, found, part):
    def layouts(arrays):
        return {f"{name} {a.dtype}{list(a.shape)}" for name, a in arrays.items()}

    missing, surplus = (
        sorted(layouts(a) - layouts(b))
        for a, b in ((expected, found), (found, expected))
    )
    if missing or surplus:
        raise UserValueError(
            f"the checkpoint is of another structure ({part}). Expected and not there: "
            f"{', '.join(missing) or 'none'}. There and not expected: "
            f"{', '.join(surplus) or 'none'}. Build the model and the optimiser with "
            "the settings in the config.json beside the checkpoints."
        )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)


def _key_data(leaf: Any):
    return jax.random.key_data(leaf) if _is_key(leaf) else jnp.asarray(leaf)


def _like(leaf: Any, array):
    if _is_key(leaf):
        data = jnp.asarray(array)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jnp.asarray(array)
