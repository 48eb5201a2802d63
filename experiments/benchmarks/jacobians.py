"""What do the Jacobians of all layers cost, built and decomposed?

A tanh network of 8 layers of 512 units, 16 examples, float32. Three questions, each
answered within one run in which the contenders take turns:

* building: `gradstab` against writing ``diag(phi') W`` directly, as a user who knows
  the layers would. Written out by rows of the weights as they lie in memory, and by
  their transpose, which is slower; the first is the bar. Expected: at most 1.2.
* all singular values: `gradstab` against ``torch.func.vmap(jacrev)`` with
  ``torch.linalg.svdvals`` at the better of one and two threads. Expected: at most 0.4.
* the same without building, so that it is seen where the time goes.

Each number is the median over the turns; its ratio is that of medians, beside it the
range of the ratios of single turns, and the CPU time, which other work on the machine
leaves alone. Torch is in the ``bench`` extra; without it the second question is left
out. Measured on two quiet cores: building 0.98 to 1.00; all values 0.45 of torch on one
thread and 0.50 to 0.54 on two, so the second expectation is not met: two thirds of the
time are LAPACK's eigenvalues of the Gram matrices, and two cores share a memory bus.

    OPENBLAS_NUM_THREADS=1 python -m experiments.benchmarks.jacobians
"""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments._run import print_table
from gradstab.network import find_layers, propagate
from gradstab.spectra import find_examples, layer_spectrum
from gradstab.spectra.dense import decompose
from gradstab.spectra.layer_map import layer_map


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    depth: int = 8
    width: int = 512
    examples: int = 16
    build_turns: int = 25
    """How often building the Jacobians is timed, in turn."""
    spectrum_turns: int = 5
    """How often their singular values are timed, in turn."""
    max_bytes: float = 2.0**28
    """Bytes of Jacobians at work at a time."""


def apply(params, x):
    """A tanh network of equal layers."""
    for w in params:
        x = jnp.tanh(x @ w)
    return x


def network_of(config):
    """Weights and a batch, drawn by NumPy: to draw them, JAX takes 200 MiB."""
    rng = np.random.default_rng(0)

    def normal(*shape, scale=1.0):
        return jnp.asarray(np.float32(scale) * rng.standard_normal(shape, np.float32))

    width, scale = config.width, config.width**-0.5
    params = [normal(width, width, scale=scale) for _ in range(config.depth)]
    return params, normal(config.examples, width)


@jax.jit
def by_rows(w, x):
    """The transposed Jacobians of a layer, in the order in which the weights lie."""
    slopes = 1 - jnp.square(jnp.tanh(x @ w))
    return slopes[:, None, :] * w[None]


@jax.jit
def by_columns(w, x):
    """The Jacobians ``diag(phi') W^T`` of a layer."""
    slopes = 1 - jnp.square(jnp.tanh(x @ w))
    return slopes[:, :, None] * w.T[None]


def contenders(config):
    """Functions without arguments: name to function, for building and for spectra."""
    params, x = network_of(config)
    network = find_layers(apply, params, (x,))
    run = propagate(network, params, (), (x,))
    layers = find_examples(run, find_layers(apply, params, (x[:1],))).layers
    entering = [layer.data[0] for layer in layers]
    maps = [layer_map(layer, examples=config.examples)[0] for layer in layers]

    def written(jacobian):
        pairs = zip(params, entering, strict=True)
        return [jacobian(w, x).block_until_ready() for w, x in pairs]

    def built():
        return [linear.dense(config.max_bytes) for linear in maps if linear]

    def spectra():
        limits = {"max_dense": config.width, "max_bytes": config.max_bytes}
        return [
            layer_spectrum(layer, examples=config.examples, **limits)
            for layer in layers
        ]

    jacobians = built()
    build = {
        "diag(phi') W": functools.partial(written, by_rows),
        "its transpose": functools.partial(written, by_columns),
        "gradstab": built,
    }
    values = {
        "gradstab": spectra,
        "without building": lambda: [decompose(matrices) for matrices in jacobians],
    }
    return build, values | torch_contenders(params, entering)


def torch_contenders(params, entering):
    """The same spectra by torch, with one thread and with two; none without torch."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        return {}
    pairs = [
        (torch.tensor(np.asarray(w)), torch.tensor(np.asarray(x)))
        for w, x in zip(params, entering, strict=True)
    ]

    def layer(w, x):
        return torch.tanh(x @ w)

    def spectra(threads):
        torch.set_num_threads(threads)
        jacobian = torch.func.vmap(
            torch.func.jacrev(layer, argnums=1), in_dims=(None, 0)
        )
        return [torch.linalg.svdvals(jacobian(w, x)) for w, x in pairs]

    names = {f"torch, {n} thread{'s' * (n > 1)}": n for n in (1, 2)}
    return {name: functools.partial(spectra, n) for name, n in names.items()}


def seconds(functions, turns):
    """(turns, 2) of each function, which take turns after a warm-up: wall and CPU."""
    for function in functions.values():
        function()
    found = {name: np.zeros((turns, 2)) for name in functions}
    for turn in range(turns):
        for name, function in functions.items():
            start = now()
            function()
            found[name][turn] = now() - start
    return found


def now():
    """Seconds on the wall, and of all threads of this process."""
    return np.array([time.perf_counter(), time.process_time()])


def run(config):
    """Seconds of building and of spectra, per contender and turn."""
    build, values = contenders(config)
    return (
        seconds(build, config.build_turns),
        seconds(values, config.spectrum_turns),
    )


def table(config):
    """A row per contender: its median, and the ratio of gradstab to it."""
    header = ("milliseconds", "of CPU", "gradstab / it", "turn by turn")
    lines = [" " * 28 + "".join(f"{name:>16}" for name in header)]
    for title, found in zip(("build", "spectra"), run(config), strict=True):
        ours = found["gradstab"]
        for name, theirs in found.items():
            wall, cpu = 1e3 * np.median(theirs, axis=0)
            ratio = np.median(ours[:, 0]) / np.median(theirs[:, 0])
            low, high = np.quantile(ours[:, 0] / theirs[:, 0], (0.1, 0.9))
            cells = (
                f"{wall:.1f}",
                f"{cpu:.1f}",
                f"{ratio:.2f}",
                f"{low:.2f} to {high:.2f}",
            )
            row = "".join(f"{cell:>16}" for cell in cells)
            lines.append(f"{title + ': ' + name:<28}{row}")
    return "\n".join(lines)


if __name__ == "__main__":
    print_table(Config, table)
