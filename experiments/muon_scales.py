r"""Which of Muon's scales in circulation keeps its learning rate over width?

Muon replaces the gradient of a matrix by the nearest orthogonal one, and then scales it
by its shape. Three scales are in circulation: sqrt(max(1, out / in)) (Jordan 2024;
`optax.contrib.muon` as it comes), 0.2 sqrt(max(in, out)), which gives entries the size
of Adam's (Liu et al. 2025; ``consistent_rms=0.2`` in Optax), and sqrt(out / in)
(Bernstein and Newhouse 2024). An orthogonal update of scale c moves aligned data of
size 1 by c sqrt(in / out): this keeps its size under the third alone (Yang, Simon and
Bernstein 2023, condition 1). The first is like it but at an output of fixed size, where
it grows as the root of the width; the second grows as the root of the width at hidden
weights, and as the width at the output.

`gradstab.transfer` is asked, of an MLP with a block n -> 4 n -> n and muP's initial
values, which weights spoil the transfer, and what powers of the width mend them; with
these it is asked again. A minute and a half on one core.

    python -m experiments.muon_scales
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstab as gs
from experiments._claims import claim
from experiments._run import experiment, progress
from gradstab.scaling import Trend

SOURCE = "Yang, Simon and Bernstein (2023), condition 1"
WEIGHTS = "embed", "up", "down", "head"
# Powers of the width with which an update acts on aligned data of size 1.
THEORY = {
    "max(1, out/in)": (0.0, 0.0, 0.0, 0.5),
    "max(in, out)": (0.0, 0.5, 0.5, 1.0),
    "out/in": (0.0, 0.0, 0.0, 0.0),
}
# Of Adam's updates (Liu et al. 2025, section 2.2).
RMS = 0.2


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags."""

    widths: tuple[int, ...] = (64, 128, 256, 512)
    seeds: int = 3
    batch: int = 4
    """Examples; their gradients have as many singular values that are not zero"""
    learning_rate: float = 1e-4
    seed: int = 0


def run(config):
    """For every scale the slopes of its weights, what mends them, and slopes then."""
    arrays = {}
    for scale in progress(THEORY, "scales"):
        found = _check(config, scale, {})
        powers = {cause.name: cause.multiplier for cause in found.causes}
        mended = _check(config, scale, powers) if powers else found
        arrays[f"{scale}: slopes"] = _rows(found)
        arrays[f"{scale}: powers"] = np.array([powers.get(w, 0.0) for w in WEIGHTS])
        arrays[f"{scale}: mended"] = _rows(mended)
    return arrays


def _check(config, scale, powers):
    """A coordinate check; learning rates times powers of the width, by weight."""

    def optimizer(width):
        ratio = width / config.widths[0]
        factors = {name: ratio ** powers.get(name, 0.0) for name in WEIGHTS}
        return optax.chain(_muon(scale, config.learning_rate), _times(factors))

    # Initial values of muP, so that learning rates alone can be wrong.
    rules = gs.parametrize(
        _make, base_width=config.widths[0], optimizer="muon", inputs=_inputs(config)
    )
    return gs.transfer(
        rules.make,
        _inputs(config),
        widths=config.widths,
        loss=_loss,
        optimizer=optimizer,
        steps=1,
        seeds=config.seeds,
        key=jax.random.key(config.seed),
        progress=False,
    )


def _make(width, key):
    shapes = (16, width), (width, 4 * width), (4 * width, width), (width, 8)
    keys = jax.random.split(key, len(shapes))
    params = {
        name: jax.random.normal(k, shape) / shape[0] ** 0.5
        for name, k, shape in zip(WEIGHTS, keys, shapes, strict=True)
    }
    return _apply, params


def _apply(params, x):
    for name in WEIGHTS[:-1]:
        x = jnp.tanh(x @ params[name])
    return x @ params["head"]


def _inputs(config):
    return jax.random.normal(jax.random.key(config.seed + 1), (config.batch, 16))


def _loss(logits):
    labels = jnp.arange(len(logits)) % logits.shape[-1]
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _muon(scale, rate):
    """Muon with one of the scales; matrices are (in, out)."""
    if scale == "max(in, out)":
        return optax.contrib.muon(rate, consistent_rms=RMS)
    if scale == "max(1, out/in)":
        return optax.contrib.muon(rate)
    return optax.chain(optax.contrib.muon(rate), optax.stateless(_narrowed))


def _narrowed(updates, params):
    """From sqrt(max(1, out / in)) to sqrt(out / in)."""
    return jax.tree.map(lambda u: u * min(1, u.shape[1] / u.shape[0]) ** 0.5, updates)


def _times(factors):
    def scaled(updates, params):
        return {name: update * factors[name] for name, update in updates.items()}

    return optax.stateless(scaled)


def _rows(found):
    """Slope, error and verdict of the update of every weight."""
    rows = [found.parameter(name) for name in WEIGHTS]
    return np.array([(r.slope, r.error, list(Trend).index(r.verdict)) for r in rows])


def claims(config, arrays):
    """Slopes are theory's; what is not flat is named with the power that mends it."""
    made = []
    for scale, wanted in THEORY.items():
        rows, powers = arrays[f"{scale}: slopes"], arrays[f"{scale}: powers"]
        for name, row, power in zip(WEIGHTS, rows, wanted, strict=True):
            made.append(
                claim(
                    f"sqrt({scale}): slope of {name}",
                    *(row[0], power),
                    within=0.1,
                    error=row[1],
                    source=SOURCE,
                )
            )
        made.append(
            claim(
                f"sqrt({scale}): powers named that are not theory's",
                *(np.sum(powers != -np.array(wanted)), 0),
                within=0,
                source=SOURCE,
            )
        )
        flat = arrays[f"{scale}: mended"][:, 2] == list(Trend).index(Trend.FLAT)
        made.append(
            claim(
                f"sqrt({scale}): weights that are flat with these powers",
                *(np.sum(flat), len(WEIGHTS)),
                within=0,
                source=SOURCE,
            )
        )
    return made


def plot(config, arrays):
    """Slopes of every weight by scale, as they are and mended."""
    from gradstab import _drawing as drawing

    ax = drawing.canvas(None)
    places = np.arange(len(WEIGHTS))
    for number, scale in enumerate(THEORY):
        at = places + 0.2 * (number - 1)
        options = {"color": drawing.colour(number), "fmt": "o"}
        for kind, fill in (("slopes", "full"), ("mended", "none")):
            slope, error, _ = arrays[f"{scale}: {kind}"].T
            label = f"sqrt({scale}){', mended' * (kind == 'mended')}"
            ax.errorbar(at, slope, 2 * error, fillstyle=fill, label=label, **options)
    ax.set_xticks(places, WEIGHTS)
    ax.axhline(0, color=drawing.ink(), linewidth=1)
    ax.set_xlabel("weight")
    ax.set_ylabel("exponent of the width, two standard errors")
    ax.set_title("what an update of Muon does to the data, by its scale")
    drawing.add_legend(ax)
    return ax.figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
