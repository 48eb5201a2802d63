"""Clipping by value, by global norm and by block RMS."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradstab import clipping

pytestmark = pytest.mark.cases


def apply(tx, grads, params=None):
    """One step, compiled: that is one compilation, not one for each operation."""

    def step(grads, params):
        return tx.update(grads, tx.init(grads), params)[0]

    return jax.jit(step)(grads, params)


def flat(tree):
    """All entries in float64, in which nothing here overflows."""
    leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    return np.concatenate(leaves)


def norm(tree):
    return np.linalg.norm(flat(tree))


def assert_shortens(tx, grads, max_norm):
    """The contract of clipping by global norm, whatever the scale and the dtype."""
    clipped = apply(tx, grads)
    chex.assert_trees_all_equal_shapes_and_dtypes(clipped, grads)
    expected = flat(grads) * min(1.0, max_norm / norm(grads))
    # An entry is rounded to its dtype; the norm, a sum of squares, errs by half an eps
    # of float32 per term.
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(grads)}
    eps = max(float(jnp.finfo(dtype).eps) for dtype in dtypes)
    np.testing.assert_allclose(flat(clipped), expected, rtol=(4 + len(expected)) * eps)


SCALES = {
    "float16, the squares overflow": (1e3, jnp.float16),
    "float16, the norm overflows": (6e4, jnp.float16),
    "bfloat16": (1e20, jnp.bfloat16),
    "float32": (3.0, jnp.float32),
    "float32, the squares overflow": (1e20, jnp.float32),
    "float32, the norm overflows": (3e38, jnp.float32),
    "float32, the squares underflow": (1e-25, jnp.float32),
}


@pytest.mark.parametrize(("size", "dtype"), SCALES.values(), ids=SCALES.keys())
@pytest.mark.parametrize("relative", [0.01, 2.0])
def test_the_norm_becomes_the_bound_at_every_scale(size, dtype, relative):
    grads = {"a": jnp.full((2, 3), size, dtype), "b": jnp.full(4, -size / 2, dtype)}
    max_norm = min(relative * norm(grads), 3e38)
    assert_shortens(clipping.clip_by_global_norm(max_norm), grads, max_norm)


@pytest.mark.parametrize("max_norm", [1e-30, 0.1, 1e30, 3e38])
def test_the_largest_floats_are_clipped_to_any_bound(max_norm):
    grads = jnp.array([3e38] * 9 + [1.0])
    clipped = flat(apply(clipping.clip_by_global_norm(max_norm), grads))
    np.testing.assert_allclose(clipped[:9], max_norm / 3, rtol=1e-6)
    # The factor is below the least normal float; its product with an entry may not be.
    expected = max_norm / 9e38
    if expected > jnp.finfo(jnp.float32).tiny:
        np.testing.assert_allclose(clipped[9], expected, rtol=1e-6)


def mistaken(factor):
    """A clipper by global norm that multiplies with something else."""

    def clip(updates, params):
        del params
        return jax.tree.map(lambda g: g * jnp.minimum(1.0, factor(updates)), updates)

    return optax.stateless(clip)


def squared(tree):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree))


MUTANTS = {
    "square root missing": mistaken(lambda g: 1 / squared(g)),
    "1-norm": mistaken(lambda g: 1 / sum(abs(x).sum() for x in jax.tree.leaves(g))),
    "always unit norm": optax.normalize_by_update_norm(),
    "leaf by leaf": clipping.clip_by_block_rms(1.0),
    "by value": clipping.clip_by_value(1.0),
    "nothing": optax.identity(),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_wrong_norm_clip_is_rejected(mutant):
    long = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    short = {"a": jnp.array([0.3]), "b": jnp.array([0.4])}

    def assert_clips(tx):
        for grads in (long, short):
            assert_shortens(tx, grads, 1.0)

    assert_clips(clipping.clip_by_global_norm(1.0))
    with pytest.raises(AssertionError):
        assert_clips(mutant)


@pytest.mark.parametrize(("size", "dtype"), [(1e3, jnp.float16), (1e20, jnp.float32)])
def test_the_clip_of_optax_is_rejected_where_squares_overflow(size, dtype):
    grads = jnp.full(10, size, dtype)
    assert_shortens(clipping.clip_by_global_norm(1.0), grads, 1.0)
    with pytest.raises(AssertionError):
        assert_shortens(optax.clip_by_global_norm(1.0), grads, 1.0)


def test_a_triangle_of_sides_3_and_4_becomes_a_unit_vector():
    grads = {"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}
    clipped = apply(clipping.clip_by_global_norm(1.0), grads)
    expected = {"a": jnp.array([0.6]), "b": jnp.array([[0.8]])}
    chex.assert_trees_all_close(clipped, expected, rtol=2e-7)


# Multiples of 1/8, so that no product is subnormal; the compiled function is shared.
ENTRIES = st.lists(st.integers(-8000, 8000), min_size=6, max_size=6)


@jax.jit
def clip_traced(grads, max_norm):
    return apply(clipping.clip_by_global_norm(max_norm), grads)


@settings(max_examples=60, deadline=None)
@given(entries=ENTRIES, eighths=st.integers(0, 8000), power=st.integers(-80, 80))
def test_clipping_keeps_direction_bounds_norms_and_commutes_with_scale(
    entries, eighths, power
):
    grads, bound = jnp.array(entries, jnp.float32) / 8, eighths / 8
    clipped = clip_traced(grads, bound)
    length = min(norm(grads), bound)
    tolerance = 10 * float(jnp.finfo(jnp.float32).eps)
    np.testing.assert_allclose(norm(clipped), length, rtol=tolerance)
    # Cosine 1: the inner product is the product of the norms.
    cosine_part = flat(clipped) @ flat(grads)
    np.testing.assert_allclose(cosine_part, length * norm(grads), rtol=tolerance)
    again = clip_traced(clipped, bound)
    np.testing.assert_allclose(again, clipped, rtol=tolerance)
    scale = 2.0**power
    scaled = clip_traced(grads * scale, bound * scale)
    np.testing.assert_array_equal(scaled, clipped * scale)


def test_gradients_within_the_bound_keep_their_bits():
    grads = {"a": jnp.array([0.1, -0.7]), "b": jnp.array([0.3], jnp.float16)}
    clippers = clipping.clip_by_global_norm, clipping.clip_by_block_rms
    for clipper in (*clippers, clipping.clip_by_value):
        chex.assert_trees_all_equal(apply(clipper(1.0), grads), grads)
        chex.assert_trees_all_equal(apply(clipper(np.inf), grads), grads)


def test_entries_are_clipped_by_value_and_change_the_direction():
    grads = jnp.array([0.5, -7.0, 2.0])
    clipped = apply(clipping.clip_by_value(1.0), grads)
    np.testing.assert_array_equal(clipped, [0.5, -1.0, 1.0])
    cosine = flat(clipped) @ flat(grads) / norm(clipped) / norm(grads)
    assert cosine < 0.9


def test_parts_of_complex_entries_are_clipped():
    grads = jnp.array([3 - 4j, 0.1 + 0.2j])
    by_value = apply(clipping.clip_by_value(1.0), grads)
    np.testing.assert_array_equal(by_value, jnp.array([1 - 1j, 0.1 + 0.2j]))
    by_norm = apply(clipping.clip_by_global_norm(1.0), grads[:1])
    np.testing.assert_allclose(by_norm, [0.6 - 0.8j], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_block_rms_bounds_the_rms_of_each_leaf(dtype):
    top = float(jnp.finfo(dtype).max) / 2
    grads = {"a": jnp.full((3, 4), top, dtype), "b": jnp.array([0.1, 0.2], dtype)}
    clipped = apply(clipping.clip_by_block_rms(0.5), grads)
    rms = norm(clipped["a"]) / np.sqrt(12)
    np.testing.assert_allclose(rms, 0.5, rtol=float(jnp.finfo(dtype).eps) + 1e-6)
    chex.assert_trees_all_equal(clipped["b"], grads["b"])


PAIRS = {
    "value": (clipping.clip_by_value, optax.clip),
    "global norm": (clipping.clip_by_global_norm, optax.clip_by_global_norm),
    "block rms": (clipping.clip_by_block_rms, optax.clip_by_block_rms),
}


@pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS.keys())
@pytest.mark.parametrize("threshold", [0.1, 0.9, 100.0])
def test_optax_agrees_at_ordinary_scales(ours, theirs, threshold):
    rng = np.random.default_rng(0)
    grads = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=5)}
    grads = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), grads)
    # Both round a product of three numbers a few times.
    chex.assert_trees_all_close(
        apply(ours(threshold), grads), apply(theirs(threshold), grads), rtol=1e-6
    )


def test_float64_gradients_are_clipped_in_float64():
    with jax.enable_x64(True):
        grads = {"a": jnp.array([3e200]), "b": jnp.array([4e200])}
        clipped = apply(clipping.clip_by_global_norm(1.0), grads)
        np.testing.assert_allclose(flat(clipped), [0.6, 0.8], rtol=1e-15)


def test_dtypes_of_leaves_may_differ():
    grads = {"a": jnp.array([3e4], jnp.float16), "b": jnp.array([4e4], jnp.float32)}
    assert_shortens(clipping.clip_by_global_norm(1.0), grads, 1.0)


def test_the_derivative_of_clipping_is_the_projection_on_the_sphere():
    g, v = jnp.array([3.0, 4.0, 0.0]), jnp.array([1.0, 2.0, -1.0])
    clip = clipping.clip_by_global_norm(1.0)
    _, slope = jax.jvp(lambda g: apply(clip, g), (g,), (v,))
    unit = g / 5
    np.testing.assert_allclose(slope, (v - unit * (unit @ v)) / 5, atol=1e-7)
    # In reverse, where the root's derivative at zero would be 0 times infinity.
    at_zero = jax.grad(lambda g: apply(clip, g) @ v)(0 * g)
    np.testing.assert_array_equal(at_zero, v)
