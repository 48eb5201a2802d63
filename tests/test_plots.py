"""Figures show what they are given, with labelled axes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs


@pytest.fixture(scope="module")
def report():
    w = jax.random.normal(jax.random.key(0), (3, 16, 16)) / 4
    x = jax.random.normal(jax.random.key(1), (2, 16))

    def apply(w, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, w)[0]

    return gs.analyze(apply, w, x, theory=False)


def area(axes):
    stairs = [p.get_data() for p in axes.patches]
    return [np.sum(d.values * np.diff(d.edges)) for d in stairs]


def test_spectra_are_densities_of_the_chosen_layers(report):
    (axes,) = gs.plots.spectra(report).axes
    np.testing.assert_allclose(area(axes), [1, 1, 1], rtol=1e-6)
    name = report.layers[1].name
    (axes,) = gs.plots.spectra(report, layers=[name]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [name]
    with pytest.raises(ValueError, match="no singular values"):
        gs.plots.spectra(report, layers=["unknown"])


def test_spectra_show_the_law_of_wide_layers(report):
    linear = gs.mean_field(lambda x: x, sigma_w=1.0)
    (axes,) = gs.plots.spectra(report, field=linear).axes
    (curve,) = axes.lines
    s, density = curve.get_data()
    expected = np.sqrt(np.maximum(4 - s**2, 0)) / np.pi
    np.testing.assert_allclose(density[s < 1.9], expected[s < 1.9], rtol=0.02)


def test_the_ladder_shows_every_exponent_and_the_rate(report):
    (axes,) = gs.plots.exponents(report, rate=-0.25).axes
    ladder, *_ = axes.lines
    np.testing.assert_allclose(ladder.get_ydata(), report.exponents.mean(axis=0))
    assert any(set(line.get_ydata()) == {-0.25} for line in axes.lines)


def test_the_heat_map_is_in_decades_and_leaves_zeros_white():
    norms = np.array([[1.0, 10.0], [100.0, 0.0], [1.0, np.nan]])
    axes, _ = gs.plots.heat_map(norms, layers=["a", "b"], steps=[5, 6, 7]).axes
    shown = axes.collections[0].get_array().reshape(2, 3)
    np.testing.assert_array_equal(shown[0], [0, 2, 0])
    assert list(np.ma.getmaskarray(shown)[1]) == [False, True, True]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match="steps, layers"):
        gs.plots.heat_map(norms, layers=["a"])


def test_the_phase_diagram_has_its_critical_line():
    grid = {"sigma_w": [0.8, 1.0, 1.5], "sigma_b": [0.0, 0.3]}
    axes, _ = gs.plots.phase_diagram(jnp.tanh, **grid).axes
    line = next(line for line in axes.lines if line.get_label() == "critical line")
    # The critical line of tanh at sigma_b^2 = 0 and 0.09.
    np.testing.assert_allclose(line.get_xdata(), [1.0, 1.3954], atol=2e-3)
