import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.records import Spectrum
from gradstab.spectra import moments as moments_module
from gradstab.spectra.linear_map import LinearMap
from gradstab.spectra.moments import moments

pytestmark = pytest.mark.cases

NUM_TRIALS = 4000
CHUNK = 500


def diagonal_map(values, num, dtype=jnp.float32):
    """The same diagonal matrix for every example.

    The law of the estimate depends on the singular values alone.
    """
    values = jnp.asarray(values, dtype)
    return LinearMap(
        lambda v: v.astype(dtype) * values[None],
        lambda w: w.astype(dtype) * values[None],
        num,
        (len(values), len(values)),
    )


def of_matrices(matrices):
    dtype = matrices.dtype
    return LinearMap(
        lambda v: jnp.einsum("boi,bi->bo", matrices, v.astype(dtype)),
        lambda w: jnp.einsum("boi,bo->bi", matrices, w.astype(dtype)),
        len(matrices),
        matrices.shape[1:],
    )


@functools.partial(jax.jit, static_argnums=1)
def probed(values, num_probes, key):
    return moments(num_probes)(diagonal_map(values, CHUNK), key)


def trials(values, num_probes=64, num=NUM_TRIALS):
    """Estimates of the squared Frobenius norm by independent probes."""
    values = jnp.asarray(values, jnp.float32)
    keys = jax.random.split(jax.random.key(0), num // CHUNK)
    parts = [probed(values, num_probes, key).frobenius_square for key in keys]
    return jax.tree.map(lambda *ends: np.concatenate(ends), *parts)


def coverage(estimate, values):
    truth = np.sum(np.square(np.asarray(values, np.float32).astype(np.float64)))
    return np.mean((estimate.low <= truth) & (truth <= estimate.high))


def gaussian_coverage(estimate, values):
    truth = np.sum(np.square(values))
    return np.mean(np.abs(estimate.value - truth) <= 1.96 * estimate.error)


def padded(values, size):
    return np.pad(np.asarray(values, float), (0, size - len(values)))


def flat(rank, size):
    """As many equal singular values as the stable rank says; one smaller for 1.5."""
    whole = int(rank)
    return padded([1.0] * whole + [np.sqrt(rank - whole)], size + 1)[:size]


def spike(rank, size):
    """One value above a floor of equal ones."""
    return np.array([1.0] + [np.sqrt((rank - 1) / (size - 1))] * (size - 1))


def geometric(rank, size):
    """Squares that fall by a constant factor."""
    ratio = 1 - 1 / rank
    return ratio ** (np.arange(size) / 2)


SPECTRA = {"flat": flat, "spike": spike, "geometric": geometric}


def demanded_coverage(values, slack=0.0):
    """What the interval must cover, less the scatter of the trials."""
    rank = np.sum(np.square(values)) / np.max(np.square(values))
    return 0.93 - slack, (0.97 if rank >= 3.99 else 1.0) + slack


@pytest.mark.parametrize("rank", [1, 4, 16])
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
def test_the_interval_covers_the_truth_in_95_per_cent_of_trials(spectrum, rank):
    values = spectrum(rank, 96)
    # Three standard deviations of a binomial frequency of 1000 trials near 0.95.
    low, high = demanded_coverage(values, slack=3 * np.sqrt(0.95 * 0.05 / 1000))
    assert low <= coverage(trials(values, num=1000), values) <= high


FEW_PROBES = {
    "even": np.linspace(0, 1, 96),
    "two dead directions": padded([1.0] * 94, 96),
}


@pytest.mark.parametrize("values", FEW_PROBES.values(), ids=FEW_PROBES.keys())
def test_sixteen_probes_show_the_skewness_of_the_error(values):
    low, high = demanded_coverage(values, slack=3 * np.sqrt(0.95 * 0.05 / 2000))
    assert low <= coverage(trials(values, num_probes=16, num=2000), values) <= high


@pytest.mark.slow
@pytest.mark.parametrize("size", [120, 300])
@pytest.mark.parametrize("rank", [1, 1.5, 2, 4, 16, 100])
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
def test_4000_trials_are_covered_in_93_to_97_per_cent(spectrum, rank, size):
    values = spectrum(rank, size)
    low, high = demanded_coverage(values)
    assert low <= coverage(trials(values), values) <= high


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 1.5, 2, 4, 16, 64])
@pytest.mark.parametrize("spectrum", SPECTRA.values(), ids=SPECTRA.keys())
def test_4000_trials_that_leave_eight_directions_out_are_covered_as_often(
    spectrum, rank
):
    values = spectrum(rank, 72)
    low, high = demanded_coverage(values)
    assert low <= coverage(trials(values), values) <= high


MORE_SPECTRA = {
    "Gaussian matrix": np.linalg.svd(
        np.random.default_rng(0).standard_normal((128, 128)), compute_uv=False
    ),
    "power law": np.arange(1, 129) ** -0.5,
    "steep power law": np.arange(1, 129) ** -0.75,
    "two unequal": padded([1.0, 0.3], 128),
    "dead half": padded([1.0] * 64, 128),
    "a few dead": padded([1.0] * 124, 128),
    "two spikes": np.array([3.0, 2.0] + [0.5] * 126),
}


@pytest.mark.slow
@pytest.mark.parametrize("values", MORE_SPECTRA.values(), ids=MORE_SPECTRA.keys())
def test_4000_trials_of_other_spectra_are_covered_as_often(values):
    low, high = demanded_coverage(values)
    assert low <= coverage(trials(values), values) <= high


@pytest.mark.slow
def test_4000_trials_of_a_wide_layer_are_covered_as_often():
    values = np.linspace(0, 1, 1000)
    low, high = demanded_coverage(values)
    assert low <= coverage(trials(values), values) <= high


def test_an_interval_of_two_standard_errors_covers_too_rarely():
    values = flat(1, 96)
    estimate = trials(values, num_probes=8, num=1000)
    assert gaussian_coverage(estimate, values) < 0.90
    assert coverage(estimate, values) > 0.93


def test_the_estimate_is_unbiased_and_its_standard_error_is_its_scatter():
    values = np.linspace(0, 1, 96)
    estimate = trials(values, num=1000)
    truth = np.sum(np.square(values))
    scatter = np.std(estimate.value)
    assert abs(np.mean(estimate.value) - truth) < 3 * scatter / np.sqrt(1000)
    # A standard deviation from 1000 trials errs by 1 / sqrt(2000) = 2.2 %.
    chex.assert_trees_all_close(np.mean(estimate.error), scatter, rtol=0.07)


def test_orthonormal_probes_have_less_variance_than_independent_ones():
    values = np.linspace(0, 1, 96)
    squares = np.square(values)
    independent = np.sqrt(2 * np.sum(squares**2) / 64)
    scatter = np.std(trials(values, num=1000).value)
    # (n - m) / (n - 1) of the variance, and the part of an isometry is not random.
    rank = np.sum(squares) ** 2 / np.sum(squares**2)
    gain = (96 / 98) * (1 - rank / 96) * 32 / 95
    chex.assert_trees_all_close(scatter, independent * np.sqrt(gain), rtol=0.07)


def test_isometries_are_measured_without_error():
    matrices = np.linalg.qr(np.random.default_rng(0).standard_normal((2, 96, 96)))[0]
    linear = of_matrices(jnp.asarray(2 * matrices, jnp.float32))
    found = moments(16)(linear, jax.random.key(0)).mean_square
    chex.assert_trees_all_close(found.value, np.full(2, 4.0), rtol=1e-5)
    assert (found.high - found.low < 1e-4).all()


@pytest.mark.parametrize("shape", [(27, 27), (30, 7), (7, 30), (1, 9), (9, 1)])
def test_a_side_of_less_than_num_probes_plus_8_makes_it_exact(shape):
    matrices = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    found = moments(20)(of_matrices(jnp.asarray(matrices)), jax.random.key(0))
    truth = np.sum(np.square(matrices.astype(np.float64)), axis=(1, 2))
    estimate = found.frobenius_square
    chex.assert_trees_all_close(estimate.value, truth, rtol=1e-6)
    assert ((estimate.low <= truth) & (truth <= estimate.high)).all()
    assert (estimate.high - estimate.low <= 1e-6 * truth).all()
    mean_square = found.mean_square.value
    chex.assert_trees_all_close(mean_square, truth / shape[1], rtol=1e-6)


def test_wide_and_tall_jacobians_are_probed_from_their_smaller_side():
    wide = np.random.default_rng(0).standard_normal((4, 40, 400)).astype(np.float32)
    for matrices in (wide, wide.swapaxes(1, 2)):
        linear = of_matrices(jnp.asarray(matrices))
        found = moments(16)(linear, jax.random.key(0)).frobenius_square
        truth = np.sum(np.square(matrices.astype(np.float64)), axis=(1, 2))
        assert (np.abs(found.value - truth) < 4 * found.error).all()
        assert (found.error < 0.02 * truth).all()


def stable_rank(found, largest, bound):
    """The stable rank of a spectrum with these largest values."""
    values, errors = largest[:, None], bound[:, None]
    spectrum = Spectrum(values, errors, found.frobenius_square, found.shape)
    return spectrum.stable_rank


@pytest.mark.parametrize("size", [10, 96])
def test_a_zero_jacobian_is_zero_with_no_error(size):
    found = moments(16)(diagonal_map(np.zeros(size), 2), jax.random.key(0))
    zero = np.zeros(2)
    for estimate in (found.frobenius_square, stable_rank(found, zero, zero)):
        chex.assert_trees_all_equal(
            (estimate.value, estimate.error, estimate.low, estimate.high), (zero,) * 4
        )


def test_a_broken_example_is_nan_and_leaves_the_others_alone():
    matrices = np.random.default_rng(0).standard_normal((2, 40, 40)).astype(np.float32)
    matrices[0, 3, 3] = np.nan
    linear = of_matrices(jnp.asarray(matrices))
    found = moments(16)(linear, jax.random.key(0)).frobenius_square
    assert np.isnan([found.value[0], found.low[0], found.high[0]]).all()
    assert np.isfinite([found.value[1], found.low[1], found.high[1]]).all()


@pytest.mark.parametrize("power", [-100, 100])
def test_squares_out_of_the_range_of_float32_are_no_trouble(power):
    values = np.linspace(0.1, 1, 96)
    one, scaled = (
        moments(16)(diagonal_map(values * size, 2), jax.random.key(0)).frobenius_square
        for size in (1.0, 2.0**power)
    )
    chex.assert_trees_all_close(scaled.times(2.0 ** (-2 * power)), one, rtol=1e-6)


def test_bfloat16_maps_are_summed_in_float32():
    values = jnp.linspace(0.1, 1, 96).astype(jnp.bfloat16)
    linear = diagonal_map(values, 2, jnp.bfloat16)
    found = moments(16)(linear, jax.random.key(0))
    assert found.square.dtype == jnp.float32
    truth = np.sum(np.square(np.asarray(values, np.float64)))
    estimate = found.frobenius_square
    assert (np.abs(estimate.value - truth) < 4 * estimate.error).all()


def test_float64_maps_are_summed_in_float64():
    values = np.linspace(0.1, 1, 12)
    with jax.enable_x64(True):
        linear = diagonal_map(values, 2, jnp.float64)
        found = moments(16)(linear, jax.random.key(0)).frobenius_square
    truth = np.full(2, np.sum(np.square(values)))
    chex.assert_trees_all_close(found.value, truth, rtol=1e-14)


def test_the_stable_rank_holds_the_error_of_the_largest_value():
    values = spike(4, 96)
    found = moments(96)(diagonal_map(values, 2), jax.random.key(0))
    largest, bound = np.ones(2), np.array([0.0, 0.1])
    rank = stable_rank(found, largest, bound)
    chex.assert_trees_all_close(rank.value, np.full(2, 4.0), rtol=1e-6)
    chex.assert_trees_all_close(rank.low, np.array([4, 4 / 1.21]), rtol=1e-6)
    chex.assert_trees_all_close(rank.high, np.array([4, 4 / 0.81]), rtol=1e-6)
    assert (stable_rank(found, largest, np.full(2, 2.0)).high == np.inf).all()


def test_it_survives_vmap_over_keys():
    linear = diagonal_map(np.linspace(0, 1, 40), 2)
    keys = jax.random.split(jax.random.key(0), 3)
    found = jax.jit(jax.vmap(lambda key: moments(16)(linear, key)))(keys)
    assert found.frobenius_square.value.shape == (3, 2)
    assert len(np.unique(found.square)) == 6


def test_one_or_two_probes_are_refused():
    with pytest.raises(ValueError, match="num_probes=2"):
        moments(2)


def test_a_jacobian_of_more_rows_than_the_root_of_the_largest_integer_has_moments():
    num = 2**16
    gram = num * jnp.eye(4)[None]  # of four probes of num times the identity
    square, excess, _ = moments_module._from_gram(gram, num)
    assert float(square[0]) == num**2
    assert float(excess[0]) == 0
