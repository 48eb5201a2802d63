r"""Can a recurrent network read an image as a sequence?

Le et al. (2015) feed MNIST pixel by pixel, 784 steps, and train for days; here an image
is a sequence of 28 rows, in the order of the image or with all pixels permuted, and
training takes minutes: the question is who learns at all, and how fast, not who wins.
Expected after one epoch of batches of 100: the LSTM and the identity RNN above a
validation accuracy of 0.9 on the rows, the LSTM above the tanh RNN in both orders, and
less accuracy after a permutation, as neighbours in the image are no longer neighbours
in time. Measured (seed 0): LSTM 0.962 and 0.930 permuted, identity RNN 0.910 and 0.891,
tanh RNN 0.896 and 0.914: it alone gains by the permutation, likely because its memory
is short, and the last rows of an image are blank. Needs the files of MNIST
(`gradstab.data.load`); ``--data digits`` does not: 8 rows of 8 pixels. Three minutes on
two busy cores.

    python -m experiments.sequential_mnist
"""

import dataclasses

import numpy as np
import optax
from flax import nnx

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

LE = "Le et al. 2015, section 4.2, shortened"
init = gs.initializers


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``permuted`` runs the second order too."""

    data: str = "mnist"
    cells: tuple[str, ...] = ("lstm", "identity", "tanh")
    """Recurrent cells that are trained; each has its rate."""
    rates: tuple[float, ...] = (3e-3, 1e-3, 1e-3)
    """Learning rate of each cell."""
    hidden: int = 64
    batch: int = 100
    num_steps: int = 550
    """Training steps of each cell."""
    validate_every: int = 50
    """Training steps between two validations."""
    permuted: bool = True
    """Train on pixels in a random order too."""
    threshold: float = 1.0
    """Bound of the gradient's norm."""
    seed: int = 0


def run(config):
    """Validation accuracies along training, for every cell and order."""
    data = gs.data.load(config.data)
    orders = {"rows": data.rows()}
    if config.permuted:
        orders["permuted"] = data.permuted(config.seed).rows()
    found = {}
    for cell, lr in progress(zip(config.cells, config.rates, strict=True), "cells"):
        for order, images in orders.items():
            found[f"{cell}_{order}"] = _accuracies(config, cell, lr, images)
    return found


def _accuracies(config, cell, lr, images):
    clipper = gs.clipping.clip_by_global_norm(config.threshold)
    fitted = gs.training.fit(
        *(_model(config, cell, images.input_shape[-1]), images),
        optimizer=optax.chain(clipper, optax.adam(lr)),
        batch_size=config.batch,
        num_steps=config.num_steps,
        validate_every=config.validate_every,
        seed=config.seed,
        progress=False,
    )
    validated = fitted.history["val_accuracy"]
    return validated[np.isfinite(validated)]


def _model(config, cell, features):
    options = {
        "hidden": config.hidden,
        "kernel_init": init.lecun_normal(),
        "recurrent_init": init.orthogonal(),
        "rngs": nnx.Rngs(config.seed),
    }
    if cell == "lstm":
        return gs.models.LSTM(features, 10, forget_bias=1.0, **options)
    if cell == "tanh":
        return gs.models.RNN(features, 10, activation="tanh", **options)
    options |= {"recurrent_init": init.identity_rnn()}
    options |= {"kernel_init": init.normal(1e-2), "head_init": init.lecun_normal()}
    return gs.models.RNN(features, 10, activation="relu", **options)


def claims(config, arrays):
    """Accuracies on rows, who is better, and what a permutation costs."""
    last = {name: accuracies[-1] for name, accuracies in arrays.items()}
    learnt = [
        claim(
            f"validation accuracy on rows after {config.num_steps} steps, {cell}",
            *(last[f"{cell}_rows"], 0.9),
            **{"between": (0.9, 1), "source": LE},
        )
        for cell in config.cells
        if cell != "tanh"
    ]
    differences = [
        ("lstm_rows", "tanh_rows"),
        ("lstm_permuted", "tanh_permuted"),
        ("lstm_rows", "lstm_permuted"),
        ("identity_rows", "identity_permuted"),
    ]
    better = [
        claim(
            f"accuracy of {more} less that of {less}".replace("_", " on "),
            *(last[more] - last[less], 0),
            **{"between": (0, 1), "source": LE},
        )
        for more, less in differences
        if more in last and less in last
    ]
    return [*learnt, *better]


def plot(config, arrays):
    """Accuracies against steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for i, cell in enumerate(config.cells):
        for order, style in (("rows", "-"), ("permuted", "--")):
            if f"{cell}_{order}" in arrays:
                accuracies = arrays[f"{cell}_{order}"]
                steps = np.linspace(0, config.num_steps, len(accuracies) + 1)[1:]
                label = f"{cell}, {order}"
                axes.plot(steps, accuracies, f"C{i}{style}", label=label)
    axes.set_title("images read piece by piece", fontsize="medium")
    axes.set(xlabel="step", ylabel="validation accuracy")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
