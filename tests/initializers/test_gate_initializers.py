"""Identity recurrences, fused gates, and the time scales of forget gates."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab import initializers as I

FORGET = slice(4096, 8192)  # of 4 x 4096 biases in the order i, f, g, o


def retention(init, max_time):
    """Mean over units of the share of the cell state kept over ``max_time`` steps."""
    bias = np.asarray(init(jax.random.key(0), (4 * 4096,))[FORGET], np.float64)
    kept = (1 + np.exp(-bias)) ** -max_time
    return kept.mean(), kept.std() / np.sqrt(kept.size)


# 1/(T-2) int_1^(T-1) (1 + 1/u)^-T du; the limit is int_0^1 exp(-1/v) dv = 0.148496.
RETENTION = {50: 0.15084, 100: 0.14965, 200: 0.14907, 784: 0.14864, 10**6: 0.148496}


@pytest.mark.parametrize("max_time", RETENTION)
def test_chrono_units_keep_fifteen_per_cent_of_their_state_on_average(max_time):
    mean, error = retention(I.chrono_bias(max_time), max_time)
    assert abs(mean - RETENTION[max_time]) < 4.5 * error


MISTAKES = {
    "time scales up to 2T": I.chrono_bias(200),
    "time scales up to 0.9 T": I.chrono_bias(90),
    "a forget bias of one": I.forget_bias(1.0),
    "the candidate instead of the forget gate": I.chrono_bias(100, gates="igfo"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_other_time_scales_are_rejected(mistake):
    mean, error = retention(MISTAKES[mistake], 100)
    assert abs(mean - RETENTION[100]) > 4.5 * error


def test_chrono_input_biases_are_the_negative_forget_biases():
    i, f, g, o = jnp.split(I.chrono_bias(100)(jax.random.key(0), (400,)), 4)
    chex.assert_trees_all_equal(i, -f)
    assert jnp.all((f >= 0) & (f <= np.log(99)))
    assert not jnp.any(jnp.stack([g, o]))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_chrono_biases_are_drawn_in_float32_and_rounded_once(dtype):
    narrow = I.chrono_bias(100)(jax.random.key(0), (400,), dtype)
    wide = I.chrono_bias(100)(jax.random.key(0), (400,))
    chex.assert_trees_all_equal(narrow, wide.astype(dtype))


def test_a_bias_lands_on_the_forget_gate_whatever_the_order():
    for gates in ("ifgo", "fiog", "gf"):
        bias = I.forget_bias(2.0, gates=gates)(jax.random.key(0), (2 * len(gates),))
        expected = [2.0 if gate == "f" else 0.0 for gate in gates for _ in range(2)]
        chex.assert_trees_all_equal(bias, jnp.array(expected))


def test_coupled_gates_have_no_input_bias_to_set():
    bias = I.chrono_bias(100, gates="fgo")(jax.random.key(0), (6,))
    chex.assert_trees_all_equal(bias > 0, jnp.arange(6) < 2)


@pytest.mark.parametrize("build", [I.forget_bias, I.chrono_bias])
@pytest.mark.parametrize("gates", ["igo", "iffo", ""])
def test_an_order_without_one_forget_gate_is_an_error(build, gates):
    with pytest.raises(ValueError, match="forget gate"):
        build(100, gates=gates)


@pytest.mark.parametrize(
    "init", [I.forget_bias(), I.chrono_bias(9), I.per_gate(I.normal(1.0))]
)
def test_a_last_axis_that_cannot_be_split_is_an_error(init):
    with pytest.raises(ValueError, match="4 gates"):
        init(jax.random.key(0), (2, 7))


@pytest.mark.parametrize("max_time", [2, 1.0, -5])
def test_a_task_of_two_steps_has_no_time_scales(max_time):
    with pytest.raises(ValueError, match="number of steps"):
        I.chrono_bias(max_time)


def gate_spectra(init, units=16):
    fused = init(jax.random.key(0), (units, 4 * units))
    blocks = jnp.stack(jnp.split(fused, 4, axis=-1))
    return jnp.linalg.svd(blocks, compute_uv=False)


def test_every_gate_of_a_fused_kernel_is_orthogonal_by_itself():
    tolerance = 16 * np.finfo(np.float32).eps  # a QR of 16 rows
    spectra = gate_spectra(I.per_gate(I.orthogonal()))
    chex.assert_trees_all_close(spectra, jnp.ones((4, 16)), atol=tolerance)


def test_an_orthogonal_fused_kernel_has_no_orthogonal_gate():
    spectra = gate_spectra(I.orthogonal())
    assert jnp.all(spectra[:, -1] < 0.3)


def test_gates_have_different_weights():
    blocks = jnp.split(I.per_gate(I.orthogonal())(jax.random.key(0), (4, 16)), 4, -1)
    for a in range(4):
        for b in range(a):
            assert jnp.max(jnp.abs(blocks[a] - blocks[b])) > 0.1


def test_glorot_per_gate_is_larger_than_fused_by_the_fans():
    key, key_fused = jax.random.split(jax.random.key(0))
    single = I.per_gate(I.glorot_normal())(key, (200, 800))
    fused = I.glorot_normal()(key_fused, (200, 800))
    ratio = float(jnp.std(single) / jnp.std(fused))
    # Each deviation of 160,000 entries errs by sqrt(1.4 / 4 / 160,000) = 0.15 %.
    chex.assert_trees_all_close(ratio, np.sqrt(1000 / 400), rtol=4.5 * 0.0015 * 2**0.5)


def test_per_gate_splits_biases_and_stacks_too():
    assert I.per_gate(I.normal(1.0))(jax.random.key(0), (12,)).shape == (12,)
    assert I.per_gate(I.he_normal(), 3)(jax.random.key(0), (5, 4, 6)).shape == (5, 4, 6)


def test_an_identity_recurrence_keeps_its_state_and_a_scaled_one_shrinks_it():
    h = jnp.array([1.0, 2.0, 3.0])
    for scale in (1.0, 0.5):
        w = I.identity_rnn(scale)(jax.random.key(0), (3, 3))
        chex.assert_trees_all_equal(h @ w @ w, scale**2 * h)


def test_a_rectangular_identity_drops_or_pads_coordinates():
    h = jnp.array([[1.0, 2.0, 3.0]])
    init = I.identity_rnn()
    chex.assert_trees_all_equal(h @ init(jax.random.key(0), (3, 2)), h[:, :2])
    padded = jnp.array([[1.0, 2.0, 3.0, 0.0]])
    chex.assert_trees_all_equal(h @ init(jax.random.key(0), (3, 4)), padded)
    with pytest.raises(ValueError, match="two axes"):
        init(jax.random.key(0), (3, 3, 4, 4))
