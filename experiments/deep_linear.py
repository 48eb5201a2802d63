"""How fast does a signal grow through a deep linear network?

The classic exercise: every weight matrix is the same multiple of the identity, and the
signal is multiplied by it once per *matrix*. With L hidden layers and an output layer
that is 1.5^(L + 1), or 1.5^L if the output layer is left out; Ng (Deep Learning
Specialization, course 2) writes 1.5^(L - 1) W^L as his last matrix is a separate one,
and notes made of it that drop W^L get the exponent wrong. Expected: 1.5^50 = 6.4e8 and
0.5^50 = 8.9e-16, 0.9^20 = 0.1216 ("almost vanished": it is not) and 1.2^20 = 38.34, of
the signal and of the gradient alike. "Weights of mean 0.9" would do nothing of the
kind: of a matrix with independent entries the standard deviation counts, not the mean.
Two seconds on one core.

    python -m experiments.deep_linear
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment

NG = "Ng, Deep Learning Specialization, course 2, week 1"


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of the experiment; the number of matrices belongs to each scale."""

    scales: tuple[float, ...] = (1.5, 0.5, 0.9, 1.2)
    """Multiples of the identity that the matrices are, one product for each."""
    matrices: tuple[int, ...] = (50, 50, 20, 20)
    """How many matrices each product has."""
    width: int = 8
    seed: int = 0


def run(config):
    """Factor over all matrices: of the signal, and of a gradient on its way back."""
    x = jax.random.normal(jax.random.key(config.seed), (4, config.width))
    pairs = zip(config.scales, config.matrices, strict=True)
    forward, backward = np.transpose([_growth(scale, num, x) for scale, num in pairs])
    return {"forward": forward, "backward": backward}


def _growth(scale, num, x):
    stack = jnp.tile(scale * jnp.eye(x.shape[1]), (num, 1, 1))
    report = gs.analyze(_apply, {"matrices": stack}, x, theory=False)
    assert report.exponents is not None
    forward = report.layers[-1].forward_rms / jnp.sqrt(jnp.mean(x**2))
    return forward, np.exp(report.exponents.mean() * num)


def _apply(params, x):
    return jax.lax.scan(lambda h, w: (h @ w, None), x, params["matrices"])[0]


def claims(config, arrays):
    """Each growth is the scale to the power of the number of matrices."""
    return [
        claim(
            f"{what} through {num} matrices {scale:g} I",
            arrays[key][i],
            scale**num,
            relative=1e-3,
            source=NG,
        )
        for i, (scale, num) in enumerate(
            zip(config.scales, config.matrices, strict=True)
        )
        for key, what in (("forward", "signal"), ("backward", "gradient"))
    ]


def plot(config, arrays):
    """The growth against the scale, and the law beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    rates = np.log10(arrays["backward"]) / np.array(config.matrices)
    axes.plot(config.scales, rates, "o", label="measured, gradient")
    scales = np.linspace(min(config.scales), max(config.scales))
    axes.plot(scales, np.log10(scales), label="law: scale per matrix")
    axes.set_title("products of scaled identities", fontsize="medium")
    axes.set(xlabel="scale of the identity", ylabel="decades per matrix")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
