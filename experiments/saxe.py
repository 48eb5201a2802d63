r"""How fast does each mode of a deep linear network learn?

Saxe et al. (2014): from balanced weights that are aligned with the modes of the task, a
linear network with one hidden layer learns a mode of strength s as

    u(t) = s e^(2 s t) / (e^(2 s t) - 1 + s / u_0),

a sigmoid in time t = steps x learning rate: long plateaus, then sudden progress, strong
modes first. It is half-way at t = ln(s / u_0 - 1) / (2 s). Expected for s = 3, 1, 0.5
from u_0 = 1e-3: gradient descent at a rate of 1e-3 keeps within 1 % of s of the curve
at all times, and its half-times are 1.3343, 3.4534 and 6.2126, to 1 %. From weights
that are small but random, the order of the modes is the same, but no mode begins at a
known u_0. Two seconds on one core.

    python -m experiments.saxe
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment

SAXE = "Saxe et al. 2014, equation 7"


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``aligned`` off starts from random weights of the same size."""

    strengths: tuple[float, ...] = (3.0, 1.0, 0.5)
    """Singular values of the task that is learnt."""
    start: float = 1e-3
    """Size of every mode at the start."""
    rate: float = 1e-3
    """Learning rate of gradient descent."""
    steps: int = 12_000
    width: int = 8
    aligned: bool = True
    """Start aligned with the task; else from random weights of the same size."""
    seed: int = 0


def run(config):
    """Strength of each mode in the network at every step: (steps, modes)."""
    return {"modes": np.asarray(_train(config, jax.random.key(config.seed)))}


@functools.partial(jax.jit, static_argnums=0)
def _train(config, key):
    """Gradient descent on half the squared error of whitened inputs."""
    num, root = len(config.strengths), config.start**0.5
    keys = jax.random.split(key, 5)
    # Singular vectors of the task on both sides, and of the hidden layer.
    left, right = (jnp.linalg.qr(jax.random.normal(k, (num, num)))[0] for k in keys[:2])
    hidden = jnp.linalg.qr(jax.random.normal(keys[2], (config.width, num)))[0]
    task = left * jnp.array(config.strengths)[None] @ right.T
    first, last = root * hidden @ right.T, root * left @ hidden.T
    if not config.aligned:
        first = root * jax.random.normal(keys[3], first.shape)
        last = root * jax.random.normal(keys[4], last.shape)

    def loss(weights):
        first, last = weights
        return 0.5 * jnp.sum((last @ first - task) ** 2)

    def step(weights, _):
        modes = jnp.diag(left.T @ weights[1] @ weights[0] @ right)
        slopes = jax.grad(loss)(weights)
        weights = jax.tree.map(lambda w, g: w - config.rate * g, weights, slopes)
        return weights, modes

    return jax.lax.scan(step, (first, last), length=config.steps)[1]


def law(config, strength):
    """The formula, at every step."""
    grown = np.exp(-2 * strength * config.rate * np.arange(config.steps))
    return strength / (1 + (strength / config.start - 1) * grown)


def claims(config, arrays):
    """The curve and the half-time of every mode."""
    pairs = list(zip(config.strengths, arrays["modes"].T, strict=True))
    curves = [
        claim(
            f"largest distance from the curve over s, mode of strength {s:g}",
            np.abs(mode - law(config, s)).max() / s,
            0,
            **{"within": 0.01, "source": SAXE},
        )
        for s, mode in pairs
    ]
    halves = [
        claim(
            f"half-time of the mode of strength {s:g}",
            config.rate * np.searchsorted(mode, s / 2),
            np.log(s / config.start - 1) / (2 * s),
            **{"relative": 0.01, "source": SAXE},
        )
        for s, mode in pairs
    ]
    return [*curves, *halves]


def plot(config, arrays):
    """The modes beside their curves."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    time = config.rate * np.arange(config.steps)
    for i, (s, mode) in enumerate(
        zip(config.strengths, arrays["modes"].T, strict=True)
    ):
        axes.plot(time, mode, color=f"C{i}", label=f"s = {s:g}")
        axes.plot(time, law(config, s), ":", color="black")
    axes.set_title("modes of a linear network while it learns", fontsize="medium")
    axes.set(xlabel="steps x learning rate", ylabel="strength (dotted: the law)")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
