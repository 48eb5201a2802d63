"""How often is the verdict on a random network the one that theory gives?

Twenty initialisations of each network at four depths, float64, one random cotangent per
example, judged from forward and backward signals alone. Expected, from mean-field
theory (Schoenholz et al. 2017; Yang and Schoenholz 2017; Yang et al. 2019): the words
in the table beyond the depth scale of the gradient's norm; a network that is less deep
is to be critical or stable. Measured: no wrong word but near the depth scale (tanh at
0.9, 9.5 layers, is critical in 2 of 20 at depth 20; at 0.95 in 3 of 20 at depth 40),
and `unknown` where random steps hide the law, as those of ReLU with He's scaling do
from depth 20 on. The scatter of the rate over initialisations is 0.8 to 1.5 of the
standard error from one network. Five minutes on one core.

    python -m experiments.verdicts
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._run import print_table
from gradstab.records import Growth
from gradstab.report import GrowthPair, judge
from gradstab.spectra import fit_growth


class Network(NamedTuple):
    """A layer (h, standardised weights) -> h, and the rate of its gradient in depth."""

    layer: Callable
    expected: str
    depth_scale: float = 0.0  # layers; the word holds beyond it
    orthogonal: bool = False


def _batch_norm(z):
    return (z - jnp.mean(z, axis=0)) / jnp.sqrt(jnp.var(z, axis=0) + 1e-5)


def _tanh(sigma_w):
    return lambda h, w: jnp.tanh(sigma_w * h @ w)


NETWORKS = {
    "tanh, 0.8": Network(_tanh(0.8), "vanishing", 4.5),
    "tanh, 0.9": Network(_tanh(0.9), "vanishing", 9.5),
    "tanh, 0.95": Network(_tanh(0.95), "vanishing", 19.5),
    "tanh, 1": Network(_tanh(1.0), "critical"),
    "tanh, 1, orthogonal": Network(_tanh(1.0), "critical", orthogonal=True),
    "tanh, 1.5": Network(_tanh(1.5), "exploding", 15.3),
    "sigmoid": Network(lambda h, w: jax.nn.sigmoid(h @ w), "vanishing"),
    "relu, LeCun": Network(lambda h, w: jax.nn.relu(h @ w), "vanishing", 2.9),
    "relu, He": Network(lambda h, w: jax.nn.relu(2**0.5 * h @ w), "stable"),
    "linear, 1.5 Q": Network(lambda h, w: 1.5 * h @ w, "exploding", 2.5, True),
    "relu, batch norm": Network(
        lambda h, w: jax.nn.relu(_batch_norm(h @ w)), "exploding", 4.3
    ),
    "residual, batch norm": Network(
        lambda h, w: h + jax.nn.relu(_batch_norm(h)) @ w * 2**0.5, "critical"
    ),
    "residual, tanh": Network(lambda h, w: h + jnp.tanh(h @ w), "critical"),
    "residual, relu": Network(lambda h, w: h + jax.nn.relu(h) @ w, "exploding", 5),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of the experiment."""

    width: int = 200
    examples: int = 16
    seeds: int = 20
    depths: tuple[int, ...] = (10, 20, 40, 80)


def run(config):
    """Judge every network at every depth; returns the table."""
    lines = [
        "| network | expected, beyond | "
        + " | ".join(f"depth {depth}" for depth in config.depths)
        + " | scatter / error |",
        "|---|---|" + "---|" * (len(config.depths) + 1),
    ]
    with jax.enable_x64(True):
        for name, network in NETWORKS.items():
            pairs = {depth: _growths(config, network, depth) for depth in config.depths}
            words = [_counted([_word(p) for p in pairs[d]]) for d in config.depths]
            expected = f"{network.expected}, {network.depth_scale:g}"
            row = [name, expected, *words, _calibration(pairs[config.depths[-1]])]
            lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _word(pair):
    return judge((), pair, ())[0]


def _growths(config, network, depth):
    keys = jax.random.split(jax.random.key(depth), config.seeds)
    signals = jax.jit(lambda key: _signals(config, network, depth, key))
    measured = [map(np.asarray, signals(key)) for key in keys]
    return [GrowthPair(fit_growth(rms), fit_growth(grad)) for rms, grad in measured]


def _signals(config, network, depth, key):
    """Forward rms of every layer, and gradient norms of its examples."""
    n, keys = config.width, jax.random.split(key, 3)
    weights = jax.random.normal(keys[0], (depth, n, n))
    spread = jnp.linalg.qr(weights)[0] if network.orthogonal else weights / n**0.5
    x, w = (jax.random.normal(k, (config.examples, n)) for k in keys[1:])
    cotangent = w / jnp.linalg.norm(w, axis=1, keepdims=True)

    def total(taps):
        def layer(h, slices):
            weights, tap = slices
            h = network.layer(h, weights) + tap
            return h, jnp.sqrt(jnp.mean(jnp.square(h)))

        h, rms = jax.lax.scan(layer, x, (spread, taps))
        return jnp.sum(h * cotangent), rms

    zeros = jnp.zeros((depth, config.examples, n))
    gradients, rms = jax.grad(total, has_aux=True)(zeros)
    return rms, jnp.linalg.norm(gradients, axis=2)


def _counted(words):
    names = sorted(set(words), key=lambda word: -words.count(word))
    return ", ".join(f"{name} {words.count(name)}" for name in names)


def _calibration(pairs):
    """Scatter of the rate over seeds in units of the error from one of them."""
    fits: list[Growth] = [pair.backward for pair in pairs]
    fits = [fit for fit in fits if fit.law == "exponential"]
    if len(fits) < len(pairs) / 2:
        return "-"
    error = np.median([fit.error for fit in fits])
    return f"{np.std([fit.rate for fit in fits], ddof=1) / error:.2f}"


if __name__ == "__main__":
    print_table(Config, run)
