"""Do L1 and L2 penalties help against exploding gradients?

The advice of the tutorials: where gradients explode, look at the size of the weights
and penalise it. A penalty l2/2 |w|^2 shrinks every weight by 1 - lr l2 at each step of
gradient descent, l1 |w| by lr l1 until it is zero; Pascanu et al. (2013, section 3.1)
warn that it does so to all of them, which leads into the other regime.

Ten tanh layers at sigma_w = 2, whose Jacobians stretch by 1.167 in the root mean square
(mean-field theory), on handwritten digits, SGD. Expected: without a penalty they still
stretch after the training; with either they shrink, L1 by making half of the weights
zero. With a gradient of zero the laws above hold exactly. And no cure: 20 ReLU layers
that double the gradient are not finite after a few steps, penalised or not, as a
penalty needs 1 / (lr l2) steps and an explosion one; clipped by norm they stay finite.

Measured: 1.06 without, 0.83 with L1, 0.52 with L2, whose weights are 0.29 of what they
were. But the gradient of the loss, along the few directions that the training keeps,
still grows by about 1.09 a layer with L2 (1.04 without): what a penalty shrinks is the
rest. One minute on one core.

    python -m experiments.weight_penalties
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import gradstab as gs
from experiments._claims import claim
from experiments._run import experiment, progress

ADVICE = "the tutorials' advice"
COLUMNS = (
    "factor of the loss's gradient per layer",
    "rms singular value of a layer's Jacobian",
    "rms of the weights",
    "share of weights near zero",
)
KINDS = "start", "unpenalised", "L1", "L2"


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of the experiment."""

    data: str = "digits"
    depth: int = 10
    width: int = 64
    sigma_w: float = 2.0
    explosion: float = 8**0.5
    """sigma_w of the relu layers that double gradients; 0 leaves them out."""
    l1: float = 3e-3
    """Weight of the L1 penalty."""
    l2: float = 2e-2
    """Weight of the L2 penalty."""
    learning_rate: float = 0.05
    steps: int = 1500
    batch_size: int = 64
    num_seeds: int = 1
    seed: int = 0


def run(config):
    """Rows of every network, the laws, and which runs survive an explosion."""
    data, ways = gs.data.load(config.data), penalties(config)
    rows = {name: [] for name in KINDS}
    seeds = range(config.seed, config.seed + config.num_seeds)
    for seed in progress(seeds, "networks"):
        start = _model(config, data, config.depth, config.sigma_w, "tanh", seed)
        rows["start"].append(_row(config, data, start))
        for name, optimizer in ways.items():
            trained = _fit(config, data, start, optimizer, seed, config.steps)
            rows[name].append(_row(config, data, trained))
    arrays = {name: np.array(values) for name, values in rows.items()}
    arrays |= laws(config, ways)
    return (
        arrays | _explosions(config, data, ways, seeds) if config.explosion else arrays
    )


def penalties(config):
    """Optimisers without a penalty and with either one."""
    weights = {"unpenalised": {}, "L1": {"l1": config.l1}, "L2": {"l2": config.l2}}
    build = gs.training.build
    return {k: build("sgd", config.learning_rate, **v) for k, v in weights.items()}


def _model(config, data, depth, sigma_w, activation, seed):
    return gs.models.build(
        "mlp",
        in_shape=data.input_shape,
        num_outputs=data.num_outputs,
        depth=depth,
        width=config.width,
        activation=activation,
        init=f"mean_field:{sigma_w}",
        seed=seed,
    )


def _fit(config, data, model, optimizer, seed, num_steps):
    return gs.training.fit(
        model,
        (data.x_train, data.y_train),
        optimizer=optimizer,
        num_steps=num_steps,
        batch_size=config.batch_size,
        seed=seed,
        progress=False,
    ).model


def _row(config, data, model):
    """See `COLUMNS`."""
    x, y = data.x_train[:16], data.y_train[:16]

    def loss(logits):
        return gs.training.cross_entropy(logits, y)

    hidden = gs.analyze(model, x, loss=loss, theory=False).layers[: config.depth]
    norms = [np.mean(np.log(layer.gradient_norm)) for layer in hidden]
    spectra = [layer.jacobian.values for layer in hidden[1:] if layer.jacobian]
    squares = [np.mean(np.square(values)) for values in spectra]
    weights = np.abs(model.blocks.dense.kernel.get_value())
    return (
        np.exp((norms[0] - norms[-1]) / (config.depth - 1)),
        np.exp(np.mean(np.log(squares)) / 2),
        np.sqrt(np.mean(weights**2)),
        np.mean(weights < 2 * config.learning_rate * config.l1),
    )


def laws(config, ways, num=50):
    """How far weights without a gradient come out from where the laws say."""
    start = jnp.linspace(-1, 1, 101).reshape(1, 101)
    shrink, loss = config.learning_rate * config.l2, config.learning_rate * config.l1
    expected = {
        "L1": jnp.sign(start) * jnp.maximum(jnp.abs(start) - num * loss, 0),
        "L2": start * (1 - shrink) ** num,
    }
    ends = {name: _without_gradient(ways[name], start, num) for name in expected}
    return {
        f"law of {name}": np.max(np.abs(ends[name] - np.asarray(law)))
        for name, law in expected.items()
    }


def _without_gradient(optimizer, weights, num):
    def step(carry, _):
        weights, state = carry
        updates, state = optimizer.update(jnp.zeros_like(weights), state, weights)
        return (optax.apply_updates(weights, updates), state), None

    start = weights, optimizer.init(weights)
    (weights, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=num))(start)
    return np.asarray(weights)


def _explosions(config, data, ways, seeds):
    """Which runs stay finite, of 20 layers that double gradients."""
    clip = {"clip": "global-norm", "threshold": 1.0}
    ways = ways | {"clipped": gs.training.build("sgd", config.learning_rate, **clip)}
    plan = gs.data.batch_plan(
        config.seed, 0, 50, num_examples=len(data.x_train), batch_size=config.batch_size
    )
    finite = {f"finite, {name}": [] for name in ways}
    for name, optimizer in ways.items():
        for seed in seeds:
            model = _model(config, data, 20, config.explosion, "relu", seed)
            steps = gs.training.make_steps(
                nnx.graphdef(model), optimizer, loss=gs.training.cross_entropy
            )
            state = gs.training.initial_state(model, optimizer)
            state, _ = steps(state, data.x_train, data.y_train, plan, 50)
            finite[f"finite, {name}"].append(not state.failed)
    return {name: np.array(values) for name, values in finite.items()}


def claims(config, arrays):
    """Factors before and after, sizes, the laws, and that it is no cure."""
    factor = {name: arrays[name][:, 1] for name in KINDS}
    sizes = {name: arrays[name][:, 2] / arrays["start"][:, 2] for name in KINDS}
    zeros = {name: arrays[name][:, 3] for name in KINDS}
    rate = gs.theory.mean_field(jnp.tanh, config.sigma_w).gradient_rate
    step = config.learning_rate * config.l1
    return [
        _of(
            "factor of a layer at the start",
            factor["start"].mean(),
            np.exp(rate),
            1.05,
            1.3,
        ),
        _of("factor, unpenalised, least", factor["unpenalised"].min(), 1.1, 1, 1.5),
        _of("factor, L1, largest", factor["L1"].max(), 0.5, 0, 0.9),
        _of("factor, L2, largest", factor["L2"].max(), 0.5, 0, 0.9),
        _of(
            "weights over the start, unpenalised",
            sizes["unpenalised"].min(),
            1,
            0.98,
            1.2,
        ),
        _of("weights over the start, L1", sizes["L1"].max(), 0.5, 0, 0.8),
        _of("weights over the start, L2", sizes["L2"].max(), 0.5, 0, 0.8),
        _of("share of weights near zero, L1", zeros["L1"].min(), 0.5, 0.3, 1),
        _of("share of weights near zero, L2", zeros["L2"].max(), 0, 0, 0.1),
        _of("difference from the law, L1", arrays["law of L1"], 0, 0, 1e-5 + step),
        _of("difference from the law, L2", arrays["law of L2"], 0, 0, 1e-5),
        *(_survives(arrays, key) for key in arrays if key.startswith("finite")),
    ]


def _survives(arrays, key):
    share, expected = np.mean(arrays[key]), float(key == "finite, clipped")
    text = f"explosion, share of runs that stay {key}"
    return _of(text, share, expected, expected, expected)


def _of(text, measured, published, low, high):
    return claim(text, measured, published, between=(low, high), source=ADVICE)


def plot(config, arrays):
    """Factors and weights, kind by kind."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    for i, axes in enumerate(figure.subplots(1, 4)):
        axes.bar(KINDS, [arrays[name][:, i].mean() for name in KINDS])
        axes.set(title=COLUMNS[i], xlabel="penalty", ylabel=COLUMNS[i])
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
