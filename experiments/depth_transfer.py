r"""Does what is tuned at one depth hold at others, and do slopes say by which rules?

Residual networks, normalised before every branch, at depths from 4 to 32, in
three parametrisations of depth: standard; every branch times
:math:`1/\sqrt L`, with the learning rate times :math:`1/\sqrt L` for Adam and constant
for SGD (Yang et al. 2023, Tensor Programs VI, table 1); every branch times
:math:`1/L`, with one learning rate for Adam (Dey et al. 2025, CompleteP, table 1) and
times :math:`L` for SGD. The models are written without factors: `gradstab.parametrize`
finds the branches and moves the factors into their last weights.

Expected, as powers of the depth: what leaves the last block 1/2, 0, 0, and its update
after one step grows, 0, 0; what one block adds 0, -1/2, -1; what one block's update
adds -1 in both that transfer, so that L of them add up to 1. With branches of
:math:`1/\sqrt L` in the last weights, but one learning rate for Adam, updates grow by a
power between 1/2 (of the other weights) and 1 (of these).

Measured, the farther of SGD and Adam: what leaves the last block 0.53, 0.08, -0.09; its
update 0.92, 0.13, -0.15; what one block adds -0.01, -0.51, -1.01; what its update adds
-0.97 and -0.92; with one rate 0.84. A minute on two cores.

    python -m experiments.depth_transfer
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstab as gs
from experiments._claims import claim
from experiments._run import experiment, progress
from gradstab.scaling import BRANCH_POWERS, DEPTH_SCHEMES

YANG = "Yang et al. (2023), table 1"
DEY = "Dey et al. (2025), table 1"
RATES = {"sgd": 1e-3, "adam": 1e-5}
MODELS = {
    "resnet": {"norm": "layer"},
}
FEATURES, CLASSES = 8, 5


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags."""

    depths: tuple[int, ...] = (4, 8, 16, 32)
    """Numbers of blocks; at the first nothing is scaled"""
    width: int = 32
    seeds: int = 3
    batch: int = 16
    seed: int = 0


def run(config):
    """Of every check powers of the depth, and whether its scheme is named."""
    rows = {}
    kinds = list(itertools.product(MODELS, RATES, DEPTH_SCHEMES))
    for model, optimizer, scheme in progress(kinds, "parametrisations"):
        rules = _rules(config, model, scheme, optimizer)
        chain = optax.chain(_optimizer(optimizer), rules.transform)
        found = _check(config, model, rules.make, chain)
        named = {name for name, _ in found.schemes} == {scheme}
        rows[f"{model} {optimizer} {scheme}"] = np.array([*_powers(found), named])
    rules = _rules(config, "resnet", "depth-mup", "adam")
    found = _check(config, "resnet", rules.make, _optimizer("adam"))
    rows["one rate"] = np.array([*_powers(found), bool(found.schemes)])
    return rows


def _rules(config, model, scheme, optimizer):
    return gs.parametrize(
        functools.partial(_make, config, model),
        base_depth=config.depths[0],
        scheme=scheme,
        optimizer=optimizer,
        inputs=_inputs(config),
    )


def _make(config, model, depth, key):
    return gs.models.build(
        model,
        in_shape=_inputs(config).shape[1:],
        num_outputs=CLASSES,
        width=config.width,
        depth=depth,
        seed=key,
        **MODELS[model],
    )


def _inputs(config):
    return jax.random.normal(jax.random.key(config.seed + 1), (config.batch, FEATURES))


def _optimizer(name):
    return {"sgd": optax.sgd, "adam": optax.adam}[name](RATES[name])


def _loss(logits):
    labels = jnp.arange(len(logits)) % CLASSES
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _check(config, model, make, optimizer):
    return gs.transfer(
        make,
        _inputs(config),
        widths=config.depths,
        loss=_loss,
        optimizer=optimizer,
        steps=1,
        seeds=config.seeds,
        vary="depth",
        key=jax.random.key(config.seed),
        progress=False,
    )


def _powers(found):
    """Of what leaves the last block, its update, what a block adds, and its update."""
    last = [one for one in found.layers if one.name.startswith("blocks.last")][-1]
    (blocks,) = found.blocks
    return last.activation.value, last.update.value, blocks.added.value, blocks.effect


def claims(config, arrays):
    """Flat in both that transfer, growing without; blocks as published; all named."""
    kinds = list(itertools.product(MODELS, RATES))
    rows = {
        scheme: np.stack([arrays[f"{m} {o} {scheme}"] for m, o in kinds])
        for scheme in DEPTH_SCHEMES
    }
    found = []
    for scheme, source in (("standard", DEY), ("depth-mup", YANG), ("completep", DEY)):
        leaves, update, adds, effect, named = rows[scheme].T
        flat = scheme != "standard"
        found += [
            claim(
                f"{scheme}: power of what leaves the last block, the farther of two",
                *((_farthest(leaves, 0.0), 0) if flat else (np.min(leaves), 0.5)),
                between=(-0.25, 0.25) if flat else (0.35, 1.0),
                source=source,
            ),
            claim(
                f"{scheme}: power of its update, the farther of two",
                *((_farthest(update, 0.0), 0) if flat else (np.min(update), 0.5)),
                between=(-0.25, 0.25) if flat else (0.35, 2.0),
                source=source,
            ),
            claim(
                f"{scheme}: power of what one block adds, the farther of two",
                _farthest(adds, BRANCH_POWERS[scheme]),
                BRANCH_POWERS[scheme],
                within=0.15,
                source=source,
            ),
            claim(
                f"{scheme}: named, of two",
                *(np.sum(named), 2),
                within=0,
                source="gradstab.transfer",
            ),
        ]
        if flat:
            found.append(
                claim(
                    f"{scheme}: power of what one block's update adds, the farther",
                    *(_farthest(effect, -1.0), -1),
                    within=0.2,
                    source=source,
                )
            )
    _, update, _, _, named = arrays["one rate"]
    return [
        *found,
        claim(
            "1/sqrt(L) and one rate for Adam: power of the update of the last block",
            *(update, 0.75),
            within=0.35,
            source=YANG,
        ),
        claim(
            "the same: called a known parametrisation",
            *(named, 0),
            within=0,
            source="gradstab.transfer",
        ),
    ]


def _farthest(values, wanted):
    return values[np.argmax(np.abs(values - wanted))]


def plot(config, arrays):
    """Powers of what leaves the last block and of its update, by scheme."""
    from gradstab import _drawing as drawing

    ax = drawing.canvas(None)
    for number, scheme in enumerate(DEPTH_SCHEMES):
        rows = np.stack([v for k, v in arrays.items() if k.endswith(f" {scheme}")])
        for column, marker in ((0, "o"), (1, "s")):
            ax.plot(
                np.arange(len(rows)) + 0.1 * number,
                rows[:, column],
                marker,
                color=drawing.colour(number),
                label=f"{scheme}, {('what leaves', 'its update')[column]}",
            )
    names = [" ".join(pair) for pair in itertools.product(MODELS, RATES)]
    ax.set_xticks(range(len(names)), names)
    ax.axhline(0, color=drawing.ink(), linewidth=1)
    ax.set_ylabel("exponent of the depth")
    ax.set_title("the last block")
    drawing.add_legend(ax)
    return ax.figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
