import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from gradstab.models import (
    batch_norm,
    group_norm,
    layer_norm,
    normalization,
    rms_norm,
)
from gradstab.models.normalization import make_norm, normalize

# (examples, positions, features), far from zero mean and unit variance
H = 3 + 2 * jax.random.normal(jax.random.key(0), (6, 5, 4))
EPS = jnp.finfo(jnp.float32).eps


def norm(maker):
    return make_norm(maker, 4, param_dtype=jnp.float32, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("maker", "axes"),
    [(batch_norm(), (0, 1)), (layer_norm(), (2,)), (group_norm(num_groups=1), (1, 2))],
    ids=["batch", "layer", "group"],
)
def test_a_norm_gives_mean_zero_and_variance_one_over_its_own_axes(maker, axes):
    out = normalize(norm(maker), H)
    means, variances = out.mean(axis=axes), out.var(axis=axes)
    # Entries of a few units, tens of them; the variance lacks epsilon / variance.
    chex.assert_trees_all_close(means, jnp.zeros_like(means), atol=20 * EPS)
    chex.assert_trees_all_close(variances, jnp.ones_like(variances), atol=2e-5)


def test_group_norm_with_two_groups_normalises_the_halves():
    out = normalize(norm(group_norm(num_groups=2)), H).reshape(6, 5, 2, 2)
    means = out.mean(axis=(1, 3))
    chex.assert_trees_all_close(means, jnp.zeros_like(means), atol=20 * EPS)
    assert jnp.abs(out.mean(axis=(1, 2, 3))).max() < 20 * EPS
    assert (
        jnp.abs(
            normalize(norm(group_norm(num_groups=1)), H) - out.reshape(H.shape)
        ).max()
        > 0.01
    )


def test_rms_norm_divides_by_the_root_mean_square():
    rms = jnp.sqrt(jnp.square(H).mean(axis=-1, keepdims=True))
    chex.assert_trees_all_close(normalize(norm(rms_norm()), H), H / rms, rtol=1e-5)


@pytest.mark.parametrize("maker", [batch_norm, layer_norm, group_norm, rms_norm])
def test_a_large_epsilon_shrinks_the_output(maker):
    options = {"num_groups": 2} if maker is group_norm else {}
    small = normalize(norm(maker(**options)), H)
    large = normalize(norm(maker(**options, epsilon=100.0)), H)
    assert jnp.abs(large).max() < 0.5 * jnp.abs(small).max()


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_the_running_mean_moves_by_one_minus_momentum(momentum):
    layer = norm(batch_norm(momentum=momentum))
    normalize(layer, H)
    moved = (1 - momentum) * H.mean(axis=(0, 1))
    chex.assert_trees_all_close(layer.mean[...], moved, rtol=1e-5)


def test_a_signal_whose_spread_has_vanished_keeps_its_variance():
    # E[h^2] - E[h]^2 would be 1 - 1 in float32, and the gradient nonsense.
    spread = 1e-4 * jax.random.normal(jax.random.key(0), (64, 4))
    layer = norm(batch_norm(momentum=0.0))
    normalize(layer, 1 + spread)
    # 1 + spread is rounded to eps, 1e-3 of the spread.
    chex.assert_trees_all_close(layer.var[...], spread.var(axis=0), rtol=5e-3)


def test_a_norm_by_name_is_the_function_of_that_name():
    by_name = norm(normalization("batch", momentum=0.3))
    assert nnx.graphdef(by_name) == nnx.graphdef(norm(batch_norm(momentum=0.3)))
    assert norm(None) is None
    assert normalize(None, H) is H


def test_narrow_signals_are_normalised_in_single_precision():
    wide = normalize(norm(layer_norm()), H.astype(jnp.bfloat16).astype(jnp.float32))
    narrow = normalize(norm(layer_norm()), H.astype(jnp.bfloat16))
    assert narrow.dtype == jnp.bfloat16
    chex.assert_trees_all_equal(narrow, wide.astype(jnp.bfloat16))


def test_double_precision_reaches_the_running_averages():
    # flax promotes float64 with float32 to find out that it is float64.
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        layer = make_norm("batch", 4, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        normalize(layer, jnp.ones((3, 4), jnp.float64))
        assert layer.mean[...].dtype == jnp.float64


def test_groups_of_unequal_size_are_refused():
    with pytest.raises(ValueError, match="cannot split 4 features into 3"):
        norm(group_norm(num_groups=3))


def test_an_unknown_norm_lists_the_known_ones():
    with pytest.raises(KeyError, match="known: batch, layer, group, rms"):
        normalization("instance")
