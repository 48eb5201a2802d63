"""The figure of a history shows every layer and step, and can be read."""

import json
import pathlib
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure

import gradstab as gs

sys.path.append(str(pathlib.Path(__file__).parent.parent))
from figure_checks import assert_readable


def _history(folder, num=60, layers=("a", "head"), **others):
    """A run whose last layer grows, and of which one layer has a spike."""
    rng = np.random.default_rng(0)
    norms = np.exp(0.05 * rng.normal(size=(num, len(layers))))
    norms[:, -1] *= 0.3 * np.exp(8 * np.maximum(np.arange(num) / num - 0.5, 0))
    norms[num // 3, 0] = 100
    with (folder / "run.jsonl").open("w") as file:
        for step, row in enumerate(norms):
            numbers = {"_step": 10 * step, "loss": 2 - step / num}
            for name, x in zip(layers, row, strict=True):
                numbers |= {f"grad_norm/{name}": x, f"params/norm/{name}": 1.0}
                numbers |= {f"updates/norm/{name}": x / 1000}
            file.write(json.dumps(numbers | others) + "\n")
    return gs.History.read(folder / "run.jsonl"), norms


def _panels(figure):
    return [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]


@pytest.mark.slow
@pytest.mark.parametrize("style", ["default", "dark_background"])
@pytest.mark.parametrize("num", [9, 3000])
def test_the_figure_can_be_read(tmp_path, num, style):
    layers = [f"encoder.blocks.{i}.attention.query" for i in range(40)]
    with plt.style.context(style):
        history, _ = _history(tmp_path, num, layers)
        figure = history.plot()
        assert isinstance(figure, Figure)
        assert_readable(figure)
        assert len(_panels(figure)) == 4


def test_the_map_shows_the_norms_in_decades(tmp_path):
    history, norms = _history(tmp_path)
    ax = history.plot(kind="map").axes[0]
    image = ax.collections[0].get_array()
    np.testing.assert_allclose(image, np.log10(norms).T)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "head"]


def test_a_spike_among_many_steps_stays_in_the_map(tmp_path):
    history, norms = _history(tmp_path, num=2000)
    image = history.plot(kind="map").axes[0].collections[0].get_array()
    assert image.shape == (2, 400)
    np.testing.assert_allclose(image.max(), np.log10(norms.max()))
    ax = history.plot(kind="norms").axes[0]
    tops = [band.get_paths()[0].vertices[:, 1].max() for band in ax.collections]
    assert max(tops) > 99


def test_the_norms_name_the_layer_that_drives_them(tmp_path):
    history, norms = _history(tmp_path)
    (ax,) = history.plot(kind="norms").axes
    assert "driven by head" in ax.get_title()
    curves = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(curves["head"], norms[:, 1])
    np.testing.assert_allclose(curves["all layers"], np.linalg.norm(norms, axis=1))


def test_panels_are_drawn_where_there_is_something(tmp_path):
    (tmp_path / "run.jsonl").write_text('{"_step": 0, "loss": -1}\n')
    history = gs.History.read(tmp_path / "run.jsonl")
    (ax,) = _panels(history.plot())
    assert ax.get_title() == "loss"
    assert ax.get_yscale() == "linear"
    with pytest.raises(ValueError, match="this history has panels for: loss"):
        history.plot(kind="map")
    figure = Figure()
    ax = figure.add_subplot()
    assert history.plot(ax=ax) is figure
    assert ax.lines
    with pytest.raises(ValueError, match="no steps with numbers to draw"):
        gs.History(tmp_path / "empty").plot()


def test_steps_that_are_not_finite_are_left_out(tmp_path):
    history, _ = _history(tmp_path)
    text = (tmp_path / "run.jsonl").read_text().splitlines()
    for line in (5, 40):
        row = {k: float("nan") for k in json.loads(text[line])}
        text[line] = json.dumps(row | {"_step": 10 * line})
    (tmp_path / "run.jsonl").write_text("\n".join(text) + "\n")
    history = gs.History.read(tmp_path / "run.jsonl")
    assert_readable(history.plot())
