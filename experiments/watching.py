r"""Is a gradient norm that grows a divergence, or a head that only looks like one?

Three trainings of a residual network on the digits, with labels of which some are drawn
anew in every step, so that there is a loss that nobody learns. They differ in what is
done from one step on. In the second, every step moves a little of the scale of the last
layer's weights into the gain of the normalisation before it, as weight decay does that
spares gains: the function stays what it is, while the gradient of the head grows by
just that factor, and drives the global norm and its clipping. In the third the learning
rate grows until the training diverges. The global norm grows in both; asked is
`gradstab.History.attribute`, which layers drive it, since when and at what rate, and
whether the loss rises with it.

What must come out is known: a rate of ln(1 + g) from where it begins, of the head
alone, with a loss that does not rise; a loss that rises, with other layers among the
drivers; and no growth where nothing is done. Half a minute.

    python -m experiments.watching
"""

import dataclasses
import functools
import math
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstab as gs
from experiments._claims import claim
from experiments._run import experiment, progress

PLANTED = "planted here"
RUNS = "healthy", "growing head", "divergence"


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; both growths are what is planted."""

    growth: float = 0.02
    """By which part the head's gradient grows in every step."""
    faster: float = 0.1
    """By which part the learning rate that diverges grows in every step."""
    noise: float = 0.3
    """Share of labels that are drawn anew in every step."""
    begin: int = 300
    """Step at which either begins."""
    steps: int = 400
    depth: int = 4
    width: int = 32
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0


def run(config):
    """Losses, gradient norms of all layers, and what the attribution says of them."""
    arrays = {}
    for name in progress(RUNS, "trainings"):
        with tempfile.TemporaryDirectory() as folder:
            history = gs.History(folder)
            history.append(0, _train(config, name))
            known = history.attribute(since=config.begin // 2)
            arrays[f"{name}: loss"] = history.value
            arrays[f"{name}: norms"] = history["gradient_norm"]
        arrays["names"] = np.array(history.names)
        arrays[f"{name}: drivers"] = np.array([x.layer for x in known.drivers], str)
        arrays[f"{name}: shares"] = np.array([x.growth for x in known.drivers])
        arrays[f"{name}: grows"] = np.array(known.norm.grows)
        (head,) = (x.trend for x in known.layers if x.layer == "head")
        if head is not None:
            arrays[f"{name}: rate"] = np.array([head.low, head.rate, head.high])
            arrays[f"{name}: since"] = np.array(head.since)
        arrays[f"{name}: loss rises"] = np.array(known.loss_rises)
        arrays[f"{name}: words"] = np.array(str(known))
    return arrays


def _train(config, name):
    """The statistics of all steps of a run."""
    data = gs.data.load("digits")
    x, y = jnp.asarray(data.x_train), jnp.asarray(data.y_train)
    x = x.reshape(len(x), -1)
    params = _initialise(config, x.shape[1])
    optimizer = optax.adam(config.learning_rate)
    watched = gs.value_and_grad(_loss, level="full")

    def step(carry, number):
        params, state = carry
        late = number >= config.begin
        if name == "growing head":
            factor = jnp.where(late, 1 + config.growth, 1.0)
            gain, head = params["gain"] * factor, params["head"] / factor
            params = params | {"gain": gain, "head": head}
        key = jax.random.fold_in(jax.random.key(config.seed + 1), number)
        rows, labels = _batch(config, key, y)
        (_, stats), grads = watched(params, x[rows], labels)
        updates, state = optimizer.update(grads, state)
        if name == "divergence":
            factor = (1 + config.faster) ** jnp.maximum(number - config.begin, 0)
            updates = jax.tree.map(lambda u: factor * u, updates)
        return (optax.apply_updates(params, updates), state), stats

    begin = params, optimizer.init(params)
    return jax.jit(functools.partial(jax.lax.scan, step))(
        begin, jnp.arange(config.steps)
    )[1]


def _batch(config, key, y):
    """Rows of the data and their labels, some of which are any."""
    keys, shape = jax.random.split(key, 3), (config.batch_size,)
    rows = jax.random.randint(keys[0], shape, 0, len(y))
    drawn = jax.random.randint(keys[1], shape, 0, 10)
    return rows, jnp.where(
        jax.random.bernoulli(keys[2], config.noise, shape), drawn, y[rows]
    )


def _initialise(config, num_inputs):
    keys = iter(jax.random.split(jax.random.key(config.seed), 2 * config.depth + 2))

    def dense(n_in, n_out):
        return jax.random.normal(next(keys), (n_in, n_out)) / n_in**0.5

    width = config.width
    blocks = [
        {"in": dense(width, width), "out": dense(width, width) / config.depth}
        for _ in range(config.depth)
    ]
    return {
        "embed": dense(num_inputs, width),
        "blocks": blocks,
        "gain": jnp.ones(width),
        "head": dense(width, 10),
    }


def _loss(params, x, y):
    h = x @ params["embed"]
    for block in params["blocks"]:
        h = h + jax.nn.relu(h @ block["in"]) @ block["out"]
    logits = _normalised(h) * params["gain"][None] @ params["head"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def _normalised(h):
    return h / jnp.sqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-6)


def claims(config, arrays):
    """What was planted, and nothing else."""
    said = functools.partial(_said, arrays)
    drivers = said("growing head", "drivers").tolist()
    shares = said("growing head", "shares")
    others = [x for x in said("divergence", "drivers").tolist() if x != "head"]
    return [
        claim(
            "healthy: the norm is said to grow (1: yes)",
            *(float(said("healthy", "grows")), 0),
            **{"within": 0, "source": PLANTED},
        ),
        claim(
            "growing head: its share of the growth of the squared norm",
            *(float(shares[drivers.index("head")]) if "head" in drivers else 0.0, 1),
            **{"between": (0.9, 1.1), "source": PLANTED},
        ),
        claim(
            "growing head: growth of its norm in every step",
            *(float(said("growing head", "rate")[1]), math.log1p(config.growth)),
            **{"relative": 0.2, "source": PLANTED},
        ),
        claim(
            "growing head: the step since which its norm grows",
            *(float(said("growing head", "since")), config.begin),
            **{"within": config.steps / 20, "source": PLANTED},
        ),
        claim(
            "growing head: the loss is said to rise (1: yes)",
            *(float(said("growing head", "loss rises")), 0),
            **{"within": 0, "source": PLANTED},
        ),
        claim(
            "divergence: the loss is said to rise (1: yes)",
            *(float(said("divergence", "loss rises")), 1),
            **{"within": 0, "source": PLANTED},
        ),
        claim(
            "divergence: drivers beside the head, at least",
            *(len(others), 1),
            **{"between": (1, math.inf), "source": PLANTED},
        ),
    ]


def _said(arrays, run_name, what):
    return arrays[f"{run_name}: {what}"]


def plot(config, arrays):
    """Gradient norms layer by step, and the loss above them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    rows = figure.subplots(2, len(RUNS), squeeze=False, height_ratios=(1, 2))
    heads = [f"{name}: norms" for name in RUNS]
    with np.errstate(divide="ignore"):
        levels = [np.log10(arrays[head]).T for head in heads]
    finite = np.concatenate([x[np.isfinite(x)] for x in levels])
    low, high = np.quantile(finite, [0.01, 0.99])
    images = []
    for i, name in enumerate(RUNS):
        above, below = rows[0][i], rows[1][i]
        above.plot(arrays[f"{name}: loss"], linewidth=0.8)
        above.set_title(f"{name}: loss", fontsize="medium")
        below.set_title("gradient norms of the layers", fontsize="medium")
        above.set(xlabel="step", ylabel="loss" if i == 0 else "", yscale="log")
        image = below.imshow(levels[i], aspect="auto", vmin=low, vmax=high)
        images.append(image)
        below.set(xlabel="step")
        labels = arrays["names"] if i == 0 else []
        below.set_yticks(range(len(labels)), labels, fontsize="small")
    figure.colorbar(images[-1], ax=rows[1], label="log10 of the gradient norm")
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
