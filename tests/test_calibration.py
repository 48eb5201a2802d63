"""LSUV brings the output of every layer to unit variance on a batch."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gradstab import initializers as I
from gradstab.calibration import lsuv

DEPTH, WIDTH = 6, 16
TOLERANCE = 0.01  # the default of lsuv


def kernels(stddev, depth=DEPTH, seed=1):
    return stddev * jax.random.normal(jax.random.key(seed), (depth, WIDTH, WIDTH))


def batch(num=64):
    return jax.random.normal(jax.random.key(0), (num, WIDTH))


def network(activation):
    def apply(params, x):
        for w, b in params:
            x = activation(x @ w + b)
        return x

    return apply


def with_biases(w):
    return [(w, b) for w, b in zip(w, kernels(0.3, len(w), seed=2)[:, :1], strict=True)]


def deviations(params, x, activation):
    """Of every product, by hand."""
    found = []
    for w, b in params:
        found.append(np.std(x @ w))
        x = activation(x @ w + b)
    return np.array(found)


ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}


@pytest.mark.parametrize(
    ("name", "stddev"), [("tanh", 3.0), ("relu", 1e-3), ("sigmoid", 0.1)]
)
def test_every_product_has_unit_variance_afterwards(name, stddev):
    activation = ACTIVATIONS[name]
    params, x = with_biases(kernels(stddev)), batch()
    calibration = lsuv(network(activation), params, x)
    by_hand = deviations(calibration.params, x, activation)
    np.testing.assert_allclose(by_hand, 1, atol=TOLERANCE)
    # Compiled and plain sums of 1,000 numbers differ by some float32 roundings.
    np.testing.assert_allclose(calibration.after, by_hand, rtol=1e-5)
    before = deviations(params, x, activation)
    np.testing.assert_allclose(calibration.before, before, rtol=1e-4)
    assert calibration.notes == ()
    assert calibration.names == tuple(f"{layer}.0" for layer in range(DEPTH))


def all_at_once(params, x):
    """LSUV gone wrong: every layer divided by what it was before any was scaled."""
    found = deviations(params, x, jnp.tanh)
    return [(w / s, b) for (w, b), s in zip(params, found, strict=True)]


def by_the_activation(params, x):
    """LSUV gone wrong: the variance taken behind the activation."""
    scaled = []
    for w, b in params:
        scaled.append((w / jnp.std(jnp.tanh(x @ w + b)), b))
        x = jnp.tanh(x @ scaled[-1][0] + b)
    return scaled


@pytest.mark.parametrize("mistake", [all_at_once, by_the_activation])
def test_other_scalings_do_not_give_unit_variance(mistake):
    params, x = with_biases(kernels(1e-2)), batch()
    found = deviations(mistake(params, x), x, jnp.tanh)
    assert np.max(np.abs(found - 1)) > 10 * TOLERANCE


def test_only_weights_change_and_only_by_a_factor_each():
    params = with_biases(kernels(0.5))
    kept = jax.tree.map(jnp.copy, params)
    calibration = lsuv(network(jnp.tanh), params, batch())
    chex.assert_trees_all_equal(params, kept)
    chex.assert_trees_all_equal_shapes_and_dtypes(params, calibration.params)
    for (w, b), (new_w, new_b) in zip(params, calibration.params, strict=True):
        chex.assert_trees_all_equal(b, new_b)
        ratio = new_w / w
        chex.assert_trees_all_close(ratio, jnp.full_like(w, ratio[0, 0]), rtol=1e-6)


def test_a_calibrated_network_is_left_as_it_is():
    apply, x = network(jnp.tanh), batch()
    once = lsuv(apply, with_biases(kernels(0.5)), x).params
    chex.assert_trees_all_equal(lsuv(apply, once, x).params, once)


def scanned(params, x):
    def layer(x, w):
        return jnp.tanh(x @ w), None

    return jax.lax.scan(layer, x, params["blocks"]["kernel"])[0] @ params["head"]


def unrolled(params, x):
    for w in params["kernels"]:
        x = jnp.tanh(x @ w)
    return x @ params["head"]


def stacked_params(stddev, depth=DEPTH):
    return {"blocks": {"kernel": kernels(stddev, depth)}, "head": jnp.eye(WIDTH)}


def test_each_layer_of_a_stack_is_scaled_by_itself():
    params, x = stacked_params(0.1), batch()
    calibration = lsuv(scanned, params, x)
    layers = tuple(f"blocks.{layer}.kernel" for layer in range(DEPTH))
    assert calibration.names == (*layers, "head")
    np.testing.assert_allclose(calibration.after, 1, atol=TOLERANCE)

    alone = {"kernels": list(params["blocks"]["kernel"]), "head": params["head"]}
    by_layers = lsuv(unrolled, alone, x)
    chex.assert_trees_all_close(
        calibration.params["blocks"]["kernel"],
        jnp.stack(by_layers.params["kernels"]),
        rtol=1e-4,  # float32 roundings of the deviations, added up over the layers
    )


@pytest.mark.parametrize("stddev", [1e-6, 1e6])
def test_layers_beyond_the_range_of_float32_are_calibrated_too(stddev):
    def linear(params, x):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, params)[0]

    calibration = lsuv(linear, kernels(stddev, 12), batch())
    assert calibration.before[-1] == 0 or not np.isfinite(calibration.before[-1])
    np.testing.assert_allclose(calibration.after, 1, atol=TOLERANCE)
    assert calibration.notes == ()


def test_chaotic_layers_come_within_sampling_error_and_none_is_put_back():
    key_x, key_w = jax.random.split(jax.random.key(0))
    w = I.normal(0.05)(key_w, (300, 64, 64))

    def apply(w, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

    calibration = lsuv(apply, w, jax.random.normal(key_x, (64, 64)))
    # Rounding gives the deep layers other activations at each evaluation. A deviation
    # of 4,096 numbers, of which some 500 are independent, errs by 3 %.
    np.testing.assert_allclose(calibration.after, 1, atol=0.13)
    assert np.all(calibration.params / w > 2)


def wavering(w, x):
    """Weights whose scale has ripples of 3 %, too steep for the iteration to settle."""
    log_norm = jnp.log(jnp.linalg.norm(w))
    return x @ (w * (1 + 0.03 * jnp.cos(40 * log_norm)))


def test_weights_that_scaling_helps_but_does_not_settle_keep_their_scale():
    calibration = lsuv(wavering, kernels(1e-3, 1)[0], batch())
    assert 0.01 < np.abs(calibration.after[0] - 1) < 0.07  # two ripples
    assert "standard deviation" in dict(calibration.notes)[""]


def test_data_whose_squares_overflow_are_calibrated():
    def apply(w, x):
        return x @ w

    calibration = lsuv(apply, kernels(0.1, 1)[0], 1e25 * batch())
    np.testing.assert_allclose(calibration.after, 1, atol=TOLERANCE)


def test_a_reversed_scan_is_listed_in_the_order_of_depth():
    def apply(params, x):
        def layer(x, w):
            return jnp.tanh(x @ w), None

        return jax.lax.scan(layer, x, params["w"], reverse=True)[0]

    calibration = lsuv(apply, {"w": kernels(0.1, 3)}, batch())
    assert calibration.names == ("w.2", "w.1", "w.0")
    assert np.all(np.diff(calibration.before) < 0)  # each layer loses


def test_relu_weights_end_with_the_gain_of_he():
    key_x, key_w = jax.random.split(jax.random.key(3))
    params = [I.normal(0.1)(key, (400, 400)) for key in jax.random.split(key_w, 3)]

    def apply(params, x):
        for w in params:
            x = jax.nn.relu(x) @ w
        return x

    x = jax.random.normal(key_x, (400, 400))
    scaled = lsuv(apply, params, x).params
    gains = [float(jnp.std(w)) * 20 for w in scaled]
    # A layer's mean square over 400 units of 400 examples varies by a per cent or two
    # from that of infinitely wide layers.
    np.testing.assert_allclose(gains, I.gain(jax.nn.relu), rtol=0.06)


@pytest.mark.slow
def test_convolutions_and_residual_branches_are_calibrated():
    def convolve(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", dimension_numbers=numbers
        )

    def apply(params, x):
        x = convolve(x, params["stem"])
        branch = convolve(jax.nn.relu(convolve(x, params["a"])), params["b"])
        return jnp.mean(x + branch, axis=(1, 2)) @ params["head"]

    key_x, *keys = jax.random.split(jax.random.key(0), 5)
    shapes = {
        "stem": (3, 3, 2, 8),
        "a": (3, 3, 8, 8),
        "b": (1, 1, 8, 8),
        "head": (8, 5),
    }
    params = {
        n: I.normal(0.02)(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)
    }
    calibration = lsuv(apply, params, jax.random.normal(key_x, (16, 6, 6, 2)))
    assert calibration.names == ("stem", "a", "b", "head")
    np.testing.assert_allclose(calibration.after, 1, atol=TOLERANCE)


def normalised(w):
    return w / jnp.linalg.norm(w, axis=0, keepdims=True)


def test_normalised_weights_are_put_back_and_the_next_layer_is_calibrated():
    def apply(params, x):
        x = jnp.tanh(x @ normalised(params["a"]))
        return x @ params["b"]

    params = {"a": kernels(0.5, 1)[0], "b": kernels(0.5, 1, seed=5)[0]}
    x = 3 * batch()
    calibration = lsuv(apply, params, x)
    ((name, reason),) = calibration.notes
    assert name == "a"
    assert "unit variance" in reason
    chex.assert_trees_all_equal(calibration.params["a"], params["a"])
    np.testing.assert_allclose(calibration.before[0], 3, rtol=0.1)  # 1,024 normals
    np.testing.assert_allclose(calibration.after[0], calibration.before[0])
    np.testing.assert_allclose(calibration.after[1], 1, atol=TOLERANCE)


LEFT_ALONE = {
    "a last layer of zeros": (
        lambda p, x: x @ p["a"] @ (0 * p["b"]),
        {"b": "does not vary"},
    ),
    "tied weights": (
        lambda p, x: jnp.tanh(x @ p["a"]) @ p["a"] @ p["b"],
        {"a": "2 uses"},
    ),
    "weights that are a product": (
        lambda p, x: x @ (p["a"] @ p["b"]),
        {"a": "several parameters: a, b", "b": "several parameters: a, b"},
    ),
    "a recurrence": (
        lambda p, x: jax.lax.scan(
            lambda h, x_t: (jnp.tanh(h @ p["a"] + x_t), None),
            jnp.zeros_like(x),
            (x @ p["b"])[None],
        )[0],
        {"a": "every step of a scan"},
    ),
    "a while loop": (
        lambda p, x: jax.lax.fori_loop(
            0, 2, lambda _, h: jnp.tanh(h @ p["a"]), x @ p["b"]
        ),
        {"a": "scan"},
    ),
    "an output that is not finite": (
        lambda p, x: (x @ p["a"]) @ (p["b"] / 0.0),
        {"b": "not finite"},
    ),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_what_cannot_be_calibrated_is_left_alone_and_named(case):
    apply, reasons = LEFT_ALONE[case]
    params = dict(zip("ab", kernels(0.5, 2), strict=True))
    calibration = lsuv(apply, params, batch())
    notes = dict(calibration.notes)
    assert notes.keys() == reasons.keys()
    for name, words in reasons.items():
        assert words in notes[name]
        chex.assert_trees_all_equal(calibration.params[name], params[name])
    good = [i for i, name in enumerate(calibration.names) if name not in notes]
    np.testing.assert_allclose(calibration.after[good], 1, atol=TOLERANCE)


def test_integer_weights_are_left_alone():
    def apply(params, x):
        return x @ params["codes"].astype(x.dtype) @ params["w"]

    params = {"codes": jnp.ones((WIDTH, WIDTH), jnp.int8), "w": kernels(0.5, 1)[0]}
    calibration = lsuv(apply, params, batch())
    assert calibration.notes == (("codes", "its dtype is int8"),)


def square_root(params, x):
    """Weights enter by their square root, so each iteration halves the logarithm."""
    return x @ (jnp.sign(params) * jnp.sqrt(jnp.abs(params)))


def test_iterations_and_tolerance_decide_how_close_a_slow_layer_comes():
    w, x = 100 * kernels(1.0, 1)[0], batch()
    one = lsuv(square_root, w, x, max_iterations=1)
    three = lsuv(square_root, w, x, max_iterations=3)
    loose = lsuv(square_root, w, x, tolerance=0.5)
    tight = lsuv(square_root, w, x, tolerance=0.001, max_iterations=20)
    distances = [float(np.abs(c.after - 1).max()) for c in (one, three, loose, tight)]
    assert distances[0] > distances[1] > distances[3]
    assert 0.5 >= distances[2] > 0.001 >= distances[3]
    assert "standard deviation" in dict(one.notes)[""]
    assert tight.notes == ()


def test_bfloat16_weights_are_calibrated_to_their_precision():
    params, x = stacked_params(0.1), batch().astype(jnp.bfloat16)
    narrow = jax.tree.map(lambda w: w.astype(jnp.bfloat16), params)
    calibration = lsuv(scanned, narrow, x)
    chex.assert_trees_all_equal_dtypes(calibration.params, narrow)
    # A factor and a thousand outputs round to eps / 2 = 0.4 % each.
    np.testing.assert_allclose(calibration.after, 1, atol=TOLERANCE + 0.004)


class Model(nnx.Module):
    def __init__(self, rngs):
        init = I.orthogonal(0.1)
        self.first = nnx.Linear(WIDTH, 32, kernel_init=init, rngs=rngs)
        self.norm = nnx.BatchNorm(32, rngs=rngs)
        self.last = nnx.Linear(32, 5, kernel_init=init, rngs=rngs)

    def __call__(self, x):
        h = jax.nn.relu(self.norm(self.first(x)))
        return {"logits": self.last(h), "hidden": h}


def test_an_nnx_module_with_two_outputs_is_calibrated_and_updated():
    model, x = Model(nnx.Rngs(0)), batch()
    before = model.first.kernel[...]
    calibration = lsuv(model, x, output=lambda result: result["logits"])
    assert calibration.names == ("first.kernel", "last.kernel")
    np.testing.assert_allclose(calibration.after, 1, atol=TOLERANCE)
    chex.assert_trees_all_equal(model.first.kernel[...], before)
    nnx.update(model, calibration.params)
    np.testing.assert_allclose(np.std(x @ model.first.kernel[...]), 1, atol=TOLERANCE)


def test_a_model_of_one_example_is_mapped_over_the_batch():
    def one(params, x):
        return jnp.tanh(params @ x)

    w = kernels(0.1, 1)[0]
    calibration = lsuv(one, w, batch(), batched=False)
    np.testing.assert_allclose(np.std(batch() @ calibration.params.T), 1, atol=0.01)


def test_keyword_arguments_reach_the_model():
    def apply(params, x, *, size):
        return (size * x) @ params

    w = kernels(0.1, 1)[0]
    one, two = (
        lsuv(apply, w, batch(), apply_kwargs={"size": size}).params for size in (1, 2)
    )
    chex.assert_trees_all_close(one, 2 * two, rtol=1e-5)


def test_a_model_without_weights_is_an_error():
    with pytest.raises(ValueError, match="no parameter"):
        lsuv(lambda params, x: x + params, jnp.ones((1, WIDTH)), batch())
