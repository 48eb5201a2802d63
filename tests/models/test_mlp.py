import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.nn import initializers

from gradstab.initializers import identity_rnn
from gradstab.models import MLP, batch_norm, scan_blocks
from gradstab.models.stack import call_and_keep

pytestmark = pytest.mark.cases

EPS = float(jnp.finfo(jnp.float32).eps)
X = jax.random.normal(jax.random.key(0), (5, 4))


def mlp(widths=(4, 4, 4), **options):
    defaults = {
        "activation": "tanh",
        "kernel_init": initializers.normal(0.5),
        "rngs": nnx.Rngs(params=0, dropout=1),
    }
    return MLP(4, 4, widths=widths, **(defaults | options))


def linear(scale, **options):
    return mlp(
        activation="identity",
        kernel_init=identity_rnn(scale),
        head_init=identity_rnn(1.0),
        **options,
    )


@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_twenty_linear_layers_multiply_by_the_twentieth_power(scale):
    # One rounding per layer, and one for the power.
    expected = scale**20 * X
    got = linear(scale, widths=(4,) * 20)(X)
    chex.assert_trees_all_close(got, expected, rtol=25 * EPS)


def test_the_network_is_its_formula():
    model = mlp(bias_init=initializers.normal(1.0))
    h = jnp.tanh(X @ model.input.dense.kernel[...] + model.input.dense.bias[...][None])
    dense = model.blocks.dense
    for i in range(2):
        h = jnp.tanh(h @ dense.kernel[i] + dense.bias[i][None])
    expected = h @ model.head.kernel[...] + model.head.bias[...][None]
    chex.assert_trees_all_close(model(X), expected, atol=20 * EPS)


def test_the_norm_lies_between_the_dense_layer_and_the_activation():
    layer = mlp(norm="layer", bias_init=initializers.ones).input
    a = layer.dense(X)
    a = a - a.mean(axis=-1, keepdims=True)
    # The bias of the norm is zero; epsilon is 1e-6 of variances near one.
    expected = jnp.tanh(a / jnp.sqrt(jnp.square(a).mean(axis=-1, keepdims=True)))
    chex.assert_trees_all_close(layer(X), expected, atol=1e-4)


def test_runs_of_equal_shapes_are_stacks_in_the_order_of_the_widths():
    model = mlp(widths=(8, 6, 6, 6, 3, 3))
    shapes = [run.dense.kernel.shape for run in model.blocks]
    assert shapes == [(1, 8, 6), (2, 6, 6), (1, 6, 3), (1, 3, 3)]
    assert model.run_lengths == (1, 2, 1, 1)
    h = model.input(X)
    for run in model.blocks:
        h, _ = scan_blocks(run, h)
    chex.assert_trees_all_close(model(X), model.head(h), atol=20 * EPS)


def test_a_single_hidden_layer_has_no_blocks():
    model = mlp(widths=(8,))
    assert len(model.blocks) == 0
    assert model.run_lengths == ()
    chex.assert_trees_all_close(model(X), model.head(model.input(X)), atol=20 * EPS)


def test_parameters_of_one_run_lie_directly_under_blocks():
    assert set(nnx.to_pure_dict(nnx.state(mlp(), nnx.Param))["blocks"]) == {"dense"}


def test_axes_after_the_batch_are_flattened():
    model = mlp()
    chex.assert_trees_all_equal(model(X.reshape(5, 2, 2)), model(X))


def test_skips_add_the_input_of_every_layer_after_the_first():
    # Layer one multiplies by 0.5, each of the two others by 1 + 0.5.
    expected = 0.5 * 1.5**2 * X
    chex.assert_trees_all_close(linear(0.5, skip=True)(X), expected, rtol=5 * EPS)


def test_skips_leave_layers_that_change_the_width_alone():
    narrow = linear(1.0, widths=(4, 2), skip=True)
    # Identity matrices that are not square drop columns and pad with zeros.
    chex.assert_trees_all_equal(narrow(X), X.at[:, 2:].set(0))


def test_without_biases_zero_stays_zero():
    biased = mlp(bias_init=initializers.ones)
    free = mlp(bias_init=initializers.ones, use_bias=False)
    zero = jnp.zeros_like(X)
    assert (biased(zero) != 0).all()
    assert (free(zero) == 0).all()


def test_the_heads_weights_have_their_own_initialiser():
    assert (mlp(head_init=initializers.zeros)(X) == 0).all()


def test_batch_norm_couples_examples_in_training_and_not_in_evaluation():
    model = mlp(norm="batch")
    graphdef, state = nnx.split(model)

    def first_logits(x, graphdef):
        return nnx.merge(graphdef, state, copy=True)(x)[0].sum()

    in_training = jax.grad(first_logits)(X, graphdef)
    model.eval()
    in_evaluation = jax.grad(first_logits)(X, nnx.graphdef(model))
    assert (jnp.abs(in_training[1:]).max(axis=1) > 0).all()
    assert (in_evaluation[1:] == 0).all()


def test_batch_norm_normalises_every_layer_in_training_and_not_in_evaluation():
    model = mlp(norm="batch", activation="identity")
    model.train()
    _, h = scan_blocks(model.blocks, 9 * model.input(X), step=call_and_keep)
    # The variance lacks epsilon / variance = 1e-5 / 0.01 at most.
    chex.assert_trees_all_close(h.std(axis=1), jnp.ones((2, 4)), atol=1e-3)
    model.eval()
    _, h = scan_blocks(model.blocks, 9 * model.input(X), step=call_and_keep)
    assert jnp.abs(h.std(axis=1) - 1).max() > 0.1


def test_running_averages_of_every_layer_follow_its_own_batch():
    model = mlp(norm=batch_norm(momentum=0.0), activation="identity")
    h = X
    for layer, dense in [(model.input, model.input.dense)]:
        before = dense(h)
        h = layer(h)
        chex.assert_trees_all_close(layer.norm.mean[...], before.mean(0), atol=10 * EPS)
    _, kept = scan_blocks(model.blocks, h, step=call_and_keep)
    inputs = jnp.stack([h, kept[0]])
    kernels = model.blocks.dense.kernel[...]
    means = jnp.einsum("lbi,lij->lj", inputs, kernels) / 5
    chex.assert_trees_all_close(model.blocks.norm.mean[...], means, atol=10 * EPS)


def test_the_logits_are_normalised_too_if_asked():
    model = mlp(norm="batch", norm_output=True)
    chex.assert_trees_all_close(model(X).std(axis=0), jnp.ones(4), atol=1e-3)
    assert jnp.abs(mlp(norm="batch")(X).std(axis=0) - 1).max() > 0.01


def test_dropout_differs_between_layers():
    model = linear(1.0, widths=(64, 64, 64), dropout=0.5)
    _, kept = scan_blocks(model.blocks, jnp.ones((1, 64)), step=call_and_keep)
    dropped = [int((h == 0).sum()) for h in kept]
    # One mask for both layers would drop nothing more in the second.
    assert 0 < dropped[0] < dropped[1] < 64


def test_dropout_differs_between_calls_and_keeps_the_mean():
    model = linear(1.0, widths=(4, 4), dropout=0.5)
    x = jnp.ones((4000, 4))
    first, second = model(x), model(x)
    assert (first != second).any()
    # 0 or 4 with probability 1/4: a standard deviation of sqrt(3), of 16,000 entries.
    assert abs(first.mean() - 1) < 5 * (3 / 16_000) ** 0.5


def test_dropout_is_off_in_evaluation():
    model = mlp(dropout=0.5)
    model.eval()
    chex.assert_trees_all_close(model(X), mlp()(X), atol=20 * EPS)


def test_random_streams_advance_through_jit_and_split():
    graphdef, state = nnx.split(mlp(dropout=0.5, norm="batch"))

    @jax.jit
    def step(state, x):
        model = nnx.merge(graphdef, state)
        return model(x), nnx.state(model)

    once, after = step(state, X)
    again, _ = step(state, X)
    twice, after = step(after, X)
    chex.assert_trees_all_equal(once, again)
    assert (once != twice).any()
    counts = after["blocks"]["dropout"]["rngs"]["count"][...]
    chex.assert_trees_all_equal(counts, jnp.full(2, 2, "uint32"))


def test_auxiliary_heads_read_the_layers_they_name():
    model = mlp(widths=(4, 4, 8, 8), aux_heads=(3, 0, 2))
    logits, (at_three, at_zero, at_two) = model(X)
    h = model.input(X)
    chex.assert_trees_all_close(at_zero, model.auxiliary[1](h), atol=20 * EPS)
    h, _ = scan_blocks(model.blocks[1], scan_blocks(model.blocks[0], h)[0])
    chex.assert_trees_all_close(at_two, model.auxiliary[2](h), atol=20 * EPS)
    h, _ = scan_blocks(model.blocks[2], h)
    chex.assert_trees_all_close(at_three, model.auxiliary[0](h), atol=20 * EPS)
    chex.assert_trees_all_close(logits, model.head(h), atol=20 * EPS)


def test_an_auxiliary_loss_moves_its_head_and_the_layers_below_only():
    graphdef, params = nnx.split(mlp(widths=(4,) * 4, aux_heads=(1,)))

    def loss(params):
        _, (auxiliary,) = nnx.merge(graphdef, params, copy=True)(X)
        return jnp.square(auxiliary).sum()

    grads = jax.grad(loss)(params)
    norm = jnp.linalg.norm
    assert norm(grads["auxiliary"][0]["kernel"][...]) > 0
    assert norm(grads["input"]["dense"]["kernel"][...]) > 0
    assert norm(grads["blocks"]["dense"]["kernel"][0]) > 0
    assert (grads["blocks"]["dense"]["kernel"][1:] == 0).all()
    assert (grads["head"]["kernel"][...] == 0).all()


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_half_precision_computes_on_single_precision_parameters(norm):
    if norm == "batch":
        # flax subtracts float32 averages from a bfloat16 signal in evaluation mode.
        norm = batch_norm()
    model = mlp(dtype=jnp.bfloat16, norm=norm)
    assert model(X).dtype == jnp.bfloat16
    assert model.blocks.dense.kernel.dtype == jnp.float32
    model.eval()
    assert model(X).dtype == jnp.bfloat16


def test_parameters_can_be_kept_in_half_precision():
    model = mlp(param_dtype=jnp.bfloat16)
    assert model.blocks.dense.kernel.dtype == jnp.bfloat16
    assert model(X.astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("shape", [(5, 3), (4,), (5, 2, 3)])
def test_a_wrong_input_shape_is_named_under_jit(shape):
    model = mlp()
    with pytest.raises(ValueError, match=r"MLP expects .* 4 features .* got"):
        jax.jit(lambda x: model(x))(jnp.ones(shape))


def test_integer_inputs_are_refused():
    with pytest.raises(TypeError, match="floating inputs, got uint8"):
        mlp()(jnp.ones((5, 4), jnp.uint8))


@pytest.mark.slow
def test_the_model_runs_in_the_tree_mode_of_flax():
    expected = mlp(norm="batch", dropout=0.5, aux_heads=(1,))(X)
    with nnx.set_graph_mode(False), nnx.set_graph_updates(False):
        model = mlp(norm="batch", dropout=0.5, aux_heads=(1,))
        graphdef, state = nnx.split(model)
        got = nnx.merge(graphdef, state)(X)
    chex.assert_trees_all_equal(got, expected)
