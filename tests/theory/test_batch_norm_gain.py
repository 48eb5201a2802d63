import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.theory import batch_norm_gain

RELU = {
    4: 3.0841,
    8: 1.78819,
    16: 1.58995,
    32: 1.52195,
    64: 1.49306,
    128: 1.47968,
    256: 1.47323,
    1024: 1.46850,
}


@pytest.mark.parametrize("batch", RELU.keys())
def test_relu_has_the_tabulated_gain(batch):
    gain = batch_norm_gain(jax.nn.relu, batch)
    np.testing.assert_allclose(
        gain, RELU[batch], rtol=0, atol=5.1e-5 if batch == 4 else 5.1e-6
    )


def test_the_limit_of_large_batches_is_pi_over_pi_minus_one():
    gain = batch_norm_gain(jax.nn.relu)
    np.testing.assert_allclose(gain, np.pi / (np.pi - 1), rtol=1e-12)
    np.testing.assert_allclose(gain**0.5, 1.211174, atol=6e-7)
    np.testing.assert_allclose(
        batch_norm_gain(jnp.tanh, 10**6), batch_norm_gain(jnp.tanh), rtol=1e-5
    )


@pytest.mark.parametrize("batch", [4, 5, 8, 32, 1000])
def test_linear_networks_gain_b_minus_two_over_b_minus_three(batch):
    gain = batch_norm_gain(lambda x: 3 * x, batch)
    np.testing.assert_allclose(gain, (batch - 2) / (batch - 3), rtol=1e-11)


def softsign(x):
    return x / (1 + jnp.abs(x))


@jax.jit
def layer(w, h):
    z = w @ h / w.shape[0] ** 0.5
    z = z - jnp.mean(z, axis=1, keepdims=True)
    return softsign(z / jnp.sqrt(jnp.mean(z**2, axis=1, keepdims=True)))


def backward_norms(batch, width, depth, rng):
    """Squared norms of a signal on its way back through one network."""
    h, g = jnp.array(rng.standard_normal((2, width, batch)), jnp.float32)
    steps, norms = [], []
    for _ in range(depth):
        w = jnp.array(rng.standard_normal((width, width)), jnp.float32)
        steps.append((w, h))
        h = layer(w, h)
    for w, h in reversed(steps):
        g = pull_back(w, h, g)
        norms.append(float(jnp.sum(g**2)))
    return norms


@jax.jit
def pull_back(w, h, g):
    return jax.vjp(layer, w, h)[1](g)[1]


@pytest.mark.slow
def test_wide_batch_normalised_networks_of_an_activation_in_no_table_agree():
    batch, rng, seeds = 8, np.random.default_rng(3), 16
    norms = np.array([backward_norms(batch, 256, 12, rng) for _ in range(seeds)])
    # The first steps back bring the gradient into the invariant subspace, the last
    # meet inputs that are not yet at the fixed point.
    gains = (norms[:, 8] / norms[:, 1]) ** (1 / 7)
    error = np.std(gains) / np.sqrt(seeds - 1)
    expected = batch_norm_gain(softsign, batch)
    assert error < 0.02
    np.testing.assert_allclose(np.mean(gains), expected, rtol=0, atol=3 * error)
    assert abs(expected - batch_norm_gain(softsign)) > 6 * error


@pytest.mark.parametrize("batch", [3, 2, 4.5, -1])
def test_batches_without_a_mean_gain_are_refused(batch):
    with pytest.raises(ValueError, match="four examples or more"):
        batch_norm_gain(jax.nn.relu, batch)


@pytest.mark.parametrize("batch", [8, np.inf])
def test_a_constant_activation_is_refused(batch):
    with pytest.raises(ValueError, match="constant over the batch"):
        batch_norm_gain(jnp.ones_like, batch)
