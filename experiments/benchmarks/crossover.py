"""From which width on do products with vectors beat writing the Jacobian out?

One tanh layer at each width, one example, float32. Dense: the Jacobian built and all
its singular values; by products: the eight largest values with bounds and the sum of
all squares with an interval (`top_k=8`). Dense grows like the cube of the width,
products like its square. Widths whose dense spectrum would take longer than a limit
are extrapolated by the cube and marked with ~. Measured on two quiet cores: 1.2 times
the time at width 256, 0.43 at 512, 0.03 at 8192. The times are of the calls after the
first, so compiling is not in them; the first is listed beside them. Five minutes.

    OPENBLAS_NUM_THREADS=1 python -m experiments.benchmarks.crossover
"""

import dataclasses
import time

import jax
import numpy as np

from experiments._run import print_table
from experiments.benchmarks import jacobians
from gradstab.network import find_layers, propagate
from gradstab.spectra import find_examples, layer_spectrum


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    widths: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192)
    turns: int = 3
    longest: float = 100.0
    """Seconds above which the cost of a decomposition is estimated, not measured."""


def functions(width):
    """The two ways to the spectrum of one layer, as functions without arguments."""
    sizes = jacobians.Config(depth=1, width=width, examples=1)
    params, x = jacobians.network_of(sizes)
    network = find_layers(jacobians.apply, params, (x,))
    run = propagate(network, params, (), (x,))
    (layer,) = find_examples(run, network).layers

    def dense():
        return layer_spectrum(layer, examples=1, max_dense=width)

    def products():
        return layer_spectrum(layer, examples=1, max_dense=1, top_k=8)

    return dense, products


def largest(function):
    """The largest singular value of every example."""
    spectrum = function().spectrum
    return spectrum.values[:, 0]


def seconds(function, turns):
    """First call, and the median of the next ones."""
    taken = []
    for _ in range(turns + 1):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return taken[0], float(np.median(taken[1:]))


def run(config):
    """Rows ``(width, dense s, guessed, products s, its first call s, error)``."""
    rows = []
    for width in config.widths:
        dense, products = functions(width)
        cube = rows[-1][1] * (width / rows[-1][0]) ** 3 if rows else 0.0
        guessed = cube > config.longest
        turns = 1 if cube > config.longest / 10 else config.turns
        taken = cube if guessed else seconds(dense, turns)[1]
        first, again = seconds(products, config.turns)
        error = np.nan
        if not guessed:
            error = np.max(np.abs(largest(products) / largest(dense) - 1))
        rows.append((width, taken, guessed, again, first, float(error)))
        jax.clear_caches()
    return rows


def table(config):
    """A row per width."""
    header = ("width", "dense s", "products s", "ratio", "first call s", "error of s1")
    lines = ["".join(f"{name:>13}" for name in header)]
    for width, dense, guessed, products, first, error in run(config):
        mark = "~" if guessed else ""
        cells = (
            f"{width}",
            f"{mark}{dense:.3g}",
            f"{products:.3g}",
            f"{mark}{products / dense:.2g}",
            f"{first:.2g}",
            "" if guessed else f"{error:.0e}",
        )
        lines.append("".join(f"{cell:>13}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    print_table(Config, table)
