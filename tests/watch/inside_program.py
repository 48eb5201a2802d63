"""Prints, for every way to watch inside of a user's `jax.shard_map`, that it agrees.

Run by a test, in a process of its own: the number of devices is fixed when JAX starts.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gradstab as gs

draw = np.random.default_rng(0)
PARAMS = {
    "blocks": jnp.asarray(draw.normal(size=(3, 6, 6)) / 2, jnp.float32),
    "head": jnp.asarray(draw.normal(size=(6, 2)), jnp.float32),
}
BATCH = [jnp.asarray(draw.normal(size=(32, n)), jnp.float32) for n in (6, 2)]
MESH = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))


def loss(p, x, y):
    """Three layers in a scan, made again on the way back, and a head."""

    def layer(h, w):
        return jnp.tanh(h @ w), None

    h, _ = jax.lax.scan(jax.checkpoint(layer), x, p["blocks"])
    return jnp.mean((h @ p["head"] - y) ** 2)


def on_devices(differentiated, check, cast):
    """Each device's own loss, and the mean of the gradients."""

    def part(p, x, y):
        if cast:  # else the backward pass sums what all devices have in common
            p = jax.tree.map(lambda w: jax.lax.pcast(w, "data", to="varying"), p)
        out, grads = differentiated(p, x, y)
        if cast or not check:
            grads = jax.lax.pmean(grads, "data")
        return jax.tree.map(lambda leaf: leaf[None], out), grads

    specs = {"in_specs": (P(), P("data"), P("data")), "out_specs": (P("data"), P())}
    mapped = jax.shard_map(part, mesh=MESH, **specs, check_vma=check)
    return jax.jit(mapped)(PARAMS, *BATCH)


def main():
    """All ways, one after the other."""
    watched = gs.value_and_grad(loss)
    alone = jax.jit(watched)
    for check, cast in ((True, True), (True, False), (False, False)):
        (value, stats), grads = on_devices(watched, check, cast)
        known = on_devices(jax.value_and_grad(loss), check, cast)
        for ours, other in zip(
            *map(jax.tree.leaves, ((value, grads), known)), strict=True
        ):
            np.testing.assert_array_equal(ours, other)
        for device in range(8):
            rows = slice(4 * device, 4 * device + 4)
            (_, own), _ = alone(PARAMS, *(a[rows] for a in BATCH))
            names = ["value", "forward_rms", "backward_rms", "forward_entries"]
            names += ["gradient_norm"] if cast or not check else []
            for name in names:
                np.testing.assert_allclose(
                    getattr(stats, name)[device], getattr(own, name), 1e-5, 1e-7
                )
        print(f"check_vma={check}, cast={cast}", flush=True)


if __name__ == "__main__":
    main()
