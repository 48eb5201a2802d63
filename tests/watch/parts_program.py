"""Prints, for every layout of a batch over eight devices, that parts stay there.

Run by a test, in a process of its own: the number of devices is fixed when JAX starts.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradstab as gs

draw = np.random.default_rng(0)
PARAMS = jnp.asarray(draw.normal(size=(16, 2)), jnp.float32)
X, Y = (jnp.asarray(draw.normal(size=(32, n)), jnp.float32) for n in (16, 2))


def loss(w, x, y):
    """Of a linear model behind a tanh."""
    return jnp.mean((jnp.tanh(x) @ w - y) ** 2)


@jax.jit
def norms(w, x, y):
    """Of eight parts."""
    return gs.watch.part_norms(loss, w, x, y, num_parts=8)


def main():
    """All layouts, one after the other."""
    alone = norms(PARAMS, X, Y)
    layouts = {
        "auto": ((8, 1), AxisType.Auto, P()),
        "auto, model too": ((4, 2), AxisType.Auto, P("model")),
        "explicit": ((8, 1), AxisType.Explicit, P()),
    }
    for name, (shape, kind, spec) in layouts.items():
        mesh = jax.make_mesh(shape, ("data", "model"), axis_types=(kind, kind))

        def put(a, spec, mesh=mesh):
            return jax.device_put(a, NamedSharding(mesh, spec))

        args = put(PARAMS, spec), put(X, P("data")), put(Y, P("data"))
        with jax.set_mesh(mesh):
            found = norms(*args)
            text = norms.lower(*args).compile().as_text()
        for ours, other in zip(*map(jax.tree.leaves, (found, alone)), strict=True):
            np.testing.assert_allclose(ours, other, 1e-5, err_msg=name)
        if spec == P():
            assert "all-to-all" not in text, name
            assert "collective-permute" not in text, name
        print(name, flush=True)


if __name__ == "__main__":
    main()
