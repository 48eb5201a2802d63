"""The report on screens of every width, in notebooks and as a figure."""

import dataclasses
import io
import math

import numpy as np
import pytest
from report_samples import layer, network, recurrence, report
from rich.console import Console

from gradstab.report import ranges_along_time

L = np.arange(1.0, 21)


@pytest.fixture(scope="module")
def sample():
    steps = 0.9 ** np.arange(200.0)
    layers = network(0.5**L, 2.0**L)
    layers[3] = layer("a_very_long_name.of.a_module.in_a.deep_tree", gradient=16.0)
    layers[4] = layer(
        "blocks[bold]4[/x]", gradient=32.0, jacobian=False, note="no Jacobian: [why]"
    )
    return report(layers, [recurrence(steps, steps[::-1])])


def _shown(found, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    found.show(console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_column_vanishes_at_any_width(sample, width):
    text = _shown(sample, width)
    assert max(map(len, text.splitlines())) <= width
    lines = text.splitlines()
    (row,) = [line for line in lines if line.lstrip().startswith("blocks.7 ")]
    # name, rms, saturated, dead (50 %), gradient, of parameters, largest, rms of s.v.
    assert row.split() == [
        "blocks.7",
        "0.00391",
        "-",
        "50",
        "%",
        "256",
        "256",
        "2",
        "1.58",
    ]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_names_are_printed_as_they_are(sample, width):
    text = _shown(sample, width)
    assert "blocks[bold]4" in text
    assert "no Jacobian: [why]" in text
    if width == 200:
        assert "a_very_long_name.of.a_module.in_a.deep_tree" in text


def test_the_verdict_and_its_reasons_are_printed(sample):
    text = _shown(sample, 200)
    assert "verdict: vanishing" in text
    for reason in sample.reasons:
        assert reason in " ".join(text.split())


def test_a_recurrent_layer_has_a_table_along_time(sample):
    text = _shown(sample, 80)
    assert "cell along time, state of 2" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["0", "1", "7.8e-10", "2", "1.58"] in rows


def test_a_state_that_fades_says_at_which_step_each_dtype_ends(sample):
    (faded,) = sample.recurrences
    ends = ranges_along_time(faded)
    text = _shown(report(sample.layers, [dataclasses.replace(faded, ranges=ends)]), 80)
    # 0.9^n is below half of the smallest float16, 2^-25, from n = 165 on.
    (row,) = [line.split() for line in text.splitlines() if line.startswith(" float16")]
    assert row[:4] == ["float16", "step", "165", "(underflow)"]
    assert "a number of steps: beyond the network" in " ".join(text.split())


def test_hundreds_of_layers_show_their_ends(sample):
    deep = report(network(np.ones(300), np.ones(300)))
    lines = _shown(deep, 100).splitlines()
    assert len(lines) < 90
    assert any(line.split()[:1] == ["..."] for line in lines)
    assert any(line.lstrip().startswith("blocks.299 ") for line in lines)


def test_show_prints_to_standard_output(sample, capsys):
    sample.show()
    assert "verdict: vanishing" in capsys.readouterr().out


def test_a_notebook_shows_the_table(sample):
    html = sample._repr_html_()
    assert html.startswith("<pre>")
    assert "vanishing" in html
    assert "blocks.7" in html


def test_the_text_of_a_report_is_its_verdict_and_reasons(sample):
    assert str(sample).startswith("vanishing: 20 layers\n  the gradient")


def test_an_unknown_layer_lists_the_known_ones():
    with pytest.raises(KeyError, match=r"no layer named 'nope'.*blocks\.0, blocks\.1"):
        report(network([1.0, 1.0], [1.0, 1.0])).layer("nope")


def test_a_layer_is_found_by_name():
    found = report(network([1.0, 3.0], [1.0, 1.0]))
    assert found.layer("blocks.1").forward_rms == 3.0


def test_the_figure_has_the_signals(sample):
    from matplotlib.figure import Figure

    figure = sample.plot()
    assert isinstance(figure, Figure)
    signals, spectra, lost = figure.axes
    forward = signals.lines[0].get_ydata()
    np.testing.assert_array_equal(forward, [x.forward_rms for x in sample.layers])
    assert signals.get_yscale() == "log"
    np.testing.assert_array_equal(spectra.lines[0].get_ydata(), np.full(19, 2.0))
    assert len(lost.lines) == 3


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_signals_that_no_logarithm_has_are_drawn_all_the_same(value, tmp_path):
    found = report(network([value] * 3, [value] * 3))
    found.plot().savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert "verdict: broken" in _shown(found, 80)
