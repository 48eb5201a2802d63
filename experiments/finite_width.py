"""Are the laws of narrow relu networks exact, and the wide limit not?

Rows 1, 2 and 11. A relu network with Gaussian weights of variance 2 / n and no bias
changes the squared norm of a tangent, layer by layer, by the factors of
`gs.theory.relu_log_law`: exact at any width, while -5 / (2 n) and 5 / n (Hanin and Nica
2020) are limits. The fourth moments of the Jacobian are exact as well
(`gs.theory.jacobian_moments`): relu layers are no isometry, and half of the directions
die. Expected per layer: mean and variance of ln |Ju|^2 are -0.088396 and 0.191148 at
width 30, -0.307461 and 0.866734 at width 10, where the limits, -0.25 and 0.5, are
rejected by more than ten standard errors; at width 200 and depth 8 a fourth moment of
9.186 (linear) and 18.31 (relu), and a rank that is the least number of active units in
a layer: on average 0.4497 of the width, just below the interval 0.45 to 0.5 of the
usual estimate. Half a minute on one core.

    python -m experiments.finite_width
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from scipy import stats

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

HANIN = "Hanin and Nica 2020; exact by symmetry"
PENNINGTON = "Pennington et al. 2017; exact by Wick's theorem"
LINEAR, RELU = "linear", "relu"

# What is left of a lost direction in float64; the least of the others is near 1e-6.
LOST = 1e-12

# Networks at a time, to fit into memory.
CHUNK = 250


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``weights`` is n times the variance of a relu layer's weights."""

    widths: tuple[int, ...] = (30, 10)
    depth: int = 20
    networks: int = 12_000
    wide: int = 200
    """Units of the networks of the fourth moments and of the rank."""
    shallow: int = 8
    """Layers of these networks."""
    products: int = 200
    """How many Jacobians the fourth moments are averaged over."""
    ranks: int = 2
    """How many networks the rank is averaged over."""
    weights: float = 2.0
    """Fan-in times the variance of the weights, 2 in the law."""
    seed: int = 0


def run(config):
    """Logarithms of squared norms, Jacobian moments, and ranks."""
    keys = jax.random.split(jax.random.key(config.seed), len(config.widths) + 3)
    arrays = {}
    for key, width in zip(keys[3:], config.widths, strict=True):
        each = jax.random.split(key, config.networks)
        one = functools.partial(_log_norm, width, config.depth, config.weights)
        arrays[f"logs {width}"] = _mapped(one, each)
    for key, gates in zip(keys[:2], (LINEAR, RELU), strict=True):
        one = functools.partial(
            _moments, config.wide, config.shallow, gates, config.weights
        )
        each = jax.random.split(key, config.products)
        fourth, second, arrays["active"] = _mapped(one, each)
        arrays |= {f"fourth {gates}": fourth, f"second {gates}": second}
    each = progress(jax.random.split(keys[2], config.ranks), "ranks")
    arrays["ranks"] = np.array([_ranks(config, key) for key in each])
    return arrays


def _mapped(one, keys):
    """A function of every key, some hundreds at a time."""
    many = jax.jit(jax.vmap(one))
    rows = keys.reshape(-1, math.gcd(len(keys), CHUNK))
    found = [many(row) for row in progress(rows, "networks")]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def _log_norm(width, depth, weights, key):
    """Logarithm of |Ju|^2 of one network; minus infinity if it is dead."""
    key_x, key_u, key_w = jax.random.split(key, 3)
    h, u = (jax.random.normal(k, (width,)) for k in (key_x, key_u))

    def layer(pair, w):
        h, u = w @ pair[0], w @ pair[1]
        return (jax.nn.relu(h), jnp.where(h > 0, u, 0.0)), None

    pair = h, u / jnp.linalg.norm(u)
    w = jax.random.normal(key_w, (depth, width, width)) * math.sqrt(weights / width)
    u = jax.lax.scan(layer, pair, w)[0][1]
    return jnp.log(jnp.sum(u**2))


def _moments(width, depth, gates, weights, key):
    """Mean fourth and second power of singular values, least share of active units."""
    key_x, key_w = jax.random.split(key)
    h, scale = jax.random.normal(key_x, (width,)), weights if gates == RELU else 1.0

    def layer(pair, w):
        h, jacobian = pair
        h, jacobian = w @ h, w @ jacobian
        if gates == RELU:
            h, jacobian = jax.nn.relu(h), jnp.where(h[:, None] > 0, jacobian, 0.0)
        return (h, jacobian), jnp.mean(h != 0)

    w = jax.random.normal(key_w, (depth, width, width)) * math.sqrt(scale / width)
    (_, jacobian), active = jax.lax.scan(layer, (h, jnp.eye(width)), w)
    fourth = jnp.sum((jacobian.T @ jacobian) ** 2)
    return fourth / width, jnp.sum(jacobian**2) / width, jnp.min(active)


def _ranks(config, key):
    """Nonzero singular values, over the least rank of a layer, per example."""
    key_w, key_x = jax.random.split(key)
    model = gs.models.MLP(
        config.wide,
        config.wide,
        widths=(config.wide,) * config.shallow,
        activation=RELU,
        use_bias=False,
        kernel_init=gs.initializers.he_normal(truncated=False),
        rngs=nnx.Rngs(params=key_w),
    )
    x = jax.random.normal(key_x, (4, config.wide))
    report = gs.analyze(model, x, theory=False, progress=False)
    spectra = [layer.jacobian for layer in report.layers]
    layers = [np.sum(s.values > LOST, axis=1) for s in spectra if s]
    values = np.exp(np.asarray(report.exponents) * len(report.layers))
    return np.sum(values > LOST, axis=1) / np.min(layers, axis=0)


def claims(config, arrays):
    """Rows 1 and 2 for the widths, and row 11."""
    rows = ("1", "2", *[""] * len(config.widths))
    found = []
    for row, width in zip(rows, config.widths, strict=False):
        found += _of_width(config, arrays[f"logs {width}"], width, row)
    n, depth = config.wide, config.shallow
    for gates, share in ((LINEAR, 1.0), (RELU, 0.5)):
        moments = gs.theory.jacobian_moments(n, depth, open_gates=share)
        for what, expected in (("fourth", moments.fourth), ("second", 1.0)):
            text = f"mean {what} power of singular values, {gates} n={n} L={depth}"
            drawn = arrays[f"{what} {gates}"]
            found.append(_mean_claim(text, drawn, expected, PENNINGTON, "11"))
    least = np.sum(stats.binom.sf(np.arange(n), n, 0.5) ** depth) / n
    text = f"least share of active units in {depth} relu layers, n={n}"
    found.append(_mean_claim(text, arrays["active"], least, PENNINGTON, "11"))
    ratios = np.ravel(arrays["ranks"])
    options = {"within": 1e-9, "source": PENNINGTON, "row": "11"}
    text = "rank of a product over the least rank of its layers"
    for which, choose in (("least of all networks", np.min), ("largest", np.max)):
        if len(ratios):
            found.append(claim(f"{text}, {which}", choose(ratios), 1, **options))
    return found


def _of_width(config, logs, width, row):
    depth, live = config.depth, logs[np.isfinite(logs)]
    law = gs.theory.relu_log_law(width)
    per_layer = f"of the log squared norm of Ju per layer, n={width} L={depth}"
    spread = np.var(live, ddof=1) / depth
    drawn = gs.theory.sample_relu_log_law(config.seed, width, depth, 10 * len(logs))
    _, alike = stats.ks_2samp(live, drawn)
    mean = _mean_claim(f"mean {per_layer}", live / depth, law.mean, HANIN, row)
    asymptote = abs(mean.measured + 2.5 / width) / mean.error
    alive = law.alive**depth
    chance = 4 * np.sqrt(alive * (1 - alive) / len(logs)) + 1e-9
    options = {"source": HANIN, "row": row}
    found = [
        mean,
        claim(f"variance {per_layer}", spread, law.variance, relative=0.05, **options),
        claim(f"p of exact law, n={width}", alike, 0.5, between=(1e-3, 1), **options),
        claim(
            f"alive, n={width}", len(live) / len(logs), alive, within=chance, **options
        ),
    ]
    if width < 20:
        text = f"standard errors from the limit -5 / (2n), n={width}"
        far = claim(text, asymptote, np.inf, between=(4, np.inf), **options)
        return [*found, far]
    return found


def _mean_claim(text, drawn, expected, source, row):
    error = np.std(drawn, ddof=1) / np.sqrt(len(drawn))
    options = {"within": 4 * error, "error": error, "source": source, "row": row}
    return claim(text, np.mean(drawn), expected, **options)


def plot(config, arrays):
    """The distribution of ln |Ju|^2 at each width, and the exact law's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(config.widths), 4), layout="constrained")
    panels = np.ravel(figure.subplots(1, len(config.widths)))
    for axes, width in zip(panels, config.widths, strict=True):
        logs = arrays[f"logs {width}"]
        live = logs[np.isfinite(logs)]
        law = gs.theory.sample_relu_log_law(0, width, config.depth, 100_000)
        low, high = np.quantile(law, [0.001, 0.999])
        bins = np.linspace(low, high, 60)
        axes.hist(live, bins, density=True, alpha=0.5, label="networks")
        axes.hist(law, bins, density=True, histtype="step", label="exact law")
        axes.axvline(-2.5 / width * config.depth, ls="--", c="k", label="limit's mean")
        axes.set(xlabel=r"$\ln\,|Ju|^2$", ylabel="density", title=f"width {width}")
        legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
