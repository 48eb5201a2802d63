r"""How long does the memory cell of an LSTM remember at its start?

With zero weights the cell keeps sigma(b_f)^T of its value over T steps, exactly: after
100 steps 7.9e-31 with a forget bias of 0, which is the default of Flax's cells, 2.5e-14
with 1, 3.1e-6 with 2 (Jozefowicz et al. 2015 advise 1 or 2). A chrono
initialisation, b_f = ln U[1, T - 1] (Tallec and Ollivier 2018), keeps 0.14965 of it on
average over the units at T = 100; 0.1485 = int_0^1 exp(-1/v) dv for long T. "An LSTM
is not prone to vanishing gradients" depends on that bias. With random weights the
root mean square singular value of all steps' Jacobian, from the exponents that
`gs.analyze` finds along time, is larger, as the state feeds the gates too, but it
vanishes all the same below a bias of 2. Half a minute on one core.

    python -m experiments.forget_gates
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment

TALLEC = "Tallec and Ollivier 2018"
JOZEFOWICZ = "Jozefowicz et al. 2015"
NARROW = 64  # units of a network for the chrono measurement
init = gs.initializers


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``recurrent`` is the scale of the recurrent weights, 0 in the formula."""

    biases: tuple[float, ...] = (0.0, 1.0, 2.0)
    """Forget biases, one row for each."""
    time_steps: int = 100
    units: int = 4096
    """Memory cells that the chrono initialisation is averaged over."""
    hidden: int = 32
    recurrent: float = 0.0
    """Scale of the recurrent weights, 0 in the formula."""
    chrono: bool = True
    """Draw forget biases by the chrono rule; off sets them to 1."""
    seed: int = 0


def run(config):
    """What is kept of a cell after all steps, and growth of gradients along time."""
    key = jax.random.key(config.seed)
    chrono = init.chrono_bias(config.time_steps)
    if not config.chrono:
        chrono = init.forget_bias(1.0)
    return {
        "kept": np.array([_kept(config, b, key)[0] for b in config.biases]),
        "chrono": _chrono(config, chrono, key),
        "flax": _factor_of_flax(config),
        "rms": np.array([_rms_singular_value(config, b) for b in config.biases]),
    }


def _kept(config, forget_bias, key):
    return _derivatives(config, init.forget_bias(forget_bias), 4, key)


def _chrono(config, bias_init, key):
    """Of each unit, in networks that are small enough for their square matrices."""
    one = functools.partial(_derivatives, config, bias_init, NARROW)
    return jax.vmap(one)(jax.random.split(key, max(config.units // NARROW, 1))).ravel()


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _derivatives(config, bias_init, units, key):
    """Of each cell at the end with respect to itself at the start, (units,)."""
    recurrent = init.normal(config.recurrent)
    model = _lstm(units, init.zeros, recurrent, bias_init, key)
    c = jnp.zeros((1, units))
    x = jnp.zeros((1, config.time_steps, 1))

    def last(c):
        start = gs.models.LSTMState(h=jnp.zeros_like(c), c=c)
        return jnp.sum(model.trajectory(x, (start,))[0].c[:, -1])

    return jax.grad(last)(c)[0]


def _lstm(units, kernel_init, recurrent_init, bias_init, key):
    return gs.models.LSTM(
        *(1, 1),
        hidden=units,
        kernel_init=kernel_init,
        recurrent_init=recurrent_init,
        bias_init=bias_init,
        rngs=nnx.Rngs(params=key),
    )


def _factor_of_flax(config):
    """By which a step without input multiplies the cell of Flax's own LSTM."""
    cell = nnx.OptimizedLSTMCell(1, 4, rngs=nnx.Rngs(config.seed))
    zeros, x = jnp.zeros((1, 4)), jnp.zeros((1, 1))
    return np.asarray(jax.grad(lambda c: jnp.sum(cell((c, zeros), x)[0][0]))(zeros))[0]


def _rms_singular_value(config, forget_bias):
    """Logarithm of that of all steps' Jacobian, with random weights and inputs."""
    key_w, key_x = jax.random.split(jax.random.key(config.seed))
    bias_init = init.forget_bias(forget_bias)
    kernels = init.lecun_normal(), init.orthogonal()
    model = _lstm(config.hidden, *kernels, bias_init, key_w)
    x = jax.random.normal(key_x, (2, config.time_steps, 1))
    options = {"theory": False, "progress": False, "seed": config.seed}
    (recurrence,) = gs.analyze(model, x, examples=1, **options).recurrences
    exponents = np.asarray(recurrence.finite_time_exponents)
    squares = 2 * config.time_steps * exponents[0]
    return (np.logaddexp.reduce(squares) - np.log(config.hidden)) / 2


def claims(config, arrays):
    """Formulas of zero weights; random ones forget more slowly, but in that order."""
    laws = _sigmoid(config.biases) ** config.time_steps
    after = f"after {config.time_steps} steps"
    exact = [
        claim(
            f"share of the cell {after}, zero weights, forget bias {bias:g}",
            *(kept, law),
            **{"relative": 1e-5, "source": JOZEFOWICZ, "row": "16"},
        )
        for bias, kept, law in zip(config.biases, arrays["kept"], laws, strict=True)
    ]
    chrono = claim(
        f"the same with chrono biases, mean over {len(arrays['chrono'])} units",
        arrays["chrono"].mean(),
        _chrono_share(config.time_steps),
        **{"within": 0.015, "source": TALLEC, "row": "16"},
        error=arrays["chrono"].std() / len(arrays["chrono"]) ** 0.5,
    )
    flax = claim(
        "factor per step of Flax's cell as it comes: sigma(0)",
        *(arrays["flax"].mean(), 0.5),
        **{"relative": 1e-5, "source": "Flax", "row": "16"},
    )
    random = [
        claim(
            f"ln rms singular value {after}, random weights, forget bias {bias:g}",
            *(rms, np.log(law)),
            **{"between": (np.log(law), 0), "source": JOZEFOWICZ},
        )
        for bias, rms, law in zip(config.biases, arrays["rms"], laws, strict=True)
    ]
    return [*exact, chrono, flax, *random]


def _sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def _chrono_share(time_steps):
    """The mean of (1 + 1 / u)^-T over u in [1, T - 1]."""
    u = np.linspace(1, time_steps - 1, 100_001)
    return np.mean((1 + 1 / u) ** -time_steps)


def plot(config, arrays):
    """What is kept against the bias, and its distribution over the chrono units."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    biases = np.linspace(min(config.biases), max(config.biases) + 1)
    left.plot(biases, _sigmoid(biases) ** config.time_steps, label="$\\sigma(b)^T$")
    left.plot(config.biases, arrays["kept"], "o", label="zero weights")
    left.plot(config.biases, np.exp(arrays["rms"]), "s", label="random weights")
    left.set_title("what an LSTM cell keeps", fontsize="medium")
    left.set(yscale="log", xlabel="forget bias", ylabel="kept after all steps")
    legend(left)
    right.hist(arrays["chrono"], bins=40)
    right.set_title("chrono initialisation", fontsize="medium")
    right.set(xlabel="share of the cell kept, chrono biases", ylabel="units")
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
