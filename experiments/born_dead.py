r"""How often is a narrow deep relu network born dead?

A layer of N relu units is dead at a point with probability 2^-N if the one before is
alive, since each unit is inactive with probability 1/2 there; a dead layer without
biases kills all after it. So L layers are dead at a point with probability
1 - (1 - 2^-N)^L: exactly, and an upper bound for being dead on all inputs, which is
what Lu et al. (2019) mean by born dead (Rister and Rubin 2020: the bound is tight as
the inputs shrink to a point). Expected for (N, L) = (2, 5), (2, 10), (3, 10), (3, 20),
(4, 20), (5, 30): 0.76270, 0.94369, 0.73692, 0.93079, 0.72494, 0.61421. On the interval
[-1, 1], of which without biases the two ends decide, (2, 5), (2, 10), (3, 10) were
measured as 0.622, 0.910, 0.630. Ten seconds on one core.

    python -m experiments.born_dead
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress
from gradstab import initializers as init

LU = "Lu et al. 2019"
ON_INTERVAL = (0.622, 0.910, 0.630)  # simulated with 20,000 networks elsewhere


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``bias`` is the standard deviation of the biases, 0 in the theorem."""

    widths: tuple[int, ...] = (2, 2, 3, 3, 4, 5)
    depths: tuple[int, ...] = (5, 10, 10, 20, 20, 30)
    networks: int = 40_000
    bias: float = 0.0
    """Standard deviation of the biases, 0 in the theorem."""
    seed: int = 0


def run(config):
    """Shares of networks that are dead at one point, and at both ends of [-1, 1]."""
    keys = jax.random.split(jax.random.key(config.seed), len(config.widths))
    sizes = list(zip(config.widths, config.depths, keys, strict=True))
    shares = [
        np.mean(_dead(key, width, depth, config.networks, config.bias), axis=0)
        for width, depth, key in progress(sizes, "sizes")
    ]
    point, interval = np.transpose(shares)
    return {"point": point, "interval": interval}


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _dead(key, width, depth, networks, bias):
    """Of every network: whether it is dead at x = 1, and at x = 1 and x = -1."""
    he_normal = init.he_normal(batch_axis=(0,))
    ends = jnp.tile(jnp.array([[1.0], [-1.0]]), (networks, 1, width))

    def layer(h, key):
        key_w, key_b = jax.random.split(key)
        w = he_normal(key_w, (networks, width, width))
        b = bias * jax.random.normal(key_b, (networks, 1, width))
        return jax.nn.relu(h @ w + b), None

    h, _ = jax.lax.scan(layer, ends, jax.random.split(key, depth))
    dead = jnp.all(h == 0, axis=2)
    return jnp.stack([dead[:, 0], dead.all(axis=1)], axis=1)


def at_a_point(width, depth):
    """Probability that a layer is dead at a point."""
    return 1 - (1 - 2.0**-width) ** depth


def claims(config, arrays):
    """The six probabilities, and that an interval dies less often than a point."""
    sizes = list(zip(config.widths, config.depths, strict=True))
    point = [
        claim(
            f"dead at a point: {depth} layers of {width} units",
            share,
            at_a_point(width, depth),
            **{"within": 0.01, "source": LU, "row": "18"},
            error=(share * (1 - share) / config.networks) ** 0.5,
        )
        for (width, depth), share in zip(sizes, arrays["point"], strict=True)
    ]
    interval = [
        claim(
            f"dead on [-1, 1]: {depth} layers of {width} units",
            share,
            at_a_point(width, depth),
            **{"between": (0, at_a_point(width, depth)), "source": LU},
        )
        for (width, depth), share in zip(sizes, arrays["interval"], strict=True)
    ]
    return [*point, *interval]


def plot(config, arrays):
    """Measured against expected."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    law = [*map(at_a_point, config.widths, config.depths)]
    axes.plot([0, 1], [0, 1], "k:", label="law of a point")
    axes.plot(law, arrays["point"], "o", label="dead at a point")
    axes.plot(law, arrays["interval"], "s", label="dead on [-1, 1]")
    axes.set_title("ReLU networks that are born dead", fontsize="medium")
    axes.set(xlabel="1 - (1 - 2^-N)^L", ylabel="share of the networks", xlim=(0.5, 1))
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
