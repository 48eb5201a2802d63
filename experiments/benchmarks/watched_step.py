"""What does a training step cost more when its gradients are watched?

The tanh network 784-300-50x4-10, batches of 200, Adam, float32, compiled once per way
of watching: not at all; a norm of the gradients of every layer, written by hand; the
statistics of `gradstab.value_and_grad` that ride on the layers' outputs; and all of
them at level light. Bytes and temporary memory are those that the compiler counts, of a
program without loops; seconds are CPU time, called in turn, medians. Expected: bytes at
most 1.10 of the bare step.

    python -m experiments.benchmarks.watched_step
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstab as gs
from experiments._run import print_table, progress


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    widths: tuple[int, ...] = (784, 300, 50, 50, 50, 50, 10)
    """Of the inputs, the layers and the outputs."""
    batch_size: int = 200
    turns: int = 20
    calls: int = 20
    """Steps that are timed at once."""


def loss(params, x, labels):
    """Cross entropy of the network."""
    *hidden, head = params
    for w, b in hidden:
        x = jnp.tanh(x @ w + b)
    logits = x @ head[0] + head[1]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.mean(losses)


def bare(params, *batch):
    """Nothing but the gradients."""
    value, grads = jax.value_and_grad(loss)(params, *batch)
    return grads, value


def by_hand(params, *batch):
    """The norm of every layer's gradient beside."""
    value, grads = jax.value_and_grad(loss)(params, *batch)
    return grads, (value, [optax.tree.norm(g) for g in grads])


def on_outputs(params, *batch):
    """What rides on the outputs of the layers."""
    (value, stats), grads = gs.value_and_grad(loss)(params, *batch)
    riding = (stats.forward_rms, stats.backward_rms)
    counts = (stats.forward_nonfinite, stats.backward_nonfinite)
    return grads, (value, riding, counts)


def watched(params, *batch):
    """Everything of level light."""
    (value, stats), grads = gs.value_and_grad(loss)(params, *batch)
    return grads, (value, stats)


STEPS = {
    "bare": bare,
    "norms by hand": by_hand,
    "on the layers' outputs": on_outputs,
    "level light": watched,
}


def compiled_step(gradients, params, state, optimizer, batch):
    """A step of training, compiled."""

    def step(params, state, *batch):
        grads, shown = gradients(params, *batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, shown

    return jax.jit(step).lower(params, state, *batch).compile()


def run(config):
    """Bytes accessed, temporary bytes and CPU seconds ``(turns,)``, by way."""
    keys = iter(jax.random.split(jax.random.key(0), len(config.widths) + 1))
    pairs = zip(config.widths[:-1], config.widths[1:], strict=True)
    params = [
        (jax.random.normal(next(keys), (n, m)) / np.sqrt(n), jnp.zeros(m))
        for n, m in pairs
    ]
    shape = config.batch_size, config.widths[0]
    batch = (
        jax.random.normal(next(keys), shape),
        jax.random.randint(next(keys), shape[:1], 0, config.widths[-1]),
    )
    optimizer = optax.adam(1e-3)
    state = optimizer.init(params)
    steps = {
        name: compiled_step(gradients, params, state, optimizer, batch)
        for name, gradients in STEPS.items()
    }

    def seconds(step):
        began = time.process_time()
        for _ in range(config.calls):
            jax.block_until_ready(step(params, state, *batch))
        return time.process_time() - began

    times = {name: [] for name in steps}
    for _ in progress(range(config.turns), "timing"):
        for name, step in steps.items():
            times[name].append(seconds(step))
    return {
        name: (*sizes_of(step), np.array(times[name])) for name, step in steps.items()
    }


def sizes_of(step):
    """Bytes accessed and temporary bytes, as the compiler counts them."""
    costs, memory = step.cost_analysis(), step.memory_analysis()
    assert costs is not None, "no counts on this device"
    assert memory is not None, "no counts on this device"
    return costs["bytes accessed"], memory.temp_size_in_bytes


def table(config):
    """A row per way of watching, of the bare step."""
    measured = run(config)
    all_bytes, _, bare_times = measured["bare"]
    lines = ["| step | bytes | CPU time | temporary KiB |", "|---|---|---|---|"]
    for name, (num_bytes, temporary, times) in measured.items():
        ratio = np.median(times / bare_times)
        lines.append(
            f"| {name} | {num_bytes / all_bytes:.3f} | {ratio:.2f} "
            f"| {temporary / 2**10:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print_table(Config, table)
