"""What does a training step cost more when its gradients are watched?

Four networks, `experiments.benchmarks.watched_networks`, Adam, float32, parameters and
state given away, each step compiled once per way of watching: not at all; with
`gradstab.value_and_grad` whose statistics nobody reads; level light, and what ``per=``
adds to it; and beside it norms of the gradients of every layer by hand, and all that
level light has through one `jax.debug.callback`. Bytes accessed and temporary memory
are those that the compiler counts; seconds are of the wall, called in turn, with the
median of the ratios and, in brackets, the upper bound of a 95 % interval of it.
Expected of level light: bytes at most 1.10, memory 1.05, seconds 1.10 (1.20) of the
bare step; and that the program of the bare step is the same, as text, before and after.

    python -m experiments.benchmarks.watched_step
    python -m experiments.benchmarks.watched_step --torch python   # one that has torch
"""

import dataclasses
import functools
import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import gradstab as gs
from experiments._run import print_table, progress
from experiments.benchmarks.watched_networks import NETWORKS


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    networks: tuple[str, ...] = tuple(NETWORKS)
    """Which of them."""
    turns: int = 60
    calls: int = 5
    """Steps that are timed at once."""
    torch: str = ""
    """A Python that has torch, for the row of its hooks."""


def bare(loss, params, *batch):
    """Nothing but the gradients."""
    value, grads = jax.value_and_grad(loss)(params, *batch)
    return grads, value


def by_hand(loss, params, *batch):
    """The norm of every leaf's gradient beside."""
    value, grads = jax.value_and_grad(loss)(params, *batch)
    return grads, (value, jax.tree.map(optax.tree.norm, grads))


def unread(loss, params, *batch):
    """Watched, but nobody reads it."""
    (value, _), grads = gs.value_and_grad(loss)(params, *batch)
    return grads, value


def watched(loss, params, *batch, per=()):
    """Everything of level light."""
    (value, stats), grads = gs.value_and_grad(loss, per=per)(params, *batch)
    return grads, (value, stats)


def called_back(loss, params, *batch):
    """What level light has, handed to Python at every step."""
    grads, (value, stats) = watched(loss, params, *batch)
    jax.debug.callback(lambda *_: None, *jax.tree.leaves(stats))
    return grads, value


WAYS = {
    "bare": bare,
    "watched, not read": unread,
    "level light": watched,
    'light, per="example"': functools.partial(watched, per=("example",)),
    'light, per="iteration"': functools.partial(watched, per=("iteration",)),
    "norms by hand": by_hand,
    "light by jax.debug.callback": called_back,
}


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with its optimiser, and the steps that train it."""

    loss: Callable
    params: Any
    batch: tuple
    optimizer: optax.GradientTransformation = dataclasses.field(
        default_factory=lambda: optax.adam(1e-3)
    )

    def lowered(self, way):
        """A step of training, not compiled yet."""

        def step(params, state, *batch):
            grads, shown = way(self.loss, params, *batch)
            updates, state = self.optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state, shown

        state = self.optimizer.init(self.params)
        given_away = jax.jit(step, donate_argnums=(0, 1))
        return given_away.lower(self.params, state, *self.batch)

    def start(self):
        """Parameters and state that may be given away."""
        params = jax.tree.map(lambda x: x.copy(), self.params)
        return params, self.optimizer.init(params)


def run(config):
    """By network and way: bytes, temporary bytes, wall seconds ``(turns,)``."""
    found = {}
    for name in config.networks:
        network = Network(*NETWORKS[name]())
        before = network.lowered(bare).as_text()
        steps = {way: network.lowered(f).compile() for way, f in WAYS.items()}
        assert network.lowered(bare).as_text() == before, "watching leaves a trace"
        times = _times(network, steps, config, name)
        found[name] = {w: (*sizes_of(s), times[w]) for w, s in steps.items()}
    return found


def _times(network, steps, config, name):
    held = {way: network.start() for way in steps}
    times = {way: [] for way in steps}
    for turn in progress(range(-1, config.turns), f"timing {name}"):
        # Another order in every turn: what came before leaves the caches to a step.
        for way in np.random.default_rng(turn + 1).permutation(list(steps)):
            began = time.perf_counter()
            for _ in range(config.calls):
                *held[way], shown = steps[way](*held[way], *network.batch)
                jax.block_until_ready((held[way], shown))
            if turn >= 0:
                times[way].append(time.perf_counter() - began)
    return {way: np.array(seconds) for way, seconds in times.items()}


def sizes_of(step):
    """Bytes accessed and temporary bytes, as the compiler counts them."""
    costs, memory = step.cost_analysis(), step.memory_analysis()
    assert costs is not None, "no counts on this device"
    assert memory is not None, "no counts on this device"
    return costs["bytes accessed"], memory.temp_size_in_bytes


def of_ratios(ratios):
    """The median, and the upper bound of its 95 % interval, by resampling turns."""
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    return np.median(ratios), np.quantile(np.median(drawn, axis=1), 0.975)


def torch_hooks(config):
    """The row of Torch's hooks: seconds of its own bare step."""
    command = [config.torch, "experiments/benchmarks/torch_hooks.py"]
    command += [str(config.turns), str(config.calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    median, upper = of_ratios(np.array(json.loads(done.stdout)))
    return (
        f"| mlp | Torch hooks, of Torch's bare step | | | {median:.2f} ({upper:.2f}) |"
    )


def table(config):
    """A row per network and way of watching, of the bare step."""
    lines = ["| network | step | bytes | memory | seconds |", "|---|---|---|---|---|"]
    for name, ways in run(config).items():
        all_bytes, all_temporary, bare_times = ways["bare"]
        for way, (num_bytes, temporary, times) in ways.items():
            median, upper = of_ratios(times / bare_times)
            lines.append(
                f"| {name} | {way} | {num_bytes / all_bytes:.3f} "
                f"| {temporary / all_temporary:.3f} | {median:.2f} ({upper:.2f}) |"
            )
    return "\n".join([*lines, torch_hooks(config)] if config.torch else lines)


if __name__ == "__main__":
    print_table(Config, table)
