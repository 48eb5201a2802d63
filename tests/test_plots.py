"""Figures show what they are given, with labelled axes."""

import figure_checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from figure_checks import assert_readable
from matplotlib.figure import Figure

import gradstab as gs
from gradstab import _drawing as drawing

pytestmark = pytest.mark.cases


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


@pytest.fixture(scope="module")
def wide():
    """Layers with as many values as a histogram needs."""
    w = jax.random.normal(jax.random.key(0), (3, 64, 64)) / 8
    x = jax.random.normal(jax.random.key(1), (8, 64))

    def apply(w, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, w)[0]

    return gs.analyze(apply, w, x, theory=False)


@pytest.mark.slow
def test_spectra_of_many_values_are_densities(wide):
    figure = gs.plots.spectra(wide)
    np.testing.assert_allclose(area(figure.axes[0]), [1, 1, 1], rtol=1e-6)
    assert_readable(figure)
    for patch in figure.axes[0].patches:
        assert len(patch.get_data().values) <= 30  # no forest of spikes


@pytest.mark.slow
def test_spectra_of_few_values_are_shares(report):
    """Up to a value lie as many of the singular values as the step says."""
    figure = gs.plots.spectra(report)
    (axes,) = figure.axes
    assert_readable(figure)
    assert axes.get_ylabel().startswith("share")
    for layer, line in zip(report.layers, axes.lines, strict=True):
        values = np.sort(layer.jacobian.values.ravel())
        x, y = line.get_data()
        np.testing.assert_allclose(x[1:-1], values)
        np.testing.assert_allclose(y[1:-1], np.arange(1, 33) / 32)


def test_spectra_are_of_the_chosen_layers(report):
    name = report.layers[1].name
    (axes,) = gs.plots.spectra(report, layers=[name]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [name]
    assert name in axes.get_title()
    with pytest.raises(KeyError, match=f"no layer named 'unknown'.*{name}"):
        gs.plots.spectra(report, layers=["unknown"])
    with pytest.raises(ValueError, match="no singular values"):
        gs.plots.spectra(report, layers=[])


def test_the_colours_of_spectra_go_from_blue_to_orange(report):
    (axes,) = gs.plots.spectra(report).axes
    red, _, blue = zip(*(line.get_color() for line in axes.lines), strict=True)
    assert list(red) == sorted(red)
    assert list(blue) == sorted(blue, reverse=True)


@pytest.mark.slow
def test_spectra_show_the_law_of_wide_layers(wide, report):
    linear = gs.mean_field(lambda x: x, sigma_w=1.0)
    (axes,) = gs.plots.spectra(wide, field=linear).axes
    (curve,) = axes.lines
    s, density = curve.get_data()
    expected = np.sqrt(np.maximum(4 - s**2, 0)) / np.pi
    np.testing.assert_allclose(density[s < 1.9], expected[s < 1.9], rtol=0.02)
    (axes,) = gs.plots.spectra(report, field=linear).axes
    s, share = axes.lines[-1].get_data()
    # The integral of the quarter circle's density.
    circle = np.clip(s / 2, 0, 1)
    expected = 2 / np.pi * (circle * np.sqrt(1 - circle**2) + np.arcsin(circle))
    np.testing.assert_allclose(share, expected, atol=0.01)


def test_the_ladder_shows_every_exponent_and_the_rate(report):
    figure = gs.plots.exponents(report, rate=-0.25)
    (axes,) = figure.axes
    ladder, *_ = axes.lines
    np.testing.assert_allclose(ladder.get_ydata(), report.exponents.mean(axis=0))
    assert any(set(line.get_ydata()) == {-0.25} for line in axes.lines)
    assert_readable(figure)


def test_the_heat_map_is_in_decades_and_leaves_zeros_empty():
    norms = np.array([[1.0, 10.0], [100.0, 0.0], [1.0, np.nan]])
    axes, _ = gs.plots.heat_map(norms, layers=["a", "b"], steps=[5, 6, 7]).axes
    shown = axes.collections[0].get_array().reshape(2, 3)
    np.testing.assert_array_equal(shown[0], [0, 2, 0])
    assert list(np.ma.getmaskarray(shown)[1]) == [False, True, True]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "b"]


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 2), {"layers": ["a"]}),
        ((3, 2), {"steps": [1, 2]}),
        ((3,), {}),
        ((0, 2), {}),
    ],
)
def test_norms_of_another_shape_are_refused(shape, options):
    with pytest.raises(ValueError, match="steps, layers"):
        gs.plots.heat_map(np.ones(shape), **options)


@pytest.mark.parametrize("num_layers", [1, 2, 13, 101, 1000])
@pytest.mark.parametrize("num_steps", [1, 5, 11, 801])
def test_a_heat_map_of_any_size_is_readable(num_layers, num_steps):
    norms = np.ones((num_steps, num_layers))
    names = [f"blocks.{i}.attention.out" for i in range(num_layers)]
    steps = np.arange(num_steps) * 50
    figure = gs.plots.heat_map(norms, layers=names, steps=steps)
    axes = figure.axes[0]
    assert_readable(figure)
    ticks = [int(t.get_text()) for t in axes.get_xticklabels()]
    assert set(ticks) <= set(steps)
    assert len(set(np.diff(ticks))) <= 1  # even
    assert len(ticks) > 4 or len(ticks) == num_steps
    rows = [t.get_text() for t in axes.get_yticklabels()]
    assert len(rows) >= min(num_layers, 8)


def test_the_cells_of_a_heat_map_are_where_their_steps_are():
    """Looks that are no even number of steps apart."""
    steps = [0, 10, 20, 100]
    axes, _ = gs.plots.heat_map(np.ones((4, 2)), steps=steps).axes
    edges = axes.collections[0].get_coordinates()[0, :, 0]
    np.testing.assert_allclose(edges, [-5, 5, 15, 60, 140])
    assert axes.get_xlim() == (-5, 140)


def chi(sigma_w, sigma_b):
    return gs.mean_field(jnp.tanh, float(sigma_w), float(sigma_b)).chi


@pytest.fixture(scope="module")
def diagram():
    grid = {"sigma_w": [0.8, 1.0, 1.3, 1.6], "sigma_b": [0.0, 0.3, 0.9]}
    return gs.plots.phase_diagram(jnp.tanh, **grid)


@pytest.mark.slow
def test_the_critical_line_solves_its_equation_at_every_vertex(diagram):
    axes, _ = diagram.axes
    (line,) = axes.lines
    x, y = line.get_data()
    assert len(x) > 20
    for sigma_w, sigma_b in zip(x, y, strict=True):
        assert chi(sigma_w, sigma_b) == pytest.approx(1, abs=1e-4)
    # Smooth: it turns by little from one piece to the next.
    angles = np.unwrap(np.arctan2(np.diff(y) / 0.9, np.diff(x) / 0.8))
    assert np.max(np.abs(np.diff(angles))) < np.radians(15)
    # From border to border: it begins at (1, 0), and leaves at sigma_w = 1.6.
    np.testing.assert_allclose([x[0], y[0]], [1, 0], atol=1e-6)
    assert x[-1] == pytest.approx(1.6, abs=1e-4)
    # Published for sigma_b^2 = 0.09: 1.3954.
    assert np.interp(0.3, y, x) == pytest.approx(1.3954, abs=2e-3)


@pytest.mark.slow
def test_the_cells_of_the_phase_diagram_fill_it_and_hold_the_rate(diagram):
    axes, _ = diagram.axes
    mesh = axes.collections[0]
    corners = mesh.get_coordinates()
    assert axes.get_xlim() == (corners[..., 0].min(), corners[..., 0].max())
    assert axes.get_ylim() == (corners[..., 1].min(), corners[..., 1].max())
    rates = mesh.get_array().reshape(2, 3)
    assert rates[1, 0] == pytest.approx(np.log(chi(0.9, 0.6)) / 2)
    # Both ends of the colours are in use.
    assert mesh.get_clim() == pytest.approx((rates.min(), rates.max()))


@pytest.mark.slow
def test_each_phase_is_named_on_its_own_side(diagram):
    axes, _ = diagram.axes
    assert_readable(diagram)
    texts = {text.get_text(): text.get_position() for text in axes.texts}
    assert chi(*texts["ordered:\ngradients vanish"]) < 1
    assert chi(*texts["chaotic:\ngradients explode"]) > 1


@pytest.mark.slow
def test_a_diagram_without_a_critical_network_says_so():
    grid = {"sigma_w": [0.6, 1.0, 1.4], "sigma_b": [0.0, 0.5, 1.0]}
    axes, _ = gs.plots.phase_diagram(jax.nn.sigmoid, **grid).axes
    assert "no network here is critical" in axes.get_title()
    assert not axes.lines
    assert [t.get_text() for t in axes.texts] == ["ordered:\ngradients vanish"]


@pytest.mark.parametrize(
    "borders",
    [[1.0], [], [2.0, 1.0], [1.0, 1.0], [[1.0, 2.0]], [-1.0, 1.0], [1, np.nan]],
)
@pytest.mark.parametrize("axis", ["sigma_w", "sigma_b"])
def test_borders_that_make_no_cells_are_refused(axis, borders):
    with pytest.raises(ValueError, match=axis):
        gs.plots.phase_diagram(jnp.tanh, **{axis: borders})


@pytest.mark.slow
def test_every_figure_is_drawn_on_axes_that_are_given(report):
    figure = Figure(figsize=(9, 9))
    panels = figure.subplots(2, 2).ravel()
    makers = (
        lambda ax: gs.plots.spectra(report, ax=ax),
        lambda ax: gs.plots.exponents(report, ax=ax),
        lambda ax: gs.plots.heat_map(np.ones((3, 2)), ax=ax),
        lambda ax: gs.plots.phase_diagram(
            jax.nn.relu, sigma_w=[1.0, 2.0], sigma_b=[0.0, 1.0], ax=ax
        ),
    )
    for make, ax in zip(makers, panels, strict=True):
        assert make(ax) is figure
        assert ax.has_data()
        assert ax.get_title()


def bad_figure():
    """Names over names, a legend over a curve, a curve outside, nothing to draw."""
    figure = Figure()
    (ax,) = figure.subplots(1, squeeze=False)[0]
    ax.plot([0, 1, 2], [1, 1, 1], label="high")
    ax.plot([0], [np.nan], label="nothing")
    ax.set_xticks([0, 0.01], ["a long name", "another one"])
    ax.set_ylim(0, 0.9)
    ax.legend(loc="upper left", bbox_to_anchor=(0, 1.2))
    return figure


def test_the_checks_of_figures_see_what_is_wrong():
    assert figure_checks.overlapping_names(bad_figure())
    assert figure_checks.covered_curves(bad_figure()) == ["high"]
    assert figure_checks.left_axes(bad_figure()) == ["high"]
    assert figure_checks.without_title(bad_figure())
    assert figure_checks.undrawn_entries(bad_figure()) == ["nothing"]


def test_a_legend_makes_no_more_room_than_it_needs():
    """Nor for a vertical line; and none on the side where nothing is in its way."""
    (ax,) = Figure().subplots(1, squeeze=False)[0]
    ax.plot([0, 1, 2], [0, 0.1, 0.2], label="rising")
    ax.axvline(1, label="a line")
    drawing.add_legend(ax)
    assert ax.get_ylim()[1] < 0.3
    assert not figure_checks.covered_curves(ax.figure)


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("place", [0, 5, 9])
@pytest.mark.parametrize("x_scale", ["linear", "log"])
def test_a_legend_covers_no_peak_wherever_it_is(place, scale, x_scale):
    y = np.ones(10)
    y[place] = 1000
    (ax,) = Figure().subplots(1, squeeze=False)[0]
    ax.set(xscale=x_scale, yscale=scale)
    ax.plot(np.arange(1, 11), y, label="a curve with a peak in it")
    ax.plot(np.arange(1, 11), y / 2, label="another one")
    ax.bar([5], [700], label="bar", width=0.1)
    drawing.add_legend(ax)
    assert not figure_checks.covered_curves(ax.figure)


def test_a_notebook_shows_a_figure_without_a_magic_command():
    (axes,) = drawing.new_axes()
    assert axes.figure._repr_png_().startswith(b"\x89PNG")
