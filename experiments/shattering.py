r"""How fast do the gradients of different examples become unlike each other?

Balduzzi et al. (2017) say that their correlation halves with every layer of a plain
relu network: 1 / 2^L, as two units are active together with probability 1/4. That holds
with batch normalisation in training mode, which keeps the examples uncorrelated:
expected is a factor 0.50 per layer over eight layers. It does not without: inputs align
on their way up, so the units of two examples agree more and more, and the cosine of two
gradients k layers below the top of 20 is the product of 1 - theta_l / pi over those k
layers, with the angles theta_l that the correlation map says: 0.893, 0.794, 0.541 for
k = 1, 2, 5 from orthogonal inputs. (Deeper down, finite width and noise push it up:
1.7 times at k = 20 and width 1000.) Half a minute on one core.

    python -m experiments.shattering
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

BALDUZZI = "Balduzzi et al. 2017"
BELOW = 1, 2, 5
INPUTS, OUTPUTS = 16, 2  # of the plain network, to average over


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``shared`` is a common part of the plain network's inputs."""

    width: int = 1000
    batch: int = 64
    layers: int = 8
    """Layers of the networks with batch normalisation."""
    plain_layers: int = 20
    """Layers of the plain networks."""
    networks: int = 2
    plain_networks: int = 32
    """How many plain networks."""
    norm: bool = True
    """Normalise over the batch; off leaves the first networks bare."""
    shared: float = 0.0
    """Size of a part that the inputs of plain networks have in common."""
    seed: int = 0


def run(config):
    """Mean cosines k = 1, 2, ... layers below the top: (networks, k)."""
    key_n, key_p = jax.random.split(jax.random.key(config.seed))
    measures = {
        "normalised": (_normalised, jax.random.split(key_n, config.networks)),
        "plain": (_plain, jax.random.split(key_p, config.plain_networks)),
    }
    return {
        name: np.array([measure(config, key) for key in progress(keys, name)])
        for name, (measure, keys) in measures.items()
    }


@functools.partial(jax.jit, static_argnums=0)
def _normalised(config, key):
    """Of each example's own output with respect to what enters it, over all pairs."""
    key_x, key_w, key_g = jax.random.split(key, 3)
    x = jax.random.normal(key_x, (config.batch, config.width))
    g = jax.random.normal(key_g, (config.width,))
    before, pull = _trunk(config, x, key_w, config.layers, normalised=config.norm)

    def own(i):
        return pull(jnp.zeros_like(before).at[i].set(g))[:, i]

    gradients = jax.lax.map(own, jnp.arange(config.batch))
    return jax.vmap(_mean_cosine, in_axes=1)(gradients)[::-1]


@functools.partial(jax.jit, static_argnums=0)
def _plain(config, key):
    """Of one output with respect to what enters a layer, over all pairs of inputs."""
    key_x, key_w, key_g = jax.random.split(key, 3)
    inputs = min(INPUTS, config.width)
    x = jnp.linalg.qr(jax.random.normal(key_x, (config.width, inputs)))[0].T
    x = x + config.shared * jnp.sum(x, axis=0, keepdims=True)
    _, pull = _trunk(config, x, key_w, config.plain_layers, normalised=False)

    def cosines(g):
        gradients = pull(jnp.broadcast_to(g[None], x.shape))
        return jax.vmap(_mean_cosine)(gradients)[::-1]

    g = jax.random.normal(key_g, (OUTPUTS, config.width))
    return jnp.mean(jax.lax.map(cosines, g), axis=0)


def _trunk(config, x, key, depth, *, normalised):
    """The output, and the pullback to what enters each layer, (depth, batch, width)."""

    def layer(h, layer):
        key, nudge = layer
        w = jax.random.normal(key, (config.width,) * 2) * (2 / config.width) ** 0.5
        z = (h + nudge) @ w
        return jax.nn.relu(jax.nn.standardize(z, axis=0) if normalised else z), None

    def output(nudges):
        return jax.lax.scan(layer, x, (jax.random.split(key, depth), nudges))[0]

    out, pull = jax.vjp(output, jnp.zeros((depth, *x.shape)))
    return out, lambda g: pull(g)[0]


def _mean_cosine(vectors):
    unit = vectors / jnp.linalg.norm(vectors, axis=1, keepdims=True)
    num = len(vectors)
    return (jnp.sum(jnp.sum(unit, axis=0) ** 2) - num) / (num * (num - 1))


def of_plain_network(depth):
    """The product of 1 - theta / pi over the last k layers, from orthogonal inputs."""
    field = gs.theory.mean_field(jax.nn.relu, sigma_w=2**0.5)
    angles = np.arccos(field.correlations(depth, c0=0.0))
    return np.cumprod(1 - angles[::-1] / np.pi)


def claims(config, arrays):
    """The factor with batch normalisation, and the product without."""
    cosines = np.append(1, arrays["normalised"].mean(axis=0))
    law = of_plain_network(config.plain_layers)
    normalised = claim(
        f"factor per layer of gradients' cosine, batch norm, {config.layers} layers",
        # Of the sums, as the last cosines are small and noisy.
        np.sum(cosines[1:]) / np.sum(cosines[:-1]),
        0.5,
        **{"relative": 0.03, "source": BALDUZZI, "row": "15"},
    )
    plain = [
        claim(
            f"cosine of two gradients {k} layers below the top, plain relu",
            arrays["plain"][:, k - 1].mean(),
            law[k - 1],
            **{"relative": 0.03, "source": "the correlation map", "row": "15"},
            error=arrays["plain"][:, k - 1].std(ddof=1) / config.plain_networks**0.5,
        )
        for k in BELOW
        if k <= config.plain_layers
    ]
    return [normalised, *plain]


def plot(config, arrays):
    """Both cosines against the distance from the top, with their laws."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, color in (("normalised", "C0"), ("plain", "C1")):
        cosines = np.abs(arrays[name].mean(axis=0))
        axes.plot(1 + np.arange(len(cosines)), cosines, "o", color=color, label=name)
    k = 1 + np.arange(config.plain_layers)
    axes.plot(k, of_plain_network(config.plain_layers), "C1:", label="correlation map")
    axes.plot(k[: config.layers], 0.5 ** k[: config.layers], "C0:", label="$2^{-k}$")
    axes.set_title("how alike gradients of neighbours are", fontsize="medium")
    axes.set(yscale="log", xlabel="layers below the top", ylabel="cosine of gradients")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
