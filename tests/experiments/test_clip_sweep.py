"""A sweep of clipping thresholds is one program that gives what single runs give."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import clip_sweep

TINY = clip_sweep.Config(
    thresholds=(0.05, np.inf), num_seeds=2, steps=12, time_steps=5, width=8, last=4
)


@pytest.mark.slow
def test_a_sweep_is_the_runs_one_by_one():
    losses, norms, shares = clip_sweep.sweep(TINY)
    assert losses.shape == norms.shape == (2, 2, 12)
    for i, threshold in enumerate(TINY.thresholds):
        for seed in range(2):
            one = jax.jit(clip_sweep.train, static_argnums=0)
            alone = jax.device_get(one(TINY, np.float32(threshold), seed))
            np.testing.assert_allclose(losses[i, seed], alone[0], rtol=1e-4)
            np.testing.assert_allclose(shares[i, seed], alone[2])
    assert shares[0].min() > 0
    assert shares[1].max() == 0
    # Until a step is clipped the runs are the same; then they are not.
    np.testing.assert_allclose(norms[0, :, 0], norms[1, :, 0], rtol=1e-5)
    assert np.abs(losses[0, :, -1] - losses[1, :, -1]).min() > 0


@pytest.mark.slow
def test_suggested_thresholds_clip_as_often_as_they_say():
    losses, norms, _ = clip_sweep.sweep(TINY)
    at = clip_sweep.suggested(norms[1])
    assert np.mean(norms[1] > at[0]) == pytest.approx(0.5, abs=0.05)
    assert list(at) == sorted(at)
    text = clip_sweep.table(dataclasses.replace(TINY, thresholds=(0.05, 1.0)))
    assert "clips one in ten" in text
    assert f"| 0.05 | {np.mean(losses[0, :, -4:]):.4f} |" in text
