"""Does `gs.analyze` tell by which law gradients grow with depth?

A pair of thresholds, "vanishing below, exploding above", cannot: tanh networks at
sigma_w = 1 and residual ones change with depth and are trainable. Seven families,
width 256, depth 60, one network per seed, batch normalisation in training mode, so
differentiated jointly over the batch. Expected, of the gradient's norm: constant
(orthogonal linear layers; layer normalisation, Doshi et al. 2023), a power of depth
(tanh at sigma_w = 1, Roberts, Yaida and Hanin 2022; residual blocks with batch
normalisation, Yang et al. 2019), exp(r sqrt L) (residual tanh, Yang and Schoenholz
2017), exponential (sigmoid, Schoenholz et al. 2017; batch normalisation without skips,
Yang et al. 2019), for each of five seeds. Measured: 5 of 5 in each family, but with
layer normalisation: constant in one, in the others unknown, constant not excluded. A
single network of this width walks: the logarithm of its norm has the standard deviation
sqrt(5 L / 4 n) = 0.54 (Hanin and Nica 2020), and that it does not drift by 1 or more
over its depth is more than one network shows. Two minutes on one core.

    python -m experiments.growth_laws
"""

import dataclasses

import jax
import numpy as np

import gradstab as gs
from experiments._claims import claim
from experiments._run import experiment, progress

SIGMOID = "Schoenholz et al. 2017"
YANG = "Yang et al. 2019"

# Options of an MLP or ResNet, the law of its gradient, and who found it.
FAMILIES = {
    "linear, orthogonal": (
        {"activation": "identity", "init": "orthogonal"},
        "constant",
        "Saxe et al. 2014",
    ),
    "layer norm": ({"norm": "layer"}, "constant", "Doshi et al. 2023"),
    "tanh, sigma_w = 1": (
        {"activation": "tanh", "init": "lecun_normal"},
        "power",
        "Roberts et al. 2022",
    ),
    "batch norm, residual": ({"kind": "resnet", "norm": "batch"}, "power", YANG),
    "tanh, residual": (
        {"activation": "tanh", "init": "lecun_normal", "skip": True},
        "exp-sqrt",
        "Yang and Schoenholz 2017",
    ),
    "sigmoid": (
        {"activation": "sigmoid", "init": "lecun_normal"},
        "exponential",
        SIGMOID,
    ),
    "batch norm": ({"norm": "batch"}, "exponential", YANG),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``training`` is the mode of batch normalisation."""

    width: int = 256
    depth: int = 60
    seeds: int = 5
    batch: int = 32
    families: tuple[str, ...] = tuple(FAMILIES)
    """Architectures, one law for each."""
    training: bool = True
    """Whether batch normalisation is in training mode."""
    seed: int = 0


def run(config):
    """Gradient norms in every layer, and the laws, for every seed."""
    arrays = {}
    for name in progress(config.families, "families"):
        keys = jax.random.split(jax.random.key(config.seed), config.seeds)
        reports = [_report(config, FAMILIES[name][0], key) for key in keys]
        norms = [
            [np.mean(r.gradient_norm) for r in report.layers] for report in reports
        ]
        arrays[f"norms {name}"] = np.array(norms)
        arrays[f"laws {name}"] = np.array([r.growth.backward.law for r in reports])
        arrays[f"constant {name}"] = np.array(
            ["constant" in r.growth.backward.compatible for r in reports]
        )
        arrays[f"rates {name}"] = np.array([r.growth.backward.rate for r in reports])
    return arrays


def _report(config, options, key):
    defaults = {"kind": "mlp", "activation": "relu", "init": "he_normal"}
    options = defaults | options
    key, key_x = jax.random.split(key)
    model = gs.models.build(
        options.pop("kind"),
        in_shape=(config.width,),
        # Not the width, or the head would count as one more layer of its kind.
        num_outputs=10,
        seed=key,
        width=config.width,
        depth=config.depth,
        **options,
    )
    model.train() if config.training else model.eval()
    x = jax.random.normal(key_x, (config.batch, config.width))
    return gs.analyze(model, x, layers=(), theory=False, progress=False)


def claims(config, arrays):
    """In how many of the seeds the law is the right one.

    That a norm is constant is not named where its random walk may be a drift: there it
    is enough that no other law is.
    """
    found = []
    for name in config.families:
        laws = arrays[f"laws {name}"]
        law, source = FAMILIES[name][1:]
        text = f"networks in which the law is '{law}': {name}"
        right, all_of_them = laws == law, len(laws)
        if law == "constant":
            text = f"networks in which no law but '{law}' is named: {name}"
            right |= (laws == "unknown") & arrays[f"constant {name}"]
        right = np.sum(right)
        found.append(claim(text, right, all_of_them, within=0, source=source))
    return found


def plot(config, arrays):
    """The norms of gradients against depth, a line for each seed."""
    from matplotlib.figure import Figure

    num = len(config.families)
    figure = Figure(figsize=(3 * num, 3), layout="constrained")
    panels = np.ravel(figure.subplots(1, num))
    for axes, name in zip(panels, config.families, strict=True):
        norms = arrays[f"norms {name}"]
        axes.semilogy(np.arange(1, norms.shape[1] + 1), norms.T)
        axes.set(xlabel="layer", ylabel="gradient's norm, for each seed", title=name)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
