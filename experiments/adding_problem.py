r"""Which recurrent networks learn to add two numbers that are far apart?

Hochreiter and Schmidhuber (1997) in the form of Arjovsky et al. (2016) and Le et al.
(2015): a sequence of random numbers, two of them marked; the target is their sum. Not
to look costs a mean squared error of 1/6. Expected, with 64 units, batches of 32 and
Adam, clipped to a norm of 1: an LSTM with a forget bias of 1 is below 0.02 within 1500
steps at T = 100, an identity RNN (Le et al. 2015) at T = 50 too, and a tanh RNN is not
at T = 50. Every example is new, so the loss of a batch is a test; steps are counted in
means over 50 of them. Four minutes on one core.

    python -m experiments.adding_problem
"""

import dataclasses

import numpy as np
import optax
from flax import nnx

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

SOURCES = {
    "lstm": "Hochreiter and Schmidhuber 1997; Jozefowicz et al. 2015",
    "identity": "Le et al. 2015",
    "tanh": "Le et al. 2015",
}
LEARNT = 0.02
WINDOW = 50
init = gs.initializers


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; each cell has its length and learning rate."""

    cells: tuple[str, ...] = ("lstm", "identity", "tanh")
    """Recurrent cells that are trained; each has its length and its rate."""
    lengths: tuple[int, ...] = (100, 50, 50)
    """Time steps of the sequences, for each cell."""
    rates: tuple[float, ...] = (3e-3, 1e-3, 1e-3)
    """Learning rate of each cell."""
    hidden: int = 64
    batch: int = 32
    num_steps: int = 1500
    """Training steps of each cell."""
    forget_bias: float = 1.0
    """Bias of the LSTM's forget gates at the start."""
    recurrent: float = 1.0
    """Factor of the recurrent weights at the start."""
    seed: int = 0


def run(config):
    """The loss of every step of every cell."""
    settings = zip(config.cells, config.lengths, config.rates, strict=True)
    each = progress(list(settings), "cells")
    return {cell: _losses(config, cell, *other) for cell, *other in each}


def _losses(config, cell, length, rate):
    num = config.batch * config.num_steps
    data = gs.data.adding_problem(num, length, config.seed)
    optimizer = optax.chain(gs.clipping.clip_by_global_norm(1.0), optax.adam(rate))
    fitted = gs.training.fit(
        _model(config, cell),
        data,
        optimizer=optimizer,
        loss=gs.training.mean_squared_error,
        batch_size=config.batch,
        num_steps=config.num_steps,
        seed=config.seed,
        progress=False,
    )
    return fitted.history["loss"]


def _model(config, cell):
    options = {
        "hidden": config.hidden,
        "kernel_init": init.lecun_normal(),
        "rngs": nnx.Rngs(config.seed),
    }
    if cell == "lstm":
        options |= {"recurrent_init": init.orthogonal(config.recurrent)}
        return gs.models.LSTM(2, 1, forget_bias=config.forget_bias, **options)
    if cell == "tanh":
        options |= {"recurrent_init": init.orthogonal(config.recurrent)}
        return gs.models.RNN(2, 1, activation="tanh", **options)
    # Le et al. take 1e-3 and days; so small a signal takes thousands of steps to rise.
    identity = init.identity_rnn(config.recurrent)
    options |= {"recurrent_init": identity, "kernel_init": init.normal(0.1)}
    return gs.models.RNN(2, 1, activation="relu", **options)


def windows(losses):
    """Means over stretches of as many steps as `WINDOW`."""
    length = min(WINDOW, len(losses))
    whole = len(losses) // length * length
    return losses[:whole].reshape(-1, length).mean(axis=1)


def claims(config, arrays):
    """Who learnt it, and who did not."""
    found = []
    for cell, length in zip(config.cells, config.lengths, strict=True):
        means = windows(arrays[cell])
        reached = means < LEARNT
        at = WINDOW * (1 + np.argmax(reached)) if reached.any() else np.inf
        learns = (0, config.num_steps), (config.num_steps, np.inf)
        found.append(
            claim(
                f"steps until {cell} adds at T = {length} with an error below {LEARNT}",
                *(at, config.num_steps),
                **{"between": learns[cell == "tanh"], "source": SOURCES[cell]},
            )
        )
    return found


def plot(config, arrays):
    """Losses against steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for cell, length in zip(config.cells, config.lengths, strict=True):
        means = windows(arrays[cell])
        steps = (1 + np.arange(len(means))) * WINDOW
        axes.plot(steps, means, label=f"{cell}, T = {length}")
    axes.axhline(1 / 6, color="black", linestyle=":", label="always 1")
    axes.set_title("the adding problem", fontsize="medium")
    axes.set(yscale="log", xlabel="step", ylabel="mean squared error")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
