r"""Is a residual network whose branches begin at zero an isometry?

ReZero (Bachlechner et al. 2021) multiplies each branch by a trained number that begins
at zero, h + alpha f(h), so that the Jacobian J = I + alpha f' of every block, and of
any depth, is the identity, whatever the branch: here a tanh layer with Gaussian weights
of sigma_w = 3, which alone would be chaotic. So all growth exponents are 0. The
tolerance is for rounding alone: of n directions and L layers it sums to at most L n
units of 2.2e-16, 4e-14 at 12 x 16, and 1e-12 is accepted. Exponents at any other
alpha are of its order. Seed 1: 4e-16. Five seconds.

    python -m experiments.rezero
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._run import experiment

BACHLECHNER = "Bachlechner et al. 2021"


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``alpha`` is the factor of every branch."""

    alpha: float = 0.0
    """Factor of every branch, 0 as published."""
    width: int = 16
    depth: int = 12
    examples: int = 4
    sigma_w: float = 3.0
    seed: int = 0


def run(config):
    """Growth exponents of the Jacobian from input to output, (examples, width)."""
    key_w, key_x = jax.random.split(jax.random.key(config.seed))
    shape = config.depth, config.width, config.width
    weights = config.sigma_w / config.width**0.5 * jax.random.normal(key_w, shape)
    params = [{"alpha": jnp.float32(config.alpha), "w": w} for w in weights]
    x = jax.random.normal(key_x, (config.examples, config.width))
    options = {"theory": False, "progress": False, "seed": config.seed}
    return {"exponents": gs.analyze(_blocks, params, x, **options).exponents}


def _blocks(params, x):
    for block in params:
        x = x + block["alpha"] * jnp.tanh(x @ block["w"])
    return x


def claims(config, arrays):
    """That no exponent of any example is anything but zero."""
    return [
        claim(
            f"largest growth exponent, of either sign, of {config.depth} ReZero blocks",
            *(np.max(np.abs(arrays["exponents"])), 0),
            **{"within": 1e-12, "source": BACHLECHNER, "row": "26"},
        )
    ]


def plot(config, arrays):
    """All exponents of every example."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(arrays["exponents"].T, ".")
    axes.set_title(
        "ReZero before training, a colour for each example", fontsize="medium"
    )
    axes.set(xlabel="direction", ylabel="growth exponent per block")
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
