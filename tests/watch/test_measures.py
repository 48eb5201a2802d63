"""What is measured of an array, whatever its size and dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.watch import measures as m
from gradstab.watch.norms import cosines_by_row, norm_of_norms, norms_by_row


def _draw(*shape):
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("turn", [0, 7, 31, 32 * 15, 32 * 15 + 31, 32 * 16])
@pytest.mark.parametrize("size", [1e-35, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e17])
def test_a_norm_is_right_in_the_whole_range(size, turn, backend, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    x = (size * _draw(40, 5)).astype(np.float32)
    sums = m.squares(jnp.asarray(x), (0, 1), turn)
    true = np.linalg.norm(x.astype(np.float64))
    np.testing.assert_allclose(m.norm(sums), true, rtol=3e-6)


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1.0, 1e150])
def test_a_norm_in_float64_is_too(size):
    with jax.enable_x64(True):
        x = jnp.asarray(size * _draw(40))
        sums = m.squares(x, (0,))
        true = size * np.linalg.norm(_draw(40))
        np.testing.assert_allclose(m.norm(sums), true, rtol=1e-12)
        whole = m.measure(x, m.Level.FULL)
        assert whole.dtype == jnp.float64
        assert whole[m.BINS].sum() == 40


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_is_seen(lost):
    x = jnp.asarray(_draw(40), jnp.float32).at[7].set(lost)
    measured = m.measure(x, m.Level.LIGHT)
    assert not np.isfinite(measured[m.SQUARES][0])
    assert not np.isfinite(m.norm(measured[m.SQUARES]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64"])
def test_every_dtype_is_measured_in_one_that_is_wide_enough(dtype):
    x = jnp.asarray(300 * _draw(40), dtype)
    measured = m.measure(x, m.Level.FULL)
    parts = np.asarray(x).astype(np.complex128)
    true = np.linalg.norm(parts)
    np.testing.assert_allclose(m.norm(measured[m.SQUARES]), true, rtol=1e-5)
    assert measured[m.ENTRIES] == (80 if dtype == "complex64" else 40)


def test_measures_of_parts_add_up():
    x = jnp.asarray(_draw(40, 3), jnp.float32).at[3].set(0)
    whole = m.measure(x, m.Level.FULL)
    parts = sum(
        m.measure(part, m.Level.FULL, i) for i, part in enumerate((x[:9], x[9:]))
    )
    np.testing.assert_allclose(whole, parts, rtol=1e-5)


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
)
def test_forecast_shares_are_those_of_a_cast(dtype):
    x = np.exp2(np.random.default_rng(1).uniform(-125, 127, 4000)).astype(np.float32)
    measured = m.measure(jnp.asarray(x), m.Level.FULL)
    below, above = m.shares_outside(measured, dtype)
    limits = jnp.finfo(dtype)
    small = x < float(limits.smallest_normal)
    np.testing.assert_allclose(below, np.mean(small), atol=1e-3)
    np.testing.assert_allclose(above, np.mean(x > float(limits.max)), atol=1e-3)


def test_the_histogram_counts_every_entry_once():
    x = jnp.asarray([0.0, 1.0, -1.5, 2.0, np.inf, np.nan, 1e-40], jnp.float32)
    bins = m.measure(x, m.Level.FULL)[m.BINS]
    assert bins.sum() == 7
    assert (bins[0], bins[127], bins[128], bins[255]) == (2, 2, 1, 2)


@pytest.mark.slow
def test_more_entries_than_float32_counts_by_one_are_counted():
    x = jnp.zeros((2**24 + 8,), jnp.bfloat16)
    assert m.measure(x, m.Level.FULL)[m.ZEROS] == 2**24 + 8


def test_norms_of_rows_are_right_where_squares_are_out_of_range():
    leaves = [jnp.full((2, 3), 1e-25), jnp.full((4,), 1e10)]
    owners = ((0, 1), 2)
    found = norms_by_row(owners, 3, leaves)
    np.testing.assert_allclose(found, [3**0.5 * 1e-25] * 2 + [2e10], rtol=1e-6)
    np.testing.assert_allclose(norm_of_norms(found), 2e10, rtol=1e-6)
    cosine = cosines_by_row(owners, 3, [jnp.ones((2, 3)), jnp.ones(4)], leaves)
    np.testing.assert_allclose(cosine, 1, rtol=1e-6)


def test_a_row_of_several_arrays_has_one_norm_and_one_cosine():
    w, g = [[jnp.asarray(_draw(s), jnp.float32) * k for s in (3, 4)] for k in (1, -1)]
    g = [g[0], -g[1] * 1e-22]
    found = cosines_by_row((0, 0), 2, w, g)
    flat = [np.concatenate([np.asarray(x, np.float64) for x in xs]) for xs in (w, g)]
    true = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    np.testing.assert_allclose(found[0], true, rtol=1e-5)
    assert np.isnan(found[1])
