"""Folders and files of a run."""

import concurrent.futures
import json
import pathlib
import shutil

import pytest

from gradstab import _files
from gradstab.training import fit, results


def test_programs_that_ask_at_once_get_different_folders(tmp_path):
    (tmp_path / "train-7").mkdir()
    (tmp_path / "train-x").mkdir()
    (tmp_path / "other-9").mkdir()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        folders = list(
            pool.map(lambda _: results.new_results_folder(tmp_path, "train"), range(24))
        )
    assert {f.name for f in folders} == {f"train-{n}" for n in range(8, 32)}


def test_a_folder_that_appears_after_the_look_around_is_not_taken(
    tmp_path, monkeypatch
):
    (tmp_path / "train-1").mkdir()
    (tmp_path / "train-2").mkdir()
    monkeypatch.setattr(pathlib.Path, "iterdir", lambda self: iter(()))
    assert results.new_results_folder(tmp_path, "train").name == "train-3"


def test_a_new_folder_may_be_trained_in(tmp_path):
    folder = results.new_results_folder(tmp_path, "train")
    assert results.open_folder(folder, resume=False, overwrite=False) == folder


def test_two_runs_do_not_write_into_one_folder(network, blobs, settings, tmp_path):
    run = {"directory": tmp_path / "run", **settings, "num_steps": 4}
    fit(network, blobs, **run)
    content = {path.name for path in run["directory"].iterdir()}
    for option in ("resume", "overwrite"):
        with (
            _files.alone_in(run["directory"]),
            pytest.raises(FileExistsError, match="is in use: another run is writing"),
        ):
            fit(network, blobs, **run, **{option: True})
        assert {path.name for path in run["directory"].iterdir()} == content
    assert fit(network, blobs, **run, resume=True).num_steps == 4


def test_a_folder_goes_though_somebody_still_writes_in_it(tmp_path, monkeypatch):
    folder, remove, calls = tmp_path / "late", shutil.rmtree, []

    def interrupted(path, **options):
        remove(path, **options)
        calls.append(path)
        if len(calls) < 3:  # somebody writes again
            (path / "more").mkdir(parents=True)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    folder.mkdir()
    _files.remove_tree(folder)
    assert len(calls) == 3
    assert not folder.exists()
    calls.clear()
    folder.mkdir()
    _files.remove_tree(folder, patience=0.0)
    assert len(calls) <= 2


def test_metrics_are_valid_json_whatever_they_are():
    line = results.metrics_line({"step": 1, "a": float("nan"), "b": True, "c": 0.1})

    def refuse(name):
        raise AssertionError(name)

    row = json.loads(line, parse_constant=refuse)
    assert row == {"step": 1, "a": None, "b": True, "c": 0.1}


@pytest.mark.parametrize(
    "text", ['{"step": 1}\n{"step": 3}\n', '{"loss": 1}\n', '{"step": 1\n', "[]\n"]
)
def test_broken_metrics_are_refused(tmp_path, text):
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        results.read_metrics(tmp_path)


def test_truncation_keeps_what_was_saved_and_drops_the_rest(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    assert results.recover_metrics(tmp_path, 2) == [{"step": 1}, {"step": 2}]
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_corrupt_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        results.read_config(tmp_path)
