"""Does the time to find, trace and compile the layers of a Python loop grow with depth?

A network of equal blocks that is written as a loop is a program of as many copies as it
has blocks. `gradstab.analyze` finds the copies and compiles one of them. Two networks:
tanh layers over a list of weights, and a transformer of Flax NNX modules in a list.
Each measurement is one `analyze` in a fresh process, by turns over the depths. The
clock runs while JAX traces, lowers or compiles anything, and while the layers are
found; what runs between (products, decompositions) grows with depth and is not counted.

Expected: at 64 tanh layers at most 1.5 of the time at 8. A transformer of 24 blocks is
a program of 1700 equations that must be traced before anything can be found equal in
it. Measured on two quiet cores: 1.07 for the layers, 1.08 for the transformer. Three
minutes.

    python -m experiments.benchmarks.compile_layers
"""

import dataclasses
import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import monitoring

import gradstab as gs
from experiments._run import print_table
from gradstab.network import find_layers
from gradstab.network.adapters import as_target


@dataclasses.dataclass(frozen=True)
class Config:
    """What is measured."""

    tanh_depths: tuple[int, int] = (8, 64)
    """Layers of the two tanh networks."""
    transformer_depths: tuple[int, int] = (6, 24)
    """Blocks of the two transformers."""
    repetitions: int = 3
    """How often each is measured, in a process of its own."""
    width: int = 128
    batch: int = 16


def tanh_layers(depth, config):
    """Equal layers in a loop over a list of weights."""
    keys = jax.random.split(jax.random.key(0), depth)
    scale = config.width**-0.5
    weights = [scale * jax.random.normal(k, (config.width,) * 2) for k in keys]

    def apply(weights, x):
        for w in weights:
            x = jnp.tanh(x @ w)
        return x

    return apply, weights, jnp.ones((config.batch, config.width))


class Block(nnx.Module):
    """Attention, then a feed-forward block; each normalises what enters it."""

    def __init__(self, width, rngs):
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(
            4, width, decode=False, deterministic=True, rngs=rngs
        )
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x):
        """Both parts, each added to what enters it."""
        x = x + self.attention(self.norms[0](x))
        return x + self.down(jax.nn.gelu(self.up(self.norms[1](x))))


class Transformer(nnx.Module):
    """Blocks in a list."""

    def __init__(self, depth, width, rngs):
        self.blocks = nnx.List([Block(width, rngs) for _ in range(depth)])

    def __call__(self, x):
        """Through all blocks."""
        for block in self.blocks:
            x = block(x)
        return x


def transformer(depth, config):
    """A transformer over four positions."""
    model = Transformer(depth, config.width // 4, nnx.Rngs(0))
    return model, jnp.ones((config.batch, 4, config.width // 4))


NETWORKS = {"tanh layers": tanh_layers, "transformer": transformer}


def measure(kind, depth, config):
    """Seconds: layers found, traced and compiled in all, and the whole analysis."""
    model, *args = NETWORKS[kind](depth, config)
    target = as_target(model, tuple(args))
    spans = []

    def listen(event, duration_secs, **_):
        if event.startswith("/jax/core/compile/"):
            now = time.perf_counter()
            spans.append((now - duration_secs, now))

    began = time.perf_counter()
    find_layers(target.apply, target.params, target.inputs, state=target.state)
    found = time.perf_counter() - began
    monitoring.register_event_duration_secs_listener(listen)
    began = time.perf_counter()
    gs.analyze(model, *args, progress=False)
    whole = time.perf_counter() - began
    return found, found + _covered(spans), whole


def _covered(spans):
    """The length of the union of intervals: traces lie inside one another."""
    total, end = 0.0, 0.0
    for first, last in sorted(spans):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


def in_fresh_process(kind, depth, config):
    """`measure` where nothing has been compiled."""
    fields = dataclasses.asdict(config)
    code = (
        "import json; from experiments.benchmarks.compile_layers import *; "
        f"print(json.dumps(measure({kind!r}, {depth}, Config(**{fields!r}))))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout.splitlines()[-1])


def run(config):
    """Per network and depth seconds ``(repetitions, 3)``, see `measure`."""
    depths = dict(
        zip(NETWORKS, (config.tanh_depths, config.transformer_depths), strict=True)
    )
    seconds = {(kind, depth): [] for kind in depths for depth in depths[kind]}
    for _ in range(config.repetitions):
        for kind, depth in seconds:
            seconds[kind, depth].append(in_fresh_process(kind, depth, config))
    return {key: np.array(rows) for key, rows in seconds.items()}


def table(config):
    """Medians in seconds, and the ratio to the smaller depth."""
    header = ["layers found", "compiled", "ratio", "whole analysis"]
    rows = [f"{'network':<20}" + "".join(f"{name:>16}" for name in header)]
    first = {}
    for (kind, depth), seconds in run(config).items():
        found, compiled, whole = np.median(seconds, axis=0)
        ratio = compiled / first.setdefault(kind, compiled)
        numbers = "".join(f"{x:>16.2f}" for x in (found, compiled, ratio, whole))
        rows.append(f"{f'{kind}, {depth}':<20}{numbers}")
    return "\n".join(rows)


if __name__ == "__main__":
    print_table(Config, table)
