"""The variance-scaling family: its variances, and the gain of an activation."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab import initializers as I

pytestmark = pytest.mark.cases

# Fourth moment over squared variance, which sets the error of a variance estimate.
KURTOSIS = {"normal": 3.0, "truncated": 2.366, "uniform": 1.8}

DENSE, CONV = (300, 500), (3, 3, 64, 128)
FAMILIES = {
    "lecun_normal": (I.lecun_normal(), "truncated", lambda i, o: 1 / i),
    "lecun_uniform": (I.lecun_uniform(), "uniform", lambda i, o: 1 / i),
    "glorot_normal": (I.glorot_normal(), "truncated", lambda i, o: 2 / (i + o)),
    "glorot_uniform": (I.glorot_uniform(), "uniform", lambda i, o: 2 / (i + o)),
    "he_normal": (I.he_normal(), "truncated", lambda i, o: 2 / i),
    "he of the paper": (I.he_normal(truncated=False), "normal", lambda i, o: 2 / i),
    "he_uniform": (I.he_uniform(), "uniform", lambda i, o: 2 / i),
    "he with a gain": (I.he_normal(gain=3.0), "truncated", lambda i, o: 9 / i),
    "mean_field": (I.mean_field(1.5), "normal", lambda i, o: 2.25 / i),
    "scaled_for": (I.scaled_for(jnp.sign), "normal", lambda i, o: 1 / i),
    "normal": (I.normal(0.1), "normal", lambda i, o: 0.01),
}


def has_variance(init, kind, variance, shape=DENSE, dtype=jnp.float32):
    """Mean zero and this variance, within 4.5 standard errors (1 in 100,000)."""
    w = np.asarray(init(jax.random.key(0), shape, dtype), np.float64)
    mean_error = 4.5 * math.sqrt(variance / w.size)
    variance_error = 4.5 * variance * math.sqrt((KURTOSIS[kind] - 1) / w.size)
    return abs(w.mean()) < mean_error and abs(w.var() - variance) < variance_error


@pytest.mark.parametrize("family", FAMILIES)
def test_dense_kernels_have_the_variance_of_the_literature(family):
    init, kind, variance = FAMILIES[family]
    assert has_variance(init, kind, variance(*DENSE))


@pytest.mark.parametrize("family", ["he_normal", "glorot_uniform", "normal"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_dtypes_have_the_same_variance(family, dtype):
    init, kind, variance = FAMILIES[family]
    assert has_variance(init, kind, variance(*DENSE), dtype=dtype)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_window_of_a_convolution_counts_in_its_fans(family):
    init, kind, variance = FAMILIES[family]
    assert has_variance(init, kind, variance(9 * 64, 9 * 128), CONV)


MISTAKES = {
    "one over the mean the sum of the fans": I.variance_scaling(
        1.0, "fan_avg", "uniform"
    ),
    "the output's fan alone": I.variance_scaling(2.0, "fan_out", "uniform"),
    "four per cent too much": I.he_uniform(gain=1.02 * math.sqrt(2)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_variance_is_rejected(mistake):
    assert has_variance(I.he_uniform(), "uniform", 2 / DENSE[0])
    assert not has_variance(MISTAKES[mistake], "uniform", 2 / DENSE[0])


def test_the_tutorials_half_of_glorots_variance_is_rejected():
    half = I.variance_scaling(0.5, "fan_avg", "uniform")
    assert has_variance(I.glorot_uniform(), "uniform", 2 / sum(DENSE))
    assert not has_variance(half, "uniform", 2 / sum(DENSE))


def test_bfloat16_weights_sampled_in_bfloat16_have_a_mean_and_are_rejected():
    narrow = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal")
    shape = (1000, 1000)
    assert not has_variance(narrow, "normal", 1e-3, shape, jnp.bfloat16)
    assert has_variance(I.mean_field(1.0), "normal", 1e-3, shape, jnp.bfloat16)


@pytest.mark.parametrize("name", ["lecun", "glorot", "he"])
@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_a_name_of_jax_gives_the_arrays_of_jax(name, kind):
    ours = getattr(I, f"{name}_{kind}")()(jax.random.key(1), DENSE)
    theirs = getattr(jax.nn.initializers, f"{name}_{kind}")()(jax.random.key(1), DENSE)
    # sqrt(2)^2 differs from 2 in the last bit of float64, so at most one of float32.
    chex.assert_trees_all_close(ours, theirs, rtol=2 * np.finfo(np.float32).eps)


def test_only_the_normals_that_say_so_are_truncated():
    def share_beyond(init, cut):
        return float(jnp.mean(jnp.abs(init(jax.random.key(0), (400, 400))) > cut))

    cut = 2 / 0.87962566103423978 / 20  # 2.3 % of Gaussians lie beyond
    assert share_beyond(I.lecun_normal(), cut * (1 + 1e-6)) == 0
    assert share_beyond(I.lecun_normal(truncated=False), cut) > 0.02
    assert share_beyond(I.mean_field(1.0), cut) > 0.02


def test_a_stack_of_kernels_needs_its_batch_axis():
    keys, shape = jax.random.split(jax.random.key(0), 5), (5, 100, 100)
    stacked = I.lecun_normal(batch_axis=(0,))(jax.random.key(1), shape)
    taken_for_a_window = I.lecun_normal()(jax.random.key(2), shape)
    mapped = jax.vmap(lambda key: I.lecun_normal()(key, shape[1:]))(keys)
    rtol = 4.5 * math.sqrt(1.4 / 50_000)
    for w, variance in ((stacked, 0.01), (taken_for_a_window, 0.002), (mapped, 0.01)):
        chex.assert_trees_all_close(float(jnp.var(w)), variance, rtol=rtol)


@pytest.mark.parametrize(("stddev", "variance"), [(0.1, 1), (0.5, 25), (0.01, 0.01)])
def test_a_layer_of_fan_in_100_has_output_variance_100_times_that_of_a_weight(
    stddev, variance
):
    key_x, key_w = jax.random.split(jax.random.key(0))
    x = jax.random.normal(key_x, (1000, 100))
    y = x @ I.normal(stddev)(key_w, (100, 1000))
    # The two matrices' mean squares err by sqrt(2 / 100,000) each, the product by more.
    rtol = 4.5 * math.sqrt(2 / 1e5 + 2 / 1e5 + 2 / 1e6)
    chex.assert_trees_all_close(float(jnp.var(y)), variance, rtol=rtol)


# E hard_tanh(z)^2 = P(|z| < 1) - 2 density(1) + P(|z| > 1).
GAINS = {
    "relu": (jax.nn.relu, math.sqrt(2)),
    "leaky_relu": (jax.nn.leaky_relu, math.sqrt(2 / (1 + 0.01**2))),
    "identity": (lambda z: z, 1.0),
    "selu": (jax.nn.selu, 1.0),
    "tanh": (jnp.tanh, 1.5925374),
    "abs": (jnp.abs, 1.0),
    "hard_tanh": (jax.nn.hard_tanh, (1 - 2 * 0.24197072) ** -0.5),
    "sine": (jnp.sin, 1 / math.sqrt((1 - math.exp(-2)) / 2)),
}


@pytest.mark.parametrize("name", GAINS)
def test_gains_are_those_of_the_literature_and_of_paper_and_pencil(name):
    activation, value = GAINS[name]
    chex.assert_trees_all_close(I.gain(activation), value, rtol=1e-6)


@pytest.mark.parametrize("activation", [jax.nn.gelu, jax.nn.silu, jax.nn.sigmoid])
def test_gains_agree_with_a_sum_over_a_fine_grid(activation):
    z = np.linspace(-12, 12, 200_001)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    values = np.asarray(activation(jnp.asarray(z)), np.float64)
    mean_square = np.sum(density * values**2) * (z[1] - z[0])
    # Float32 activations err by 1e-7 of their largest value, which averages out.
    chex.assert_trees_all_close(I.gain(activation), mean_square**-0.5, rtol=1e-6)


def test_the_convention_is_not_pytorchs_five_thirds_for_tanh():
    assert abs(I.gain(jnp.tanh) - 5 / 3) > 0.07


def test_a_slope_is_the_second_argument_of_the_activation():
    by_hand = I.gain(functools.partial(jax.nn.leaky_relu, negative_slope=0.3))
    assert I.gain(jax.nn.leaky_relu, slope=0.3) == by_hand != I.gain(jax.nn.leaky_relu)
    chex.assert_trees_all_close(by_hand, math.sqrt(2 / 1.09), rtol=1e-6)


def test_a_gain_is_a_number_under_jit():
    @jax.jit
    def scaled(x):
        return x * I.gain(jnp.tanh)

    chex.assert_trees_all_close(scaled(jnp.ones(())), I.gain(jnp.tanh), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.gelu, jax.nn.sigmoid])
def test_weights_scaled_for_an_activation_keep_unit_variance_at_depth_ten(activation):
    key_x, *keys = jax.random.split(jax.random.key(0), 11)
    z = jax.random.normal(key_x, (64, 800))
    init = I.scaled_for(activation)
    for key in keys:
        z = activation(z) @ init(key, (800, 800))
    # A layer's mean square varies by 1/sqrt(800) or so (the examples are correlated,
    # so they do not average it away); ten layers add up to 12 %, and this is three.
    chex.assert_trees_all_close(float(jnp.mean(z**2)), 1.0, atol=0.36)


def crelu(z):
    return jnp.concatenate([jax.nn.relu(z), jax.nn.relu(-z)], axis=-1)


@pytest.mark.parametrize(
    "activation", [jax.nn.softmax, crelu, lambda z: jnp.stack([z, z])]
)
def test_functions_that_are_not_elementwise_have_no_gain(activation):
    with pytest.raises(ValueError, match="elementwise"):
        I.gain(activation)


@pytest.mark.parametrize("activation", [jnp.zeros_like, lambda z: z / 0.0])
def test_a_gain_that_is_not_a_number_is_an_error(activation):
    with pytest.raises(ValueError, match="positive and finite"):
        I.gain(activation)


@pytest.mark.parametrize(
    ("scale", "mode", "distribution", "word"),
    [
        (1.0, "fan_inn", "normal", "fan_geo_avg"),
        (1.0, "fan_in", "gaussian", "truncated_normal"),
        (-1.0, "fan_in", "normal", "-1.0"),
    ],
)
def test_a_wrong_rule_is_an_error_that_names_the_known_ones(
    scale, mode, distribution, word
):
    with pytest.raises(ValueError, match=word):
        I.variance_scaling(scale, mode, distribution)
