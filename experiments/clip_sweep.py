"""Which threshold should a gradient be clipped at?

A tanh network over time on the adding problem (Pascanu et al., 2013, section 3.2: clip
at a norm that is read off the norms of a while), trained with plain SGD once for each
threshold and seed, all in one program: `jax.vmap` over both around one scan over the
steps. Beside the losses stand the share of steps that each threshold clips, and the
thresholds that the quantiles of the norms without clipping suggest. A loss is NaN where
a run diverged.

    python -m experiments.clip_sweep
    python -m experiments.clip_sweep --learning-rate 0.3 --steps 1000
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._run import print_table
from gradstab._tree import nodes_of
from gradstab.clipping import clip_by_global_norm, clip_fraction, recorded
from gradstab.clipping.recording import RecordedState


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the sweep."""

    thresholds: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf)
    """Global norms at which gradients are clipped."""
    num_seeds: int = 8
    steps: int = 400
    learning_rate: float = 0.1
    time_steps: int = 20
    width: int = 32
    batch_size: int = 32
    sigma_w: float = 1.3
    last: int = 50
    """Steps at the end over which the loss is averaged."""


def start(config, key):
    """Parameters of the network."""
    key_in, key_w, key_out = jax.random.split(key, 3)
    root = config.width**-0.5
    return {
        "in": jax.random.normal(key_in, (2, config.width)) * 2**-0.5,
        "w": jax.random.normal(key_w, (config.width,) * 2) * root * config.sigma_w,
        "out": jax.random.normal(key_out, (config.width,)) * root,
    }


def draw(config, key):
    """A batch of the adding problem: two of the numbers are marked, and summed."""
    key_x, key_first, key_second = jax.random.split(key, 3)
    shape, half = (config.batch_size, config.time_steps), config.time_steps // 2
    x = jax.random.uniform(key_x, shape)
    first = jax.random.randint(key_first, shape[:1], 0, half)
    second = jax.random.randint(key_second, shape[:1], half, config.time_steps)
    times = jnp.arange(config.time_steps)[None]
    marks = (times == first[:, None]) | (times == second[:, None])
    marks = marks.astype(x.dtype)
    return jnp.stack([x, marks], axis=-1), jnp.sum(x * marks, axis=1)


def loss(params, x, y):
    """Mean squared error of what the last state says."""

    def step(h, x):
        return jnp.tanh(x @ params["in"] + h @ params["w"]), None

    h = jnp.zeros((x.shape[0], params["w"].shape[0]))
    h, _ = jax.lax.scan(step, h, jnp.swapaxes(x, 0, 1))
    return jnp.mean(jnp.square(h @ params["out"] - y))


def train(config, threshold, seed):
    """Losses and norms before clipping ``(steps,)``, and the share of clipped steps."""
    clipper = recorded(clip_by_global_norm(threshold))
    optimizer = optax.chain(clipper, optax.sgd(config.learning_rate))
    first = seed * (config.steps + 1)  # a number of its own for every key
    params = start(config, jax.random.key(first))

    def step(carry, number):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(
            params, *draw(config, jax.random.key(number))
        )
        updates, state = optimizer.update(grads, state, params)
        (record,) = nodes_of(state, RecordedState)
        carry = optax.apply_updates(params, updates), state
        return carry, (value, record.pre_norm)

    numbers = first + 1 + jnp.arange(config.steps)
    (_, state), (losses, norms) = jax.lax.scan(
        step, (params, optimizer.init(params)), numbers
    )
    return losses, norms, clip_fraction(state)


def sweep(config):
    """`train` of all, ``(thresholds, seeds, ...)``, as one program."""
    of_seeds = jax.vmap(functools.partial(train, config), in_axes=(None, 0))
    every = jax.jit(jax.vmap(of_seeds, in_axes=(0, None)))
    thresholds = jnp.asarray(config.thresholds, jnp.float32)
    return jax.device_get(every(thresholds, jnp.arange(config.num_seeds)))


def suggested(norms):
    """The thresholds that clip one step in two, in ten and in a hundred."""
    finite = norms[np.isfinite(norms)]
    return np.quantile(finite, [0.5, 0.9, 0.99])


def table(config):
    """A row per threshold: loss at the end with its error over seeds, share clipped."""
    losses, norms, shares = sweep(config)
    ends = np.mean(losses[..., -config.last :], axis=-1)
    lines = ["| threshold | loss | error | clipped |", "|---|---|---|---|"]
    for threshold, end, share in zip(config.thresholds, ends, shares, strict=True):
        error = np.std(end, ddof=1) / np.sqrt(len(end)) if len(end) > 1 else np.nan
        end = f"{np.mean(end):.4f} | {error:.4f}"
        lines.append(f"| {threshold:g} | {end} | {np.mean(share):.1%} |")
    widest = int(np.argmax(config.thresholds))
    names = ("one step in two", "one in ten", "one in a hundred")
    said = [
        f"{threshold:.3g} clips {name}"
        for threshold, name in zip(suggested(norms[widest]), names, strict=True)
    ]
    largest = f"the norms at threshold {config.thresholds[widest]:g}"
    return "\n".join([*lines, "", f"By the quantiles of {largest}: {', '.join(said)}."])


if __name__ == "__main__":
    print_table(Config, table)
