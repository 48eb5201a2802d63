"""Plants what is not finite, or a hundredfold jump, and prints how often it is named.

Run by a test, in a process of its own: the number of devices is fixed when JAX starts.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gradstab as gs

DEPTH, PARTS, WIDTH, LOCAL, DEVICES, STEPS = 4, 3, 8, 8, 8, 24
MESH = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))


@jax.custom_vjp
def plant(h, forward, backward):
    """Multiplies the data, or the gradient."""
    return h * forward


plant.defvjp(
    lambda h, forward, backward: (plant(h, forward, backward), backward),
    lambda backward, w: (w * backward, None, None),
)


def on_devices(part):
    """The mean over devices of a loss of the examples of one."""

    def loss(p, x, y, layer, iteration, device, forward, backward):
        def own(p, x, y):
            where = layer, iteration, device - jax.lax.axis_index("data")
            return jax.lax.pmean(part(p, x, y, where, forward, backward), "data")

        spread = jax.shard_map(
            own, mesh=MESH, in_specs=(P(), P("data"), P("data")), out_specs=P()
        )
        return spread(p, x, y)

    return jax.jit(gs.value_and_grad(loss, per=("iteration", "device")))


def factor(where, layer, iteration, size):
    """The factor at a place: one but for the place that is meant."""
    here = (where[0] == layer) & (where[1] == iteration) & (where[2] == 0)
    return jnp.where(here, size, 1)


@on_devices
def micro_batches(p, x, y, where, forward, backward):
    """Layers of a scan in micro-batches of a scan, rematerialised."""

    def part(total, given):
        i, x, y = given

        def layer(h, given):
            w, j = given
            sizes = (factor(where, j, i, size) for size in (forward, backward))
            return plant(jnp.tanh(h @ w), *sizes), None

        h, _ = jax.lax.scan(jax.checkpoint(layer), x, (p["blocks"], jnp.arange(DEPTH)))
        return total + jnp.mean((h @ p["head"] - y) ** 2), None

    parts = jnp.arange(PARTS), *(a.reshape(PARTS, -1, a.shape[-1]) for a in (x, y))
    start = jax.lax.pcast(jnp.zeros(()), "data", to="varying")
    return jax.lax.scan(part, start, parts)[0] / PARTS


@on_devices
def recurrent(p, x, y, where, forward, backward):
    """A recurrent layer, then one more."""

    def cell(h, given):
        x, t = given
        h = jnp.tanh(x @ p["cell"]["wx"] + h @ p["cell"]["wh"])
        sizes = (factor(where, 0, t, size) for size in (forward, backward))
        return plant(h, *sizes), None

    steps = x.reshape(PARTS, -1, WIDTH)
    h, _ = jax.lax.scan(cell, jnp.zeros_like(steps[0]), (steps, jnp.arange(PARTS)))
    h = jnp.tanh(h @ p["middle"])
    sizes = (factor(where, 1, 0, size) for size in (forward, backward))
    return jnp.mean((plant(h, *sizes) @ p["head"] - y[: h.shape[0]]) ** 2)


def params_of(draw):
    """Weights that keep the size of what they multiply."""
    size = WIDTH**-0.5

    def weights(*shape):
        return jnp.asarray(size * draw.normal(size=shape), jnp.float32)

    square = WIDTH, WIDTH
    return {
        "blocks": weights(DEPTH, *square),
        "cell": {"wx": weights(*square), "wh": weights(*square)},
        "middle": weights(*square),
        "head": weights(WIDTH, 2),
    }


def batch_of(draw):
    """Examples for all devices."""
    number = DEVICES * PARTS * LOCAL
    return [jnp.asarray(draw.normal(size=(number, n)), jnp.float32) for n in (WIDTH, 2)]


# Loss, layers that can be spoiled, iterations of each.
MODELS = {
    "micro-batches": (micro_batches, [f"blocks.{i}" for i in range(DEPTH)]),
    "recurrent": (recurrent, ["cell", "middle"]),
}


def expected(model, names, layer, iteration, device, part):
    """What is to be named."""
    at = (("data", device),)
    if model == "micro-batches":
        return names[layer], part, iteration, at
    if layer == 1:
        return names[1], part, None, at
    # The state before is the last whose gradient is spoiled.
    return names[0], part, iteration - (part == "backward"), at


def main():
    """A hundred plants; the first layer has no gradient before it to say where."""
    draw = np.random.default_rng(int(sys.argv[1]))
    params = params_of(draw)
    sound = -1, 0, 0, np.float32(1), np.float32(1)
    references = {}
    for name, (step, _) in MODELS.items():
        earlier = [step(params, *batch_of(draw), *sound)[0][1] for _ in range(STEPS)]
        assert all(stats.nonfinite() is None for stats in earlier)
        reference = jax.tree.map(lambda *x: np.stack(x), *earlier)
        references[name] = reference
        later = step(params, *batch_of(draw), *sound)[0][1]
        assert later.spike(reference) is None, later.spike(reference)
    right = 0
    for _ in range(100):
        name = draw.choice(list(MODELS))
        part = str(draw.choice(["forward", "backward"]))
        step, names = MODELS[name]
        size = np.float32(draw.choice([np.nan, np.inf, 100]))
        first = 1 if part == "backward" else 0
        layer, device = int(draw.integers(len(names))), int(draw.integers(DEVICES))
        iteration = int(draw.integers(PARTS))
        if name == "micro-batches":
            layer = int(draw.integers(first, len(names)))
        elif layer == 0:
            iteration = int(draw.integers(first, PARTS))
        else:
            iteration = 0
        sizes = (size, np.float32(1)) if part == "forward" else (np.float32(1), size)
        where = layer, iteration, device
        (_, stats), _ = step(params, *batch_of(draw), *where, *sizes)
        spiked = np.isfinite(size)
        found = stats.spike(references[name]) if spiked else stats.nonfinite()
        wanted = expected(name, names, layer, iteration, device, part)
        if found is not None and tuple(found[:4]) == wanted:
            right += 1
        else:
            print(name, size, "planted", wanted, "found", found)
    print(right)


if __name__ == "__main__":
    main()
