r"""What does an activation do to gradients, to units, and to the clock?

Seven of them, in one network. *Gradients*: with weights of variance 1 / fan_in the norm
of a gradient changes per layer by the root of chi = E phi'(z)^2, which mean-field
theory gives for every activation (sigmoid: 0.236, not the bound 1/4; relu: 0.707, so
"its derivative is 1, the problem is absent" is wrong; selu: 1.035, although its forward
signal is constant). *Units*: a relu unit is dead if it is inactive on all data, not
"once its input is negative"; an activation without an exactly flat side has no such
units. Expected after training: relu has dead units (5 to 12 % measured), all others
none. At a rate of 1 this no longer holds: a fifth of the tanh units saturate until 1 -
tanh^2 rounds to zero, and elu, selu and gelu diverge. *Time*: elu computes an
exponential for every entry, also for the positive ones whose result is thrown away:
alone it took 2.0 times as long as relu, with the matrix products of width 768 1.3
times. Ratios of interleaved runs, medians. One minute on one core.

    python -m experiments.activations
"""

import dataclasses
import functools
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

NAMES = "sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu"
PHASE = "Poole et al. 2016; Schoenholz et al. 2017"
MAAS = "Maas et al. 2013"


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``variance`` is that of the weights times their fan-in."""

    names: tuple[str, ...] = NAMES
    """Activations that are compared."""
    depth: int = 20
    width: int = 256
    networks: int = 4
    variance: float = 1.0
    """Variance of the weights times their fan-in."""
    layers: int = 3
    """Hidden layers of the networks that are trained."""
    units: int = 64
    """Units of each of these layers."""
    rate: float = 0.1
    """Learning rate of their training."""
    steps: int = 120
    side: int = 512
    """Rows and columns of the matrices that are timed."""
    repeats: int = 9
    seed: int = 0


def run(config):
    """Gradient factors, shares of dead units over training, and seconds."""
    key_g, key_t = jax.random.split(jax.random.key(config.seed))
    x = jax.device_put(gs.data.load("digits").x_train)
    y = jax.device_put(gs.data.load("digits").y_train)
    found = {}
    for name in progress(config.names, "activations"):
        gains = _log_gains(config, name, jax.random.clone(key_g))
        dead, losses = _train(config, name, jax.random.clone(key_t), x, y)
        found |= {f"{name}_gain": gains, f"{name}_dead": dead, f"{name}_loss": losses}
    found = {key: np.asarray(array) for key, array in found.items()}
    return found | _seconds(config)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _log_gains(config, name, key):
    """Ln of a gradient's norm at the input over that at the output, per layer."""
    activation = gs.models.activation(name)
    key_w, key_x, key_g = jax.random.split(key, 3)
    shape = config.networks, 16, config.width
    x, g = jax.random.normal(key_x, shape), jax.random.normal(key_g, shape)
    scale = (config.variance / config.width) ** 0.5

    def layer(h, key):
        w = scale * jax.random.normal(key, (shape[0], config.width, config.width))
        return activation(h @ w), None

    def network(x):
        return jax.lax.scan(layer, x, jax.random.split(key_w, config.depth))[0]

    gradient = jax.vjp(network, x)[1](g)[0]
    ratios = jnp.sum(gradient**2, axis=(1, 2)) / jnp.sum(g**2, axis=(1, 2))
    return jnp.log(ratios) / (2 * config.depth)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _train(config, name, key, x, y):
    """Share of units whose slope is zero on all data, and the loss, at each step."""
    activation = gs.models.activation(name)
    slope = jax.vmap(jax.vmap(jax.grad(activation)))
    sizes = [x.shape[1], *[config.units] * config.layers, 10]
    keys = jax.random.split(key, len(sizes) - 1)
    he = gs.initializers.he_normal()
    params = [
        (he(k, shape), jnp.zeros((1, shape[1])))
        for k, shape in zip(keys, itertools.pairwise(sizes), strict=True)
    ]

    def network(params):
        h, before = x, []
        for w, b in params[:-1]:
            before.append(h @ w + b)
            h = activation(before[-1])
        w, b = params[-1]
        return gs.training.cross_entropy(h @ w + b, y), before

    def step(params, _):
        (loss, before), grads = jax.value_and_grad(network, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - config.rate * g, params, grads)
        dead = [jnp.mean(jnp.all(slope(z) == 0, axis=0)) for z in before]
        return params, (jnp.mean(jnp.stack(dead)), loss)

    return jax.lax.scan(step, params, length=config.steps)[1]


def _seconds(config):
    """Of forward and backward: alone, and with a matrix product; (2, names, runs)."""
    x = jnp.ones((config.side, config.side)) * 0.1
    w = jnp.eye(config.side)
    taken = np.zeros((2, len(config.names), config.repeats))
    functions = [
        [_slopes(gs.models.activation(name), product) for name in config.names]
        for product in (False, True)
    ]
    for run in range(-1, config.repeats):  # the first compiles
        for i, kind in enumerate(functions):
            for j, function in enumerate(kind):
                start = time.perf_counter()
                jax.block_until_ready(function(x, w))
                taken[i, j, run] = time.perf_counter() - start
    return {"seconds": taken}


def _slopes(activation, product):
    def loss(x, w):
        return jnp.sum(activation(x @ w if product else x))

    return jax.jit(jax.grad(loss, argnums=(0, 1) if product else 0))


def claims(config, arrays):
    """Gains of theory, who has dead units, and what an exponential costs."""
    tolerance = 4 * (5 / (4 * config.width * config.depth)) ** 0.5
    gains = [
        claim(
            f"ln of the gradient's factor per layer, {name}",
            arrays[f"{name}_gain"].mean(),
            _theory(config, name),
            **{"within": tolerance, "source": PHASE},
        )
        for name in config.names
    ]
    alone, beside = np.median(
        arrays["seconds"][:, config.names.index("elu")]
        / arrays["seconds"][:, config.names.index("relu")],
        axis=1,
    )
    return [
        *gains,
        claim(
            "share of relu units that are dead after training",
            *(arrays["relu_dead"][-1], 0),
            **{"between": (1 / (config.layers * config.units), 1), "source": MAAS},
        ),
        claim(
            "greatest share of dead units of any other activation",
            max(
                arrays[f"{name}_dead"].max() for name in config.names if name != "relu"
            ),
            0,
            **{"within": 0, "source": MAAS},
        ),
        claim(
            "time of elu over relu, gradient of the activation alone",
            *(alone, 1),
            **{"between": (1.2, np.inf), "source": "an exponential per entry"},
        ),
        claim(
            f"the same with the matrix products of width {config.side}, over alone",
            *(beside / alone, 0),
            **{"between": (0, 1), "source": "products take n times as many operations"},
        ),
    ]


def _theory(config, name):
    """Infinitely wide networks of the default variance, whatever the flag says."""
    field = gs.theory.mean_field(gs.models.activation(name), sigma_w=1.0)
    return np.log(field.chis(config.depth)).mean() / 2


def plot(config, arrays):
    """Gradient factors, dead units over training, and times over relu's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    places = np.arange(len(config.names))
    left.plot(
        places, [_theory(config, n) for n in config.names], "k_", ms=20, label="theory"
    )
    left.plot(
        places,
        [arrays[f"{n}_gain"].mean() for n in config.names],
        "o",
        label="measured",
    )
    left.set_title("what a layer does to a gradient", fontsize="medium")
    left.set(xlabel="activation", ylabel="ln of the gradient's factor per layer")
    legend(left)
    for name in config.names:
        middle.plot(arrays[f"{name}_dead"], label=name)
    middle.set_title("dead units while training", fontsize="medium")
    middle.set(xlabel="step", ylabel="share of dead units")
    legend(middle)
    relu = arrays["seconds"][:, [config.names.index("relu")]]
    alone, beside = np.median(arrays["seconds"] / relu, axis=2)
    right.bar(places - 0.2, alone, width=0.4, label="alone")
    right.bar(places + 0.2, beside, width=0.4, label="with matrix products")
    right.set_title("cost", fontsize="medium")
    right.set(xlabel="activation", ylabel="time / that of relu")
    legend(right)
    for axes in (left, right):
        axes.set_xticks(places, config.names, rotation=45)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
