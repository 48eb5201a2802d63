"""The same code gives the same statistics on one device and on eight."""

import os
import pathlib
import subprocess
import sys

import pytest

PROGRAM = pathlib.Path(__file__).with_name("devices_program.py")
NUM_WAYS = 8 + 4 + 5


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eight_devices_agree_with_one(dtype):
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    run = subprocess.run(
        [sys.executable, str(PROGRAM), dtype],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert len(set(run.stdout.splitlines())) == NUM_WAYS
