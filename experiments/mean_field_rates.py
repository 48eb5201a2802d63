"""Does mean-field theory give the rate at which gradients grow in finite networks?

Networks of width 512, on both sides of criticality, for tanh and for two activations
that no table lists. Measured: the change of the logarithm of the gradient's norm per
layer, backward, in ten initialisations. Theory: the recursion from the length of the
input, layer by layer (Schoenholz et al. 2017, equation 14), not its fixed point.
Expected: agreement within three standard errors or 0.006 per layer, whichever is
larger. Measured: within 0.0024 in all twelve networks, with standard errors of 0.0007
to 0.0016. The mean logarithm lies below theory by a quarter of the relative variance of
the squared norm, so the difference grows with sigma_w: 0.005 at 1.8 times the critical
value.

Row 7, at width 1000 and 40 layers: the mean squared gain per layer of tanh networks
with sigma_b^2 = 0.05, chi = 0.75903, 0.88016 and 1.34240 at sigma_w^2 = 1, 1.3 and 4,
within 1.5 % (2 % for 1.13352 at 2.5). Two minutes on one core.

    python -m experiments.mean_field_rates
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

SCHOENHOLZ = "Schoenholz et al. 2017, equation 14"
ACTIVATIONS = {
    "tanh": jnp.tanh,
    "sin x + 0.3 x": lambda x: jnp.sin(x) + 0.3 * x,
    "arctan 2x - 0.5 sin x": lambda x: jnp.arctan(2 * x) - 0.5 * jnp.sin(x),
}

# sigma_w in units of its critical value for this sigma_b, and sigma_b.
POINTS = ((0.7, 0.3), (0.95, 0.05), (1.2, 0.05), (1.5, 0.3))
NETWORKS = tuple((name, *point) for name in ACTIVATIONS for point in POINTS)

# Row 7: sigma_w^2, chi at the fixed point, and the tolerance.
CHIS = (
    (1.0, 0.75903, 0.015),
    (1.3, 0.88016, 0.015),
    (2.5, 1.13352, 0.02),
    (4.0, 1.34240, 0.015),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``scale`` multiplies all weights behind theory's back."""

    width: int = 512
    depth: int = 30
    seeds: int = 10
    examples: int = 8
    networks: int = len(NETWORKS)
    """How many of the networks of the table."""
    wide: int = 1000
    """Units of each layer in row 7."""
    deep: int = 40
    """Layers in row 7."""
    chis: int = len(CHIS)
    """How many scales of row 7."""
    scale: float = 1.0
    """Factor of all weights, which theory is not told."""
    seed: int = 0


def run(config):
    """Theory's rates, and those of every initialisation, for all networks."""
    key = jax.random.key(config.seed)
    predicted, rates, chis = [], [], []
    for number, network in enumerate(progress(_networks(config), "networks")):
        name, activation, sigma_w, sigma_b = _scales(*network)
        field = gs.mean_field(activation, sigma_w, sigma_b)
        # The first layer has no gradient before it; the input has mean square one.
        predicted.append(np.mean(np.log(field.chis(config.depth)[1:])) / 2)
        keys = jax.random.split(jax.random.fold_in(key, number), config.seeds)
        sizes = config.depth, config.width, config.examples
        scales = config.scale * sigma_w, sigma_b
        norms = np.array([_norms(name, *sizes, *scales, key) for key in keys])
        rates.append(np.mean(np.log(norms[:, 0] / norms[:, -1]), 1) / (sizes[0] - 1))
    for number, (variance, *_) in enumerate(progress(CHIS[: config.chis], "row 7")):
        keys = jax.random.split(jax.random.fold_in(key, 100 + number), config.seeds)
        scales = config.scale * math.sqrt(variance), math.sqrt(0.05)
        sizes = config.deep, config.wide, config.examples
        norms = np.array([_norms("tanh", *sizes, *scales, key) for key in keys])
        chis.append(_gains(np.mean(norms**2, axis=2)))
    return {
        "predicted": np.array(predicted),
        "rates": np.array(rates),
        "chis": np.array(chis),
    }


def _networks(config):
    return NETWORKS[: config.networks]


def _scales(name, scale, sigma_b):
    activation = ACTIVATIONS[name]
    sigma_w = scale * gs.theory.critical_sigma_w(activation, sigma_b)
    return name, activation, sigma_w, sigma_b


def _gains(squares):
    """Squared gain per layer, from the last one to where lengths are at rest."""
    start = squares.shape[1] // 4
    span = squares.shape[1] - 1 - start
    return (squares[:, start] / squares[:, -1]) ** (1 / span)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _norms(name, depth, width, examples, sigma_w, sigma_b, key):
    """Gradient norms at the output of every layer, (depth, examples)."""
    key_w, key_b, key_x, key_v = jax.random.split(key, 4)
    x, v = (jax.random.normal(k, (examples, width)) for k in (key_x, key_v))
    x = x / jnp.sqrt(jnp.mean(x**2, axis=1, keepdims=True))
    w = jax.random.normal(key_w, (depth, width, width)) * sigma_w / width**0.5
    b = jax.random.normal(key_b, (depth, 1, width)) * sigma_b

    def forward(h, wb):
        z = h @ wb[0] + jnp.broadcast_to(wb[1], h.shape)
        return jax.jvp(ACTIVATIONS[name], (z,), (jnp.ones_like(z),))

    slopes = jax.lax.scan(forward, x, (w, b))[1]

    def backward(g, ws):
        return (g * ws[1]) @ ws[0].T, jnp.linalg.norm(g, axis=1)

    return jax.lax.scan(backward, v, (w, slopes), reverse=True)[1]


def claims(config, arrays):
    """The rate of every network, and row 7."""
    found = []
    triples = zip(_networks(config), arrays["predicted"], arrays["rates"], strict=True)
    for (name, scale, sigma_b), predicted, rates in triples:
        error = _error(rates)
        text = f"rate of ln(norm), {name}, {scale:g} critical, sigma_b={sigma_b:g}"
        options = {"within": max(3 * error, 0.006), "error": error}
        found.append(
            claim(text, np.mean(rates), predicted, source=SCHOENHOLZ, **options)
        )
    for gains, (variance, chi, tolerance) in zip(arrays["chis"], CHIS, strict=False):
        text = f"chi of tanh, sigma_w^2={variance:g}, sigma_b^2=0.05"
        options = {"relative": tolerance, "error": _error(gains), "row": "7"}
        found.append(claim(text, np.mean(gains), chi, source=SCHOENHOLZ, **options))
    return found


def _error(values):
    return np.std(values, ddof=1) / np.sqrt(len(values))


def plot(config, arrays):
    """Measured rates against theory's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(name for name, *_ in _networks(config)):
        rows = [i for i, row in enumerate(_networks(config)) if row[0] == name]
        means = arrays["rates"][rows].mean(axis=1)
        axes.plot(arrays["predicted"][rows], means, "o", label=name)
    ends = np.array([np.min(arrays["predicted"]), np.max(arrays["predicted"])])
    axes.plot(ends, ends, "k--", label="theory")
    axes.set_title("rates of gradients", fontsize="medium")
    axes.set(xlabel="rate of theory, per layer", ylabel="rate measured, per layer")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
