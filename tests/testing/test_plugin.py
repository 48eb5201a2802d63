"""The summary at the end of a test session."""

import pathlib
import types

import pytest

import gradstab
from gradstab.testing import ledger

pytest_plugins = ["pytester"]

REAL = """
import jax.numpy as jnp
import pytest
from gradstab.testing import assert_grads, check_grads

QUICK = dict(at="given", transformations=False)

{marker}
def test_right():
    assert_grads(jnp.sin, jnp.ones(2), **QUICK)
    check_grads(jnp.cos, (jnp.ones(2),), 1, **QUICK)

def test_unseen():
    assert_grads(jnp.sin, jnp.ones(2), rtol=1e-16, **QUICK)
"""
# The same with records that cost nothing.
CHECKS = """
import pytest
from types import SimpleNamespace as Record
from gradstab.testing import ledger

def noted(verdict, resolution):
    verdict = Record(value=verdict)
    ledger.enter(Record(verdict=verdict, resolution=resolution, evaluations=432))

{marker}
def test_right():
    noted("PASS", 1e-12)
    noted("PASS", 1e-9)

def test_unseen():
    noted("INCONCLUSIVE", float("inf"))
    assert False

def test_other():
    pass
"""
MARKER = "@pytest.mark.gradcheck"
# As if gradstab were not installed, and as in a session of a user: no own settings.
PLUGINS = ("-p", "gradstab.testing.plugin", "-p", "no:cacheprovider", "-W", "ignore")


@pytest.fixture
def run(pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(gradstab.__file__).parents[1]))

    def run(source, *options, inside=True):
        pytester.makepyfile(source)
        go = pytester.runpytest_inprocess if inside else pytester.runpytest_subprocess
        return go(*PLUGINS, *options)

    return run


def summary(result):
    """Verdict and test of every row."""
    lines = result.outlines
    start = next((i for i, x in enumerate(lines) if "gradient checks" in x), None)
    if start is None:
        return None
    rows = [line.split() for line in lines[start + 2 :]]
    return [
        (row[0], row[-1].split("::")[-1]) for row in rows if row and "::" in row[-1]
    ]


ROWS = [
    ("INCONCLUSIVE", "test_unseen"),
    ("PASS", "test_right"),
    ("PASS", "test_right"),
]


def test_every_check_is_listed_when_asked_or_when_a_marked_test_made_one(run):
    result = run(CHECKS.format(marker=""), "--gradcheck-summary")
    result.assert_outcomes(passed=2, failed=1)
    assert summary(result)[:3] == ROWS
    assert summary(run(CHECKS.format(marker=MARKER), "--strict-markers"))[:3] == ROWS


def test_nothing_is_listed_without_a_marker_or_the_option(run):
    assert summary(run(CHECKS.format(marker=""))) is None
    assert summary(run("def test(): pass", "--gradcheck-summary")) is None


def test_a_session_leaves_no_page_open(run):
    page = ledger.open_page()
    run(CHECKS.format(marker=""))
    note("PASS")
    ledger.close_page()
    assert len(page) == 1


@pytest.mark.slow
def test_checks_of_other_processes_are_listed_too(run):
    options = "-p", "xdist", "-n", "2"
    result = run(REAL.format(marker=MARKER), *options, inside=False)
    assert summary(result)[:3] == ROWS


def test_checks_outside_of_a_test_are_not_noted():
    page = ledger.open_page()
    inner = ledger.open_page()
    ledger.close_page()
    note("PASS")
    ledger.close_page()
    note("FAIL")
    assert [check["verdict"] for check in page] == ["PASS"]
    assert not inner


def note(verdict):
    verdict = types.SimpleNamespace(value=verdict)
    record = {"verdict": verdict, "resolution": 1.0, "evaluations": 1}
    ledger.enter(types.SimpleNamespace(**record))


def test_a_session_without_checks_does_not_import_jax(run):
    source = "import sys\ndef test(): assert 'jax' not in sys.modules"
    result = run(source, "--gradcheck-summary", inside=False)
    result.assert_outcomes(passed=1)
