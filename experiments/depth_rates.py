"""At what rate do the gradients of a 20-layer network shrink, and what changes it?

One network of width 100 on 64 handwritten digits, as initialised, for each remedy: the
activation, the initialiser, normalisation, identity connections. Mean-field theory
(Schoenholz et al. 2017) gives 0.236 per layer for sigmoid with weights of variance
1 / fan-in, 0.707 for ReLU with the same (He et al. 2015), 1 for ReLU with 2 / fan-in,
and 1.21 in the limit of large batches with batch normalisation in training mode (Yang
et al. 2019). Two minutes on two cores.

    python -m experiments.depth_rates
"""

import dataclasses

import numpy as np
import optax

import gradstab as gs
from experiments._run import print_table

REMEDIES = {
    "as it is": {},
    "tanh": {"activation": "tanh"},
    "tanh, orthogonal": {"activation": "tanh", "init": "orthogonal"},
    "relu": {"activation": "relu"},
    "relu, He": {"activation": "relu", "init": "he_normal"},
    "relu, He, batch norm": {
        "activation": "relu",
        "init": "he_normal",
        "norm": "batch",
    },
    "layer norm": {"norm": "layer"},
    "identity connections": {"skip": True},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags of the experiment."""

    depth: int = 20
    width: int = 100
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)


def run(config):
    """Analyse the network with every remedy; returns the table."""
    data = gs.data.load("digits")
    x, y = data.x_train[:64], data.y_train[:64]

    def loss(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    lines = [
        "| sigmoid, LeCun, and: | gradient per layer, backward | law | verdict |",
        "|---|---|---|---|",
    ]
    for name, options in REMEDIES.items():
        reports = [
            gs.analyze(_model(config, seed, options), x, loss=loss, layers=())
            for seed in config.seeds
        ]
        backward = [report.growth.backward for report in reports]
        factors = [_per_layer(report.layers[: config.depth]) for report in reports]
        columns = [
            f"{np.mean(factors):.3f} ({min(factors):.3f} .. {max(factors):.3f})",
            _counted([growth.law for growth in backward]),
            _counted([report.verdict for report in reports]),
        ]
        lines.append(f"| {name} | " + " | ".join(columns) + " |")
    return "\n".join(lines)


def _model(config, seed, options):
    model = gs.models.build(
        "mlp",
        in_shape=(64,),
        num_outputs=10,
        depth=config.depth,
        width=config.width,
        seed=seed,
        **options,
    )
    model.train()
    return model


def _per_layer(hidden):
    """Geometric mean of the factors from the last hidden layer to the first."""
    first, last = (np.log(hidden[i].gradient_norm).mean() for i in (0, -1))
    return float(np.exp((first - last) / (len(hidden) - 1)))


def _counted(words):
    names = sorted(set(words), key=lambda word: -words.count(word))
    return ", ".join(f"{name} ({words.count(name)})" for name in names)


if __name__ == "__main__":
    print_table(Config, run)
