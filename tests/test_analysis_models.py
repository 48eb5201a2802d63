"""Models of every kind and what a report says of them."""

import gc
import weakref

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from analysis_samples import (
    W,
    normal,
    run,
    square_loss,
)
from flax import linen, nnx

import gradstab as gs
from gradstab import models
from gradstab.network import Network

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.fixture(scope="module")
def batch_normalised():
    model = models.MLP(
        3,
        2,
        widths=(4, 4),
        activation="relu",
        norm="batch",
        kernel_init=jax.nn.initializers.he_normal(),
        rngs=nnx.Rngs(0),
    )
    # flax asks jnp.promote_types, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        yield model, normal(1, 5, 3)


@pytest.mark.slow
def test_training_mode_couples_the_batch_and_differentiates_it_jointly(
    batch_normalised,
):
    model, x = batch_normalised
    model.train()
    with jax.numpy_dtype_promotion("standard"):
        report = run(model, x)
    assert [layer.coupled for layer in report.layers] == [True, True, False]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        graphdef, params, rest = nnx.split(model.input, nnx.Param, ...)
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, rest))

        def layer(x):
            return nnx.merge(graphdef, *wide, copy=True)(x)

        joint = jax.jacfwd(layer)(x.astype(jnp.float64)).reshape(5 * 4, 5 * 3)
    expected = np.linalg.svd(np.asarray(joint), compute_uv=False)
    found = report.layers[0].jacobian
    assert found.coupled
    assert found.shape == (20, 15)
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_evaluation_mode_does_not_couple_the_batch(batch_normalised):
    model, x = batch_normalised
    model.eval()
    with jax.numpy_dtype_promotion("standard"):
        report = run(model, x, examples=2)
    assert not any(layer.coupled for layer in report.layers)
    chex.assert_shape(report.layers[1].jacobian.values, (2, 4))


@pytest.mark.slow
def test_analysing_a_model_in_training_mode_does_not_change_it(batch_normalised):
    model, x = batch_normalised
    model.train()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    with jax.numpy_dtype_promotion("standard"):
        run(model, x, layers=())
    after = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model)))
    chex.assert_trees_all_equal(after, before)


@pytest.fixture(scope="module")
def lstm():
    model = models.LSTM(
        2,
        3,
        hidden=2,
        depth=3,
        kernel_init=jax.nn.initializers.lecun_normal(),
        recurrent_init=jax.nn.initializers.orthogonal(),
        rngs=nnx.Rngs(0),
    )
    return model, run(model, normal(1, 3, 5, 2), examples=2)


@pytest.mark.slow
def test_a_stack_of_recurrent_layers_is_followed_along_time(lstm):
    _, report = lstm
    assert [layer.name for layer in report.layers] == [
        "input",
        "blocks.0",
        "blocks.1",
        "head",
    ]
    names = [recurrence.name for recurrence in report.recurrences]
    assert names == ["input", "blocks.0", "blocks.1"]
    for recurrence in report.recurrences:
        assert recurrence.state_size == 4
        assert recurrence.jacobian_steps == (0, 1, 2, 3, 4)
        chex.assert_shape(recurrence.gradient_norms, (5, 3))
        chex.assert_shape(recurrence.jacobians[0].values, (2, 4))
        assert {end.direction for end in recurrence.ranges} == {"forward", "backward"}


def test_the_state_of_each_recurrent_layer_is_its_own(lstm):
    model, report = lstm
    states = model.trajectory(normal(1, 3, 5, 2))
    for recurrence, state in zip(report.recurrences, states, strict=True):
        both = np.concatenate([np.asarray(state.h), np.asarray(state.c)], axis=2)
        expected = np.sqrt(np.mean(both**2, axis=(0, 2)))
        np.testing.assert_allclose(recurrence.state_rms, expected, rtol=1e-5)


@pytest.mark.slow
def test_the_jacobian_of_a_reversed_recurrence_has_its_own_weights():
    """Constants of the scan have no time axis to turn round."""
    u = np.array([[0.5, 1.0], [0.0, 0.25]])

    def apply(u, x):
        def body(h, now):
            h = h @ u + now
            return h, h

        zeros = jnp.zeros((2, 2))
        return jax.lax.scan(body, zeros, jnp.swapaxes(x, 0, 1), reverse=True)[1][0]

    report = run(apply, u, normal(0, 2, 4, 2))
    (recurrence,) = report.recurrences
    expected = np.linalg.svd(u, compute_uv=False)
    for spectrum in recurrence.jacobians:
        np.testing.assert_allclose(spectrum.values[0], expected, rtol=1e-12)


@pytest.mark.slow
def test_a_thousand_steps_have_sixty_four_jacobians_evenly_spaced():
    def apply(params, x):
        def body(h, now):
            return 0.9 * h + now * params, None

        return jax.lax.scan(body, jnp.zeros((1, 1)), jnp.swapaxes(x, 0, 1))[0]

    report = run(apply, jnp.ones((1, 1)), jnp.ones((1, 1000, 1)))
    (recurrence,) = report.recurrences
    steps = recurrence.jacobian_steps
    assert len(steps) == 64
    assert (steps[0], steps[-1]) == (0, 999)
    assert recurrence.backward.factor == pytest.approx(1 / 0.9, rel=1e-9)
    assert report.verdict == "vanishing"


@pytest.mark.slow
def test_integer_inputs_have_no_jacobian_and_say_so():
    def apply(params, ids):
        h = jnp.mean(params["table"][ids], axis=1)
        return jnp.tanh(h @ params["w"])

    params = {"table": normal(0, 5, 3), "w": normal(1, 3, 3)}
    report = run(apply, params, jnp.array([[0, 1], [2, 3]]))
    table, w = report.layers
    assert (table.name, table.in_shape, table.jacobian) == ("table", None, None)
    assert "its input is integers" in table.note
    assert w.jacobian is not None


@pytest.mark.slow
def test_a_jacobian_above_the_limit_is_found_by_products():
    w = jnp.diag(jnp.arange(1.0, 21.0))
    report = run(lambda w, x: x @ w, w, jnp.ones((2, 20)), max_dense=4, theory=False)
    (layer,) = report.layers
    assert layer.jacobian.method == "golub-kahan"
    chex.assert_shape(layer.jacobian.values, (2, 8))
    np.testing.assert_allclose(layer.jacobian.largest.value, 20, rtol=1e-6)


@pytest.mark.slow
def test_examples_says_for_how_many_jacobians_are_computed():
    for examples, expected in ((2, 2), (9, 4)):
        report = run(
            lambda w, x: jnp.tanh(x @ w),
            jnp.eye(2),
            normal(0, 4, 2),
            examples=examples,
        )
        chex.assert_shape(report.layers[0].jacobian.values, (expected, 2))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        run(lambda w, x: x @ w, jnp.eye(2), jnp.ones((4, 2)), examples=0)


@pytest.mark.slow
def test_the_seed_draws_the_random_cotangents():
    first, again, other = (
        run(lambda w, x: jnp.tanh(x @ w), W, normal(0, 4, 2), seed=seed, layers=())
        for seed in (0, 0, 1)
    )
    assert first.loss == again.loss != other.loss


class _Net(linen.Module):
    @linen.compact
    def __call__(self, x, scale=1.0):
        return linen.Dense(2)(jnp.tanh(scale * linen.Dense(3)(x)))


@pytest.mark.slow
def test_a_linen_pair_takes_keywords():
    x = normal(0, 4, 3)
    variables = _Net().init(jax.random.key(0), x)
    plain = run((_Net(), variables), x, layers=())
    options = {"scale": 0.1}
    scaled = run((_Net(), variables), x, apply_kwargs=options, layers=())
    assert {layer.name for layer in plain.layers} == {"Dense_0", "Dense_1"}
    assert scaled.layers[0].forward_rms < plain.layers[0].forward_rms


@pytest.mark.slow
def test_a_function_of_one_example_is_mapped_over_the_batch():
    def one(w, x):
        assert x.shape == (2,)
        return jnp.tanh(w @ x)

    x = normal(0, 4, 2)
    found = run(one, W, x, batched=False).layers[0].jacobian.values
    expected = run(lambda w, x: jnp.tanh(x @ w.T), W, x).layers[0].jacobian.values
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3.0, W), "cannot analyse a float"),
        ((lambda w, x: x @ w,), "no inputs: <lambda> holds no arrays"),
        ((lambda w, x: x @ w, W), "no inputs"),
        ((_Net(), np.ones((2, 3))), "pair"),
    ],
)
def test_what_is_no_model_is_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        run(*arguments)


def test_numbers_that_are_no_arrays_are_parameters_too():
    report = run(lambda p, x: p["scale"] * (x @ p["w"]), {"scale": 2.0, "w": W}, W)
    assert report.layers[0].params == ("scale", "w")


def test_results_are_numpy(lstm):
    _, report = lstm
    leaves = jax.tree.leaves((report.layers, report.recurrences, tuple(report.growth)))
    assert {type(leaf) for leaf in leaves} <= {np.ndarray, float}


def test_a_report_of_a_model_survives_being_saved(lstm, tmp_path):
    _, report = lstm
    report.save(tmp_path / "run.json")
    found = gs.load(tmp_path / "run.json")
    chex.assert_trees_all_equal(found.layers, report.layers)
    chex.assert_trees_all_equal(found.recurrences, report.recurrences)
    assert (found.verdict, found.reasons, found.made) == (
        report.verdict,
        report.reasons,
        report.made,
    )


def test_keys_are_not_used_up_by_being_looked_at():
    def apply(w, x, key):
        return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x @ w, 0)

    key = jax.random.key(0)
    first = run(apply, W, normal(0, 4, 2), key, layers=())
    again = run(apply, W, normal(0, 4, 2), key, layers=())
    assert first.layers[0].zero_fraction == again.layers[0].zero_fraction > 0
    jax.random.normal(key)


@pytest.mark.slow
def test_an_analysis_leaves_no_network_behind():
    before = _networks()
    constant = jnp.ones((321, 123))

    def apply(w, x, constant=constant):
        return jnp.tanh(x @ w) + constant[0, 0].astype(x.dtype)

    with jax.debug_key_reuse(False):  # the check keeps every program it has seen
        run(apply, W, normal(0, 4, 2), loss=square_loss)
    gone = weakref.ref(constant)
    del constant, apply
    assert _networks() <= before
    assert gone() is None


def _networks():
    gc.collect()
    return {id(thing) for thing in gc.get_objects() if type(thing) is Network}


@pytest.mark.slow
def test_shallow_heads_count_in_the_loss_and_output_chooses_the_deep_one():
    model = models.MLP(
        3,
        2,
        widths=(4, 4, 4),
        activation="tanh",
        kernel_init=jax.nn.initializers.lecun_normal(),
        aux_heads=(0,),
        rngs=nnx.Rngs(0),
    )
    x = normal(0, 4, 3)

    def loss(output):
        logits, (early,) = output
        return jnp.sum(logits[:, 0]) + 10 * jnp.sum(early[:, 0])

    report = run(model, x, loss=loss, output=_first, layers=())
    deep = run(
        model, x, loss=lambda out: jnp.sum(out[0][:, 0]), output=_first, layers=()
    )
    assert [layer.name for layer in report.layers] == [
        "input",
        "blocks.0",
        "blocks.1",
        "head",
    ]
    # The shallow head sits on the first layer alone.
    assert report.layers[0].gradient_norm[0] > 2 * deep.layers[0].gradient_norm[0]
    np.testing.assert_allclose(
        report.layers[1].gradient_norm, deep.layers[1].gradient_norm, rtol=1e-12
    )


def _first(output):
    return output[0]
