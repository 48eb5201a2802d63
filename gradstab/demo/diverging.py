"""A training whose learning rate goes on growing when it has been warmed up.

Mended, the rate stays where it was to stay. The loop is that of a user: the one line
that is gradstab's stands where `jax.value_and_grad` would.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradstab import data
from gradstab.training.alarms import Alarms
from gradstab.watch import Attribution, History, value_and_grad

RATE, WARM, GROWTH = 0.05, 40, 0.03
WIDTH, BLOCKS, BATCH, STEPS = 32, 3, 512, 150


class Run(NamedTuple):
    """A training that is stopped by the first alarm.

    Attributes:
        history: of the steps up to the alarm.
        alarms: what is said of the last of them; none if no alarm rings.
        losses: of these steps and, in the run that nobody stops, of those after them,
            ``(steps,)``.
        diverged: the first step, from 1, after which that run's loss is above where it
            began, or is no number; None if there is none.
    """

    history: History
    alarms: list[str]
    losses: np.ndarray
    diverged: int | None

    @property
    def attribution(self) -> Attribution:
        """Which layers drive the growth of the gradient's norm."""
        return self.history.attribute()


def apply(params, x):
    """A residual network with a head."""
    h = x @ params["embed"]
    for block in params["blocks"]:
        h = h + jnp.tanh(h @ block["up"]) @ block["down"]
    return h @ params["head"]


def examine(folder, /, *, growth: float = GROWTH) -> Run:
    """Train until an alarm rings, and see what would have come.

    Args:
        folder: for the history.
        growth: by which share the learning rate grows at every step from the 41st on.
    """
    digits, rng = data.load("digits"), np.random.default_rng(1)
    x, y = (np.asarray(a) for a in (digits.x_train, digits.y_train))

    def rate(count):
        return RATE * (1 + growth) ** jnp.maximum(jnp.float32(count) - WARM, 0.0)

    def loss(params, x, y):
        logits = apply(params, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def step(params, state, x, y):
        (value, stats), gradients = value_and_grad(loss)(params, x, y)
        updates, state = tx.update(gradients, state)
        stats = stats.with_updates(updates, params)
        return optax.apply_updates(params, updates), state, value, stats

    tx, params = optax.sgd(rate), _initial(rng, x.shape[1])
    state, history, alarms = tx.init(params), History(folder), Alarms()
    losses, said = [], []
    for number in range(1, STEPS + 1):
        rows = rng.integers(0, len(x), BATCH)
        params, state, value, stats = step(params, state, x[rows], y[rows])
        losses.append(float(value))
        if not said:
            history.append(number, stats)
            said = alarms.look(number, jax.device_get(stats), {})
        if not losses[-1] < 2 * losses[0]:
            break
    above = [i for i, value in enumerate(losses, 1) if not value <= losses[0]]
    return Run(history, said, np.array(losses), above[0] if above else None)


def _initial(rng, num_inputs: int):
    """Weights whose layers keep the size of a signal, those of a branch by half."""

    def dense(num_in: int, num_out: int, scale: float = 1.0):
        weights = scale / math.sqrt(num_in) * rng.normal(size=(num_in, num_out))
        return jnp.asarray(weights, jnp.float32)

    blocks = [
        {"up": dense(WIDTH, WIDTH, math.sqrt(2)), "down": dense(WIDTH, WIDTH, 0.5)}
        for _ in range(BLOCKS)
    ]
    embed, head = dense(num_inputs, WIDTH), dense(WIDTH, 10, 0.5)
    return {"embed": embed, "blocks": blocks, "head": head}
