"""Which of the framework's default initialisations vanish?

Row 9. Flax initialises dense layers with LeCun's variance 1 / fan-in, which suits
linear layers and tanh. The expected squared gain after 50 layers is 2^-50 = 8.9e-16 for
relu, 0.0557^50 = 1.6e-63 for sigmoid, some (1/4)^50 = 8e-31 for GELU and SiLU; tanh
alone survives, as a power law: 0.7075 / L (Roberts, Yaida and Hanin 2022), a norm
that falls like L^-1/2. So its verdict is critical, and a rule "vanishing below 0.01"
would be wrong about it. Expected: a log-log slope of -1.00 +- 0.1 between 10 and 100
layers at width 512; the growth law 'power' for tanh and 'exponential' for the others,
with the rates that mean-field theory gives; verdicts 'critical' and 'vanishing'. The
slope is of 48 networks. Measured with three seeds: -1.093, -1.117 and -1.106, each with
an error of 0.02: the geometric mean over a batch falls faster than the expected square,
and two of the three are outside of what is accepted. A minute on one core.

    python -m experiments.default_initializers
"""

import dataclasses
import math

import jax
import numpy as np
from flax import nnx

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

ROBERTS = "Roberts, Yaida and Hanin 2022, section 5.3"
SCHOENHOLZ = "Schoenholz et al. 2017, equation 14"

ACTIVATIONS = "tanh", "relu", "sigmoid", "gelu", "silu"


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``scale`` is the variance of a weight times its fan-in, by default 1."""

    width: int = 512
    depth: int = 100
    seeds: int = 16
    repeats: int = 3
    """How many ensembles of tanh networks, one after the other."""
    examples: int = 8
    other_width: int = 256
    """Units of each layer with the other activations."""
    other_depth: int = 30
    """Layers with the other activations."""
    activations: tuple[str, ...] = ACTIVATIONS
    """Activations of the networks, one kind for each."""
    scale: float = 1.0
    """Variance of a weight times its fan-in; 1 is the default of Flax."""
    seed: int = 0


def run(config):
    """Norms of gradients in every layer, growth laws and verdicts by activation."""
    keys = jax.random.split(jax.random.key(config.seed), len(config.activations))
    arrays = {}
    pairs = zip(keys, config.activations, strict=True)
    for key, name in progress(pairs, "activations"):
        repeats = config.repeats if name == "tanh" else 1
        reports = [_report(config, k, name) for k in jax.random.split(key, repeats)]
        norms = [r.ensemble.gradient_norm.values for r in reports if r.ensemble]
        arrays |= {
            f"norms {name}": np.concatenate(norms),
            f"law {name}": np.array([r.growth.backward.law for r in reports]),
            f"verdict {name}": np.array([str(r.verdict) for r in reports]),
        }
    return arrays


def _report(config, key, name):
    """What gradstab says of an ensemble with the default initialiser of Flax."""
    tanh = name == "tanh"
    width = config.width if tanh else config.other_width
    depth = config.depth if tanh else config.other_depth
    default = gs.initializers.lecun_normal(gain=math.sqrt(config.scale))
    key, key_x = jax.random.split(key)

    def make(key):
        return gs.models.MLP(
            width,
            width,
            widths=(width,) * depth,
            activation=name,
            kernel_init=default,
            rngs=nnx.Rngs(params=key),
        )

    models = gs.initializations(make, key, config.seeds)
    x = jax.random.normal(key_x, (config.examples, width))
    options = {"ensemble": True, "layers": (), "theory": False, "progress": False}
    return gs.analyze(models, x, precision="own", **options)


def claims(config, arrays):
    """The slope and the law of tanh; law and rate of the others."""
    found = []
    for name in config.activations:
        said = zip(arrays[f"law {name}"], arrays[f"verdict {name}"], strict=True)
        expected = ("power", "critical") if name == "tanh" else _VANISHING
        row = "9" if name == "tanh" else ""
        source = ROBERTS if name == "tanh" else SCHOENHOLZ
        options = {"within": 0, "source": source, "row": row}
        right = all(tuple(map(str, words)) == expected for words in said)
        found.append(claim(f"{name}: {' and '.join(expected)}", right, 1, **options))
        found.append(
            _slope(config, arrays) if name == "tanh" else _rate(config, arrays, name)
        )
    return found


_VANISHING = "exponential", "vanishing"


def _slope(config, arrays):
    """The log-log slope of the squared gain of the last L layers, L from 10 on."""
    layers, gains = _gains(arrays["norms tanh"])
    log_l, logs = np.log(layers), np.log(gains[:, layers >= config.depth / 10])
    log_l = log_l[layers >= config.depth / 10]
    slopes = np.polyfit(log_l, logs.T, 1)[0]
    error = np.std(slopes, ddof=1) / np.sqrt(len(slopes))
    text = f"log-log slope of squared gain, tanh, L={config.depth // 10}-{config.depth}"
    options = {"within": 0.1, "error": error, "source": ROBERTS, "row": "9"}
    return claim(text, np.mean(slopes), -1.0, **options)


def _gains(norms):
    """Squared gain from the input's side to the output of every later layer."""
    hidden = norms[:, :-1]
    return np.arange(1, hidden.shape[1]), (hidden[:, :1] / hidden[:, 1:]) ** 2


def _rate(config, arrays, name):
    """The mean squared gain per layer, beside the recursion from the input's length."""
    depth, (_, gains) = config.other_depth, _gains(arrays[f"norms {name}"])
    gains = gains[:, -1] ** (1 / (depth - 1))
    chis = gs.mean_field(gs.models.activation(name), 1.0).chis(depth)[1:]
    error = np.std(gains, ddof=1) / np.sqrt(len(gains))
    text = f"{name}: squared gain per layer"
    options = {"relative": 0.05, "error": error, "source": SCHOENHOLZ}
    return claim(text, np.mean(gains), np.exp(np.mean(np.log(chis))), **options)


def plot(config, arrays):
    """Squared gain against depth, on double logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in config.activations:
        layers, gains = _gains(arrays[f"norms {name}"])
        axes.loglog(layers, np.exp(np.mean(np.log(gains), axis=0)), label=name)
    layers = np.arange(3, config.depth)
    axes.loglog(layers, 0.7075 / layers, "k--", label="0.7075 / L")
    axes.set_title("gradients under default initialisers", fontsize="medium")
    axes.set(xlabel="layers L", ylabel="squared gain of a gradient", ylim=(1e-30, 10))
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
