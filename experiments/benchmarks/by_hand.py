"""What does a second analysis cost beside a script that is written by hand?

The README's network: 20 relu layers of 100 units, 64 digits, float64, one thread. By
hand, in torch: the norms of the gradients of all layers' data and parameters, the
singular values of every layer's Jacobian for 16 examples (``torch.func.vmap(jacrev)``
and ``torch.linalg.svdvals``), and those of the Jacobian of the whole network. gradstab
finds these and its theory, cosines, fits and verdict. Its first analysis compiles; from
the second on, of other parameters, it takes turns with the script. Expected: at most as
much time as the script, in CPU seconds.

Torch is in the ``bench`` extra; without it there is nothing to compare with.

    python -m experiments.benchmarks.by_hand
"""

import dataclasses
import os
import time

# One thread for everything: XLA takes as many as there are cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np

import gradstab as gs
from experiments._run import print_table, progress
from experiments.benchmarks.analyses import MODELS


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    turns: int = 5
    examples: int = 16


def weights_of(model) -> list:
    """Pairs (kernel, bias) of all layers, in NumPy."""
    pairs = []
    for layer in (model.input.dense, model.blocks.dense, model.head):
        kernel, bias = (
            np.asarray(parameter[...], np.float64)
            for parameter in (layer.kernel, layer.bias)
        )
        kernels = kernel.reshape(-1, *kernel.shape[-2:])
        pairs += zip(kernels, bias.reshape(len(kernels), -1), strict=True)
    return pairs


def by_hand(torch, pairs, x, y, examples):
    """Norms of gradients, spectra of the layers, spectrum of the network."""
    params = [[torch.tensor(a, requires_grad=True) for a in pair] for pair in pairs]
    last = len(params) - 1

    def layer(number, h):
        w, b = params[number]
        z = h @ w + b
        return z if number == last else torch.relu(z)

    def network(h):
        for number in range(len(params)):
            h = layer(number, h)
        return h

    entering, data = [], torch.tensor(x)
    for number in range(len(params)):
        entering.append(data)
        data = layer(number, data)
        data.retain_grad()
    leaving = [*entering[1:], data]
    torch.nn.functional.cross_entropy(data, torch.tensor(y)).backward()
    norms = [h.grad.norm(dim=1) for h in leaving]
    of_params = [
        torch.sqrt(sum(p.grad.square().sum() for p in pair)) for pair in params
    ]
    spectra = [
        torch.linalg.svdvals(_jacobians(torch, layer, number, h[:examples].detach()))
        for number, h in enumerate(entering)
    ]
    whole = torch.func.vmap(torch.func.jacrev(network))(entering[0][:examples])
    return norms, of_params, spectra, torch.linalg.svdvals(whole.detach())


def _jacobians(torch, layer, number, h):
    jacobian = torch.func.jacrev(lambda h: layer(number, h))
    return torch.func.vmap(jacobian)(h).detach()


def run(config: Config) -> str:
    """The table, as text."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return "No torch here, so there is nothing to compare with."
    torch.set_num_threads(1)
    analysed, written, gaps = [], [], []
    for seed in progress(range(config.turns + 1), "turns"):
        (model, x), options = MODELS["README"](seed)
        data = gs.data.load("digits")
        pairs, y = weights_of(model), np.asarray(data.y_train[seed:][:64], np.int64)
        began = time.process_time()
        report = gs.analyze(
            model, x, examples=config.examples, progress=False, **options
        )
        between = time.process_time()
        x = np.asarray(x, np.float64)
        norms, _, spectra, _ = by_hand(torch, pairs, x, y, config.examples)
        ended = time.process_time()
        analysed.append(between - began)
        written.append(ended - between)
        for layer, own, norm in zip(report.layers, spectra, norms, strict=True):
            assert layer.jacobian is not None
            gaps.append(_gap(layer.jacobian.values, own.numpy()))
            gaps.append(_gap(layer.gradient_norm, norm.numpy()))
    ratios = np.array(analysed[1:]) / written[1:]
    return "\n".join(
        [
            "| analysis | of the script's CPU time | range |",
            "|---|---|---|",
            f"| first | {analysed[0] / np.median(written):.1f} | |",
            f"| second and later | {np.median(ratios):.2f} "
            f"| {ratios.min():.2f} to {ratios.max():.2f} |",
            "",
            f"Numbers differ by at most {max(gaps):.1e} of the largest.",
        ]
    )


def _gap(one, other):
    return float(np.max(np.abs(one - other)) / np.max(np.abs(other)))


if __name__ == "__main__":
    print_table(Config, run)
