"""Runs that were made elsewhere are read for what they are, and what lacks is said."""

import csv
import json
import sys

import numpy as np
import pytest

import gradstab as gs

STEPS = np.arange(0, 400, 10)
LAYERS = ("blocks.0.w", "blocks.1.w", "head")


def _norms():
    """A head that grows, and what lies before it."""
    noise = np.exp(0.02 * np.random.default_rng(0).normal(size=(len(STEPS), 3)))
    noise[:, 2] *= np.exp(0.01 * np.maximum(STEPS - 200, 0))
    return noise * [0.1, 0.1, 0.5]


def _rows(tag, *, loss="train/loss", step="_step", total=None):
    """What a run writes: a dictionary for each step."""
    for place, norms in zip(STEPS, _norms(), strict=True):
        row = {step: int(place), loss: 2.0 - place / 1000, "lr": 1e-3}
        row |= {tag.format(x): float(n) for x, n in zip(LAYERS, norms, strict=True)}
        if total:
            row[total] = float(np.linalg.norm(norms))
        yield row


def _jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _csv(path, rows):
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["", *rows[0]])
        writer.writeheader()
        writer.writerows({"": i} | row for i, row in enumerate(rows))
    return path


# Levanter, this package, Lightning, its older version, wandb.watch, and others.
SPELLINGS = [
    ("gradient_norm/{}", "global_norm"),
    ("grad_norm/{}", "grad_norm"),
    ("train/grad_norm/{}", "train/grad_norm"),
    ("grad/norm/{}", "grad/norm/total"),
    ("grad_2.0_norm/{}", "grad_2.0_norm_total"),
    ("grad_2.0_norm_{}", "grad_2.0_norm_total"),
    ("gradients/{}", "gradients/total_norm"),
    ("gradients/{}/norm", None),
    ("grads/{}", "optim/total_grad_norm"),
    ("{}/grad_norm", "train/grad_norm"),
]


@pytest.mark.parametrize(("tag", "total"), SPELLINGS)
def test_the_usual_spellings_are_known(tmp_path, tag, total):
    path = _jsonl(tmp_path / "run.jsonl", _rows(tag, total=total))
    history = gs.History.read(path)
    assert history.names == LAYERS
    np.testing.assert_array_equal(history.steps, STEPS)
    np.testing.assert_allclose(history["gradient_norm"], _norms())
    np.testing.assert_allclose(history.value, 2.0 - STEPS / 1000)
    assert history["lr"][3] == 1e-3
    (driver,) = history.attribute().drivers
    assert driver.layer == "head"
    assert "whether its growth is radial was not measured" in str(history.attribute())
    assert np.isnan(history["forward_rms"]).all()
    (note,) = history.notes
    assert note == (
        "not there, and NaN: param_norm, update_norm, forward_rms, backward_rms, "
        "gradient_cosine"
    )


@pytest.mark.parametrize("step", ["_step", "step", "global_step", "Step"])
def test_a_table_of_wandb_is_read(tmp_path, step):
    path = _csv(tmp_path / "run.csv", _rows("grad_norm/{}", step=step))
    history = gs.History.read(path)
    np.testing.assert_array_equal(history.steps, STEPS)
    np.testing.assert_allclose(history["gradient_norm"], _norms())


def test_rows_of_a_table_may_be_of_part_of_the_numbers(tmp_path):
    """W&B writes a row for each call, with empty cells; charts add extremes."""
    text = (
        "Step,run-7 - grad_norm/a,run-7 - grad_norm/a__MIN,run-7 - loss\n"
        "0,1.5,1.5,\n0,,,3\n5,NaN,,2\n"
    )
    (tmp_path / "chart.csv").write_text(text)
    history = gs.History.read(tmp_path / "chart.csv")
    assert history.names == ("a",)
    assert history.steps.tolist() == [0, 5]
    np.testing.assert_array_equal(history["gradient_norm"][:, 0], [1.5, np.nan])
    assert history.value.tolist() == [3, 2]


def test_a_folder_with_lines_of_wandb_is_read(tmp_path):
    rows = [row | {"_runtime": 3.0, "_timestamp": 1e9} for row in _rows("gradients/{}")]
    rows[0]["gradients/hist"] = {"_type": "histogram", "values": [1], "bins": [0, 1]}
    rows[1] |= {"nested": {"a": 1.0}, "note": "text", "flag": True}
    path = _jsonl(tmp_path / "wandb-history.jsonl", rows)
    with path.open("a") as file:
        file.write('{"_step": 400, "gradie')  # the run goes on
    history = gs.History.read(tmp_path)
    assert history.names == LAYERS
    assert set(history.scalars) == {"lr", "nested/a"}
    assert len(history) == len(STEPS)


def test_a_pattern_says_which_tags_are_of_layers(tmp_path):
    path = _jsonl(tmp_path / "run.jsonl", _rows("monitor/{}/|dL/dw|"))
    history = gs.History.read(path)
    assert history.names == ()
    assert "no tag is of a layer; there are: 'train/loss', 'lr'" in history.notes[0]
    with pytest.raises(ValueError, match=r"no norms of .*no tag is of a layer"):
        history.attribute()
    pattern = r"^monitor/(?P<layer>.*)/\|dL"
    assert gs.History.read(path, pattern=pattern).names == LAYERS
    with pytest.raises(ValueError, match=r"no tag of .* matches 'nothing"):
        gs.History.read(path, pattern="nothing(?P<layer>)")
    with pytest.raises(ValueError, match=r"needs a group of the layer's name"):
        gs.History.read(path, pattern="monitor/(.*)")
    with pytest.raises(ValueError, match="is none"):
        gs.History.read(path, pattern="(?P<layer>")
    with pytest.raises(TypeError, match="must be a regular expression"):
        gs.History.read(path, pattern=3)


def test_what_is_no_layer_is_not_taken_for_one(tmp_path):
    """A total beside the layers would be half of the squared norm."""
    others = dict.fromkeys(
        ("grad_norm/total", "grad_norm/clip_fraction", "gradients/head/mean",
         "grad/hist/a", "grad_norm", "grad_norm_clipped", "grad/zero_fraction/x",
         "grad_1.0_norm/head", "grad_inf_norm/head"), 7.0
    )  # fmt: skip
    rows = [row | others for row in _rows("grad_norm/{}", total="grad_norm")]
    history = gs.History.read(_jsonl(tmp_path / "run.jsonl", rows))
    assert history.names == LAYERS
    norms = [{"_step": i, "train/grad_norm": 1.0, "loss": 1.0} for i in range(20)]
    assert gs.History.read(_jsonl(tmp_path / "hf.jsonl", norms)).names == ()


def test_layers_that_do_not_make_the_total_are_said(tmp_path):
    rows = [row | {"grad_norm": 0.5 * row["grad_norm"]}
            for row in _rows("grad_norm/{}", total="grad_norm")]  # fmt: skip
    history = gs.History.read(_jsonl(tmp_path / "run.jsonl", rows))
    assert "make 2 of 'grad_norm'" in history.notes[-1]


def test_other_norms_are_columns_too(tmp_path):
    rows = [
        row
        | {"params/norm/head": 3.0, "updates/norm/head": 0.1, "params/norm/total": 9}
        for row in _rows("grad/norm/{}")
    ]
    history = gs.History.read(_jsonl(tmp_path / "run.jsonl", rows))
    assert history["param_norm"][0, 2] == 3
    assert history["update_norm"][0, 2] == 0.1
    assert np.isnan(history["param_norm"][0, 0])


def test_what_is_no_run_is_refused(tmp_path):
    for name, text, error in (
        ("a.jsonl", "{}\nno\n", "line 2 is no JSON"),
        ("b.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("c.jsonl", '{"loss": 1.0}\n', "no column has the number"),
        ("d.csv", "", "holds no numbers of steps"),
        ("e.csv", "_step,x\n0,text\n", "holds no numbers of steps"),
        ("f.txt", "text", "is no history: it reads"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=error):
            gs.History.read(tmp_path / name)


# Event files


def _events(folder, tag, steps, loss="loss", factor=1.0, suffix=""):
    tensorboard_x = pytest.importorskip("tensorboardX")
    with tensorboard_x.SummaryWriter(str(folder), filename_suffix=suffix) as writer:
        for row in _rows(tag, loss=loss):
            step = row.pop("_step")
            for name, number in row.items():
                if step in steps:
                    writer.add_scalar(name, factor * number, step)


def test_event_files_are_read(tmp_path):
    pytest.importorskip("tensorboard")
    _events(tmp_path / "run", "grad_norm/{}", set(STEPS))
    history = gs.History.read(tmp_path)
    assert history.names == LAYERS
    np.testing.assert_array_equal(history.steps, STEPS)
    np.testing.assert_allclose(history["gradient_norm"], _norms(), rtol=1e-6)
    np.testing.assert_allclose(history.value, 2.0 - STEPS / 1000, rtol=1e-6)
    assert history.attribute().drivers[0].layer == "head"
    (file,) = (tmp_path / "run").iterdir()
    assert len(gs.History.read(file)) == len(STEPS)
    file.write_bytes(file.read_bytes()[:-9])  # it is being written
    assert len(gs.History.read(file)) == len(STEPS)


def test_a_run_that_went_on_in_another_event_file_is_one(tmp_path):
    pytest.importorskip("tensorboard")
    _events(tmp_path, "grad_norm/{}", set(STEPS[:30]), suffix=".1")
    _events(tmp_path, "grad_norm/{}", set(STEPS[20:25]), factor=2.0, suffix=".2")
    history = gs.History.read(tmp_path)
    np.testing.assert_array_equal(history.steps, STEPS[:25])
    factors = history["gradient_norm"] / _norms()[:25]
    np.testing.assert_allclose(factors[:20], 1, rtol=1e-6)
    np.testing.assert_allclose(factors[20:], 2, rtol=1e-6)
    _events(tmp_path / "other", "grad_norm/{}", set(STEPS))
    with pytest.raises(ValueError, match="of 2 runs"):
        gs.History.read(tmp_path)


def test_without_the_package_the_error_names_it(tmp_path, monkeypatch):
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    for name in (
        "tensorboard",
        "tensorboard.backend.event_processing.event_file_loader",
    ):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"gradstab\[tensorboard\]"):
        gs.History.read(tmp_path)
