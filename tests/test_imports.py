"""What is loaded for whom."""

import subprocess
import sys

import pytest

LATE = ("orbax", "scipy.optimize", "matplotlib")


@pytest.mark.slow  # a new process, which loads JAX
def test_an_analysis_loads_nothing_that_it_does_not_need():
    source = (
        "import sys, gradstab as gs, gradstab.cli.analyze; gs.analyze, gs.models; "
        f"print([name for name in {LATE} if name in sys.modules])"
    )
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
