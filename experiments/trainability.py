"""How deep can a tanh network be and still learn? Not much more than six xi_c.

Schoenholz, Gilmer, Ganguli and Sohl-Dickstein (2017), Deep information propagation,
section 5 and figure 5: a network learns if its depth is at most about six times the
depth scale xi_c over which the correlation of two inputs settles, whatever the
training. Here: 10,000 images of MNIST scaled to a mean square of 1, width 300, biases
of variance 0.05, SGD at 0.01, 300 steps of 128 examples. Expected: depth 80 learns at
the critical sigma_w^2 = 1.76 (training accuracy above 0.8) and not at 1.3 (10 xi_c) or
2.5 (6.8 xi_c; below 0.4); depth 40 learns at 1.3 (5.1 xi_c). xi_c is computed for each,
by gs.theory.mean_field. Two minutes on one core.

The scale of the images matters at the edges: of pixels in [0, 1] the critical network
has learnt 0.76 and 0.87 after 300 steps, with two seeds; of standardised ones 0.88 to
0.92, but then the one at 6.8 xi_c is at 0.399.

    python -m experiments.trainability --depths 20 20 --squares 1.0 4.0
"""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

SCHOENHOLZ = "Schoenholz et al. 2017"
RULE = 6  # xi_c
# Training accuracies by depth and sigma_w^2, measured beforehand with one seed.
BEFOREHAND = {
    (80, 1.76): 0.899,
    (80, 1.3): 0.185,
    (80, 2.5): 0.218,
    (40, 1.3): 0.911,
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of the experiment; every depth has its own scale of the weights."""

    data: str = "mnist"  # or digits
    depths: tuple[int, ...] = tuple(depth for depth, _ in BEFOREHAND)
    squares: tuple[float, ...] = tuple(square for _, square in BEFOREHAND)
    """sigma_w^2 of each depth."""
    bias: float = 0.05
    """sigma_b^2."""
    width: int = 300
    skip: bool = False
    """Add skip connections, for which the rule does not hold."""
    examples: int = 10_000
    steps: int = 300
    batch_size: int = 128
    learning_rate: float = 0.01
    seed: int = 0


def run(config):
    """Depths in units of xi_c, losses while training, accuracies after it."""
    data = gs.data.load(config.data, num_train=config.examples)
    x = data.x_train / np.sqrt(np.mean(data.x_train**2))
    data = dataclasses.replace(data, x_train=x)
    cells = list(zip(config.depths, config.squares, strict=True))
    scales = [_field(config, square).xi_c for _, square in cells]
    runs = [_train(config, data, *cell) for cell in progress(cells, "networks")]
    losses, accuracies = zip(*runs, strict=True)
    return {
        "ratios": np.divide(config.depths, scales),
        "losses": np.stack(losses),
        "accuracies": np.array(accuracies),
    }


def _field(config, square):
    return gs.theory.mean_field(jnp.tanh, square**0.5, config.bias**0.5)


def _train(config, data, depth, square):
    model = gs.models.MLP(
        data.input_shape[0],
        data.num_outputs,
        widths=(config.width,) * depth,
        activation="tanh",
        kernel_init=_kernel_init(square),
        bias_init=_bias_init(config.bias),
        skip=config.skip,
        rngs=nnx.Rngs(config.seed),
    )
    run = gs.training.fit(
        model,
        (data.x_train, data.y_train),
        optimizer=_sgd(config.learning_rate),
        num_steps=config.steps,
        batch_size=config.batch_size,
        seed=config.seed,
        progress=False,
    )
    held = gs.training.evaluate(run.model, data.x_train, data.y_train)
    return run.history["loss"], held["accuracy"]


# One function for one setting, so that its step is compiled once.
@functools.cache
def _kernel_init(square):
    return gs.initializers.mean_field(square**0.5)


@functools.cache
def _bias_init(square):
    return gs.initializers.mean_field_bias(square**0.5)


_sgd = functools.cache(optax.sgd)


def claims(config, arrays):
    """Networks of up to six xi_c learn, deeper ones do not."""
    return [
        claim(
            f"accuracy, depth {depth} ({ratio:.1f} xi_c), sigma_w^2 {square:g}",
            accuracy,
            BEFOREHAND.get((depth, square), np.nan),
            between=(0.8, 1) if ratio < RULE else (0, 0.4),
            source=SCHOENHOLZ,
            row="22T",
        )
        for depth, square, ratio, accuracy in zip(
            config.depths,
            config.squares,
            arrays["ratios"],
            arrays["accuracies"],
            strict=True,
        )
    ]


def plot(config, arrays):
    """Accuracy against the depth in units of xi_c, and the losses."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.semilogx(arrays["ratios"], arrays["accuracies"], "o")
    left.axvline(RULE, color="k", linestyle="--", label="six xi_c")
    left.set_title("depth that trains", fontsize="medium")
    left.set(xlabel="depth / xi_c", ylabel="training accuracy", ylim=(0, 1))
    legend(left)
    for depth, square, curve in zip(
        config.depths, config.squares, arrays["losses"], strict=True
    ):
        right.plot(curve, label=f"depth {depth}, sigma_w^2 {square:g}")
    right.set_title("training, network by network", fontsize="medium")
    right.set(xlabel="step", ylabel="cross-entropy, nats")
    legend(right)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
