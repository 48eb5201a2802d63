"""The same code gives the same statistics on one device and on eight."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
import gradstab as gs

jax.config.update("jax_enable_x64", True)
devices = jax.devices()
assert len(devices) == 8


def loss(p, x, y):
    def layer(h, w):
        return jnp.tanh(h @ w), None

    h, _ = jax.lax.scan(jax.checkpoint(layer), x, p["blocks"])
    return jnp.mean((h @ p["head"] - y) ** 2)


draw = np.random.default_rng(0)
p = {"blocks": draw.normal(size=(3, 16, 16)) / 4, "head": draw.normal(size=(16, 2))}
x, y = draw.normal(size=(32, 16)), draw.normal(size=(32, 2))


@jax.jit
def step(p, x, y):
    (value, stats), grads = gs.value_and_grad(loss, level="full")(p, x, y)
    return value, stats.with_updates(grads, p), grads


alone = step(p, x, y)
layouts = {
    "data": ((8,), ("data",), P("data"), P(), P()),
    "tensor": ((8,), ("model",), P(), P(None, None, "model"), P("model")),
    "both": ((2, 4), ("data", "model"), P("data"), P(None, None, "model"), P("model")),
}
for name, (shape, axes, batch, blocks, head) in layouts.items():
    mesh = Mesh(np.array(devices).reshape(shape), axes)
    put = lambda a, spec: jax.device_put(a, NamedSharding(mesh, spec))
    q = {"blocks": put(p["blocks"], blocks), "head": put(p["head"], head)}
    found = step(q, put(x, batch), put(y, batch))
    assert len(found[2]["blocks"].devices()) == 8
    for ours, other in zip(*map(jax.tree.leaves, (found, alone)), strict=True):
        np.testing.assert_allclose(ours, other, 1e-12, 1e-14, equal_nan=True)
    print(name, "agrees", found[1].names)
"""


@pytest.mark.slow
def test_eight_devices_agree_with_one():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert [line.split()[0] for line in run.stdout.splitlines()] == [
        "data",
        "tensor",
        "both",
    ]
