"""The report on screens of every width, in notebooks and as a figure."""

import dataclasses
import io
import math

import jax
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
    assert html.startswith("<pre ")
    assert "monospace" in html
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


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_signals_that_no_logarithm_has_are_drawn_all_the_same(value, tmp_path):
    found = report(network([value] * 3, [value] * 3))
    found.plot().savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert "verdict: broken" in _shown(found, 80)


@pytest.mark.parametrize("width", [20, 30, 40, 50])
def test_a_narrow_screen_has_every_number_beside_its_name(sample, width):
    """In tables one below the other, none of which loses its names."""
    text = _shown(sample, width)
    assert max(map(len, text.splitlines())) <= width
    rows = [line.split() for line in text.splitlines()]
    rows = [row for row in rows if row[:1] == ["blocks.7"]]
    numbers = [word for row in rows for word in row[1:]]
    assert numbers == ["0.00391", "-", "50", "%", "256", "256", "2", "1.58"]
    steps = [line.split() for line in text.splitlines()]
    assert any(row[:1] == ["0"] and "1" in row for row in steps)


@pytest.mark.parametrize(("value", "word"), [(math.nan, "nan"), (math.inf, "inf")])
def test_what_is_not_finite_is_printed_as_it_is(value, word):
    """A dash says that a number was not computed, not that it broke."""
    broken = layer("blocks.0", rms=value, gradient=value)
    text = _shown(report([broken, layer("blocks.1")]), 80)
    (row,) = [
        line for line in text.splitlines() if line.lstrip().startswith("blocks.0 ")
    ]
    assert row.split()[1] == word
    assert row.split()[-4:-2] == [word] * 2


def test_a_dash_says_that_there_is_no_number():
    layers = [
        dataclasses.replace(layer(f"blocks.{i}"), param_gradient_norm=math.nan)
        for i in range(3)
    ]
    layers[1] = dataclasses.replace(layers[1], gradient_norm=np.full(3, math.nan))
    rows = [line.split() for line in _shown(report(layers), 80).splitlines()]
    rows = [row[4:] for row in rows if row[:1] in (["blocks.0"], ["blocks.1"])]
    assert rows == [["%", "1", "-", "2", "1.58"], ["%", "-", "-", "2", "1.58"]]


ESCAPES = "\x1b]0;owned\x07\x1b[2J\u202e\x9b1m\n"


def test_no_control_character_of_a_name_or_a_note_is_printed(sample):
    hostile = layer(f"blocks.{ESCAPES}0", note=f"because{ESCAPES}")
    steps = np.ones(8)
    found = report([hostile, layer("b")], [recurrence(steps, steps, f"c{ESCAPES}")])
    found = dataclasses.replace(
        found,
        made=found.made | {"precision": f"[/bold]{ESCAPES}"},
        notes=(f"note{ESCAPES}",),
        reasons=(f"reason{ESCAPES}",),
    )
    for text in (
        _shown(found, 80),
        str(found),
        repr(found),
        found._repr_html_(),
        repr(found.layers),
        repr(found.recurrences),
    ):
        assert not [c for c in text if not c.isprintable() and c != "\n"]
    with pytest.raises(KeyError) as error:
        found["x"]
    assert error.value.args[0].isprintable()


def test_a_report_has_its_layers_by_name_and_by_number():
    found = report(network([1.0, 3.0, 5.0], [1.0, 1.0, 1.0]))
    assert len(found) == 3
    assert found["blocks.1"] is found[1] is found[-2] is found.layers[1]
    assert list(found) == list(found.layers)
    assert "blocks.2" in found
    assert "blocks.3" not in found
    with pytest.raises(KeyError, match=r"no layer named 'head'.*blocks\.0, blocks\.1"):
        found["head"]
    with pytest.raises(IndexError, match="no layer 3; this network has 3"):
        found[3]
    with pytest.raises(TypeError, match=r"report\.layers\[1:3\]"):
        found[1:3]


def test_what_a_cell_names_is_printed_in_a_few_lines(sample):
    """Each was a page: all arrays, and for 101 layers 175,119 characters."""
    deep = report(network(np.ones(300), np.ones(300)), sample.recurrences)
    short = {
        "layers": (deep.layers, 1200),
        "layer": (deep.layers[3], 160),
        "spectrum": (deep.layers[3].jacobian, 160),
        "estimate": (deep.layers[3].jacobian.largest, 200),
        "recurrence": (deep.recurrences[0], 160),
        "recurrences": (deep.recurrences, 200),
        "growth": (deep.growth, 500),
    }
    for name, (record, most) in short.items():
        assert len(repr(record)) <= most, name
    assert repr(deep.layers[3]) == (
        "<Layer blocks.3: 2 -> 2, 4 parameters, forward rms 1, gradient 1, "
        "largest singular value 2>"
    )
    lines = repr(deep.layers).splitlines()
    assert lines[0] == "(300 layers:"
    assert "blocks.0:" in lines[1]
    assert "... 290 more" in repr(deep.layers)
    assert "blocks.299:" in lines[-1]
    assert "200 steps, state of 2" in repr(deep.recurrences[0])
    assert "2 x 2 by gram: (examples, values) float64[1,2] 1 .. 2" in repr(
        deep.layers[3].jacobian
    )


def test_the_layers_are_a_tuple_and_a_tree(sample):
    assert isinstance(sample.layers, tuple)
    assert sample.layers == tuple(sample.layers)
    assert isinstance(sample.layers[1:3], tuple)
    twice = jax.tree.map(lambda x: 2 * x, sample.layers)
    assert twice[0].forward_rms == 2 * sample.layers[0].forward_rms


def test_records_are_printed_inside_of_jit_and_of_any_dtype(sample):
    printed = []
    spectrum = sample.layers[0].jacobian

    def look(tree):
        printed.append(repr(tree))
        return tree

    jax.jit(look)((spectrum, sample.layers[0], sample.growth, sample.recurrences))
    for change in (
        lambda x: None,
        lambda x: np.asarray(x, np.complex64),
        lambda x: np.asarray(x, bool),
        lambda x: jax.ShapeDtypeStruct(np.shape(x), np.float32),
    ):
        for record in (spectrum.largest, sample.growth.forward):
            printed.append(repr(jax.tree.map(change, record)))
    assert max(map(len, printed)) < 2000
