"""Runs that are ended from outside end, once resumed, where they would have ended."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("survival.py")


def survived(*options):
    """What the script prints at its end."""
    found = subprocess.run(
        [sys.executable, "-W", "error", SCRIPT, *options],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    return json.loads(found.stdout[found.stdout.index("{\n") :])


@pytest.mark.slow
@pytest.mark.parametrize("moments", [2])
def test_runs_ended_at_random_moments_end_bitwise_the_same(moments):
    """Twenty of each were run once by hand; see the script."""
    result = survived("--moments", str(moments))
    assert result["problems"] == []
    assert all(sum(c.values()) == moments for c in result["counts"].values())
    ends = sum(c.get("bitwise", 0) for c in result["counts"].values())
    assert ends >= moments


@pytest.mark.slow
def test_a_watched_run_killed_at_twenty_moments_loses_no_line_of_its_history():
    result = survived("--small", "--moments", "20", "--ends", "SIGKILL")
    assert result["problems"] == []
    assert sum(result["counts"]["SIGKILL"].values()) == 20
    assert result["cut"] >= 5
