"""Prints, for every way of spreading a step over eight devices, that it agrees.

Run by a test, in a process of its own: the number of devices is fixed when JAX starts.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradstab as gs

WIDE = sys.argv[1] == "float64"
jax.config.update("jax_enable_x64", WIDE)
RTOL, ATOL = (1e-12, 1e-14) if WIDE else (1e-5, 1e-6)

draw = np.random.default_rng(0)
PARAMS = {
    "blocks": jnp.asarray(draw.normal(size=(3, 16, 16)) / 4, sys.argv[1]),
    "head": jnp.asarray(draw.normal(size=(16, 2)), sys.argv[1]),
}
BATCH = [jnp.asarray(draw.normal(size=(32, n)), sys.argv[1]) for n in (16, 2)]


def loss(p, x, y):
    """Three layers in a scan, made again on the way back, and a head."""

    def layer(h, w):
        return jnp.tanh(h @ w), None

    h, _ = jax.lax.scan(jax.checkpoint(layer), x, p["blocks"])
    return jnp.mean((h @ p["head"] - y) ** 2)


def accumulated(p, x, y):
    """The same from four micro-batches."""

    def part(total, given):
        return total + loss(p, *given), None

    parts = x.reshape(8, 4, 16).swapaxes(0, 1), y.reshape(8, 4, 2).swapaxes(0, 1)
    return jax.lax.scan(part, jnp.zeros((), x.dtype), parts)[0] / 4


def by_device(mesh, batch, p_specs, part, check=True):
    """A loss as a program for each device."""

    def spread(p, x, y):
        specs = (p_specs, P(batch), P(batch))
        return jax.shard_map(
            part, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=check
        )(p, x, y)

    return spread


def mean_over(axes, inner=loss):
    """A loss of the examples of one device, and the mean over all."""
    return lambda p, x, y: jax.lax.pmean(inner(p, x, y), axes)


def split_by_columns(p, x, y):
    """Layers whose columns are on several devices, and a head whose rows are."""

    def layer(h, w):
        whole = jax.lax.pcast(jnp.zeros_like(h), "model", to="varying")
        start = jax.lax.axis_index("model") * w.shape[1]
        own = jax.lax.dynamic_update_slice_in_dim(whole, jnp.tanh(h @ w), start, 1)
        return jax.lax.psum(own, "model"), None

    h, _ = jax.lax.scan(layer, x, p["blocks"])
    i, n = jax.lax.axis_index("model"), p["head"].shape[0]
    own = jax.lax.dynamic_slice_in_dim(h, i * n, n, 1)
    out = jax.lax.psum(own @ p["head"], "model")
    return jax.lax.pmean(jnp.mean((out - y) ** 2), "data")


def gathered_before(p, x, y):
    """Layers behind a gathering, whose type does not say that all have the same."""

    def layer(h, w):
        return jnp.tanh(jax.lax.all_gather(h @ w, "model", axis=1, tiled=True)), None

    h = jax.lax.pcast(x, "model", to="varying")
    h, _ = jax.lax.scan(layer, h, p["blocks"])
    out = h @ p["head"]
    return jax.lax.pmean(jnp.mean((out - y) ** 2), ("data", "model"))


def step(function):
    """All statistics, and the gradients."""

    @jax.jit
    def run(p, x, y):
        watched = gs.value_and_grad(function, level="full")
        (value, stats), grads = watched(p, x, y)
        return value, stats.with_updates(grads, p), grads

    return run


def agrees(name, found, alone):
    """Compare, but for what says where a layer stands."""
    assert found[1].names == alone[1].names, (found[1].names, alone[1].names)
    for ours, other in zip(*map(jax.tree.leaves, (found, alone)), strict=True):
        np.testing.assert_allclose(ours, other, RTOL, ATOL, err_msg=name)
    print(name, flush=True)


def main():
    """All ways, one after the other."""
    auto, explicit = AxisType.Auto, AxisType.Explicit
    alone = step(loss)(PARAMS, *BATCH)
    tensor = P(None, None, "model"), P("model")
    layouts = {
        "data": ((8, 1), auto, P("data"), P(), P()),
        "tensor": ((1, 8), auto, P(), *tensor),
        "both": ((2, 4), auto, P("data"), *tensor),
        "explicit data": ((8, 1), explicit, P("data"), P(), P()),
        "explicit tensor": ((2, 4), explicit, P("data"), P(None, None, "model"), P()),
    }
    for name, (shape, kind, batch, blocks, head) in layouts.items():
        mesh = jax.make_mesh(shape, ("data", "model"), axis_types=(kind, kind))

        def put(a, spec, mesh=mesh):
            return jax.device_put(a, NamedSharding(mesh, spec))

        q = {"blocks": put(PARAMS["blocks"], blocks), "head": put(PARAMS["head"], head)}
        given = [put(a, batch) for a in BATCH]
        ways = {name: loss}
        if kind is auto:
            ways[f"{name}, accumulated"] = accumulated
        if name == "explicit tensor":
            # The scan wants a carry that keeps its layout.
            ways = {name: columns_again(P("data"))}
        with jax.set_mesh(mesh):
            for way, function in ways.items():
                found = step(function)(q, *given)
                assert len(found[2]["blocks"].devices()) == 8
                agrees(way, as_one(found, alone), alone)
    by_hand(alone)


def columns_again(spec):
    """The loss with activations laid out again behind each layer."""

    def again(p, x, y):
        def layer(h, w):
            return jax.sharding.reshard(jnp.tanh(h @ w), spec), None

        h, _ = jax.lax.scan(jax.checkpoint(layer), x, p["blocks"])
        return jnp.mean((h @ p["head"] - y) ** 2)

    return again


def as_one(found, alone):
    """On one device; of which statistics are which iterations is left as it is."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(found)]
    return jax.tree.unflatten(jax.tree.structure(found), leaves)


def by_hand(alone):
    """Every way of `jax.shard_map`."""
    one = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    two = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    columns = {"blocks": P(None, None, "model"), "head": P("model")}
    gathering = {"blocks": P(None, None, "model"), "head": P()}
    for check in (True, False):
        ways = {
            "shard_map": by_device(one, "data", P(), mean_over("data"), check),
            "shard_map over two axes": by_device(
                two, ("data", "model"), P(), mean_over(("data", "model")), check
            ),
            "shard_map with copies": by_device(
                two, "data", P(), mean_over("data"), check
            ),
            "shard_map, gathered": by_device(
                two, "data", gathering, gathered_before, check
            ),
        }
        if check:
            ways["shard_map by columns"] = by_device(
                two, "data", columns, split_by_columns
            )
        for name, function in ways.items():
            found = step(function)(PARAMS, *BATCH)
            agrees(f"{name}, check_vma={check}", as_one(found, alone), alone)


if __name__ == "__main__":
    main()
