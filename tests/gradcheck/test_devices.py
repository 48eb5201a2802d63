"""A function whose parts lie on different devices is called, and not compiled."""

import subprocess
import sys

import pytest

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import gradstab
from gradstab.testing import check_grads

devices = jax.devices()
assert len(devices) == 4
one, two = (
    NamedSharding(Mesh(np.array(d), "x"), PartitionSpec("x"))
    for d in (devices[:2], devices[2:])
)
x = np.linspace(0.1, 1, 8).astype(np.float32)


def rule(factor):
    sine = jax.custom_vjp(jnp.sin)
    sine.defvjp(lambda x: (sine(x), x), lambda x, w: (factor * w * jnp.cos(x),))
    return sine


def chained(factor):
    first = jax.jit(rule(factor), in_shardings=one, out_shardings=one)
    second = jax.jit(lambda x: x * x, in_shardings=two, out_shardings=two)
    return lambda x: second(jax.device_put(first(x), two))


def there_and_back(factor):
    first = jax.jit(rule(factor), in_shardings=one, out_shardings=one)
    second = jax.jit(jnp.exp, in_shardings=two)

    def f(x):
        y = second(jax.device_put(first(x), two))
        return {"y": y, "z": first(jax.device_put(y, one))}

    return f


for make in (chained, there_and_back):
    for factor, verdict in ((1.0, "PASS"), (1.001, "FAIL")):
        result = gradstab.check(make(factor), x, at="given", locate=factor == 1.0)
        assert result.verdict.value == verdict, (make, result)
        assert "different devices" in " ".join(result.notes), result.notes
check_grads(chained(1.0), (x,), 1, at="given")

single = jax.jit(jnp.sin, in_shardings=one, out_shardings=one)
result = gradstab.check(lambda x: single(single(x)), x, at="given")
assert result.verdict.value == "PASS" and not result.notes, result
print("done")
"""


@pytest.mark.slow
def test_parts_on_two_meshes_are_checked_one_point_at_a_time(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert result.stdout.endswith("done\n"), result.stderr[-2000:]
