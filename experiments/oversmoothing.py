r"""How fast do graph convolutions make the nodes of a cycle alike?

A graph convolution averages each node with its neighbours (Kipf and Welling 2017). On a
cycle of n nodes with self-loops that is a circulant matrix of eigenvalues
(1 + 2 cos(2 pi k / n)) / 3: the mean over nodes (k = 0) is kept, and everything else
shrinks exponentially with depth (Oono and Suzuki 2020). Weights that are orthogonal,
here reflections of the channels, leave lengths alone, so the growth exponents of the
Jacobian of any depth are exactly

    ln |(1 + 2 cos(2 pi k / n)) / 3|, k = 0 .. n - 1,

each as often as there are channels. If 3 divides n, two of them are -inf: these
directions do not get through one layer. Both sides are exact, so the tolerance is for
rounding alone: a layer's is 2.2e-16 over its smallest eigenvalue, 0.14 at n = 24,
and exponents are means over layers; 1e-9 leaves room for any order of operations. Seed
1: 4e-14. Ten seconds.

    python -m experiments.oversmoothing
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment

OONO = "Oono and Suzuki 2020"


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``loop`` is the weight of a self-loop beside that of an edge."""

    nodes: int = 24
    """Nodes of the cycle."""
    channels: int = 2
    """Features of each node."""
    depth: int = 12
    loop: float = 1.0
    """Weight of a self-loop beside that of an edge."""
    seed: int = 0


def run(config):
    """Growth exponents of the Jacobian from the first layer to the last."""
    key_v, key_x = jax.random.split(jax.random.key(config.seed))
    normals = jax.random.normal(key_v, (config.depth, config.channels))
    params = [{"loop": jnp.float32(config.loop), "normal": v} for v in normals]
    x = jax.random.normal(key_x, (1, config.nodes, config.channels))
    options = {"theory": False, "progress": False, "seed": config.seed}
    (exponents,) = np.asarray(gs.analyze(_convolve, params, x, **options).exponents)
    return {"exponents": exponents}


def _convolve(params, x):
    """Means over neighbours, then a reflection; ``x`` is (1, nodes, channels)."""
    for layer in params:
        loop, v = layer["loop"], layer["normal"]
        x = (loop * x + jnp.roll(x, 1, 1) + jnp.roll(x, -1, 1)) / (loop + 2)
        # Written so, and not drawn, the weights are orthogonal in any dtype.
        x = x - 2 / (v @ v) * jnp.outer(x @ v, v).reshape(x.shape)
    return x


def law(config):
    """The exponents in descending order; -inf where an eigenvalue is zero."""
    k = np.arange(config.nodes)
    sizes = np.abs(1 + 2 * np.cos(2 * np.pi * k / config.nodes)) / 3
    # Cosines of -1/2 are rounded.
    sizes[(3 * k % config.nodes == 0) & (k > 0)] = 0
    with np.errstate(divide="ignore"):
        return np.repeat(np.sort(np.log(sizes))[::-1], config.channels)


def claims(config, arrays):
    """The exponents, and how many directions are lost at once."""
    known, found = law(config), arrays["exponents"]
    passes = np.isfinite(known)
    size = f"{config.depth} graph convolutions on a cycle of {config.nodes}"
    gap = np.max(np.abs(found[passes] - known[passes]))
    return [
        claim(
            f"largest difference of growth exponents and their law, {size}",
            *(gap, 0),
            **{"within": 1e-9, "source": OONO, "row": "25"},
        ),
        claim(
            f"directions that are lost at once, {size}",
            *(np.isneginf(found).sum(), np.sum(~passes)),
            **{"within": 0, "source": OONO, "row": "25"},
        ),
    ]


def plot(config, arrays):
    """Measured exponents on those of the law."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for style, name, values in (
        ("-", "ln|(1 + 2 cos(2 pi k / n)) / 3|", law(config)),
        (".", "measured", arrays["exponents"]),
    ):
        axes.plot(np.where(np.isfinite(values), values, np.nan), style, label=name)
    axes.set_title("averaging over a ring", fontsize="medium")
    axes.set(xlabel="direction", ylabel="growth exponent per layer")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
