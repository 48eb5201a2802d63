"""Clipping by percentile and by z-score of the norms so far."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab import clipping


def scan_steps(tx, norms):
    """The updates and the states after gradients of these norms."""

    def step(state, norm):
        updates, state = tx.update(norm * jnp.array([0.6, -0.8]), state)
        return state, (updates, state)

    start = tx.init(jnp.zeros(2))
    return jax.lax.scan(step, start, jnp.asarray(norms, jnp.float32))[1]


def feed(tx, norms):
    """The norms after clipping and the states after each step."""
    updates, states = jax.jit(lambda norms: scan_steps(tx, norms))(norms)
    # In float64, in which no square overflows.
    return np.linalg.norm(np.asarray(updates, np.float64), axis=1), states


def lognormal(num):
    return np.exp(np.random.default_rng(0).normal(size=num)).astype(np.float32)


@pytest.mark.parametrize("window", [1, 7, 100])
def test_the_threshold_is_the_percentile_of_the_window(window):
    norms = lognormal(30)
    latest = [norms[max(0, t + 1 - window) : t + 1] for t in range(30)]

    @jax.jit  # once for all percentiles
    def scan(percentile):
        return scan_steps(clipping.clip_by_percentile(percentile, window=window), norms)

    for percentile in (0.0, 10.0, 33.3, 50.0, 100.0):
        updates, states = scan(percentile)
        thresholds = [np.percentile(past, percentile) for past in latest]
        np.testing.assert_allclose(states.threshold, thresholds, rtol=1e-5)
        after = np.linalg.norm(updates, axis=1)
        np.testing.assert_allclose(after, np.minimum(norms, thresholds), rtol=1e-5)


def test_percentile_100_never_clips_and_percentile_0_always_does():
    norms = lognormal(30)
    tx = clipping.recorded(clipping.clip_by_percentile(100.0))
    assert not np.any(feed(tx, norms)[1].clipped)
    after, _ = feed(clipping.clip_by_percentile(0.0), norms)
    np.testing.assert_allclose(after, np.minimum.accumulate(norms), rtol=1e-6)


def test_the_percentile_of_the_clipped_norms_is_rejected():
    norms = lognormal(30)
    kept = [norms[0]]
    for norm in norms[1:]:  # a mutant: remembers what it let through
        kept.append(min(norm, np.percentile([*kept, norm], 50)))
    after, _ = feed(clipping.clip_by_percentile(50.0), norms)
    assert not np.allclose(after, kept, rtol=1e-2)


def paper(norms, z_threshold=2.5, alpha=0.97, warmup=25):
    """The paper's algorithm in plain float64 Python."""
    mean = np.mean(norms[:warmup], dtype=np.float64)
    variance = np.var(norms[:warmup], dtype=np.float64)
    after, means = list(norms[:warmup]), []
    for norm in np.asarray(norms[warmup:], np.float64):
        z = (norm - mean) / np.sqrt(variance)
        kept = (
            mean + z_threshold**2 / z * np.sqrt(variance) if z > z_threshold else norm
        )
        mean = alpha * mean + (1 - alpha) * kept
        variance = alpha * variance + (1 - alpha) * (kept - mean) ** 2
        after.append(kept)
        means.append((mean, np.sqrt(variance)))
    return np.array(after), np.array(means)


def spiky(num):
    norms = np.random.default_rng(1).normal(1.0, 0.1, size=num).astype(np.float32)
    norms[40], norms[45], norms[-5] = 3.0, 100.0, 1e4
    return norms


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_zclip_is_the_algorithm_of_the_paper_at_every_scale(scale):
    norms = spiky(80)
    after, states = feed(clipping.clip_by_zscore(), norms * np.float32(scale))
    expected, running = paper(norms)
    assert np.sum(expected < norms) >= 3
    np.testing.assert_allclose(after / scale, expected, rtol=1e-4)
    np.testing.assert_allclose(
        np.asarray(states.mean[25:], np.float64) / scale, running[:, 0], rtol=1e-4
    )
    np.testing.assert_allclose(
        np.asarray(states.stddev[25:], np.float64) / scale, running[:, 1], rtol=1e-4
    )


def test_every_argument_of_zclip_changes_the_answer():
    norms = spiky(80)
    default, _ = feed(clipping.clip_by_zscore(), norms)
    for changes in ({"z_threshold": 4.0}, {"alpha": 0.5}, {"warmup": 10}):
        after, _ = feed(clipping.clip_by_zscore(**changes), norms)
        np.testing.assert_allclose(after, paper(norms, **changes)[0], rtol=1e-4)
        assert not np.allclose(after, default, rtol=1e-3)


def test_a_spike_is_clipped_and_hardly_enters_the_statistics():
    norms = np.tile([0.9, 1.1], 20).astype(np.float32)  # mean 1, deviation 0.1
    norms[30] = 1e6
    after, states = feed(clipping.clip_by_zscore(), norms)
    # The z-score is 1e7: the norm after clipping is the mean, to six digits.
    np.testing.assert_allclose(after[30], states.mean[29], rtol=1e-5)
    np.testing.assert_allclose(after[31:], norms[31:])
    np.testing.assert_allclose(states.mean[30], states.mean[29], rtol=1e-5)
    assert states.stddev[30] <= states.stddev[29]


def test_zclip_clips_nothing_during_its_warm_up_or_after_zeros():
    assert np.all(np.isinf(feed(clipping.clip_by_zscore(), spiky(80)[30:55])[1][-1]))
    zeros_then_ones = np.repeat([0.0, 1.0], 30)
    after, _ = feed(clipping.clip_by_zscore(), zeros_then_ones)
    np.testing.assert_allclose(after[:31], zeros_then_ones[:31], rtol=1e-6)


def test_equal_norms_leave_no_room_above_them():
    after, _ = feed(clipping.clip_by_zscore(warmup=5), [2.0] * 10 + [9.0, 1.0])
    np.testing.assert_allclose(after, [2.0] * 11 + [1.0], rtol=1e-6)


@pytest.mark.parametrize(
    "tx", [clipping.clip_by_percentile(50.0), clipping.clip_by_zscore(warmup=2)]
)
def test_nonfinite_gradients_do_not_enter_the_statistics(tx):
    norms = np.array([1.0, 2.0, np.inf, np.nan, 3.0, 9.0], np.float32)
    after, states = feed(tx, norms)
    finite = np.isfinite(norms)
    expected, expected_states = feed(tx, norms[finite])
    np.testing.assert_array_equal(np.asarray(after)[finite], expected)
    for got, want in zip(states, expected_states, strict=True):
        np.testing.assert_array_equal(np.asarray(got)[-1], np.asarray(want)[-1])
    assert not np.any(np.isfinite(after[2:4]))


@pytest.mark.parametrize(
    "tx", [clipping.clip_by_percentile(50.0), clipping.clip_by_zscore(warmup=2)]
)
def test_norms_beyond_the_largest_float_are_clipped_and_leave_the_state_finite(tx):
    state = tx.init(jnp.zeros(4))
    for size in (1.0, 2.0, 1.5, 3e38, 1.0):
        clipped, state = tx.update(jnp.full(4, size), state)
        assert float(clipped[0]) < 10
    assert np.all(np.isfinite([np.max(part) for part in state[:3]]))
