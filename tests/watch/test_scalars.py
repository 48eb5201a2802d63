"""Single numbers of a step are those of their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.watch import clip_fraction, gradient_noise, noise_scale, z_score


def test_a_z_score_is_that_of_the_steps_before():
    values = np.random.default_rng(0).normal(size=200)
    values[[20, 30]] = np.nan, np.inf
    found = z_score(values, window=50)
    for i in (8, 25, 60, 199):
        before = values[max(i - 50, 0) : i]
        before = before[np.isfinite(before)]
        expected = (values[i] - before.mean()) / before.std(ddof=1)
        np.testing.assert_allclose(found[i], expected)
    assert np.isnan(found[[0, 7, 20, 30]]).all()
    alike = np.ones(20)
    assert z_score(alike)[-1] == 0
    alike[-1] = 2
    assert z_score(alike)[-1] == np.inf
    with pytest.raises(ValueError, match="window must be a whole number"):
        z_score(values, window=3)


def test_a_clip_fraction_is_that_of_the_last_steps():
    norms = np.array([1, 3, np.nan, 3, 1, 1.0])
    found = clip_fraction(norms, 2.0, window=3)
    np.testing.assert_allclose(found, [0, 1 / 2, 1 / 2, 1, 1 / 2, 1 / 3])
    each = clip_fraction(norms, np.array([0.5, 5, 5, 5, 5, 5.0]), window=10)
    np.testing.assert_allclose(each[-1], 1 / 5)
    with pytest.raises(ValueError, match="above zero"):
        clip_fraction(norms, 0.0)


def _gradients(rng, steps, examples, size, mean, spread):
    draw = rng.normal(size=(steps, examples, size)) * spread / np.sqrt(size)
    return draw + mean / np.sqrt(size)


@pytest.mark.parametrize("parts", [2, 8, 32])
def test_signal_and_noise_are_those_of_the_examples(parts):
    """Unbiased: the mean over many batches is the truth, whatever the parts are."""
    grads = _gradients(np.random.default_rng(0), 3000, 32, 50, 1.0, 3.0)
    norms = np.linalg.norm(grads.mean(axis=1), axis=-1)
    means = grads.reshape(3000, parts, 32 // parts, 50).mean(axis=2)
    found = gradient_noise(norms, np.linalg.norm(means, axis=-1), batch_size=32)
    for values, truth in zip(found, (1.0, 9.0), strict=True):
        error = values.std() / np.sqrt(len(values))
        assert abs(values.mean() - truth) < 4 * error
        assert error < 0.05 * truth


def test_signal_and_noise_are_those_of_the_paper_inside_of_jit():
    norm, parts = jnp.float32(2.0), jnp.array([3.0, 4.0, 5.0])
    found = jax.jit(lambda *x: gradient_noise(*x, batch_size=12))(norm, parts)
    small, mean = 4, 50 / 3
    np.testing.assert_allclose(
        found.gradient_signal, (12 * 4 - small * mean) / (12 - small), rtol=1e-6
    )
    np.testing.assert_allclose(
        found.gradient_noise, (mean - 4) / (1 / small - 1 / 12), rtol=1e-6
    )
    for wrong in ([1.0], [1.0] * 5, 1.0):
        with pytest.raises(ValueError, match="parts that are equally large"):
            gradient_noise(norm, jnp.array(wrong), batch_size=12)


def test_the_error_of_a_noise_scale_is_right():
    """Noise of 9 over a signal of 1; neighbouring steps are alike, as in training."""
    held, errors, values = 0, [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        grads = _gradients(rng, 200, 8, 10, 1.0, 3.0)
        norms = np.linalg.norm(grads.mean(axis=1), axis=-1)
        parts = np.linalg.norm(grads, axis=-1)
        found = noise_scale(*gradient_noise(norms, parts, batch_size=8))
        held += found.low <= 9 <= found.high
        errors.append(found.error)
        values.append(found.value)
    # 95 % of 200, within three standard errors.
    assert 181 <= held <= 199
    assert 0.8 < np.mean(errors) / np.std(values) < 1.25
    assert abs(np.median(values) - 9) < 0.5


def test_a_signal_that_may_be_zero_leaves_the_scale_open():
    rng = np.random.default_rng(0)
    found = noise_scale(rng.normal(size=100), 5 + rng.normal(size=100))
    assert found.high == np.inf
    assert found.low > 5
    with pytest.raises(ValueError, match="needs 8 steps, got 7"):
        noise_scale(np.ones(9), [1, 2, 3, 4, 5, 6, 7, np.nan, np.inf])
