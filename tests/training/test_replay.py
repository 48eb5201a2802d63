"""A step of a run is taken again, bitwise, and the line that breaks it is named."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gradstab import training

BAD = 6


class Breaks(nnx.Module):
    """Dropout, statistics, and a layer that takes the root of what may be negative."""

    def __init__(self, rngs):
        self.first = nnx.Linear(3, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.last = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        h = jnp.tanh(self.first(x))
        h = h * jnp.sqrt(x[:, :1])
        return self.last(self.dropout(self.norm(h)))


LINES, FIRST = inspect.getsourcelines(Breaks.__call__)
LINE = FIRST + next(i for i, line in enumerate(LINES) if "jnp.sqrt" in line)


def batches(bad):
    rng = np.random.default_rng(0)
    for number in range(1, 11):
        x = rng.uniform(0.5, 1, (4, 3)).astype(np.float32)
        x[2, 0] *= -1 if number == bad else 1
        yield x, rng.standard_normal((4, 1)).astype(np.float32)


SETTINGS = {
    "optimizer": training.build("momentum", 0.01, clip="global-norm", threshold=0.5),
    "loss": training.mean_squared_error,
}


def fit(folder, bad, **options):
    model = Breaks(nnx.Rngs(0))
    given = {"num_steps": 10, "steps_per_dispatch": 4, "progress": False}
    given |= SETTINGS | {"directory": folder} | options
    return model, training.fit(model, list(batches(bad)), **given)


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """A run that stopped at its sixth step: its model, its folder, its error."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.raises(training.NonFiniteLossError) as info:
        fit(folder, BAD)
    return Breaks(nnx.Rngs(1)), folder, info.value


@pytest.mark.slow
def test_the_step_that_failed_is_taken_again_and_its_line_is_named(failed):
    model, folder, error = failed
    assert f"{folder}/failed" in str(error)
    found = training.replay(folder, model, **SETTINGS)
    assert (found.step, found.is_same) == (BAD, True)
    assert np.isnan(found.before["loss"])
    assert found.place.part == "forward"
    assert found.origin.operation == "sqrt"
    assert found.origin.source.startswith(f"{__file__}:{LINE} ")
    assert "bitwise what it was" in str(found)
    assert f"{LINE}" in str(found)
    assert found.stats.level == "full"


@pytest.mark.slow
def test_a_replay_without_what_was_kept_is_refused(failed, tmp_path):
    model, folder, _ = failed
    with pytest.raises(ValueError, match="needs data="):
        training.replay(folder, model, step=3, **SETTINGS)
    with pytest.raises(ValueError, match="step 6 fails"):
        training.replay(folder, model, data=list(batches(BAD)), step=8, **SETTINGS)
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        training.replay(tmp_path, model, **SETTINGS)
    with pytest.raises(ValueError, match="another structure"):
        training.replay(folder, nnx.Linear(3, 1, rngs=nnx.Rngs(0)), **SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 4, 6, 10])
def test_any_step_of_a_run_is_come_to_again(step, tmp_path):
    model, run = fit(tmp_path, None, checkpoint_every=4, keep=None)
    found = training.replay(
        tmp_path, model, data=list(batches(None)), step=step, **SETTINGS
    )
    assert found.is_same, str(found)
    assert found.found["loss"] == run.history["loss"][step - 1]
    assert (found.place, found.origin) == (None, None)
    # A step that is another one is not taken for the same.
    others = run.history["loss"][np.arange(10) != step - 1]
    assert found.found["loss"] not in others
    with pytest.raises(FileNotFoundError, match="was kept as one that failed"):
        training.replay(tmp_path, model, **SETTINGS)


@pytest.mark.slow
def test_a_step_that_comes_out_otherwise_is_not_called_the_same(failed):
    model, folder, _ = failed
    path = folder / "failed" / "step.json"
    text = path.read_text()
    path.write_text(text.replace('"loss": "NaN"', '"loss": 1.5'))
    assert path.read_text() != text
    found = training.replay(folder, model, **SETTINGS)
    path.write_text(text)
    assert found.differences == ("loss",)
    assert "not what it was in the run: loss nan (it was 1.5)" in str(found)


@pytest.mark.slow
def test_an_update_that_breaks_by_itself_is_told(tmp_path):
    broken = optax.chain(
        optax.sgd(0.01),
        optax.scale_by_schedule(lambda n: jnp.where(n == BAD - 1, jnp.inf, 1.0)),
    )
    with pytest.raises(training.NonFiniteLossError):
        fit(tmp_path, None, optimizer=broken)
    model = Breaks(nnx.Rngs(0))
    found = training.replay(tmp_path, model, **SETTINGS | {"optimizer": broken})
    assert found.is_same
    assert "not the optimiser's update" in str(found)
    assert jax.tree.leaves(found.stats)[0].shape == ()
