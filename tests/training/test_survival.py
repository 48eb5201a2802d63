"""Runs that are ended from outside end, once resumed, where they would have ended."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("survival.py")


@pytest.mark.slow
@pytest.mark.parametrize("moments", [2])
def test_runs_ended_at_random_moments_end_bitwise_the_same(moments):
    """Twenty of each were run once by hand; see the script."""
    found = subprocess.run(
        [sys.executable, "-W", "error", SCRIPT, "--moments", str(moments)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-3000:]
    result = json.loads(found.stdout[found.stdout.index("{\n") :])
    assert result["problems"] == []
    assert all(sum(c.values()) == moments for c in result["counts"].values())
    ends = sum(c.get("bitwise", 0) for c in result["counts"].values())
    assert ends >= moments
