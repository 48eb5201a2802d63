"""How much of a gradient gets through a sigmoid layer?

Lessons after Nielsen (2015), chapter 5. The slope of a sigmoid is at most 1/4, so
textbooks say "a factor 1/4 per layer at most": of norms that is true only of weights
whose matrix has norm one; an entry does not bound it ("every |w| < 1" holds of 68.3 %
of standard normal weights, and a factor of one needs |w| >= 4). The mean-field factor
at sigma_w = 1 is 0.23605, at Nielsen's own weights and biases of variance one it is
0.20484. The inputs for which |w sigma'(w x)| reaches one are a window, at most 0.4477
wide, at |w| = 6.894 (Nielsen: 0.45, 6.9). As an extra: relu networks with inverted
dropout of keep rate p multiply squared gradients by sigma_w^2 / (2 p) per layer, so He
et al.'s weights explode, by 1.25^L at p = 0.8 (Pretorius et al. 2018). Half a minute on
one core.

    python -m experiments.sigmoid_factor
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

NIELSEN = "Nielsen 2015, chapter 5"
SCHOENHOLZ = "Schoenholz et al. 2017, equation 14"
PRETORIUS = "Pretorius et al. 2018"

# Variances of weights and biases, and the factor of the norm per layer.
FACTORS = {(1.0, 0.0): 0.236052, (1.0, 1.0): 0.204841, (16.0, 0.0): 0.631570}


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``steepness`` is that of the activation, sigmoid(steepness x)."""

    width: int = 256
    depth: int = 16
    seeds: int = 16
    factors: int = len(FACTORS)
    """How many of the expected factors are measured."""
    keep: float = 0.8
    """Share of the units that dropout keeps."""
    dropout_depth: int = 15
    """Layers of the networks with dropout."""
    dropout_networks: int = 600
    """How many networks with dropout."""
    steepness: float = 1.0
    """The activation is sigmoid(steepness x)."""
    seed: int = 0


def run(config):
    """Slopes and windows on a grid, rates of random networks, dropout factors."""
    z, w = np.linspace(-8, 8, 4001), np.linspace(4, 12, 801)
    key = jax.random.key(config.seed)
    key_x, key_dropout, *keys = jax.random.split(key, config.factors + 2)
    x = jax.random.normal(key_x, (8, config.width))
    phi = _activation(config)
    pairs = progress(zip(keys, FACTORS, strict=False), "networks")
    rates = [_rates(config, phi, key, x, *pair) for key, pair in pairs]
    return {
        "z": z,
        "slopes": np.asarray(jax.vmap(jax.grad(phi))(jnp.asarray(z))),
        "w": w,
        "windows": np.array([_window(config, one) for one in w]),
        "rates": np.array(rates),
        "dropout": _dropout(config, key_dropout),
    }


def _activation(config):
    return lambda x: jax.nn.sigmoid(config.steepness * x)


def _window(config, w):
    """For how many inputs x of a unit sigmoid(w x) the slope in x is at least one."""
    x = np.linspace(0, 2, 4001)
    y = 1 / (1 + np.exp(-config.steepness * w * x))
    falling = config.steepness * w * y * (1 - y)
    return 2 * np.interp(-1, -falling, x)


def _rates(config, phi, key, x, weights, biases):
    """Factors of the gradient's norm per layer, one for each initialisation."""

    def make(key):
        return gs.models.MLP(
            config.width,
            config.width,
            widths=(config.width,) * config.depth,
            activation=phi,
            kernel_init=gs.initializers.mean_field(weights**0.5),
            bias_init=gs.initializers.mean_field_bias(biases**0.5),
            rngs=nnx.Rngs(params=key),
        )

    models = gs.initializations(make, key, config.seeds)
    report = gs.analyze(
        models, x, ensemble=True, layers=(), theory=False, progress=False
    )
    assert report.ensemble
    norms = report.ensemble.gradient_norm.values
    # From the third layer on: lengths have settled, and the head is not a layer.
    through = norms[:, 2] / norms[:, config.depth - 1]
    return through ** (1 / (config.depth - 3))


@functools.partial(jax.jit, static_argnums=0)
def _dropout(config, key):
    """|Ju|^2 of relu networks with inverted dropout and He et al.'s weights."""
    width, depth = 100, config.dropout_depth

    def one(key):
        key_x, key_u, key_w, key_d = jax.random.split(key, 4)
        w = jax.random.normal(key_w, (depth, width, width)) * math.sqrt(2 / width)
        kept = jax.random.bernoulli(key_d, config.keep, (depth, width))
        kept = kept.astype(jnp.float32) / config.keep

        def layer(pair, wd):
            h, u = wd[0] @ pair[0], wd[0] @ pair[1]
            return (wd[1] * jax.nn.relu(h), wd[1] * jnp.where(h > 0, u, 0.0)), None

        u = jax.random.normal(key_u, (width,))
        pair = jax.random.normal(key_x, (width,)), u / jnp.linalg.norm(u)
        return jnp.sum(jax.lax.scan(layer, pair, (w, kept))[0][1] ** 2)

    return jax.vmap(one)(jax.random.split(key, config.dropout_networks))


def claims(config, arrays):
    """The bound, the window, the factors and dropout."""
    best = np.argmax(arrays["windows"])
    widest = arrays["windows"][best]
    top = np.max(arrays["slopes"])
    found = [
        claim("largest slope of a sigmoid", top, 0.25, within=1e-6, source=NIELSEN),
        claim("widest window of inputs", widest, 0.4477, within=2e-4, source=NIELSEN),
        claim("weight of it", arrays["w"][best], 6.894, within=0.02, source=NIELSEN),
    ]
    pairs = zip(arrays["rates"], FACTORS.items(), strict=False)
    for rates, (variances, factor) in pairs:
        text = "gradient factor per layer, variances {:g} and {:g}".format(*variances)
        options = {"relative": 0.01, "error": _error(rates), "source": SCHOENHOLZ}
        found.append(claim(text, np.mean(rates), factor, **options))
    squares, depth = arrays["dropout"], config.dropout_depth
    error = _error(squares)
    text = f"mean squared gain with dropout, keep {config.keep}, L={depth}"
    options = {"within": 4 * error, "error": error, "source": PRETORIUS}
    law = config.keep**-depth
    return [*found, claim(text, np.mean(squares), law, **options)]


def _error(values):
    return np.std(values, ddof=1) / np.sqrt(len(values))


def plot(config, arrays):
    """The slope beside its bound, and the window against the weight."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(arrays["z"], arrays["slopes"], label="slope")
    left.axhline(0.25, ls="--", c="gray", label="its bound")
    left.set_title("slope of the sigmoid", fontsize="medium")
    legend(left)
    left.set(xlabel="pre-activation z", ylabel="slope of the sigmoid")
    right.plot(arrays["w"], arrays["windows"])
    right.set_title("where the slope is at least one", fontsize="medium")
    right.set(xlabel="weight |w|", ylabel="width of the window of inputs")
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
