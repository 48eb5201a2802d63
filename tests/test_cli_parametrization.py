"""``gradstab train --parametrization``: the model and rates of gs.parametrize."""

import shlex

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from gradstab import models, training
from gradstab.cli import main

LINE = (
    "train --depth 2 --activation tanh --num-train 64 --batch-size 32 --steps 1 "
    "--optimizer adam --learning-rate 0.001 --width 32"
)
SHAPES = {"in_shape": (64,), "num_outputs": 10, "depth": 2, "activation": "tanh"}


def run(options, line=LINE):
    with jax.numpy_dtype_promotion("standard"):  # which optax counts on
        return main(shlex.split(f"{line} {options}"))


def model(**options):
    return models.build("mlp", width=32, **SHAPES, **options)


def kernels(made):
    flat = nnx.to_flat_state(nnx.state(made, nnx.Param))
    return {path[0]: leaf[...] for path, leaf in flat if path[-1] == "kernel"}


@pytest.mark.slow  # trains
def test_training_takes_the_learning_rate_of_each_parameter(tmp_path):
    """The first step of Adam moves every entry by its learning rate."""
    folder = tmp_path / "mup"
    assert run(f"--parametrization mup --base-width 8 --out {folder}") == 0
    start = model(parametrization="mup", base_width=8, seed=0)
    before = kernels(start)
    after = kernels(training.restore(folder, start))
    moved = {k: float(jnp.max(jnp.abs(after[k] - before[k]))) for k in before}
    wanted = {"input": 1e-3, "blocks": 1e-3 / 4, "head": 1e-3 / 4}
    assert moved == pytest.approx(wanted, rel=1e-2)
    # A run goes on with the options that it was started with.
    assert run(f"{folder} --steps 2", "train --resume") == 0
    assert run(f"{folder} --step 2", "replay") == 0


@pytest.mark.slow  # trains
def test_the_standard_parametrisation_trains_as_if_it_were_not_given(tmp_path):
    found = []
    for name, options in (("plain", ""), ("given", "--parametrization standard")):
        assert run(f"{options} --out {tmp_path / name}") == 0
        found.append(training.restore(tmp_path / name, model()))
    for one, other in zip(*(jax.tree.leaves(nnx.state(m)) for m in found), strict=True):
        assert jnp.array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--parametrization mup", "needs --base-width"),
        ("--base-width 8", "base_width is of a parametrization"),
        ("--parametrization mpu --base-width 8", "scheme must be one of"),
        (
            "--parametrization mup --base-width 8 --pretrain-steps 2",
            "one learning rate for all",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options, message, tmp_path, capsys):
    assert run(f"{options} --out {tmp_path / 'run'}") == 2
    assert message in " ".join(capsys.readouterr().err.split())
