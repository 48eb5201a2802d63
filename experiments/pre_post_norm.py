r"""Where does layer normalisation sit best in a residual block?

Xiong et al. (2020): after the addition (Post-LN, h -> LN(h + F(h))) the gradient of the
last block's weights does not depend on depth, and stays large; before the branch
(Pre-LN, h -> h + F(LN h)), with a last LN before the loss, the stream's mean square
grows like 1 + L / 2 and the gradient falls like (1 + L / 2)^(-1/2). Expected slopes of
its logarithm against ln L over 8 to 64 blocks: -0.454 (the paper's -1/2 is the limit
of deep networks) and 0. Attention plays no part in it: the blocks here are those of the
feed-forward layers alone, with Glorot's variance. Half a minute on one core.

    python -m experiments.pre_post_norm
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

XIONG = "Xiong et al. 2020, theorem 1"
PLACES = "pre", "post"


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``norm`` off leaves the residual blocks bare."""

    depths: tuple[int, ...] = (8, 16, 32, 64)
    width: int = 256
    examples: int = 32
    networks: int = 12
    norm: bool = True
    """Normalise; off leaves the residual blocks bare."""
    seed: int = 0


def run(config):
    """Gradient norms of the last block's weights, (depths, networks)."""
    shape = len(config.depths), config.networks
    keys = jax.random.split(jax.random.key(config.seed), (len(PLACES), *shape))
    return {
        name: np.array([_gradients(config, name, *one) for one in _each(config, of)])
        for name, of in zip(progress(PLACES, "places"), keys, strict=True)
    }


def _each(config, keys):
    return zip(config.depths, keys, strict=True)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _gradients(config, name, depth, keys):
    """Norm of the gradient of the last block's weights, (networks,)."""

    def one(key):
        key_w, key_x, key_y = jax.random.split(key, 3)
        x, y = (
            jax.random.normal(k, (config.examples, config.width))
            for k in (key_x, key_y)
        )

        def loss(params):
            output = _network(params, x, pre=name == "pre", norm=config.norm)
            return jnp.sum(output * y) / config.examples

        gradient = jax.grad(loss)(_parameters(config.width, depth, key_w))
        return optax.tree.norm(jax.tree.map(lambda leaf: leaf[-1], gradient))

    return jax.lax.map(one, keys)


def _parameters(width, depth, key):
    first, last = jax.random.normal(key, (2, depth, width, width)) * width**-0.5
    return {"first": first, "last": last}


def _network(params, x, /, *, pre, norm):
    layer_norm = _layer_norm if norm else lambda h: h

    def branch(h, layer):
        return jax.nn.relu(h @ layer["first"]) @ layer["last"]

    def block(h, layer):
        if pre:
            return h + branch(layer_norm(h), layer), None
        return layer_norm(h + branch(h, layer)), None

    h, _ = jax.lax.scan(block, x, params)
    return layer_norm(h)


def _layer_norm(h):
    return jax.nn.standardize(h, axis=-1)


def claims(config, arrays):
    """Both slopes."""
    depths = np.log(config.depths)
    bounded = -0.5 * np.log(1 + np.array(config.depths) / 2)
    expected = {"pre": np.polyfit(depths, bounded, 1)[0], "post": 0.0}
    ends = f"{config.depths[0]} to {config.depths[-1]}"
    slopes = {name: np.polyfit(depths, np.log(arrays[name]), 1)[0] for name in expected}
    return [
        claim(
            f"slope of the last block's gradient against depth {ends}, {name}-LN",
            slopes[name].mean(),
            slope,
            **{"within": 0.06, "source": XIONG, "row": "14"},
            error=slopes[name].std(ddof=1) / config.networks**0.5,
        )
        for name, slope in expected.items()
    ]


def plot(config, arrays):
    """The gradient of the last block against depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    depths = np.array(config.depths)
    for name, marker in (("pre", "o"), ("post", "s")):
        axes.plot(depths, arrays[name].mean(axis=1), marker, label=f"{name.title()}-LN")
    law = arrays["pre"][0].mean() * ((1 + depths / 2) / (1 + depths[0] / 2)) ** -0.5
    axes.plot(depths, law, label="$(1 + L/2)^{-1/2}$")
    axes.set_title("transformers before training", fontsize="medium")
    axes.set(xlabel="blocks", ylabel="gradient norm of the last block's weights")
    axes.set(xscale="log", yscale="log")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
