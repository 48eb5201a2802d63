"""Does compile time grow with depth?

Parameters of equal layers lie in one array and a scan runs over them, so the compiler
sees one layer. Expected: a training step (loss, gradients, batch statistics, random
streams) of a network with batch normalisation and dropout takes no more than twice as
long to trace, lower and compile at depth 1000 as at depth 10. Depths take turns, so
that other work on the machine slows both alike. Two and a half minutes on one CPU.

    python -m experiments.benchmarks.compile_depth
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments._run import print_table
from gradstab.models import build

IN_SHAPES = {"mlp": (64,), "resnet": (64,), "lstm": (20, 8), "transformer": (20, 8)}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    kinds: tuple[str, ...] = tuple(IN_SHAPES)
    """Kinds of models."""
    depths: tuple[int, ...] = (10, 100, 1000)
    repetitions: int = 7
    """How often each is compiled."""
    width: int = 64
    batch: int = 32


def training_step(kind, depth, config):
    """The step of one network as a jit-compiled function, and its arguments."""
    in_shape = IN_SHAPES[kind]
    norm = "batch" if kind in ("mlp", "resnet") else None  # None: the kind's own
    model = build(
        kind,
        in_shape=in_shape,
        num_outputs=10,
        depth=depth,
        width=config.width,
        norm=norm,
        dropout=0.1,
    )
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, rest, x):
        model = nnx.merge(graphdef, params, rest, copy=True)
        return jnp.mean(jnp.square(model(x))), nnx.state(model, nnx.Not(nnx.Param))

    x = jnp.ones((config.batch, *in_shape))
    return jax.value_and_grad(loss, has_aux=True), (params, rest, x)


def seconds_to_compile(step, arguments):
    """From the Python function to the executable, nothing cached."""
    jax.clear_caches()
    start = time.perf_counter()
    jax.jit(step).lower(*arguments).compile()
    return time.perf_counter() - start


def run(config):
    """Seconds ``(repetitions, depths)`` for every kind of network."""
    seconds = {}
    for kind in config.kinds:
        steps = [training_step(kind, depth, config) for depth in config.depths]
        seconds_to_compile(*steps[0])  # the first compilation warms up the compiler
        seconds[kind] = np.array(
            [
                [seconds_to_compile(*step) for step in steps]
                for _ in range(config.repetitions)
            ]
        )
    return seconds


def table(config):
    """Medians in seconds, and the median and largest ratio within a turn."""
    header = [f"depth {depth}" for depth in config.depths]
    header += [f"{config.depths[-1]} / {config.depths[0]}", "largest"]
    rows = [f"{'network':<12}" + "".join(f"{name:>12}" for name in header)]
    for kind, seconds in run(config).items():
        ratios = seconds[:, -1] / seconds[:, 0]
        numbers = [*np.median(seconds, axis=0), np.median(ratios), ratios.max()]
        rows.append(f"{kind:<12}" + "".join(f"{n:>12.2f}" for n in numbers))
    return "\n".join(rows)


if __name__ == "__main__":
    print_table(Config, table)
