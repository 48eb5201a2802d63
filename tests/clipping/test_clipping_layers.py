"""Clipping layer by layer and unit by unit."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gradstab import clipping


def apply(tx, grads, params=None):
    """One step, compiled: that is one compilation, not one for each operation."""

    def step(grads, params):
        return tx.update(grads, tx.init(grads), params)[0]

    return jax.jit(step)(grads, params)


def network():
    """Two layers and an output, with gradient norms 5, 0.5 and 13."""
    return {
        "dense_0": {"kernel": jnp.array([[3.0]]), "bias": jnp.array([4.0])},
        "dense_1": {"kernel": jnp.array([[0.3]]), "bias": jnp.array([0.4])},
        "head": {"kernel": jnp.array([[5.0]]), "bias": jnp.array([12.0])},
    }


def layer_norms(tree):
    return [float(optax.tree.norm(tree[name])) for name in sorted(tree)]


def test_every_layer_has_its_own_norm():
    clipped = apply(clipping.clip_by_layer_norm(1.0), network())
    np.testing.assert_allclose(layer_norms(clipped), [1.0, 0.5, 1.0], rtol=1e-6)
    expected = {"kernel": jnp.array([[0.6]]), "bias": jnp.array([0.8])}
    chex.assert_trees_all_close(clipped["dense_0"], expected, rtol=1e-6)
    chex.assert_trees_all_equal(clipped["dense_1"], network()["dense_1"])


def test_parameters_are_grouped_by_a_function_of_their_path():
    tx = clipping.clip_by_layer_norm(
        1.0, layer_of=lambda path: path.split(".")[0].split("_")[0]
    )
    clipped = apply(tx, network())
    both = float(np.hypot(5, 0.5))
    expected = [5 / both, 0.5 / both, 1.0]
    np.testing.assert_allclose(layer_norms(clipped), expected, rtol=1e-6)


def test_one_group_is_the_global_norm():
    tx = clipping.clip_by_layer_norm(1.0, layer_of=lambda path: None)
    expected = apply(clipping.clip_by_global_norm(1.0), network())
    chex.assert_trees_all_close(apply(tx, network()), expected, rtol=1e-6)


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@pytest.mark.slow
@pytest.mark.parametrize("stacked", ["blocks", lambda path: path.startswith("blocks.")])
def test_slices_of_stacked_parameters_are_clipped_as_single_layers_are(stacked):
    layers = [network()[name] for name in sorted(network())]
    tx = clipping.clip_by_layer_norm(1.0, stacked=stacked)
    clipped = apply(tx, {"blocks": stack(layers), "head": layers[0]})
    apart = [apply(clipping.clip_by_layer_norm(1.0), layer) for layer in layers]
    chex.assert_trees_all_close(clipped["blocks"], stack(apart), rtol=1e-6)
    chex.assert_trees_all_close(clipped["head"], apart[0], rtol=1e-6)
    as_one = apply(clipping.clip_by_layer_norm(1.0), {"blocks": stack(layers)})
    assert optax.tree.norm(as_one) < 1.1 < optax.tree.norm(clipped["blocks"])


def test_layers_beyond_the_range_of_floats_are_clipped():
    grads = {"a": {"w": jnp.full(10, 3e38)}, "b": {"w": jnp.full(4, 6e4, jnp.float16)}}
    clipped = apply(clipping.clip_by_layer_norm(2.0), grads)
    np.testing.assert_allclose(clipped["a"]["w"], 2 / np.sqrt(10), rtol=1e-6)
    np.testing.assert_array_equal(clipped["b"]["w"], 1.0)


def test_parameters_of_an_nnx_module_are_one_layer():
    model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    grads = nnx.state(model, nnx.Param)
    grads = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 3.0), grads)
    norm = optax.tree.norm(apply(clipping.clip_by_layer_norm(1.0), grads))
    np.testing.assert_allclose(norm, 1.0, rtol=1e-6)


def test_a_wrong_stack_is_an_error_that_says_which():
    grads = {"blocks": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(2)}}
    with pytest.raises(ValueError, match=r"'block\$' matches no .*blocks\.bias, blo"):
        apply(clipping.clip_by_layer_norm(1.0, stacked="block$"), grads)
    with pytest.raises(ValueError, match=r"'blocks' is stacked.* 1 of 2"):
        apply(clipping.clip_by_layer_norm(1.0, stacked="kernel"), grads)
    grads["blocks"]["bias"] = jnp.ones(5)
    with pytest.raises(ValueError, match=r"one length; their shapes are \(5,\), \(2, "):
        apply(clipping.clip_by_layer_norm(1.0, stacked="blocks"), grads)
    with pytest.raises(ValueError, match="scale is a scalar"):
        apply(clipping.clip_by_layer_norm(1.0, stacked=""), {"scale": jnp.ones(())})


UNITS = {
    "scalar": ((), ()),
    "vector": ((5,), (0,)),
    "dense": ((3, 4), (0,)),
    "one input": ((1, 4), (0,)),
    "conv 1d": ((3, 2, 4), (0, 1)),
    "conv 2d": ((3, 3, 2, 4), (0, 1, 2)),
}


def random_pair(shape, size):
    rng = np.random.default_rng(len(shape))
    grad, weight = rng.normal(size=(2, *shape)) * np.reshape(
        [1, size], (2, *[1] * len(shape))
    )
    # The spread tells units apart: some are clipped, others are not.
    grad = grad * 10.0 ** rng.uniform(-4, 0, size=shape[-1:])
    return jnp.asarray(grad, jnp.float32), jnp.asarray(weight, jnp.float32)


def expected_adaptive(grad, weight, axes, clipping=0.01, eps=1e-3):
    grad, weight = np.asarray(grad, np.float64), np.asarray(weight, np.float64)

    def norm(x):
        return np.sqrt(np.sum(x**2, axis=axes, keepdims=True))

    bound = clipping * np.maximum(norm(weight), eps)
    return grad * np.minimum(1, bound / norm(grad)), norm, bound


@pytest.mark.parametrize(("shape", "axes"), UNITS.values(), ids=UNITS.keys())
def test_adaptive_clipping_is_equation_3_for_every_unit(shape, axes):
    grad, weight = random_pair(shape, 1.0)
    clipped = apply(clipping.adaptive_clip(), grad, weight)
    expected, norm, bound = expected_adaptive(grad, weight, axes)
    np.testing.assert_allclose(clipped, expected, rtol=1e-5)
    # The bound of the paper, up to the rounding of a sum of at most 18 squares.
    assert np.all(norm(np.asarray(clipped, np.float64)) <= bound * (1 + 1e-6))


@pytest.mark.parametrize("shape", [(5,), (3, 4), (3, 3, 2, 4)])
def test_optax_agrees_on_adaptive_clipping(shape):
    grad, weight = random_pair(shape, 1.0)
    ours = apply(clipping.adaptive_clip(0.02, 1e-2), grad, weight)
    theirs = apply(optax.adaptive_grad_clip(0.02, 1e-2), grad, weight)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_units_of_attention_kernels_can_be_chosen():
    grad, weight = random_pair((4, 2, 3), 1.0)
    tx = clipping.adaptive_clip(unit_axes=lambda path, shape: (0,))
    theirs = apply(optax.adaptive_grad_clip(0.01), grad, weight)  # rank 3: axis 0
    np.testing.assert_allclose(apply(tx, grad, weight), theirs, rtol=1e-5)
    default = apply(clipping.adaptive_clip(), grad, weight)
    assert not np.allclose(default, theirs, rtol=1e-2)


@pytest.mark.parametrize("shape", [(4,), (2, 4)])
def test_stacked_units_are_those_of_the_slices(shape):
    pairs = [random_pair(shape, size) for size in (1.0, 100.0, 0.0)]
    grads, weights = (jnp.stack(arrays) for arrays in zip(*pairs, strict=True))
    tx = clipping.adaptive_clip(stacked="blocks")
    clipped = apply(tx, {"blocks": grads}, {"blocks": weights})["blocks"]
    apart = [apply(clipping.adaptive_clip(), *pair) for pair in pairs]
    np.testing.assert_allclose(clipped, jnp.stack(apart), rtol=1e-6)
    as_one = apply(clipping.adaptive_clip(), grads, weights)
    assert not np.allclose(as_one, clipped, rtol=1e-2)


def test_adaptive_clipping_is_exact_where_squares_overflow():
    grad, weight = jnp.full((4, 1), 1e30), jnp.full((4, 1), 1e25)
    clipped = apply(clipping.adaptive_clip(0.01), grad, weight)
    np.testing.assert_allclose(clipped, 1e23, rtol=1e-6)
    theirs = apply(optax.adaptive_grad_clip(0.01), grad, weight)
    assert not np.allclose(theirs, 1e23, rtol=0.5)


def test_parameters_at_zero_may_move():
    clipped = apply(clipping.adaptive_clip(0.1, 1e-2), jnp.ones(4), jnp.zeros(4))
    np.testing.assert_allclose(clipped, 0.1 * 1e-2 / 2, rtol=1e-6)


def test_layers_left_out_by_a_mask_are_not_clipped():
    grads, weights = ({"a": jnp.ones(4), "b": jnp.ones(4)} for _ in range(2))
    tx = optax.masked(clipping.adaptive_clip(0.01), {"a": True, "b": False})
    clipped = apply(tx, grads, weights)
    np.testing.assert_allclose(clipped["a"], 0.01, rtol=1e-6)
    np.testing.assert_array_equal(clipped["b"], grads["b"])
