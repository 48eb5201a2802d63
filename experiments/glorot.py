"""Do the singular values and variances of Glorot and Bengio (2010) come out again?

Rows 3 and 4, and eq. 16 against tutorials that print 1 / (fan-in + fan-out), half of
it, or recommend it for sigmoid. Networks of 5 x 1000 tanh units with uniform weights:
standard, +-1 / sqrt(n), so that n Var w = 1/3, and normalised, +-sqrt(6 / (n + n')), so
that it is 1. Their section 4.2.2: on images the mean singular value of
dz^{i+1} / dz^i, where z^i are the activations that enter layer i, is near 0.5 with the
standard weights and 0.8 with the normalised ones (a ratio of deviations, not of
variances as they say).
From pre-activations to pre-activations the first of them would be 0.476, as its slopes
are those of the layer that sees the image.
In the linear limit these are 8 / (3 pi sqrt 3) = 0.490 and 8 / (3 pi) = 0.849.
Equations 13 to 15, with small inputs: the standard weights multiply the variance of the
backward signal by n Var w = 1/3 per layer, a ratio of 3.00 between neighbours, but the
variance of the *weights'* gradient is the same in all layers. Expected: ratios within
3 %; over layers 2 to 5 and twelve images a mean within 0.78 .. 0.82 and 0.48 .. 0.495.
(With normalised weights layer 2 alone has 0.783, and of single images 0.756 to 0.826:
bright ones saturate.) The singular values need MNIST's files (`gs.data.load`;
GRADSTAB_DATA_DIR): without them row 3 is not held. A minute on one core.

    python -m experiments.glorot
"""

import dataclasses
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

GLOROT = "Glorot and Bengio 2010, section 4.2"
KINDS = {"standard": 1 / 3, "normalised": 1.0}
BANDS = {"standard": (0.5, (0.48, 0.495)), "normalised": (0.8, (0.78, 0.82))}


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``data`` is that of row 3, ``scale`` multiplies all weights."""

    width: int = 1000
    depth: int = 5
    images: int = 12
    """How many images the singular values are averaged over."""
    data: str = "mnist"
    data_dir: str | None = None
    networks: int = 4
    examples: int = 300
    input_scale: float = 0.1
    """Deviation of the small inputs of equations 13 to 15."""
    scale: float = 1.0
    """Factor of all weights, 1 in the paper."""
    seed: int = 0


def run(config):
    """Mean singular values per layer, and variances of signals and gradients."""
    keys = jax.random.split(jax.random.key(config.seed), 3)
    x = _images(config)
    arrays = {
        f"values {kind}": np.full((config.images, config.depth - 1), np.nan)
        for kind in KINDS
    }
    if x is not None:
        pairs = zip(keys[1:], KINDS.items(), strict=True)
        for key, (kind, variance) in pairs:
            w = _weights(config, key, x.shape[1], variance)
            each = progress(x, "images")
            arrays[f"values {kind}"] = np.array([_mean_values(w, one) for one in each])
    each = progress(jax.random.split(keys[0], config.networks), "variances")
    found = [_variances(config, key) for key in each]
    names = "backward", "weights"
    return arrays | dict(
        zip(names, map(np.array, zip(*found, strict=True)), strict=True)
    )


def _images(config):
    try:
        data = gs.data.load(config.data, data_dir=config.data_dir, may_download=False)
    except FileNotFoundError as error:
        print(f"row 3 is not measured: {error}", file=sys.stderr)
        return None
    rng = np.random.default_rng(config.seed)
    chosen = rng.choice(len(data.x_train), config.images, replace=False)
    return jnp.asarray(data.x_train[chosen])


def _weights(config, key, num_inputs, variance):
    """Uniform weights with so many times 1 / fan as variance; all but one square."""
    widths = (num_inputs, *[config.width] * config.depth)
    mode = "fan_in" if variance < 1 else "fan_avg"
    variance = variance * config.scale**2
    init = gs.initializers.variance_scaling(variance, mode, "uniform")
    keys = jax.random.split(key, config.depth)
    pairs = zip(keys, widths[:-1], widths[1:], strict=True)
    return [init(key, (m, n), jnp.float32) for key, m, n in pairs]


def _mean_values(w, x):
    """Mean singular value of the layers from the second on, between activations."""
    h, found = jnp.tanh(x @ w[0]), []
    for matrix in w[1:]:
        h = jnp.tanh(h @ matrix)
        jacobian = np.asarray(matrix, np.float64) * (1 - np.asarray(h, np.float64) ** 2)
        # Values of the Gram matrix: three times as fast as singular ones.
        squares = np.linalg.eigvalsh(jacobian.T @ jacobian)
        found.append(np.mean(np.sqrt(np.maximum(squares, 0))))
    return np.array(found)


def _variances(config, key):
    """Variances of dC/dz and of dC/dw in every layer, for small inputs."""
    key_w, key_x, key_c = jax.random.split(key, 3)
    width, num = config.width, config.examples
    w = _weights(config, key_w, width, KINDS["standard"])
    x = config.input_scale * jax.random.normal(key_x, (num, width))
    cotangent = jax.random.normal(key_c, (num, width))
    backward, weights = _gradients(w, x, cotangent)
    return np.array([np.var(g) for g in backward]), np.array(
        [np.var(g) for g in weights]
    )


@jax.jit
def _gradients(w, x, cotangent):
    """The gradients of sum(cotangent * h) for pre-activations, and for weights."""

    def cost(shifts, w):
        h = x
        for shift, matrix in zip(shifts, w, strict=True):
            h = jnp.tanh(h @ matrix + shift)
        return jnp.sum(cotangent * h)

    return jax.grad(cost, argnums=(0, 1))([jnp.zeros_like(cotangent) for _ in w], w)


def claims(config, arrays):
    """Row 3 and, layer by layer at worst, row 4."""
    found = []
    for kind, (published, band) in BANDS.items():
        means = np.mean(arrays[f"values {kind}"], axis=1)
        error = np.std(means, ddof=1) / np.sqrt(len(means))
        text = f"mean singular value of layers 2-{config.depth}, {kind}"
        options = {"between": band, "error": error, "source": GLOROT, "row": "3"}
        found.append(claim(text, np.mean(means), published, **options))
    for name, text, expected in (
        ("backward", "variance of the backward signal", 3.0),
        ("weights", "variance of the weights' gradient", 1.0),
    ):
        ratios = arrays[name][:, 1:] / arrays[name][:, :-1]
        mean, error = ratios.mean(axis=0), ratios.std(axis=0, ddof=1)
        worst = np.argmax(np.abs(mean - expected))
        found.append(
            claim(
                f"{text}, ratio of neighbouring layers farthest from the law",
                mean[worst],
                expected,
                relative=0.03,
                error=error[worst] / math.sqrt(config.networks),
                source=GLOROT,
                row="4",
            )
        )
    return found


def plot(config, arrays):
    """Variances per layer, relative to the last one, and mean singular values."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    layers = np.arange(1, config.depth + 1)
    for kind in KINDS:
        values = arrays[f"values {kind}"].mean(axis=0)
        left.plot(layers[1:], values, "o-", label=kind)
    left.set_title("layer Jacobians", fontsize="medium")
    left.set(xlabel="layer", ylabel="mean singular value", ylim=(0, 1))
    for name in ("backward", "weights"):
        mean = arrays[name].mean(axis=0)
        right.semilogy(layers, mean / mean[-1], "o-", label=f"{name}, standard")
    right.set_title("gradients on their way back", fontsize="medium")
    right.set(xlabel="layer", ylabel="variance of the gradient, relative")
    legend(left)
    legend(right)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
