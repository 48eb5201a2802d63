"""The figure of a report: what is drawn is true, and can be read."""

import dataclasses
import math

import figure_checks
import numpy as np
import pytest
from figure_checks import assert_readable
from matplotlib.figure import Figure
from report_samples import layer, network, recurrence, report

from gradstab.records import Prediction
from gradstab.report.plots import KINDS
from gradstab.spectra import dense_spectrum, fit_growth

pytestmark = pytest.mark.cases

L = np.arange(1.0, 21)


def recurrent(steps=100, rate=0.9, name="cell", **fields):
    signals = rate ** np.arange(float(steps))
    found = recurrence(np.ones(steps), signals[::-1], name)
    return dataclasses.replace(found, **fields)


def theory_of(layers, factor):
    num = len(layers)
    nothing = np.full(num, math.nan)
    return Prediction(
        **{
            field.name: nothing
            for field in dataclasses.fields(Prediction)
            if field.name not in ("names", "activations", "orthogonal", "notes")
        }
        | {
            "forward_rms": np.full(num, 0.7),
            "gradient_factor": np.full(num, factor),
            "measured_gradient_factor": np.full(num, 0.5),
        },
        names=tuple(x.name for x in layers),
        activations=("tanh",) * num,
        orthogonal=(False,) * num,
        notes=("",) * num,
    )


def with_ladder(found, values):
    return dataclasses.replace(found, exponents=np.array(values))


def long_names(num):
    return [
        layer(f"params/transformer/encoder_block_{i}/MultiHeadAttention/out")
        for i in range(num)
    ]


SAMPLES = {
    "one layer": lambda: report([layer("w")]),
    "two": lambda: report(network([1.0, 2.0], [1.0, 1.0])),
    "twenty": lambda: report(network(0.5**L, 2.0**L)),
    "growing": lambda: report(network(2.0**L, np.ones(20))),
    "hundred": lambda: report(network(np.ones(100), 0.8 ** np.arange(100.0))),
    "thousand": lambda: report(network(np.ones(1000), np.ones(1000))),
    "long names": lambda: report(long_names(24)),
    "odd names": lambda: report([layer(n) for n in ("_w", "a$x$b", "層", "$", "\\a")]),
    "ladder": lambda: with_ladder(
        report(network(0.5**L, 2.0**L)), [[0.1, -0.3, -math.inf], [0.2, -0.2, -0.9]]
    ),
    "recurrent": lambda: report(network([1.0, 1.0], [1.0, 1.0]), [recurrent()]),
    "twelve in time": lambda: report(
        network([1.0, 1.0], [1.0, 1.0]),
        [recurrent(name=f"cells.{i}") for i in range(12)],
    ),
    "zeros": lambda: report(network(np.zeros(3), np.zeros(3))),
    "broken": lambda: report(network(np.full(3, math.nan), np.full(3, math.inf))),
}


@pytest.mark.filterwarnings("ignore:Glyph:UserWarning")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "thousand" else name
        for name in SAMPLES
    ],
)
def test_every_figure_can_be_read(name):
    assert_readable(SAMPLES[name]().plot())


@pytest.mark.parametrize("num", [1, 2, 3, 7, 20, 64, 101, 1000])
def test_layers_have_their_names_on_the_axis(num):
    figure = report(network(np.ones(num), np.ones(num))).plot(kind="signals")
    (ax,) = figure.axes
    shown = [x.get_text() for x in ax.get_xticklabels()]
    assert shown[0] == "blocks.0"
    assert shown[-1] == f"blocks.{num - 1}"
    assert len(shown) >= min(num, 8)
    # A name stands at its layer.
    for place, words in zip(ax.get_xticks(), shown, strict=True):
        assert words == f"blocks.{int(place) - 1}"
    assert not figure_checks.overlapping_names(figure)


def test_no_singular_value_below_rounding_is_drawn():
    """Dead directions of a ReLU layer are computed as 1e-16, 1e-33 and 1e-85."""
    spectrum = dense_spectrum(np.diag([2.0, 1.0, 0.5, 0.0])[None])
    values = np.array([[2.0, 1.0, 0.5, 3e-16], [2.0, 1.0, 1e-33, 1e-85]])
    spectrum = dataclasses.replace(spectrum, values=values, errors=values * 0)
    layers = [dataclasses.replace(layer(f"b.{i}"), jacobian=spectrum) for i in range(4)]
    (ax,) = report(layers).plot(kind="jacobians").axes
    drawn = np.concatenate([line.get_ydata() for line in ax.lines])
    assert np.nanmin(drawn) >= 0.5
    assert "12 of 32 are below rounding noise" in ax.get_title()
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(lines["smallest"], 0.75)  # 0.5 and 1
    np.testing.assert_allclose(lines["median"], 1.25)  # of 2, 1, 0.5 and of 2, 1
    (ax,) = report(layers).plot(kind="units").axes
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(lines["directions lost in rounding"], 3 / 8)


def test_a_value_that_its_error_swallows_is_not_drawn():
    spectrum = dense_spectrum(np.diag([2.0, 1e-3])[None])
    spectrum = dataclasses.replace(spectrum, errors=np.full((1, 2), 1e-2))
    layers = [dataclasses.replace(layer(f"b.{i}"), jacobian=spectrum) for i in range(2)]
    (ax,) = report(layers).plot(kind="jacobians").axes
    assert min(np.nanmin(line.get_ydata()) for line in ax.lines) > 0.9


def test_small_signals_are_no_noise():
    """A gradient of 1e-80 is a product of factors, each exact to rounding."""
    found = report(network(np.ones(20), 1e-4 ** L[::-1]))
    (ax,) = found.plot(kind="signals").axes
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_array_equal(lines["gradient, norm"], 1e-4 ** L[::-1])


@pytest.mark.parametrize(
    ("law", "course"),
    [
        ("exponential", 1.7**L),
        ("power", (L + 0.0) ** 1.5),
        ("constant", np.ones(20)),
    ],
)
def test_the_fitted_law_lies_on_the_values_that_it_was_fitted_to(law, course):
    names = [f"blocks.{i}" for i in range(20)]
    found = report(network(np.ones(20), course), names=names)
    assert found.growth.backward.law == law
    (ax,) = found.plot(kind="signals").axes
    lines = [line for line in ax.lines if line.get_label().startswith(f"law: {law}")]
    assert lines
    np.testing.assert_allclose(lines[-1].get_ydata(), course, rtol=0.05)
    if law == "exponential":
        assert "+0.531 per layer" in lines[-1].get_label()  # ln 1.7
        assert f"a factor {1.7**-19:.3g} on its way back" in ax.get_title()


def test_the_theory_in_the_figure_is_the_theory_of_the_report():
    layers = network(np.ones(5), np.ones(5))
    found = dataclasses.replace(report(layers), theory=theory_of(layers, 0.25))
    (ax,) = found.plot(kind="signals").axes
    lengths, gradients = (x.get_ydata() for x in ax.lines if x.get_label() == "theory")
    np.testing.assert_allclose(lengths, 0.7)
    np.testing.assert_allclose(gradients, 0.25 ** np.arange(4, -1, -1.0))
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts.count("theory") == 1


def test_the_ladder_tells_theory_from_measurement():
    layers = network(np.ones(5), np.ones(5))
    found = dataclasses.replace(report(layers), theory=theory_of(layers, 0.25))
    (ax,) = with_ladder(found, [[0.1, -0.3]]).plot(kind="exponents").axes
    lines = {line.get_label().split(":")[0]: line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(lines["gradient's norm, theory"], math.log(0.25))
    np.testing.assert_allclose(lines["gradient's norm, measured"], math.log(0.5))


def test_without_theory_nothing_is_called_theory():
    found = with_ladder(report(network(0.5**L, 2.0**L)), [[0.1, -0.3]])
    for ax in found.plot().axes:
        assert not [x for x in ax.lines if "theory" in str(x.get_label())]


def test_lost_directions_are_counted_and_not_drawn():
    (ax,) = SAMPLES["ladder"]().plot(kind="exponents").axes
    assert "1 of 3 are lost" in ax.get_title()
    (ladder,) = [line for line in ax.lines if line.get_label() == "measured"]
    np.testing.assert_allclose(ladder.get_ydata(), [0.15, -0.25])


def test_time_has_the_gradient_at_every_step_and_its_law():
    found = SAMPLES["recurrent"]()
    (ax,) = found.plot(kind="time").axes
    lines = {line.get_label(): line for line in ax.lines}
    gradient = lines["cell: gradient"].get_ydata()
    np.testing.assert_allclose(gradient, found.recurrences[0].gradient_norms[:, 0])
    (law,) = [x for x in lines if x.startswith("law: exponential")]
    np.testing.assert_allclose(lines[law].get_ydata(), gradient, rtol=0.05)
    assert ax.get_xlabel() == "time step"


def test_exponents_of_minus_infinity_are_said_and_not_in_the_legend():
    lost = recurrent(exponents=np.full((1, 2), -math.inf), name="identity")
    found = report(network([1.0, 1.0], [1.0, 1.0]), [lost, recurrent()])
    (ax,) = found.plot(kind="lyapunov").axes
    assert "identity: 2 of 2 are not finite" in ax.get_title()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["cell"]


def test_a_share_that_is_zero_everywhere_is_said_and_curves_alike_are_one():
    layers = [
        dataclasses.replace(x, saturated_fraction=0.0, zero_fraction=0.5)
        for x in network(np.ones(4), np.ones(4))
    ]
    (ax,) = report(layers).plot(kind="units").axes
    assert "none in any layer: saturated" in ax.get_title()
    labels = [line.get_label() for line in ax.lines]
    assert labels == ["dead units = outputs of zero"]


def test_a_panel_is_drawn_on_axes_that_are_given():
    found = SAMPLES["recurrent"]()
    figure = Figure(figsize=(12, 8))
    panels = figure.subplots(2, 3).ravel()
    for ax, kind in zip(
        panels[1:], [k for k in KINDS if k != "exponents"], strict=True
    ):
        assert found.plot(kind=kind, ax=ax) is figure
        assert ax.get_title()
    assert not panels[0].has_data()
    assert_readable(
        dataclasses.replace(found).plot(ax=Figure(figsize=(6, 4)).subplots())
    )


def test_a_panel_that_there_is_not_lists_those_that_there_are():
    found = report(network([1.0, 2.0], [1.0, 1.0]))
    for kind in ("nope", "time", "exponents"):
        with pytest.raises(ValueError, match=f"kind is '{kind}'.*signals, jacobians"):
            found.plot(kind=kind)


def test_nothing_is_black_on_a_dark_page():
    import matplotlib.style

    with matplotlib.style.context("dark_background"):
        for name in ("twenty", "recurrent", "ladder"):
            for ax in SAMPLES[name]().plot().axes:
                for line in ax.lines:
                    assert matplotlib.colors.to_hex(line.get_color()) != "#000000"


def test_a_law_needs_the_layers_that_it_was_fitted_to():
    """Of a trunk: the head, which is no part of it, has no point on the line."""
    layers = network(np.ones(20), 2.0**L)
    growth = fit_growth(2.0 ** L[:19], [x.name for x in layers[:19]])
    found = report(layers)
    found = dataclasses.replace(found, growth=found.growth._replace(backward=growth))
    (ax,) = found.plot(kind="signals").axes
    (law,) = [x for x in ax.lines if x.get_label().startswith("law: exponential")]
    np.testing.assert_array_equal(law.get_xdata(), L[:19])


def test_values_that_are_not_finite_are_no_rounding():
    spectrum = dense_spectrum(np.diag([2.0, 1.0])[None])
    values = np.array([[math.nan, math.nan]])
    broken = dataclasses.replace(layer("b.1"), jacobian=spectrum)
    broken = dataclasses.replace(
        broken, jacobian=dataclasses.replace(spectrum, values=values, errors=values)
    )
    figure = report([layer("b.0"), broken]).plot(kind="jacobians")
    assert "2 of 4 are not finite" in figure.axes[0].get_title()
    assert "rounding" not in figure.axes[0].get_title()
