import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.spectra import orthogonal_blocks
from gradstab.spectra.golub_kahan import golub_kahan, two_way
from gradstab.spectra.linear_map import LinearMap, jacobian_map
from gradstab.spectra.of_layers import Leading, alignment

pytestmark = pytest.mark.usefixtures("quick_compiler")

# A program takes seconds to compile, so tests share this shape where they can.
NUM, SIZE = 2, 40


def of_matrices(matrices):
    """The linear map of matrices (num, n_out, n_in), computing in their dtype."""
    dtype = matrices.dtype
    return LinearMap(
        lambda v: jnp.einsum("boi,bi->bo", matrices, v.astype(dtype)),
        lambda w: jnp.einsum("boi,bo->bi", matrices, w.astype(dtype)),
        len(matrices),
        matrices.shape[1:],
    )


@functools.partial(jax.jit, static_argnums=1)
def decomposed(matrices, options):
    options = {"num_values": 16} | dict(options)
    return golub_kahan(**options)(of_matrices(matrices), jax.random.key(0))


def decompose(matrices, dtype=jnp.float32, **options):
    """The triplets of matrices, by a program that is compiled once for a shape."""
    return decomposed(jnp.asarray(matrices, dtype), tuple(options.items()))


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[-1])


def with_values(values, n_out=SIZE, n_in=SIZE):
    """Matrices (2, n_out, n_in) with these singular values and random vectors."""
    u = np.linalg.qr(gaussian(NUM, n_out, len(values), seed=1))[0]
    v = np.linalg.qr(gaussian(NUM, n_in, len(values), seed=2))[0]
    return u * np.asarray(values) @ v.swapaxes(1, 2)


def exact(matrices):
    return np.linalg.svd(np.asarray(matrices, np.float64), compute_uv=False)


def errors(found, matrices):
    """How far every value is from the singular value of its rank."""
    return np.abs(found.values - exact(matrices)[:, : found.values.shape[1]])


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(SIZE, SIZE), (50, 20), (20, 50), (1, 30)])
def test_the_largest_value_is_that_of_a_dense_svd_within_1e_5(shape):
    matrices = gaussian(NUM, *shape).astype(np.float32)
    found = decompose(matrices)
    chex.assert_trees_all_close(found.values[:, 0], exact(matrices)[:, 0], rtol=1e-5)
    assert found.converged.all()
    assert found.values.shape == (NUM, min(16, *shape))


@pytest.mark.slow
def test_float64_maps_are_decomposed_in_float64_to_a_tolerance_that_takes_more_steps():
    matrices = gaussian(NUM, SIZE, SIZE)
    with jax.enable_x64(True):
        found = decompose(matrices, jnp.float64, num_values=1, rtol=1e-12)
    assert found.values.dtype == np.float64
    assert found.num_products > decompose(matrices, num_values=1).num_products
    chex.assert_trees_all_close(found.values[:, 0], exact(matrices)[:, 0], rtol=1e-12)


def test_bfloat16_maps_are_summed_in_float32_within_the_bound():
    matrices = jnp.asarray(gaussian(NUM, SIZE, SIZE), jnp.bfloat16)
    found = decompose(matrices, jnp.bfloat16)
    assert found.values.dtype == jnp.float32
    assert (errors(found, matrices) <= found.bounds).all()
    # Vectors in and out are rounded to 8 bits: half a unit each way.
    chex.assert_trees_all_close(found.values[:, 0], exact(matrices)[:, 0], rtol=2**-8)


SPECTRA = {
    "Gaussian": None,
    "twenty equal ones at the top": np.repeat([3.0, 2.0], SIZE // 2),
    "twenty within 1e-6": np.r_[3 + 1e-6 * np.arange(20) / 20, np.linspace(2, 1, 20)],
    "twenty within 1e-3": np.r_[3 + 1e-3 * np.arange(20) / 20, np.linspace(2, 1, 20)],
    "pairs": np.repeat(np.linspace(2, 0.1, SIZE // 2), 2),
    "triples of which one is apart": np.repeat([5.0, 1.0, 0.9, 0.8], SIZE // 4),
    "slow decay": np.arange(1.0, SIZE + 1) ** -0.2,
    "a power": np.arange(1.0, SIZE + 1) ** -2,
    "equal distances": np.linspace(1, 0.5, SIZE),
    "wide spread": np.geomspace(1e3, 1e-12, SIZE),
    "nearly rank five": np.r_[np.linspace(2, 1, 5), np.full(SIZE - 5, 1e-9)],
    "isometry": np.ones(SIZE),
}


def within_its_bounds(spectrum, dtype, **options):
    matrices = gaussian(NUM, SIZE, SIZE) if spectrum is None else with_values(spectrum)
    with jax.enable_x64(dtype == jnp.float64):
        matrices = np.asarray(jnp.asarray(matrices, dtype))
        found = decompose(matrices, dtype, **options)
        assert np.isfinite(found.bounds).all()
        return (errors(found, matrices) <= found.bounds).all()


@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
def test_every_value_is_within_its_bound_of_that_of_its_rank(spectrum):
    assert within_its_bounds(spectrum, jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize("vectors", [9, 45])
@pytest.mark.parametrize("block", [3, 9])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
def test_it_is_within_its_bound_with_other_blocks_too(spectrum, dtype, block, vectors):
    options = {"num_values": 8, "block": block, "max_vectors": vectors}
    assert within_its_bounds(spectrum, dtype, **options)


def test_of_equal_values_as_many_are_found_as_are_asked_for():
    matrices = with_values(np.repeat([3.0, 2.0], SIZE // 2))
    found = decompose(matrices, num_values=8)
    chex.assert_trees_all_close(found.values, np.full((NUM, 8), 3.0), rtol=1e-6)
    assert (found.bounds < 1e-3).all()


@pytest.mark.slow
def test_a_cluster_larger_than_the_block_has_wide_bounds_and_a_larger_block_finds_it():
    cluster = 3 - 1e-4 * np.linspace(0, 1, 20)
    matrices = with_values(np.r_[cluster, np.linspace(2, 0.1, 20)])
    narrow = decompose(matrices, num_values=8, max_vectors=12)
    assert (errors(narrow, matrices)[:, -1] > 0.5).all()
    assert (narrow.bounds[:, -1] > 0.5).all()
    assert not narrow.converged.any()
    wide = decompose(matrices, num_values=8, block=9, max_vectors=36, rtol=1.0)
    assert (errors(wide, matrices) < 1e-4).all()
    assert (wide.bounds < 1e-2).all()
    assert wide.converged.all()


def test_hitting_the_cap_is_said():
    found = decompose(gaussian(NUM, SIZE, SIZE), num_values=6, max_vectors=8)
    assert not found.converged.any()
    assert found.num_products == 3 * (1 + 2 * 2)
    assert (errors(found, gaussian(NUM, SIZE, SIZE))[:, -1] > 1e-2).all()


LOW_RANK = {
    "zero": [0.0],
    "rank one": [3.0],
    "three equal values": [1.0, 1.0, 1.0],
    "rank three": [2.0, 1.0, 1e-3],
    "large and small": [1e3, 1e-2],
}


@pytest.mark.parametrize("shape", [(SIZE, SIZE), (50, 20), (20, 50)])
@pytest.mark.parametrize("values", LOW_RANK.values(), ids=LOW_RANK.keys())
def test_rank_deficient_jacobians_give_zeros_and_no_nan(values, shape):
    found = decompose(with_values(values, *shape))
    chex.assert_tree_all_finite(found)
    expected = np.tile(np.pad(values, (0, 16 - len(values))), (NUM, 1))
    # float32 rounding of the matrix itself, and of sums over its larger side.
    scale = 2e-7 * np.sqrt(max(shape)) * max(values)
    chex.assert_trees_all_close(found.values, expected, rtol=0, atol=scale)
    assert found.converged.all()


def test_an_isometry_has_all_values_one():
    found = decompose(np.linalg.qr(gaussian(NUM, SIZE, SIZE))[0])
    chex.assert_trees_all_close(found.values, np.ones((NUM, 16)), rtol=1e-5)


def test_dead_relu_units_leave_the_values_of_the_live_ones():
    weight = jnp.asarray(gaussian(SIZE, SIZE), jnp.float32)
    x = jnp.asarray(gaussian(NUM, SIZE, seed=1), jnp.float32)
    tenth = jnp.sort(x @ weight, axis=1)[:, -10]

    def layer(x, tenth):
        return jax.nn.relu(x @ weight - tenth + 1e-6)

    jacobians = jax.vmap(jax.jacfwd(layer))(x, tenth)
    found = decompose(jacobians).values
    chex.assert_trees_all_close(found[:, :10], exact(jacobians)[:, :10], rtol=1e-5)
    chex.assert_trees_all_close(found[:, 10:], np.zeros((NUM, 6)), atol=1e-6)


def test_a_broken_example_is_nan_and_leaves_the_others_alone():
    matrices = gaussian(NUM, SIZE, SIZE).astype(np.float32)
    matrices[0, 0, 0] = np.inf
    found = decompose(matrices)
    assert np.isnan(found.values[0]).all()
    assert found.converged.tolist() == [False, True]
    chex.assert_trees_all_close(found.values[1, 0], exact(matrices[1])[0], rtol=1e-5)


@pytest.mark.parametrize("power", [-100, 100])
def test_the_values_scale_with_the_jacobian(power):
    matrices = gaussian(NUM, SIZE, SIZE)
    one = decompose(matrices)
    scaled = decompose(matrices * 2.0**power)
    # Squares of these are out of the range of float32; the factor itself is exact.
    pair = scaled.values[:, 0] / 2.0**power, one.values[:, 0]
    chex.assert_trees_all_close(*pair, rtol=1e-6)
    chex.assert_trees_all_close(scaled.bounds / 2.0**power, one.bounds, rtol=1e-3)


@pytest.mark.slow
def test_vectors_are_orthonormal_and_belong_to_their_values():
    matrices = with_values([4, 3, 2, 1, 1e-4]).astype(np.float32)
    found = decompose(matrices, num_vectors=3)
    left, right, values = found.left, found.right, found.values[:, :3, None]
    # Rounding in sums of 40 terms of size up to 4.
    forward = np.einsum("boi,bki->bko", matrices, right)
    chex.assert_trees_all_close(forward, np.asarray(values * left), atol=2e-5)
    backward = np.einsum("boi,bko->bki", matrices, left)
    chex.assert_trees_all_close(backward, np.asarray(values * right), atol=2e-5)
    for vectors in (left, right):
        gram = np.einsum("bki,bli->bkl", vectors, vectors)
        chex.assert_trees_all_close(gram, np.tile(np.eye(3), (NUM, 1, 1)), atol=1e-5)


def leading(triplets):
    return Leading(np.asarray(triplets.left[:, 0]), np.asarray(triplets.right[:, 0]))


def test_alignment_is_one_if_a_layer_amplifies_what_the_one_before_amplified():
    turn = np.linalg.qr(gaussian(NUM, SIZE, SIZE))[0]
    first = turn * np.linspace(2, 0.1, SIZE)
    second = np.linspace(3, 1, SIZE)[:, None] * turn.swapaxes(1, 2)
    other = np.linspace(1, 3, SIZE)[:, None] * turn.swapaxes(1, 2)
    before, after, unrelated = (
        leading(decompose(matrices, num_vectors=3))
        for matrices in (first, second, other)
    )
    # The residual, 1e-5, over the gap of 0.05 between the two largest values.
    chex.assert_trees_all_close(alignment(before, after), np.ones(NUM), atol=1e-3)
    assert (alignment(before, unrelated) < 1e-2).all()


@pytest.mark.slow
def test_a_rule_for_the_backward_direction_only_is_transposed():
    @jax.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (x**3, x), lambda x, w: (3 * x**2 * w,))
    x = jnp.linspace(-1, 2, 10)[None]
    linear = jacobian_map(cube, (x,), coupled=False, forward=False)
    assert linear.matvec is None
    v = jnp.cos(x)
    chex.assert_trees_all_close(two_way(linear)[0](v), 3 * x**2 * v)
    found = jax.jit(lambda key: golub_kahan()(linear, key))(jax.random.key(0))
    chex.assert_trees_all_close(found.values[:, 0], jnp.array([12.0]), rtol=1e-5)


@pytest.mark.slow
def test_it_survives_vmap_over_keys():
    matrices = jnp.asarray(gaussian(NUM, SIZE, SIZE), jnp.float32)

    def values(key):
        return golub_kahan()(of_matrices(matrices), key).values[:, 0]

    found = jax.jit(jax.vmap(values))(jax.random.split(jax.random.key(0), 3))
    expected = np.tile(exact(matrices)[:, 0], (3, 1))
    chex.assert_trees_all_close(found, expected, rtol=1e-5)


def test_it_agrees_with_matfree():
    decomp = pytest.importorskip(
        "matfree.decomp", reason="matfree, the oracle, is in the test extra"
    )
    matrices = jnp.asarray(gaussian(NUM, SIZE, SIZE), jnp.float32)
    start = jnp.ones(SIZE) / np.sqrt(SIZE)
    theirs = decomp.bidiag(36, materialize=True)(lambda v: matrices[0] @ v, start)
    largest = exact(theirs.J_small)[0]
    chex.assert_trees_all_close(decompose(matrices).values[0, 0], largest, rtol=1e-5)


def outside_the_last_block_only(rows, basis, whole=orthogonal_blocks._outside):
    newest = jnp.sum(jnp.any(basis != 0, axis=2), axis=1) - 1
    place = newest[:, None] - jnp.arange(rows.shape[1])[None]
    return whole(rows, jax.vmap(lambda b, i: b[i])(basis, jnp.maximum(place, 0)))


@pytest.mark.slow
def test_without_reorthogonalisation_copies_of_the_largest_value_appear(monkeypatch):
    matrices = with_values([10.0, *np.linspace(1, 0.1, SIZE - 1)])
    found = decompose(matrices, rtol=0.0)
    assert (found.values[:, 1] < 1.01).all()
    monkeypatch.setattr(orthogonal_blocks, "_outside", outside_the_last_block_only)
    linear = of_matrices(jnp.asarray(matrices, jnp.float32))
    mutated = jax.jit(lambda key: golub_kahan(rtol=0.0)(linear, key))
    mutant = mutated(jax.random.key(0))
    assert (mutant.values[:, 1] > 5).all()


@pytest.mark.parametrize(
    "options",
    [
        {"block": 0},
        {"block": 20, "max_vectors": 10},
        {"num_values": 0},
        {"num_values": 9, "max_vectors": 8},
        {"num_values": 2, "num_vectors": 3},
    ],
)
def test_numbers_that_do_not_fit_together_are_refused(options):
    with pytest.raises(ValueError, match="at least one"):
        golub_kahan(**options)


@pytest.mark.slow
@pytest.mark.parametrize("size", [512, 1024])
def test_the_edge_of_a_wide_bulk_is_found_within_1e_5(size):
    matrices = gaussian(1, size, size).astype(np.float32)
    found = decompose(matrices)
    chex.assert_trees_all_close(found.values[:, 0], exact(matrices)[:, 0], rtol=1e-5)
    assert found.converged.all()
