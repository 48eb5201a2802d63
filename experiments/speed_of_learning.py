"""How fast do the layers of a deep sigmoid network learn?

Nielsen, Neural Networks and Deep Learning, chapter 5: [784, 30, 30, 30, 30, 10], all
sigmoid, W ~ N(0, 1 / fan-in), b ~ N(0, 1), cross-entropy summed over the outputs, the
first 1,000 training images of MNIST in one batch, learning rate 0.1, lambda 5, 500
epochs. The speed of a layer is the norm of its bias gradient, the mean of delta. His
raw curves are public (fig/norms_during_training_4_layers.json): 0.00298, 0.01708,
0.06954, 0.28514 from the first hidden layer to the last at the start, a ratio of 95.8
that is 75.0 in the geometric mean over epochs 55 to 120.

Expected: each of the four within the central 95 % of many seeds; a factor of 4.6 to 5.4
from layer to layer (mean-field theory: 1 / sqrt(chi) = 4.882); at 99 % of the epochs
the earlier layer is the slower one. The speed falls exponentially with *depth*; notes
that say "in each iteration of the training" have read the figure wrong, and it is not
true that N(0, 1) makes every weight less than 1: 68 % of them are. ``--images noise``
gives the same ratios, as it is the network and not the data that makes them.
Measured: factors of 4.9 to 5.1, and 58 (a factor of 1.3 either way from network to
network) where Nielsen has 75. Forty seconds on one core.

    python -m experiments.speed_of_learning
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

NIELSEN = "Nielsen, chapter 5"
PUBLISHED = 0.00298, 0.01708, 0.06954, 0.28514
RATIO, LATE = 75.0, slice(55, 121)


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of the experiment."""

    images: str = "mnist"
    """mnist, digits or noise."""
    widths: tuple[int, ...] = (30, 30, 30, 30)
    sigma_w: float = 1.0
    initialisations: int = 200
    """How many initialisations the speeds are averaged over."""
    trained: int = 16
    """How many of them are trained."""
    examples: int = 1000
    epochs: int = 500
    seed: int = 0


def run(config):
    """Speeds of many initialisations, and of some networks over their training."""
    x, y = _data(config)
    keys = jax.random.split(jax.random.key(config.seed), config.initialisations)
    sizes = x.shape[1], *config.widths, y.shape[1]
    networks = jax.vmap(lambda key: _network(key, sizes, config.sigma_w))(keys)
    speeds = jax.jit(lambda params: _speeds(jax.grad(_loss)(params, x, y)))
    train = jax.jit(lambda params: _train(params, x, y, config.epochs))

    def one(i):
        return jax.tree.map(lambda leaf: leaf[i], networks)

    starts = [speeds(one(i)) for i in progress(range(config.initialisations), "starts")]
    curves = [train(one(i)) for i in progress(range(config.trained), "trainings")]
    return {"starts": np.array(starts), "curves": np.array(curves)}


def _data(config):
    """Images and one-hot labels."""
    if config.images == "noise":
        key_x, key_y = jax.random.split(jax.random.key(config.seed + 1))
        x = jax.random.uniform(key_x, (config.examples, 784))
        y = jax.random.randint(key_y, (config.examples,), 0, 10)
    else:
        data = gs.data.load(config.images, num_train=config.examples)
        x, y = jnp.asarray(data.x_train * (255 / 256)), jnp.asarray(data.y_train)
    return x, jax.nn.one_hot(y, 10)


def _network(key, sizes, sigma_w):
    pairs = list(itertools.pairwise(sizes))
    keys = jax.random.split(key, (len(pairs), 2))
    kernel, bias = gs.initializers.mean_field(sigma_w), gs.initializers.normal(1.0)
    return [
        {"kernel": kernel(k[0], pair), "bias": bias(k[1], pair[1:])}
        for k, pair in zip(keys, pairs, strict=True)
    ]


def _loss(params, x, y):
    *hidden, last = params
    for layer in hidden:
        x = jax.nn.sigmoid(x @ layer["kernel"] + layer["bias"][None])
    logits = x @ last["kernel"] + last["bias"][None]
    return jnp.mean(jnp.sum(optax.sigmoid_binary_cross_entropy(logits, y), axis=1))


def _speeds(gradients):
    """Norm of the bias gradient of every hidden layer."""
    return jnp.stack([jnp.linalg.norm(layer["bias"]) for layer in gradients[:-1]])


def _train(params, x, y, epochs):
    optimizer = gs.training.build("sgd", 0.1, l2=5 / len(x))

    def epoch(carry, _):
        params, state = carry
        gradients = jax.grad(_loss)(params, x, y)
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), _speeds(gradients)

    return jax.lax.scan(epoch, (params, optimizer.init(params)), length=epochs)[1]


def claims(config, arrays):
    """The published numbers among those of the seeds; the order of the layers."""
    starts, curves = arrays["starts"], arrays["curves"]
    steps = np.diff(np.log(starts), axis=1)  # (networks, layers - 1)
    errors = np.std(steps, axis=0) / len(steps) ** 0.5
    theory = gs.theory.mean_field(jax.nn.sigmoid, 1.0, 1.0).chi ** -0.5
    ordered = np.mean(np.all(np.diff(curves, axis=2) > 0, axis=2))
    first, late = np.exp(np.mean(_ratio(starts))), np.mean(_ratio(curves[:, LATE]), 1)
    gap = (np.log(RATIO) - np.mean(late)) / np.std(late)
    return [
        *map(_inside, starts.T, PUBLISHED, itertools.count(1)),
        *(
            claim(
                f"speed of hidden layer {i + 2} over that of {i + 1}, at the start",
                np.exp(np.mean(steps[:, i])),
                theory,
                between=(4.6, 5.4),
                error=errors[i] * np.exp(np.mean(steps[:, i])),
                source="mean-field theory",
            )
            for i in range(steps.shape[1])
        ),
        _of("share of epochs with layers in the order of speed", ordered, 1, 0.99, 1),
        _of("last over first hidden layer, at the start", first, 95.8, 70, 220),
        _of(f"{RATIO} over epochs 55 to 120, in deviations of networks", gap, 0, -2, 2),
    ]


def _inside(speeds, published, layer):
    """The published number among the seeds, as a percentile."""
    below = 100 * np.mean(speeds < published)
    text = f"percentile of {published} among the speeds of hidden layer {layer}"
    return _of(text, below, 50, 2.5, 97.5)


def _of(text, measured, published, low, high):
    return claim(text, measured, published, between=(low, high), source=NIELSEN)


def _ratio(speeds):
    """Logarithm of the last hidden layer's speed over the first one's."""
    return np.log(speeds[..., -1] / speeds[..., 0])


def plot(config, arrays):
    """The speeds of one network while it learns, as Nielsen drew them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for i, curve in enumerate(arrays["curves"][0].T):
        (line,) = axes.semilogy(curve, label=f"hidden layer {i + 1}")
        axes.plot(0, PUBLISHED[i], "o", color=line.get_color())
    axes.set_title("how fast each layer learns", fontsize="medium")
    axes.set(xlabel="epoch", ylabel="norm of the bias gradient (dots: published)")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
