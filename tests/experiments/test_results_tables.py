"""A table in RESULTS.md is replaced by the command that makes it, and by no other."""

import dataclasses
import importlib.machinery
import re
import sys
import types

import pytest

from experiments import _results, _run

BEFORE = """# Results

<!-- one -->
old
<!-- end of one -->

between

<!-- two -->
kept
<!-- end of two -->
"""


@pytest.fixture
def results(tmp_path, monkeypatch):
    path = tmp_path / "RESULTS.md"
    path.write_text(BEFORE)
    monkeypatch.setattr(_results, "RESULTS", path)
    return path


def test_a_table_replaces_the_one_before_and_nothing_else(results):
    _results.write("one", r"new \1")
    assert results.read_text() == BEFORE.replace("old", r"new \1")


def test_a_table_without_marks_gets_a_section_and_is_replaced_the_next_time(results):
    _results.write("three", "first", command="python -m experiments.three")
    _results.write("three", "second", command="python -m experiments.three")
    section = (
        "\n## `three`\n\n<!-- three -->\n`python -m experiments.three`:\n\n"
        "second\n<!-- end of three -->\n"
    )
    assert results.read_text() == BEFORE + section


@pytest.mark.parametrize("lost", _results.marks("one"))
def test_a_mark_without_the_other_is_refused(results, lost):
    results.write_text(BEFORE.replace(lost, ""))
    with pytest.raises(ValueError, match="one of each is wanted"):
        _results.write("one", "new")


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags."""

    depth: int = 3


def command(monkeypatch, folder, *flags):
    """Run as ``python -m experiments.one`` with flags."""
    main = types.ModuleType("__main__", "What is asked.")
    main.__file__ = str(folder / "one.py")
    main.__spec__ = importlib.machinery.ModuleSpec("experiments.one", None)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["one.py", *flags])
    monkeypatch.setattr(_run, "use_compilation_cache", lambda: None)
    monkeypatch.chdir(folder)
    _run.print_table(Config, lambda config: f"depth {config.depth}")


def test_a_command_writes_its_table_only_if_asked(results, monkeypatch, tmp_path):
    command(monkeypatch, tmp_path, "--depth", "5")
    assert results.read_text() == BEFORE
    command(monkeypatch, tmp_path, "--depth", "5", "--write")
    written = "`python -m experiments.one --depth 5`:\n\ndepth 5"
    assert results.read_text() == BEFORE.replace("old", written)


def test_every_table_with_marks_has_an_experiment_of_its_name():
    text = _results.RESULTS.read_text()
    names = re.findall(r"<!-- (?!end of )(.*) -->", text)
    assert len(names) >= 10
    files = {path.stem for path in _results.RESULTS.parent.rglob("*.py")}
    assert set(names) <= files | {"checkers"}
    for name in names:
        start, end = _results.marks(name)
        assert text.count(start) == text.count(end) == 1
