"""What is released: one version, and files that are needed."""

import pathlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]


def built(kind, folder):
    """A distribution, made as `pip` makes it, without a network."""
    source = (
        "import sys; from hatchling import build; "
        f"print(build.build_{kind}(sys.argv[1]))"
    )
    command = [sys.executable, "-c", source, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return folder / done.stdout.split()[-1]


def sources():
    """The files of the package, relative to the checkout."""
    files = {*(ROOT / "gradstab").rglob("*.py"), ROOT / "gradstab" / "py.typed"}
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_every_file_that_names_the_version_names_this_one():
    cited = re.search(r"^version: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)
    changed = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert cited[1] == changed[1] == VERSION


def test_who_wrote_it_is_said_alike():
    (author,) = PROJECT["authors"]
    assert f'name: "{author["name"]}"' in (ROOT / "CITATION.cff").read_text()


def test_a_wheel_holds_the_package_and_nothing_else(tmp_path):
    pytest.importorskip("hatchling", reason="it is in gradstab[test]")
    with zipfile.ZipFile(built("wheel", tmp_path)) as wheel:
        names = set(wheel.namelist())
    about = f"gradstab-{VERSION}.dist-info"
    said = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert names == sources() | {f"{about}/{name}" for name in said}


def test_a_source_distribution_holds_what_tests_need(tmp_path):
    pytest.importorskip("hatchling", reason="it is in gradstab[test]")
    with tarfile.open(built("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tops = {name.partition("/")[0] for name in names}
    assert tops == {
        *("gradstab", "tests", "experiments", "docs", "notebooks"),
        *("README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md"),
        *("pyproject.toml", "PKG-INFO", ".gitignore"),
    }
    assert names >= sources() | {"tests/conftest.py", "docs/_static/demo.png"}
    assert not [name for name in names if name.endswith((".pyc", ".ipynb", ".jsonl"))]


def test_what_runs_before_a_commit_is_installed_and_not_fetched():
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (.*)", text) == ["local"]
    commands = [entry.split()[0] for entry in re.findall(r"entry: (.*)", text)]
    packages = "".join(PROJECT["optional-dependencies"]["dev"])
    assert set(commands) == {"ruff", "pyright"}
    assert all(command in packages for command in commands)
    assert set(re.findall(r"language: (.*)", text)) == {"system"}
