"""``gradstab transfer``: coordinate checks and learning rates from the command line."""

import shlex

import jax
import numpy as np
import pytest

from gradstab.cli import main
from gradstab.cli import transfer as command
from gradstab.cli.transfer_options import Transfer
from gradstab.scaling import Role, Trend, load, load_learning_rates

TARGET = """
import jax
import jax.numpy as jnp


def make(width, key):
    keys = jax.random.split(key)
    params = {
        "a": jax.random.normal(keys[0], (8, width)) / 8**0.5,
        "b": jax.random.normal(keys[1], (width, 1)) / width**0.5,
    }
    return apply, params, jnp.eye(8), loss


def apply(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def loss(output):
    return jnp.mean((output - 1) ** 2)


def without_loss(width, key):
    return make(width, key)[:3]
"""


def gradstab(line):
    return main(shlex.split(f"transfer --no-progress {line}"))


@pytest.fixture
def target(tmp_path, monkeypatch):
    (tmp_path / "grows_mine.py").write_text(TARGET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return "grows_mine:make"


def test_help_says_what_the_command_takes(capsys):
    with pytest.raises(SystemExit) as stopped:
        gradstab("--help")
    assert stopped.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    for word in ("--parametrization", "--learning-rates", "--vary", "--base-width"):
        assert word in words


@pytest.mark.slow
def test_the_standard_parametrisation_grows_and_mup_does_not(capsys, tmp_path):
    line = "--widths 32,64,128 --steps 1 --batch-size 8 --seeds 2"
    plot = tmp_path / "panels.png"
    assert gradstab(f"{line} --json - --plot {plot} --fail-on grows") == 1
    printed, said = capsys.readouterr()
    assert plot.stat().st_size > 0
    assert max(map(len, said.splitlines())) <= 80
    assert "grows" in said
    path = tmp_path / "standard.json"
    path.write_text(printed)
    standard = load(path)
    assert (standard.sizes, standard.num_seeds) == ((32, 64, 128), 2)
    mup = tmp_path / "mup.json"
    assert gradstab(f"{line} --parametrization mup --json {mup} --quiet") == 0
    slopes = [
        row.slope for row in load(mup).parameters if row.role in (Role.HIDDEN, "output")
    ]
    grown = [
        row.slope for row in standard.parameters if row.role in (Role.HIDDEN, "output")
    ]
    np.testing.assert_allclose(slopes, 0, atol=0.3)
    np.testing.assert_allclose(grown, 1, atol=0.3)


@pytest.mark.slow
def test_a_parametrisation_of_depth_is_applied_and_named(tmp_path):
    line = "--model resnet --vary depth --widths 4,8,16 --steps 1 --width 16"
    path = tmp_path / "depth.json"
    options = f"--parametrization completep --batch-size 8 --json {path} --quiet"
    assert gradstab(f"{line} {options}") == 0
    assert ("completep", "adam") in load(path).schemes


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet", "lstm", "transformer"])
@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_every_model_and_optimiser_is_checked(model, optimizer, tmp_path):
    path = tmp_path / "found.json"
    line = f"--model {model} --optimizer {optimizer} --parametrization spectral"
    small = "--widths 16 32 --steps 1 --seeds 1 --depth 1 --batch-size 4"
    assert gradstab(f"{line} {small} --json {path}") == 0
    found = load(path)
    assert np.isfinite(found.loss).all()
    assert {Role.INPUT, Role.OUTPUT} <= set(found.roles)


@pytest.mark.slow
@pytest.mark.parametrize("vary", ["depth", "batch"])
def test_depth_and_batch_size_vary_too(vary, tmp_path):
    path = tmp_path / "found.json"
    line = f"--vary {vary} --widths 4,8 --width 8 --steps 1 --seeds 1 --json {path}"
    assert gradstab(line) == 0
    assert load(path).vary == vary


@pytest.mark.slow
def test_a_function_of_the_users_is_checked_and_goes_on_from_its_folder(
    target, tmp_path
):
    line = f"{target} --widths 16,32 --steps 1 --seeds 2 --parametrization mup"
    paths = [tmp_path / name for name in ("one.json", "other.json")]
    kept = tmp_path / "runs"
    assert gradstab(f"{line} --json {paths[0]} --folder {kept}") == 0
    runs = sorted(p.name for p in kept.glob("size-*"))
    assert len(runs) == 4
    (kept / runs[-1]).unlink()
    assert gradstab(f"{line} --json {paths[1]} --folder {kept}") == 0
    assert paths[0].read_text() == paths[1].read_text()
    assert load(paths[0]).parameter_names == ("a", "b")


@pytest.mark.slow
def test_the_best_learning_rate_of_every_width_is_looked_for(target, capsys, tmp_path):
    path = tmp_path / "rates.json"
    rates = "0.0001,0.001 0.01,0.1,1"
    line = f"{target} --widths 16,32 --steps 5 --seeds 2 --learning-rates {rates}"
    assert gradstab(f"{line} --json {path}") == 0
    found = load_learning_rates(path)
    np.testing.assert_allclose(found.rates, [1e-4, 1e-3, 1e-2, 0.1, 1])
    assert found.losses.shape == (2, 2, 5)
    assert found.verdict in Trend
    printed = capsys.readouterr().out
    assert "optimal" in printed
    assert max(map(len, printed.splitlines()[:-1])) <= 80


@pytest.mark.slow
def test_heads_of_a_transformer_have_one_size_at_all_widths():
    options = Transfer(model="transformer", batch_size=4, depth=1)
    subject = command._own(options, (32, 48))
    for width in (32, 48):
        model = subject.make(width, jax.random.key(0))
        assert model.blocks.attention.num_heads == width // 16


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--parametrization mpu", "--parametrization must be"),
        ("--optimizer adamw", "--optimizer must be"),
        ("--vary heads", "--vary must be"),
        ("--widths 16,wide", "--widths 16,wide: expected numbers"),
        ("--learning-rates 1,b", "--learning-rates 1,b: expected numbers"),
        ("--widths 16", "widths must be at least two"),
        ("--vary batch --parametrization mup", "is one of the width"),
        ("--vary depth --parametrization mup", "--parametrization must be 'standard'"),
        (
            "--vary depth --parametrization completep --base-width 4",
            "--base-width is of --vary width",
        ),
        ("--base-width 32", "--base-width is of a --parametrization"),
        ("--learning-rate 1 --learning-rates 1,2,3", "but not both"),
        ("--learning-rates 1,2,3 --folder x", "keeps no --folder"),
        ("--fail-on worse", "--fail-on must be"),
        ("--seeds 0", "--seeds must be"),
        ("--batch-size 5000", "is more than the 1297"),
        ("grows_mine:make --model lstm", "--model is of gradstab's own models"),
        ("grows_mine:without_loss", "must return a loss(output)"),
    ],
)
def test_what_cannot_be_checked_is_said_in_a_line(line, words, target, capsys):
    assert gradstab(line) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
