"""Where does clipping gradients matter, and what does clipping by value change?

1. Gradient descent on x^4 / 4 from x0 diverges if and only if lr x0^2 > 2, as a step is
   x -> x (1 - lr x^2); clipped at c it never does, as no step is longer than lr c.
   (Where descents that need not diverge need it to be fast: Zhang et al. 2020, Why
   gradient clipping accelerates training.)
2. An exploding recurrent network: ReLU units, recurrent weights 1.3 times the identity,
   the adding problem over 20 steps, SGD. Without clipping it is not finite after a few
   steps, in every run. Clipped by norm at 1 it learns (squared error 0.04 to 0.05;
   always answering 1 gives 0.167), and nine steps of ten are clipped. Clipped by value,
   with steps that are no longer (0.03 for each of 1,153 entries), it stays finite and
   learns nothing: what is left of the direction does not shrink the recurrent weights.
3. Clipping by norm (Pascanu, Mikolov and Bengio 2013, algorithm 1) keeps the direction
   of the gradient, cosine 1; by value ("forced into range") does not. Far beyond the
   threshold only signs are left: of a Gaussian gradient a cosine of sqrt(2 / pi) =
   0.798, whatever the threshold.

It held with three times three seeds. Fifteen seconds on one core.

    python -m experiments.clipping
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

PASCANU, ZHANG = "Pascanu et al. 2013", "Zhang et al. 2020"
WAYS = {
    "unclipped": lambda threshold: optax.identity(),
    "by norm": gs.clipping.clip_by_global_norm,
    "by value": gs.clipping.clip_by_value,
}
CLIPPED = "by norm", "by value"
BASELINE = 1 / 6  # the squared error of always answering 1


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of the experiment."""

    norm: float = 1.0
    """Threshold of the gradient's norm."""
    value: float = 0.03
    """Threshold of each entry of the gradient."""
    learning_rate: float = 0.05
    scale: float = 1.3
    """Factor of the identity that the recurrent weights are at the start."""
    time_steps: int = 20
    hidden: int = 32
    steps: int = 1500
    batch_size: int = 32
    num_seeds: int = 3
    seed: int = 0


def run(config):
    """Descents on x^4 / 4; trainings ``(seeds, steps)``, cosines included."""
    rates, starts = np.geomspace(0.01, 1, 40), np.geomspace(0.5, 30, 41)
    arrays = {"rates": rates, "starts": starts}
    seeds = range(config.seed, config.seed + config.num_seeds)
    networks = [(*_network(config, seed), _batches(config, seed)) for seed in seeds]
    gaussian = jax.random.normal(jax.random.key(config.seed), (100_000,))
    for name, way in _ways(config).items():
        arrays[f"x^4, {name}"] = np.asarray(_descents(way, rates, starts))
        train = _training(config, way, networks[0][0])
        runs = [train(*rest) for _, *rest in progress(networks, name)]
        arrays |= {f"{k}, {name}": np.stack([r[k] for r in runs]) for k in runs[0]}
        clipped, _ = way.update(1e3 * gaussian, way.init(gaussian))
        arrays[f"gaussian, {name}"] = np.asarray(_cosine(gaussian, clipped))
    return arrays


def _network(config, seed):
    model = gs.models.build(
        "rnn",
        in_shape=(config.time_steps, 2),
        num_outputs=1,
        width=config.hidden,
        activation="relu",
        recurrent_init=f"identity:{config.scale}",
        seed=seed,
    )
    graphdef, params = nnx.split(model)
    return graphdef, nnx.to_pure_dict(params)


def _batches(config, seed):
    num = config.steps * config.batch_size
    x, y = gs.data.adding_problem(num, config.time_steps, seed)
    return jax.tree.map(lambda a: a.reshape(config.steps, -1, *a.shape[1:]), (x, y))


def _ways(config):
    thresholds = 0.0, config.norm, config.value
    return {
        name: gs.clipping.recorded(way(threshold))
        for (name, way), threshold in zip(WAYS.items(), thresholds, strict=True)
    }


def _descents(way, rates, starts, num=1000):
    """|x| in the end ``(rates, starts)``; what diverges stops at 1e6."""

    def descent(rate, x):
        def step(carry, _):
            x, state = carry
            clipped, state = way.update(x**3, state)
            return (jnp.clip(x - rate * clipped, -1e6, 1e6), state), None

        return jnp.abs(jax.lax.scan(step, (x, way.init(x)), length=num)[0][0])

    grid = jax.vmap(jax.vmap(descent, (None, 0)), (0, None))
    return jax.jit(grid)(jnp.float32(rates), jnp.float32(starts))


def _training(config, way, graphdef):
    """A function of parameters and batches: what happens at every step."""
    optimizer = optax.sgd(config.learning_rate)

    def step(carry, batch):
        params, clipping = carry
        loss, gradient = jax.value_and_grad(objective)(params, *batch)
        clipped, clipping = way.update(gradient, clipping)
        updates, _ = optimizer.update(clipped, optimizer.init(params))
        kept = {
            "loss": loss,
            "norm": clipping.pre_norm,
            "clipped": clipping.clipped,
            "cosine": _cosine(gradient, clipped),
        }
        return (optax.apply_updates(params, updates), clipping), kept

    def objective(params, x, y):
        return gs.training.mean_squared_error(nnx.merge(graphdef, params)(x), y)

    return jax.jit(
        lambda params, batches: jax.lax.scan(step, (params, way.init(params)), batches)[
            1
        ]
    )


def _cosine(a, b):
    """Of the angle between two gradients; NaN if one is not finite."""
    product = optax.tree.vdot(a, b)
    return product / (optax.tree.norm(a) * optax.tree.norm(b))


def claims(config, arrays):
    """Who diverges, who learns, who is clipped, who turns."""
    unstable = np.square(arrays["starts"]) * arrays["rates"][:, None] > 2
    agrees = np.mean(_diverged(arrays["x^4, unclipped"]) == unstable)
    straight = arrays["cosine, by norm"][arrays["clipped, by norm"]]
    turned = np.median(arrays["cosine, by value"][arrays["clipped, by value"]])
    gaussian, signs = (
        arrays["gaussian, by value"],
        "by value: cosine if only signs are left",
    )
    return [
        claim(
            "x^4 / 4 diverges iff lr x0^2 > 2: share", agrees, 1, within=0, source=ZHANG
        ),
        *(_never_diverges(arrays, name) for name in CLIPPED),
        *(_learns(arrays, name, name == "by norm") for name in WAYS),
        *(_is_clipped(arrays, name) for name in CLIPPED),
        _of(
            "by norm: least cosine",
            min(straight, default=np.nan),
            1,
            (1 - 1e-5, 1 + 1e-5),
        ),
        _of("by value: median cosine", turned, 0.5, (0, 0.9)),
        claim(
            signs, gaussian, (2 / np.pi) ** 0.5, within=0.005, source="E|z|, z Gaussian"
        ),
    ]


def _never_diverges(arrays, name):
    share = np.mean(_diverged(arrays[f"x^4, {name}"]))
    return claim(
        f"x^4 / 4, {name}: share that diverges", share, 0, within=0, source=ZHANG
    )


def _learns(arrays, name, expected):
    losses = arrays[f"loss, {name}"][:, -100:].mean(axis=1)
    share, expected = np.mean(losses < BASELINE / 2), float(expected)
    return _of(
        f"recurrent network, {name}: share that learns",
        share,
        expected,
        (expected,) * 2,
    )


def _is_clipped(arrays, name):
    share = min(arrays[f"clipped, {name}"].mean(axis=1))
    return _of(f"recurrent network, {name}: least clip rate", share, 1, (0.5, 1))


def _of(text, measured, published, between):
    return claim(text, measured, published, between=between, source=PASCANU)


def _diverged(distances):
    return ~(distances < 1e5)


def plot(config, arrays):
    """Where descents on x^4 / 4 diverge; losses; cosines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    rates, starts = arrays["rates"], arrays["starts"]
    left.contourf(rates, starts, _diverged(arrays["x^4, unclipped"]).T, cmap="cividis")
    left.loglog(rates, (2 / rates) ** 0.5, "w--")
    left.set_title(
        "unclipped $x^4 / 4$: yellow diverges; dashed: $x_0^2 = 2 / lr$",
        fontsize="medium",
    )
    left.set(xlabel="learning rate lr", ylabel="start $x_0$")
    for i, name in enumerate(WAYS):
        losses, cosines = (arrays[f"{what}, {name}"][0] for what in ("loss", "cosine"))
        finite = np.isfinite(losses)
        steps = int(np.argmin(finite)) if not finite.all() else len(losses)
        ended = f": not finite from step {steps} on" * (steps < len(losses))
        style = {"color": f"C{i}", "label": name + ended}
        middle.semilogy(losses[:steps], marker="x" if ended else "", **style)
        if ended and not np.isfinite(cosines[steps:]).any():
            cosines = cosines[:steps]
        right.plot(cosines, ".", **style)
    middle.axhline(BASELINE, color="k", linestyle=":", label="always 1")
    middle.set_title("a recurrent network on the adding problem", fontsize="medium")
    middle.set(xlabel="step", ylabel="squared error")
    right.set_title("what clipping does to the gradient's direction", fontsize="medium")
    right.set(xlabel="step", ylabel="cosine of gradient and clipped gradient")
    legend(middle)
    legend(right)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
