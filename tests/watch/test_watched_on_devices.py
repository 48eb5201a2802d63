"""The same code gives the same statistics on one device and on eight."""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
NUM_WAYS = 8 + 4 + 5


def _printed(program, *args):
    """What a program prints on eight devices."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    run = subprocess.run(
        [sys.executable, str(HERE / program), *args],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eight_devices_agree_with_one(dtype):
    assert len(set(_printed("devices_program.py", dtype))) == NUM_WAYS


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["0", "1"])
def test_a_hundred_plants_are_named_with_layer_iteration_and_device(seed):
    assert _printed("plants_program.py", seed) == ["100"]


@pytest.mark.slow
def test_inside_of_a_shard_map_each_device_has_statistics_of_its_own():
    assert len(set(_printed("inside_program.py"))) == 3


def test_norms_of_replicas_are_those_of_parts_of_the_batch():
    assert len(set(_printed("parts_program.py"))) == 3
