"""A step that failed, on the disk: the state before it, its batch, what it found."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from gradstab import _files, _json
from gradstab.errors import UserValueError
from gradstab.training import checkpoint_files, results
from gradstab.training import checkpoints as ckpt
from gradstab.training.step import State


class KeptStep(NamedTuple):
    """A step as it was kept.

    Attributes:
        state: the one before it, with the random keys of the model.
        x: inputs of the batch.
        y: targets of the batch.
        found: what it measured, by name: ``loss``, ``update_norm`` and the metrics.
        environment: versions, device and precision that it ran with.
    """

    state: State
    x: Any
    y: Any
    found: dict[str, float]
    environment: dict


def keep_failed(folder: pathlib.Path, state: State, x, y, found, /) -> str:
    """Write a step that failed into the folder of its run, in place of one before.

    Args:
        folder: of the run.
        state: the one before the step.
        x: inputs of the batch.
        y: targets of the batch.
        found: what the step measured, numbers by name.

    Returns:
        Where it is, a sentence.

    Raises:
        OSError: it cannot be written.
    """
    target = pathlib.Path(folder) / results.FAILED
    if jax.process_index() == 0:
        _files.remove_tree(target)
        _files.make_folder(target)
        content = {
            "step": int(state.step) + 1,
            "found": {name: np.asarray(value).item() for name, value in found.items()},
            "environment": results.environment(),
        }
        text = _json.dumps(_json.encoded(content), indent=1)
        _files.write(target / results.STEP, text + "\n", overwrite=True)
    with ckpt.Checkpoints(target) as kept:
        ckpt.save(kept, state, batch={"x": np.asarray(x), "y": np.asarray(y)})
    return f"What takes the step again is in {target}: gradstab.training.replay."


def read_failed(folder, state: State, /) -> KeptStep:
    """The step that failed in a run.

    Args:
        folder: of the run.
        state: from `initial_state` of the same model and optimiser.

    Raises:
        FileNotFoundError: no step of this run has failed.
        ValueError: it is damaged, or is of another model or optimiser.
    """
    target = pathlib.Path(folder) / results.FAILED
    if not (target / results.STEP).is_file():
        raise FileNotFoundError(
            f"no step of the run in {folder} was kept as one that failed; step=N takes "
            "any step of it again"
        )
    path = target / results.STEP
    try:
        content = _json.loads(path.read_bytes())
        found = {name: float(value) for name, value in content["found"].items()}
        environment = dict(content["environment"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserValueError(f"{path} is damaged: {error!r}") from error
    before = ckpt.restore_state(target, state)
    _, loaded = checkpoint_files.read(target, int(before.step), "batch")
    batch = loaded["batch"]
    return KeptStep(before, batch["x"], batch["y"], found, environment)
