"""Layer-wise pre-training: what is trained on what, and what is not."""

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx

from gradstab import models, training
from gradstab.models import MLP
from gradstab.training import metrics_log, pretraining


def make(**options):
    return MLP(
        6,
        3,
        **{"widths": (6, 6, 6), "activation": "tanh"} | options,
        kernel_init=jax.nn.initializers.glorot_uniform(),
        rngs=nnx.Rngs(0),
    )


# One object, and layers of one shape, so that the tests share one compiled step.
OPTIMIZER = optax.sgd(0.1, momentum=0.9)


@pytest.fixture(scope="module")
def x():
    """Points near a plane in six dimensions."""
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((64, 2)) @ rng.standard_normal((2, 6))
    return (plane + 0.1 * rng.standard_normal((64, 6))).astype(np.float32)


def pretrain(model, x, num_steps=20, **options):
    options = {"optimizer": OPTIMIZER, "batch_size": 16, "progress": False} | options
    return training.pretrain(model, x, num_steps=num_steps, **options)


def params(model):
    return nnx.to_pure_dict(nnx.state(model, nnx.Param))


@pytest.mark.slow
def test_every_hidden_layer_learns_to_reconstruct_its_input(x):
    _, losses = pretrain(make(), x)
    chex.assert_shape(losses, (3, 20))
    assert (losses[:, -5:].mean(axis=1) < 0.5 * losses[:, :3].mean(axis=1)).all()


@pytest.mark.slow
def test_layers_may_change_the_width(x):
    model, losses = pretrain(make(widths=(6, 4, 4)), x)
    assert model(x).shape == (64, 3)
    # The plane fits into four features.
    assert (losses[:, -1] < losses[:, 0]).all()


def test_the_first_layer_is_that_of_an_autoencoder_trained_by_itself(x):
    """The same steps by hand: tanh layer, linear decoder, squared error."""
    model = make(widths=(6,))
    found, losses = pretrain(model, x)
    encoder = pretraining.Autoencoder(model.input, 6, 6, 0.0, rngs=nnx.Rngs(0))
    run = training.fit(
        encoder,
        (x, x),
        loss=training.mean_squared_error,
        optimizer=OPTIMIZER,
        num_steps=20,
        batch_size=16,
        progress=False,
    )
    chex.assert_trees_all_equal(params(found.input), params(run.model.layer))
    np.testing.assert_array_equal(losses[0], run.history["loss"])


def test_layers_above_are_trained_on_the_output_of_those_below(x):
    """Training the second layer alone, on the first one's output, gives the same."""
    both, losses = pretrain(make(widths=(6, 6)), x)
    h = np.asarray(both.input(x))
    spread = np.square(h).mean()
    # At the start the decoder's output is of the order of its input.
    assert 0.1 * spread < losses[1, 0] < 10 * spread
    (first,) = (params(pretrain(make(widths=(6,)), x).model.input),)
    chex.assert_trees_all_equal(params(both.input), first)


def test_head_and_given_model_stay_as_they_were(x):
    model = make()
    before = jax.tree.map(np.asarray, params(model))
    trained, _ = pretrain(model, x)
    chex.assert_trees_all_equal(params(model), before)
    chex.assert_trees_all_equal(params(trained)["head"], before["head"])
    changed = jax.tree.map(
        lambda a, b: not np.array_equal(a, b), params(trained), before
    )
    for name in ("input", "blocks"):
        assert all(jax.tree.leaves(changed[name])), changed


def test_a_stack_is_trained_layer_by_layer_and_in_its_order(x):
    model = make(widths=(6, 6, 6, 6))
    before, after = (
        np.asarray(params(m)["blocks"]["dense"]["kernel"]).reshape(3, -1)
        for m in (model, pretrain(model, x).model)
    )
    distances = np.linalg.norm(after[:, None] - before, axis=-1)
    # Each has moved, but less than what lies between two random layers.
    assert (np.diag(distances) > 1e-3).all()
    np.testing.assert_array_equal(distances.argmin(axis=1), [0, 1, 2])


@pytest.mark.slow
def test_layers_of_equal_shape_share_one_compiled_step(x):
    model = make(widths=(6,) * 5)
    chex.clear_trace_counter()
    optimizer = optax.GradientTransformation(
        OPTIMIZER.init, chex.assert_max_traces(OPTIMIZER.update, n=1)
    )
    pretrain(model, x, optimizer=optimizer)


def test_corruption_makes_the_task_harder_and_only_while_training(x):
    model = make(widths=(6,))
    _, clean = pretrain(model, x)
    _, noisy = pretrain(model, x, corruption=0.5)
    assert noisy[:, -10:].mean() > 1.5 * clean[:, -10:].mean()
    autoencoder = pretraining.Autoencoder(model.input, 6, 6, 0.5, rngs=nnx.Rngs(0))
    autoencoder.eval()
    chex.assert_trees_all_equal(autoencoder(x), autoencoder(x))


def test_corrupted_entries_are_zero_and_the_others_unchanged(x):
    class Identity(nnx.Module):
        def __call__(self, h):
            return h

    autoencoder = pretraining.Autoencoder(Identity(), 6, 6, 0.25, rngs=nnx.Rngs(0))
    autoencoder.decoder = Identity()
    autoencoder.train()
    h = np.ones((1000, 6), np.float32)
    out = np.asarray(autoencoder(h))
    # 1 / 0.75 * 0.75 rounds twice.
    assert (np.isclose(out, 1, rtol=1e-6) | (out == 0)).all()
    # Five standard errors of a share of 6000.
    assert abs((out == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 6000)


def test_normalised_models_with_dropout_are_pretrained_too(x):
    model = make(widths=(6, 6), norm="batch", dropout=0.1)
    trained, _ = pretrain(model, x)
    assert not np.allclose(trained.input.norm.mean[...], 0)


def test_other_models_and_shares_are_refused(x):
    with pytest.raises(TypeError, match="Linear has no attribute input, blocks, head"):
        pretrain(nnx.Linear(6, 3, rngs=nnx.Rngs(0)), x)
    lstm = models.build("lstm", in_shape=(2, 3), num_outputs=3, seed=0)
    with pytest.raises(TypeError, match=r"LSTMLayer is not a function.*is of an mlp"):
        pretrain(lstm, x)
    with pytest.raises(ValueError, match="corruption is a share"):
        pretrain(make(), x, corruption=1.0)


class Killed(BaseException):
    """Like SIGKILL, nothing handles it."""


@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 4, 6, 8, 11, 12])
def test_a_killed_pretraining_resumes_bitwise(x, tmp_path, monkeypatch, call):
    """Twelve times the layers' metrics are written: at which of them it ends."""

    def model():
        return make(widths=(6, 6, 6), norm="batch", dropout=0.1)

    options = {"corruption": 0.2, "checkpoint_every": 5}
    whole, losses = pretrain(model(), x, directory=tmp_path / "whole", **options)
    alone, alone_losses = pretrain(model(), x, corruption=0.2)
    chex.assert_trees_all_equal(params(whole), params(alone))
    np.testing.assert_array_equal(losses, alone_losses)
    write, calls = metrics_log.MetricsLog.write, []

    def killing(self, *args):
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return write(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(metrics_log.MetricsLog, "write", killing)
        with pytest.raises(Killed):
            pretrain(model(), x, directory=tmp_path / "killed", **options)
    with pytest.raises(FileExistsError, match="resume=True"):
        pretrain(model(), x, directory=tmp_path / "killed", **options)
    again, again_losses = pretrain(
        model(), x, directory=tmp_path / "killed", resume=True, **options
    )
    both = (nnx.to_pure_dict(nnx.state(m)) for m in (again, whole))
    chex.assert_trees_all_equal(*(jax.tree.map(plain, tree) for tree in both))
    np.testing.assert_array_equal(again_losses, losses)
    # What is finished is read and not learnt again.
    monkeypatch.setattr(metrics_log.MetricsLog, "write", None)
    pretrain(model(), x, directory=tmp_path / "killed", resume=True, **options)


def plain(leaf):
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


@pytest.mark.slow
def test_a_layer_that_breaks_is_named(x):
    bad = x.copy()
    bad[3, 0] = np.inf
    with pytest.raises(training.NonFiniteLossError) as info:
        pretrain(make(), bad)
    assert info.value.__notes__ == ["while pre-training hidden layer 0"]
