"""The first page is short, its numbers are measured ones, and its examples run."""

import pathlib
import re

import jax
import pytest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readme_is_read_in_two_minutes():
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1300


def test_the_readme_has_its_five_examples():
    heads = re.findall(r"^\*\*(\w+)\*\*", README, re.MULTILINE)
    assert heads == ["Analyse", "Check", "Watch", "Transfer", "Clip"]
    assert len(BLOCKS) == 5


def test_the_three_numbers_of_the_readme_stand_in_the_results():
    section = README.split("## Three numbers")[1].split("\n## ")[0]
    results = (ROOT / "experiments" / "RESULTS.md").read_text()
    numbers = re.findall(r"\*\*(.*?)\*\*", section)
    assert len(numbers) == 3
    assert [number for number in numbers if number not in results] == []


@pytest.mark.slow
def test_the_examples_of_the_readme_run_one_after_the_other(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    names = {}
    as_users_have_it = jax.numpy_dtype_promotion("standard")
    with as_users_have_it, jax.numpy_rank_promotion("allow"):
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"README.md, example {number + 1}", "exec"), names)
            out = capsys.readouterr().out
            for said in re.findall(r"# (vanishing|FAIL|\[.*1\.0)", block):
                assert all(word in out for word in re.split(r"[^\w.]+", said))
