r"""How far back in time does the gradient of a recurrent network reach?

A gradient that goes back T steps passes T state Jacobians, so recurrent networks are
deep networks with tied weights. Expected, per step: with a tanh RNN of orthogonal
weights the rate that mean-field theory gives for layers, ln sqrt(chi), as if the
weights were not tied (Chen et al. 2018); with an identity RNN (Le et al. 2015) hardly
any change, as a unit that is active passes on what it gets; with an LSTM at a forget
bias of 1 a decay that is slower than sigma(1) per step but still a decay, and with
chrono biases (Tallec and Ollivier 2018) one over the whole length, -0.034 a step.
"LSTMs are not prone to vanishing gradients" is true of the last one. The relu RNN of
the same orthogonal weights, half of whose units are off, is drawn without a claim.
`gs.analyze` finds the time axis in the traced program by itself. Two minutes on one
core.

    python -m experiments.through_time
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

init = gs.initializers
FEATURES = 16


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``gain`` scales all recurrent weights, and is 1 in what is expected."""

    cells: tuple[str, ...] = ("tanh", "relu", "identity", "lstm", "chrono")
    """Recurrent cells."""
    steps: int = 50
    hidden: int = 32
    examples: int = 16
    gain: float = 1.0
    """Factor of all recurrent weights, 1 in what is expected."""
    seed: int = 0


def run(config):
    """Of every cell the gradient norms along time, and its Lyapunov exponents."""
    key = jax.random.key(config.seed)
    x = jax.random.normal(key, (config.examples, config.steps, FEATURES))
    found = {}
    for cell in progress(config.cells, "cells"):
        options = {"examples": 1, "theory": False, "progress": False}
        report = gs.analyze(_model(config, cell), x, seed=config.seed, **options)
        (recurrence,) = report.recurrences
        squares = np.mean(recurrence.gradient_norms**2, axis=1)
        found[cell] = np.log(squares) / 2
        found[f"{cell}_exponents"] = recurrence.exponents[0]
    return found


def _model(config, cell):
    options = {
        "hidden": config.hidden,
        "kernel_init": init.variance_scaling(1.0, "fan_in", "normal"),
        "recurrent_init": init.orthogonal(config.gain),
        "rngs": nnx.Rngs(config.seed),
    }
    if cell == "lstm":
        return gs.models.LSTM(FEATURES, 1, forget_bias=1.0, **options)
    if cell == "chrono":
        bias = init.chrono_bias(config.steps)
        return gs.models.LSTM(FEATURES, 1, bias_init=bias, **options)
    if cell == "identity":
        options |= {"recurrent_init": init.identity_rnn(config.gain)}
    activation = "tanh" if cell == "tanh" else "relu"
    return gs.models.RNN(FEATURES, 1, activation=activation, **options)


def rate(config, levels):
    """Per step, of a gradient on its way back."""
    return (levels[0] - levels[-1]) / (config.steps - 1)


def claims(config, arrays):
    """The rate of every cell on its way back."""
    field = gs.theory.mean_field(jnp.tanh, sigma_w=1.0, sigma_b=1.0)
    tanh = np.log(field.chis(config.steps)[-1]) / 2
    forget = np.log(1 / (1 + np.exp(-1)))
    # With zero weights the unit of time scale u keeps (1 + 1/u)^-T, u in [1, T - 1].
    scales = np.linspace(1, config.steps - 1, 10_001)
    kept = np.mean((1 + 1 / scales) ** (-2 * config.steps)) ** 0.5
    chrono = np.log(kept) / config.steps
    expected = {
        "tanh": (tanh, (1.15 * tanh, 0.85 * tanh), "Chen et al. 2018"),
        "identity": (0.0, (-0.05, 0.0), "Le et al. 2015"),
        "lstm": (forget, (forget, -0.05), "Jozefowicz et al. 2015"),
        "chrono": (chrono, (chrono - 0.05, 0.0), "Tallec and Ollivier 2018"),
    }
    return [
        claim(
            f"ln of a gradient's factor per step back, {cell}",
            *(rate(config, arrays[cell]), published),
            **{"between": between, "source": source},
        )
        for cell, (published, between, source) in expected.items()
        if cell in config.cells
    ]


def plot(config, arrays):
    """Gradient norms against the time that they have to go back, and exponents."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    back = np.arange(config.steps)
    for cell in config.cells:
        levels = arrays[cell][::-1]
        left.plot(back, (levels - levels[0]) / np.log(10), label=cell)
        exponents = arrays[f"{cell}_exponents"]
        share = np.linspace(0, 1, len(exponents))
        right.plot(share, exponents, label=cell)
    left.set_title("gradients through time", fontsize="medium")
    left.set(xlabel="steps back", ylabel="log10 of the gradient norm")
    right.set_title("Lyapunov exponents", fontsize="medium")
    right.set(xlabel="share of the state's directions", ylabel="exponent per step")
    legend(left)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
