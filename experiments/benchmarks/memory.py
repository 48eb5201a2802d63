"""How much memory do the spectra of a deep network take?

A tanh network of equal layers of 512 units, 16 examples, float32: all singular values
of every layer, at two depths, each in a fresh process, and of a process that only
imports and traces. Values are reduced layer by layer, so the peak should grow with
depth by the parameters and activations alone, one to three MiB a layer. Expected:
below 600 MiB at depth 64. The signals and the coupling test are part of it, as in
`gradstab.analyze`. Measured: 486 and 573 MiB, 333 and 396 of them before that; the peak
is that of the signals, which stack the weights of equal layers. A minute on two cores.

    OPENBLAS_NUM_THREADS=1 python -m experiments.benchmarks.memory
"""

import dataclasses
import resource
import subprocess
import sys

import jax

from experiments._run import print_table
from experiments.benchmarks import jacobians
from gradstab.network import find_layers, propagate
from gradstab.spectra import find_examples, layer_spectrum


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    depths: tuple[int, ...] = (8, 64)
    width: int = 512
    examples: int = 16
    max_bytes: float = 2.0**28
    """Bytes of Jacobians at work at a time."""


def measure(depth, width, examples, max_bytes, spectra):
    """Values of all layers; prints the peak of this process in MiB and a checksum."""
    sizes = jacobians.Config(depth=depth, width=width, examples=examples)
    params, x = jacobians.network_of(sizes)
    network = find_layers(jacobians.apply, params, (x,))
    single = find_layers(jacobians.apply, params, (x[:1],))
    total = 0.0
    if spectra:
        run = find_examples(propagate(network, params, (), (x,)), single)
        limits = {"max_dense": width, "max_bytes": max_bytes}
        for layer in run.layers:
            spectrum = layer_spectrum(layer, examples=examples, **limits).spectrum
            total += float(spectrum.values.sum()) if spectrum else 0.0
    jax.block_until_ready(params)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{peak:.0f} {total:.6g}")


def peak(config, depth, spectra):
    """MiB at most, of a fresh process."""
    arguments = (depth, config.width, config.examples, config.max_bytes, spectra)
    code = f"from experiments.benchmarks import memory; memory.measure{arguments}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[0])


def run(config):
    """``(depth, MiB without spectra, MiB with them)`` for every depth."""
    return [
        (depth, peak(config, depth, False), peak(config, depth, True))
        for depth in config.depths
    ]


def table(config):
    """A row per depth."""
    header = ("depth", "traced only", "with spectra")
    lines = ["".join(f"{name:>14}" for name in header)]
    for depth, before, after in run(config):
        lines.append(f"{depth:>14}{f'{before:.0f} MiB':>14}{f'{after:.0f} MiB':>14}")
    return "\n".join(lines)


if __name__ == "__main__":
    print_table(Config, table)
