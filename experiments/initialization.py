"""Which initialisation suits which activation?

With fan-in 100, weights of standard deviation 0.1, 0.5 and 0.01 multiply the variance
of a signal by 1, 25 and 0.01 per layer (E x^2 counts, not Var x: after relu they
differ, which is He et al.'s point). Glorot and Bengio's variance is
2 / (fan-in + fan-out); tutorials that print 1 / (fan-in + fan-out) halve the variance
in every square linear layer: 2^-20 = 9.5e-7 after twenty. Nor does it suit sigmoid,
as some say: it was derived for a slope of one at zero, and sigmoid's is 1/4, so
gradients shrink by 0.236 per layer. For eight activations and square layers, the rate
of the gradient's norm with LeCun's (in square layers Glorot's), the halved, He's and
orthogonal weights is to be that of mean-field theory within 0.02 per layer, or four
standard errors: GELU with He's weights is near its unstable critical point, where the
lengths of finite networks scatter. Orthogonal weights have the rate of Gaussian ones.
Only He with relu, and LeCun with linear layers and tanh (a power law), keep gradients.
Half a minute on one core.

    python -m experiments.initialization
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

NG = "Ng, Deep Learning Specialization, course 2, week 1"
GLOROT = "Glorot and Bengio 2010, equation 16"
SCHOENHOLZ = "Schoenholz et al. 2017, equation 14"
ACTIVATIONS = (*gs.models.ACTIVATIONS, "leaky_relu")
CONSTANT = (0.1, 0.5, 0.01)


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``scale`` multiplies all weights behind theory's back."""

    width: int = 256
    depth: int = 20
    seeds: int = 8
    examples: int = 8
    fan_in: int = 100
    """Fan-in of the weights of a constant deviation."""
    activations: tuple[str, ...] = ACTIVATIONS
    """Activations of the networks, one kind for each."""
    scale: float = 1.0
    """Factor of all weights, which theory is not told."""
    seed: int = 0


def _initializers():
    """Initialisers of square kernels, each with the sigma_w that theory is given."""
    init = gs.initializers
    return {
        "LeCun and Glorot": (init.glorot_normal(), 1.0),
        "1 / (fan-in + fan-out)": (init.glorot_normal(gain=0.5**0.5), 0.5**0.5),
        "He": (init.he_normal(), 2**0.5),
        "orthogonal": (init.orthogonal(), 1.0),
    }


def run(config):
    """Rates by activation and initialiser, theory's, and variances by fan-in."""
    keys = jax.random.split(jax.random.key(config.seed), len(config.activations) + 1)
    rates, theory = [], []
    pairs = zip(keys[1:], config.activations, strict=True)
    for key, name in progress(pairs, "activations"):
        rows = [_rates(config, key, name, i) for i, _ in _initializers().values()]
        rates.append(rows)
        fields = [
            gs.mean_field(gs.models.activation(name), sigma_w)
            for _, sigma_w in _initializers().values()
        ]
        chis = [field.chis(config.depth)[1:] for field in fields]
        theory.append(np.mean(np.log(chis), axis=1) / 2)
    return {
        "rates": np.array(rates),
        "theory": np.array(theory),
        "variances": _variances(config, keys[0]),
    }


def _rates(config, key, name, init):
    """Change of ln(gradient norm) per layer on its way back, by initialisation."""
    width, depth = config.width, config.depth
    key_w, key_x, key_v = jax.random.split(jax.random.clone(key), 3)
    x = jax.random.normal(key_x, (config.examples, width))
    x = x / jnp.sqrt(jnp.mean(x**2, axis=1, keepdims=True))
    v = jax.random.normal(key_v, x.shape)
    keys = jax.random.split(key_w, config.seeds * depth)
    w = jax.vmap(lambda key: init(key, (width, width), jnp.float32))(keys)
    w = config.scale * w.reshape(config.seeds, depth, width, width)
    norms = np.array([_norms(name, one, x, v) for one in w])
    return np.mean(np.log(norms[:, 0] / norms[:, -1]), axis=1) / (depth - 1)


@functools.partial(jax.jit, static_argnums=0)
def _norms(name, w, x, v):
    """Gradient norms at the output of every layer, (depth, examples)."""
    activation = gs.models.activation(name)

    def forward(h, w):
        z = h @ w
        return jax.jvp(activation, (z,), (jnp.ones_like(z),))

    def backward(g, ws):
        return (g * ws[1]) @ ws[0].T, jnp.linalg.norm(g, axis=1)

    slopes = jax.lax.scan(forward, x, w)[1]
    return jax.lax.scan(backward, v, (w, slopes), reverse=True)[1]


def _variances(config, key):
    """Mean square of what a layer makes of inputs of mean square one."""
    keys = jax.random.split(key, len(CONSTANT) + 1)
    x = jax.random.normal(keys[0], (400, config.fan_in))
    shape, found = (config.fan_in, 400), []
    for key, stddev in zip(keys[1:], CONSTANT, strict=True):
        w = config.scale * gs.initializers.normal(stddev)(key, shape, jnp.float32)
        found.append(np.mean(np.square(x @ w)))
    return np.array(found)


def claims(config, arrays):
    """Variances, the halved formula, and for each activation the worst rate."""
    found = []
    for stddev, variance in zip(CONSTANT, arrays["variances"], strict=True):
        text = f"variance behind weights of deviation {stddev}, fan-in {config.fan_in}"
        law = config.fan_in * stddev**2
        found.append(claim(text, variance, law, relative=0.05, source=NG))
    names = list(_initializers())
    for i, name in enumerate(config.activations):
        # The mean logarithm of relu networks is 5 / (4 n) below theory's: 0.005.
        means = arrays["rates"][i].mean(axis=1)
        errors = [_error(rates) for rates in arrays["rates"][i]]
        worst = np.argmax(np.abs(means - arrays["theory"][i]))
        text = f"rate of ln(norm) per layer, {name}, farthest from theory"
        found.append(
            claim(
                f"{text}: {names[worst]}",
                means[worst],
                arrays["theory"][i][worst],
                within=max(0.02, 4 * errors[worst]),
                error=errors[worst],
                source=SCHOENHOLZ,
            )
        )
        if name == "identity":
            halved = np.exp(2 * means[1])
            text = "square linear layers, 1 / (fan-in + fan-out): variance per layer"
            found.append(claim(text, halved, 0.5, relative=0.05, source=GLOROT))
    return found


def _error(values):
    return np.std(values, ddof=1) / np.sqrt(len(values))


def plot(config, arrays):
    """Factors per layer, a group of bars for each activation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(config.activations))
    for i, name in enumerate(_initializers()):
        factors = np.exp(arrays["rates"][:, i].mean(axis=1))
        axes.bar(places + 0.2 * (i - 1.5), factors, width=0.2, label=name)
    axes.axhline(1, ls="--", c="k")
    axes.set_xticks(places, config.activations)
    axes.set_title(
        "initialisers and activations; dashed: norms are kept", fontsize="medium"
    )
    axes.set(xlabel="activation", ylabel="factor of gradient norms per layer")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
