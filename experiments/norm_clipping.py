r"""Can the gradient of a recurrent network explode, and what does clipping do to it?

Pascanu et al. (2013): the Jacobian of T steps of a recurrent network is no larger than
(gamma sigma_max(W))^T, with gamma = max |phi'|: 1 for tanh, 1/4 for sigmoid. So
sigma_max < 1 / gamma is enough for it to vanish, and sigma_max > 1 / gamma is needed,
though not enough, for it to explode. Expected, with W = g Q and Q orthogonal: the bound
is violated by no seed, no g and no T. What their algorithm 1 does to a gradient that
explodes: its norm becomes min(||g||, c) and its direction stays. Clipping by value, the
"force it into a range" of a tutorial, turns it. Ten seconds on one core.

    python -m experiments.norm_clipping
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment

PASCANU = "Pascanu et al. 2013"
CELLS = {"tanh": (jnp.tanh, 1.0), "sigmoid": (jax.nn.sigmoid, 0.25)}


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``by`` is what clips: the norm, as in the paper, or the value."""

    gains: tuple[float, ...] = (0.5, 0.9, 1.1, 2.0)
    """Factors of the orthogonal recurrent weights."""
    steps: int = 50
    units: int = 32
    """Units of the recurrent layer."""
    networks: int = 20
    threshold: float = 1.0
    """Bound of the norm, or of the entries."""
    by: str = "norm"
    """What is clipped: norm, as in the paper, or value."""
    orthogonal: bool = True
    """Whether recurrent weights are orthogonal; else Gaussian."""
    seed: int = 0


def run(config):
    """Largest singular values over their bounds, and what clipping does."""
    key_j, key_g = jax.random.split(jax.random.key(config.seed))
    keys = jax.random.split(key_j, len(CELLS))
    logs = {
        name: np.asarray(_log_largest(config, name, key))
        for name, key in zip(CELLS, keys, strict=True)
    }
    return {**logs, **_clipped(config, key_g)}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _log_largest(config, name, key):
    """Of the Jacobian of 1, 2, ... steps: (gains, networks, steps)."""
    activation, _ = CELLS[name]
    key_w, key_h, key_x = jax.random.split(key, 3)
    units, networks = config.units, config.networks
    w = jax.random.normal(key_w, (networks, units, units)) * units**-0.5
    if config.orthogonal:
        w = jnp.linalg.qr(w)[0]
    h = jax.random.normal(key_h, (networks, units))
    inputs = 0.1 * jax.random.normal(key_x, (config.steps, networks, units))

    def of_one(gain, w, h, inputs):
        def step(carry, x):
            h, jacobian, scale = carry
            h, slopes = jax.jvp(activation, (gain * h @ w + x,), (jnp.ones_like(h),))
            jacobian = gain * jacobian @ w * slopes[None]
            size = jnp.linalg.norm(jacobian)
            jacobian, scale = jacobian / size, scale + jnp.log(size)
            largest = jnp.linalg.svd(jacobian, compute_uv=False)[0]
            return (h, jacobian, scale), jnp.log(largest) + scale

        start = h, jnp.eye(units), jnp.zeros(())
        return jax.lax.scan(step, start, inputs)[1]

    each = jax.vmap(of_one, in_axes=(None, 0, 0, 1))
    gains = jnp.array(config.gains)
    return jax.lax.map(lambda gain: each(gain, w, h, inputs), gains)


def _clipped(config, key):
    """Norms before and after, and cosines with the gradient before: (gradients,)."""
    scales = jnp.logspace(-2, 4, 64)[:, None]
    gradients = scales * jax.random.normal(key, (64, config.units))
    clippers = {
        "norm": gs.clipping.clip_by_global_norm,
        "value": gs.clipping.clip_by_value,
    }
    found = {"before": np.linalg.norm(gradients, axis=1)}
    for name, by in (("chosen", config.by), ("by_value", "value")):
        clipper = clippers[by](config.threshold)
        after = jax.vmap(lambda g, c=clipper: c.update(g, c.init(None))[0])(gradients)
        norms = np.linalg.norm(after, axis=1)
        inner = np.sum(np.asarray(after) * np.asarray(gradients), axis=1)
        found |= {name: norms, f"{name}_cosine": inner / norms / found["before"]}
    return found


def claims(config, arrays):
    """The bound, the length and the direction."""
    bounds = [
        claim(
            f"largest ln(norm / bound) of {name}, all gains, networks and steps",
            _excess(config, arrays[name], slope).max(),
            0,
            **{"between": (-np.inf, 1e-5), "source": PASCANU},
            row="17",
        )
        for name, (_, slope) in CELLS.items()
    ]
    law = np.minimum(arrays["before"], config.threshold)
    return [
        *bounds,
        claim(
            "norm after clipping over min(norm, c), the largest error",
            np.abs(arrays["chosen"] / law - 1).max(),
            0,
            **{"within": 1e-5, "source": f"{PASCANU}, algorithm 1", "row": "17"},
        ),
        claim(
            "least cosine of a gradient clipped by norm with itself before",
            arrays["chosen_cosine"].min(),
            1,
            **{"within": 1e-5, "source": f"{PASCANU}, algorithm 1", "row": "17"},
        ),
        claim(
            "least cosine of a gradient clipped by value with itself before",
            arrays["by_value_cosine"].min(),
            (2 / np.pi) ** 0.5,
            **{"between": (0, 0.95), "source": "signs of a Gaussian vector"},
        ),
    ]


def _excess(config, logs, slope):
    """Logarithms of norm over bound; the bound of T steps is (gamma g)^T."""
    steps = 1 + np.arange(config.steps)
    rates = np.log(slope * np.array(config.gains))
    return logs - rates[:, None, None] * steps


def plot(config, arrays):
    """Norms against steps beside the bound, and the cosine against the norm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = 1 + np.arange(config.steps)
    for i, gain in enumerate(config.gains):
        logs = arrays["tanh"][i].max(axis=0) / np.log(10)
        left.plot(steps, logs, color=f"C{i}", label=f"g = {gain:g}")
        left.plot(steps, steps * np.log10(gain), ":", color=f"C{i}")
    left.set_title("tanh networks along time", fontsize="medium")
    left.set(xlabel="steps", ylabel="log10 of the largest norm (dotted: bound)")
    legend(left)
    right.plot(arrays["before"], arrays["chosen_cosine"], label=f"by {config.by}")
    right.plot(arrays["before"], arrays["by_value_cosine"], "--", label="by value")
    right.set_title("what clipping does to a direction", fontsize="medium")
    right.set(xscale="log", xlabel="gradient norm", ylabel="cosine with itself before")
    legend(right)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
