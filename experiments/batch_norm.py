"""Does batch normalisation cure exploding gradients, or cause them?

Rows 5 and 6. Tutorials say that it keeps gradients in range, some that it "normalises
the weights". It normalises pre-activations over the batch, and without skips, in
training mode at initialisation, it multiplies squared gradient norms by
`gs.theory.batch_norm_gain` per layer, whatever the weights: 1.788, 1.522 and 1.480 for
relu at batches of 8, 32 and 128, pi / (pi - 1) = 1.4669 in the limit: norms by 1.211
(Yang et al. 2019). In evaluation mode it is the identity at initialisation, so an
analysis in that mode finds a stable network and is wrong. Layer normalisation keeps
squared norms: a factor of one per layer for any scale of the weights (Doshi et al.
2023), and the same at two scales to 1e-4. Width 512, layers 5 to 30. One and a half
minutes on one core.

    python -m experiments.batch_norm
"""

import dataclasses

import jax
import numpy as np
from flax import nnx

import gradstab as gs
from experiments._claims import claim
from experiments._figures import legend
from experiments._run import experiment, progress

YANG = "Yang et al. 2019, theorem 3.9"
DOSHI = "Doshi et al. 2023"


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags; ``training``: mode of batch normalisation; ``beside``: also others."""

    width: int = 512
    first: int = 5
    """Layer from which the growth is measured, to the last."""
    depth: int = 30
    batches: tuple[int, ...] = (8, 32, 128)
    """Examples in a batch of batch normalisation, one row for each."""
    seeds: int = 4
    scales: tuple[float, ...] = (1.0, 3.0)
    """Scales of the weights under layer normalisation."""
    layer_seeds: int = 8
    """How many networks with layer normalisation."""
    training: bool = True
    """Whether batch normalisation is in training mode."""
    beside: bool = True
    """Measure the networks that the first row is compared with too."""
    seed: int = 0


def run(config):
    """Gradient norms of every network in every layer, and the verdicts."""
    key = jax.random.key(config.seed)
    key_x, *keys = jax.random.split(key, len(config.batches) + 4)
    mode = config.training
    networks = {
        f"relu, batch {b}": (keys[i], b, {"training": mode})
        for i, b in enumerate(config.batches)
    }
    if config.beside:
        linear = {"training": mode, "activation": "identity"}
        networks["linear, batch 8"] = keys[-3], 8, linear
        networks["evaluation"] = keys[-2], 8, {"training": False}
    for scale in config.scales:
        options = {"norm": "layer", "scale": scale, "seeds": config.layer_seeds}
        # The same weights at each scale.
        networks[f"layer norm, {scale:g}"] = jax.random.clone(keys[-1]), 8, options
    arrays = {}
    for name, (key, batch, options) in progress(networks.items(), "networks"):
        x = jax.random.normal(jax.random.clone(key_x), (batch, config.width))
        report = _report(config, key, x, **options)
        assert report.ensemble
        arrays[f"norms {name}"] = report.ensemble.gradient_norm.values
        arrays[f"verdict {name}"] = np.array(report.verdict)
    return arrays


def _report(
    config,
    key,
    x,
    *,
    norm="batch",
    activation="relu",
    scale=2**0.5,
    training=True,
    seeds=0,
):
    """Many initialisations: the batch is differentiated jointly in training mode."""

    def make(key):
        return gs.models.MLP(
            config.width,
            config.width,
            widths=(config.width,) * config.depth,
            activation=activation,
            norm=norm,
            kernel_init=gs.initializers.mean_field(scale),
            use_bias=False,
            rngs=nnx.Rngs(params=key),
        )

    models = gs.initializations(make, key, seeds or config.seeds)
    models.train() if training else models.eval()
    options = {"ensemble": True, "layers": (), "theory": False, "progress": False}
    return gs.analyze(models, x, precision="own", **options)


def claims(config, arrays):
    """Factors of squared gradient norms per layer, and the verdicts."""
    relu = gs.models.activation("relu")
    found = [
        _factor(
            config,
            arrays,
            f"relu, batch {batch}",
            gs.theory.batch_norm_gain(relu, batch),
            0.03,
            YANG,
            "5",
        )
        for batch in config.batches
    ]
    if config.beside:
        found.append(_factor(config, arrays, "linear, batch 8", 1.2, 0.03, YANG, ""))
        found.append(_verdict(arrays, "evaluation", "stable", "critical"))
    largest = f"relu, batch {max(config.batches)}"
    norms = np.sqrt(np.mean(_factors(config, arrays, largest)))
    text = f"factor of norms per layer, {largest}"
    found.append(claim(text, norms, 1.211174, relative=0.03, source=YANG))
    found.append(_verdict(arrays, largest, "exploding"))
    names = [f"layer norm, {scale:g}" for scale in config.scales]
    found += [_factor(config, arrays, n, 1.0, 0.015, DOSHI, "6") for n in names]
    if len(names) > 1:
        both = [np.mean(_factors(config, arrays, name)) for name in names]
        text = "difference of the factors between the scales"
        options = {"within": 1e-4, "source": DOSHI, "row": "6"}
        found.append(claim(text, np.ptp(both), 0, **options))
    return found


def _verdict(arrays, name, *right):
    said, text = str(arrays[f"verdict {name}"]), f"verdict {' or '.join(right)}: {name}"
    return claim(text, said in right, 1, within=0, source=YANG)


def _factors(config, arrays, name):
    """Squared norm per layer on its way back, one factor for each initialisation."""
    norms = arrays[f"norms {name}"]
    span = config.depth - config.first
    ratio = norms[:, config.first - 1] / norms[:, config.depth - 1]
    return ratio ** (2 / span)


def _factor(config, arrays, name, expected, tolerance, source, row):
    factors = _factors(config, arrays, name)
    error = np.std(factors, ddof=1) / np.sqrt(len(factors))
    options = {"relative": tolerance, "error": error, "source": source, "row": row}
    return claim(
        f"squared norms per layer: {name}", np.mean(factors), expected, **options
    )


def plot(config, arrays):
    """Gradient norms against depth, relative to the last layer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in (key.removeprefix("norms ") for key in arrays if "norms" in key):
        norms = np.exp(np.mean(np.log(arrays[f"norms {name}"]), axis=0))
        norms = norms[: config.depth] / norms[config.depth - 1]
        axes.semilogy(np.arange(1, config.depth + 1), norms, label=name)
    axes.set_title("gradients with and without batch normalisation", fontsize="medium")
    axes.set(xlabel="layer", ylabel="norm of the gradient, relative")
    legend(axes)
    return figure


if __name__ == "__main__":
    experiment(Config, run, claims, plot)
