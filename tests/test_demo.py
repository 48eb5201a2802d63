"""`gradstab demo` finds three faults, and none in what has been mended."""

import pathlib

import matplotlib.image
import numpy as np
import pytest
from figure_checks import drawn

import gradstab as gs
from gradstab import _json
from gradstab.cli import main
from gradstab.demo import CASES, cases, diverging, overview, vanishing, wrong_rule

ROOT = pathlib.Path(__file__).parents[1]
PICTURES = {"vanishing.png", "wrong_rule.png", "diverging.png", "overview.png"}


def grey(path):
    """A picture in means of four by four pixels."""
    pixels = matplotlib.image.imread(path)[..., :3].mean(axis=-1)
    height, width = (size // 4 for size in pixels.shape)
    blocks = pixels[: 4 * height, : 4 * width].reshape(height, 4, width, 4)
    return blocks.mean(axis=(1, 3))


def legends_outside(figure):
    """Titles of the panels whose legend is wider than they are."""
    renderer, panels = drawn(figure), figure.axes
    boxes = [
        (ax, legend.get_window_extent(renderer))
        for ax in panels
        if (legend := ax.get_legend()) is not None
    ]
    return [
        ax.get_title()
        for ax, box in boxes
        if not ax.bbox.x0 <= box.x0 < box.x1 <= ax.bbox.x1
    ]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The command's exit status and its folder."""
    folder = tmp_path_factory.mktemp("demo")
    return main(["demo", "--folder", str(folder)]), folder


@pytest.mark.slow
def test_every_fault_is_found_and_drawn(demo):
    status, folder = demo
    assert status == 0
    assert {path.name for path in folder.iterdir()} == PICTURES | {"history.jsonl"}
    for name in PICTURES:
        picture = grey(folder / name)
        assert min(picture.shape) > 90
        assert picture.max() - picture.min() > 0.5
    assert gs.History.read(folder).attribute().norm.grows


@pytest.mark.slow
def test_the_picture_of_the_first_page_is_what_the_command_draws(demo):
    ours, shown = (
        grey(path)
        for path in (demo[1] / "overview.png", ROOT / "docs/_static/demo.png")
    )
    # Another picture of as much ink, the mirrored one, is off by 0.04.
    assert np.abs(ours - shown).mean() < 0.004
    assert np.abs(ours - shown[:, ::-1]).mean() > 0.02


@pytest.mark.slow
def test_a_demo_is_replaced_only_if_told_to(demo, capsys):
    _, folder = demo
    before = (folder / "history.jsonl").read_bytes()
    assert main(["demo", "--folder", str(folder)]) == 2
    assert "vanishing.png exists" in capsys.readouterr().err
    assert main(["demo", "--folder", str(folder), "--overwrite"]) == 0
    assert (folder / "history.jsonl").read_bytes() == before
    assert "by gs.check:" in capsys.readouterr().out


def test_a_file_in_the_way_is_said_before_anything_is_computed(tmp_path, capsys):
    (tmp_path / "history.jsonl").write_text("mine")
    assert main(["demo", "--folder", str(tmp_path)]) == 2
    assert "history.jsonl exists" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]


def test_what_is_not_found_is_said_and_is_a_bad_result(tmp_path, capsys, monkeypatch):
    right = cases.of_rule(wrong_rule.examine(wrong_rule.sum_of_examples))
    assert not right.found
    monkeypatch.setattr("gradstab.cli.demo.CASES", {"rule": lambda folder: right})
    assert main(["demo", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "NOT FOUND: the fault of a custom gradient of a normalisation" in said
    assert {path.name for path in tmp_path.iterdir()} == {"rule.png", "overview.png"}


def test_the_wrong_rule_is_found_with_its_argument_and_its_factor(tmp_path):
    case = CASES["wrong_rule"](tmp_path)
    assert case.found
    verdict, place, cause = case.says
    assert verdict == "FAIL: wrong reverse derivative in args[1]"
    assert place.startswith("args[1][")
    assert place.endswith("16 of 16 entries are wrong")
    assert "a constant factor of 1/8" in cause
    (ax,) = overview([case]).axes
    assert ax.get_title(loc="left").startswith("check: FAIL")
    said = {text.get_text() for text in ax.texts}
    assert "args[1]: a constant factor of 1/8" in said
    assert {"args[0]: right", "args[1]: wrong"} <= said


def test_both_rules_can_be_checked_by_the_command(tmp_path):
    path = tmp_path / "checked.json"
    target = "gradstab.demo.wrong_rule:cases"
    assert main(["check", target, "--json", str(path), "--quiet"]) == 1
    cases = _json.loads(path.read_text())["cases"]
    verdicts = {name: case["verdict"] for name, case in cases.items()}
    assert verdicts == {"wrong": "FAIL", "mended": "PASS"}


@pytest.mark.slow
def test_the_network_vanishes_and_a_residual_one_does_not(tmp_path):
    case = CASES["vanishing"](tmp_path)
    assert case.found
    growth = case.result.growth.backward
    # A logistic function of what is near zero has a slope near a quarter.
    assert growth.law == "exponential"
    assert np.log(4) < growth.rate < np.log(5)
    mended = cases.of_network(vanishing.examine(vanishing.residual_network))
    assert not mended.found
    assert mended.result.verdict in ("stable", "critical")


@pytest.mark.slow
def test_the_run_is_stopped_before_its_loss_rises_and_a_steady_one_is_not(tmp_path):
    case = CASES["diverging"](tmp_path / "growing")
    run = case.result
    assert case.found
    alarm = len(run.history)
    assert run.alarms[0].startswith(f"step {alarm}: the update of embed")
    assert [one.layer for one in run.attribution.drivers] == ["embed"]
    # The loss is at its best, but for the noise of a batch, and will be lost.
    assert run.losses[alarm - 1] < 1.05 * run.losses[:alarm].min()
    assert alarm + 10 < run.diverged <= len(run.losses)
    assert not legends_outside(case.plot())
    mended = cases.of_run(diverging.examine(tmp_path / "steady", growth=0.0))
    assert not mended.found
    assert mended.result.alarms == []
    assert mended.result.diverged is None
    assert len(mended.result.history) == diverging.STEPS
    assert mended.result.losses[-1] < run.losses[:alarm].min()
