r"""Do spectral norms go as sqrt(out / in) where features are learned, and only there?

Yang, Simon and Bernstein (2023), condition 1: features are learned at every width if
the spectral norm of every weight matrix, and that of its update, is of the order of
sqrt(out / in). It is to hold in muP, and with their own sizes and learning rates, read
off the shapes: (1 / sqrt(in)) min(1, sqrt(out / in)), and out / in for gradient
descent, 1 / in for Adam. Weights of size 1 / sqrt(in) with one learning rate for all
(standard), and the NTK's, break it: norms over sqrt(out / in) go as the powers of the
width in `THEORY`. Measured are the powers for every weight of an MLP at widths from 64
to 512, with their errors: of the weights, of their change after one step, and, where
the condition is to hold, after ten. Three minutes on one core.

    python -m experiments.spectral_condition
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstab as gs
from experiments._claims import claim
from experiments._run import experiment, progress
from gradstab.scaling import Trend
from gradstab.scaling.slopes import fit

SOURCE = "Yang, Simon and Bernstein (2023), condition 1"
INPUTS, OUTPUTS = 8, 4
WEIGHTS = "input", "first hidden", "second hidden", "output"
SCHEMES = "standard", "ntk", "mup", "shapes"
HOLDING = "mup", "shapes"
RATES = {"sgd": 0.05, "adam": 0.002}
# Powers of the width of a spectral norm over sqrt(out / in): of weights, and of updates
# (the gradient of a hidden weight has the norm of the data, sqrt(in), times that of the
# gradient behind it, that of the output's weights; Adam's has entries of size 1).
FLAT = (0.0, 0.0, 0.0, 0.0)
THEORY = {
    "standard": (0.0, 0.0, 0.0, 0.5),
    "ntk": (0.0, 0.0, 0.0, 0.5),
    ("standard", "sgd"): (-0.5, 0.5, 0.5, 1.0),
    ("standard", "adam"): (0.0, 1.0, 1.0, 1.0),
    ("ntk", "sgd"): (-0.5, -0.5, -0.5, 0.0),
    ("ntk", "adam"): (0.0, 0.5, 0.5, 0.5),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags."""

    widths: tuple[int, ...] = (64, 128, 256, 512)
    seeds: int = 8
    steps: int = 10
    batch: int = 4
    """Examples"""
    seed: int = 0


def run(config):
    """Spectral norms over sqrt(out / in): (widths, seeds, weights)."""
    arrays = {}
    pairs = list(itertools.product(SCHEMES, RATES))
    for scheme, optimizer in progress(pairs, "parametrisations"):
        found = [_trained(config, scheme, optimizer, w) for w in config.widths]
        norms = np.array(found)
        kinds = f"{scheme}", f"{scheme} {optimizer} 1", f"{scheme} {optimizer} last"
        arrays |= {kind: norms[:, :, i] for i, kind in enumerate(kinds)}
    return arrays


def _trained(config, scheme, optimizer, width):
    """For every seed norms of the weights, of their change after one and all steps."""
    make, transform = _parametrized(config, scheme, optimizer)
    made = {"sgd": optax.sgd, "adam": optax.adam}[optimizer](RATES[optimizer])
    tx = optax.chain(made, transform)

    def step(carry, _):
        params, memory = carry
        gradients = jax.grad(_loss)(params, config)
        with jax.numpy_dtype_promotion("standard"):  # which optax counts on
            updates, memory = tx.update(gradients, memory, params)
        params = optax.apply_updates(params, updates)
        return (params, memory), params

    @jax.jit
    def changes(params):
        start = params, tx.init(params)
        _, along = jax.lax.scan(step, start, length=config.steps)
        moved = jax.tree.map(lambda a, w: a - w[None], along, params)
        return [jax.tree.map(lambda m, i=i: m[i], moved) for i in (0, -1)]

    key = jax.random.fold_in(jax.random.key(config.seed), width)
    params = [make(width, k)[1] for k in jax.random.split(key, config.seeds)]
    return [[_norms(one), *map(_norms, changes(one))] for one in params]


def _parametrized(config, scheme, optimizer):
    """A maker of parameters, and what changes their updates."""
    if scheme != "shapes":
        rules = gs.parametrize(
            _make,
            base_width=config.widths[0],
            scheme=scheme,
            optimizer=optimizer,
            inputs=jnp.ones((1, INPUTS)),
        )
        return rules.make, rules.transform

    def make(width, key):
        apply, params = _make(width, key)
        return apply, [w * min(1, w.shape[1] / w.shape[0]) ** 0.5 for w in params]

    def scaled(updates, params):
        # The hidden weights of the smallest width have the rate of the others there.
        base = {"sgd": 1.0, "adam": config.widths[0]}[optimizer]
        return [u * base * _shape_rate(optimizer, u.shape) for u in updates]

    return make, optax.stateless(scaled)


def _shape_rate(optimizer, shape):
    """The learning rate of parametrisation 1, of a matrix (in, out)."""
    n_in, n_out = shape
    return n_out / n_in if optimizer == "sgd" else 1 / n_in


def _make(width, key):
    shapes = (INPUTS, width), (width, width), (width, width), (width, OUTPUTS)
    keys = jax.random.split(key, len(shapes))
    pairs = zip(keys, shapes, strict=True)
    return _apply, [jax.random.normal(k, s) / s[0] ** 0.5 for k, s in pairs]


def _apply(params, x):
    for weight in params[:-1]:
        x = jnp.tanh(x @ weight)
    return x @ params[-1]


def _loss(params, config):
    x = jax.random.normal(jax.random.key(config.seed + 1), (config.batch, INPUTS))
    labels = jnp.arange(config.batch) % OUTPUTS
    logits = _apply(params, x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _norms(params):
    return [
        np.linalg.norm(np.asarray(w, np.float64), 2) / (w.shape[1] / w.shape[0]) ** 0.5
        for w in params
    ]


def claims(config, arrays):
    """Where the condition holds, and how far slopes are from theory's."""
    return [
        one
        for kind in arrays
        if not kind.endswith("last") or kind.split()[0] in HOLDING
        for one in _claims(config, kind, arrays[kind])
    ]


def _claims(config, kind, norms):
    slopes, wanted = _slopes(config, norms), _wanted(kind)
    away = [s.value - w for s, w in zip(slopes, wanted, strict=True)]
    worst = int(np.argmax(np.abs(away)))
    flat = sum(slope.trend is Trend.FLAT for slope in slopes)
    return [
        claim(
            f"{_words(config, kind)}: of {len(slopes)}, those with the condition",
            *(flat, sum(power == 0 for power in wanted)),
            within=0,
            source=SOURCE,
        ),
        claim(
            f"the same: farthest power from theory's ({WEIGHTS[worst]})",
            *(away[worst], 0),
            within=0.1,
            error=slopes[worst].error,
            source=SOURCE,
        ),
    ]


def _slopes(config, norms):
    return [fit(np.array(config.widths), column) for column in np.moveaxis(norms, 2, 0)]


def _wanted(kind):
    scheme, *rest = kind.split()
    return THEORY.get((scheme, rest[0]) if rest else scheme, FLAT)


def _words(config, kind):
    scheme, *rest = kind.split()
    if not rest:
        return f"{scheme}: weights"
    steps = 1 if rest[1] == "1" else config.steps
    return f"{scheme}, {rest[0]}: updates after {steps} step{'s' * (steps > 1)}"


def report(config, arrays):
    """The powers of the width of every norm, as a table in Markdown."""
    lines = [f"| | {' | '.join(WEIGHTS)} |", "|---" * (len(WEIGHTS) + 1) + "|"]
    for kind, norms in arrays.items():
        cells = map(str, _slopes(config, norms))
        lines.append(f"| {_words(config, kind)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(config, arrays):
    """Norms of updates after one step against the width, a panel for each scheme."""
    from gradstab import _drawing as drawing

    axes = drawing.new_axes(len(SCHEMES), size=(8, 6.4), columns=2)
    for ax, scheme in zip(axes, SCHEMES, strict=True):
        norms = np.exp(np.mean(np.log(arrays[f"{scheme} adam 1"]), axis=1))
        for number, name in enumerate(WEIGHTS):
            ax.loglog(
                config.widths,
                norms[:, number] / norms[0, number],
                "o-",
                color=drawing.colour(number),
                label=name,
            )
        ax.set(xlabel="width", ylabel="norm over sqrt(out / in), relative")
        ax.set_title(f"{scheme}, Adam: updates")
        drawing.add_legend(ax)
    return axes[0].figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot, report)
