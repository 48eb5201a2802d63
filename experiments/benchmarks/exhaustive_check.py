"""What does comparing every entry of a gradient cost, leaf by leaf?

The bar is what a user writes by hand: the leaves of a tanh network with a scalar loss
joined to one vector, and central differences of the joined function along every unit
vector, mapped over chunks of it in one compiled program. Its best chunk is chosen in
the same run, by one call of each. Against it stands
`gradstab.gradcheck.places.exhaustive`, which moves one leaf at a time: the others stay
unbatched. It chooses its steps, computes the rule's gradient and judges every entry,
all of which the bar leaves to the user.

One network has eight leaves; one has a single leaf, where nothing can be shared. Both
contenders are compiled before the clock starts and take turns; each number is the
median of the turns, in float64. Expected: at most 0.6 of the bar with eight leaves, at
most 1.1 with one. Beside it the first call, compiling included, and the evaluations
that it counts for itself. Measured on two cores with nothing else to do: 0.54 to 0.69
with eight leaves of 1e4 entries in all, where choosing the steps is a fifth of ours,
0.51 to 0.52 with 4e4, and 1.11 to 1.12 with one leaf of 1e4. Three minutes.

    OPENBLAS_NUM_THREADS=1 python -m experiments.benchmarks.exhaustive_check
"""

import dataclasses
import itertools
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments._run import print_table
from gradstab.gradcheck.places.exhaustive import Exhaustive
from gradstab.gradcheck.subject.problem import problem


@dataclasses.dataclass(frozen=True)
class Config:
    """Sizes of the measurement."""

    widths: tuple[int, ...] = (64, 137)  # 1e4 and 4e4 entries in eight leaves
    singles: tuple[int, ...] = (1_000, 10_000)
    """Entries of the functions of one array."""
    chunks: tuple[int, ...] = (8, 16, 32, 64, 256)
    """Directions at a time of the loop written by hand; the fastest counts."""
    turns: int = 3


def network(width):
    """The loss of 16-width-width-width-10 on eight examples, and its eight leaves."""
    rng = np.random.default_rng(0)
    sizes = (16, width, width, width, 10)
    leaves = []
    for before, after in itertools.pairwise(sizes):
        leaves.append(rng.standard_normal((before, after)) / before**0.5)
        leaves.append(0.1 * rng.standard_normal(after))
    x, y = rng.standard_normal((8, 16)), rng.standard_normal((8, 10))

    def loss(*leaves):
        h = x
        for kernel, bias in zip(leaves[:-2:2], leaves[1:-2:2], strict=True):
            h = jnp.tanh(h @ kernel + bias)
        return jnp.mean((h @ leaves[-2] + leaves[-1] - y) ** 2)

    return loss, leaves


def single(size):
    """A function of one vector that costs about as much as reading it a few times."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((8, size)) / size**0.5

    def f(x):
        return jnp.sum(jnp.tanh(kernel @ jnp.sin(x)))

    return f, [rng.standard_normal(size)]


def by_hand(f, leaves, chunk):
    """Central differences along all unit vectors, as a function without arguments."""
    shapes = [leaf.shape for leaf in leaves]
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    size, h = sum(leaf.size for leaf in leaves), 1e-5

    def joined(vector):
        parts = zip(jnp.split(vector, ends), shapes, strict=True)
        return f(*(part.reshape(shape) for part, shape in parts))

    @jax.jit
    def gradient(vector):
        def entry(i):
            move = jnp.zeros(size).at[i].set(h)
            return (joined(vector + move) - joined(vector - move)) / (2 * h)

        return jax.lax.map(entry, jnp.arange(size), batch_size=chunk)

    vector = jnp.concatenate([leaf.ravel() for leaf in leaves])
    return lambda: gradient(vector).block_until_ready()


def ours(f, leaves):
    """Every entry of the gradient compared, as a function without arguments."""
    task = problem(f, tuple(leaves))
    check = Exhaustive(task)
    return lambda: check(task.leaves)


def seconds(one, other, turns):
    """The median of each, taken in turns."""
    pairs = [(timed(one), timed(other)) for _ in range(turns)]
    return np.median(pairs, axis=0)


def timed(function):
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def run(config):
    """Rows ``(name, entries, best chunk, bar s, ours s, first s, bar's, record)``."""
    cases = [(f"8 leaves, width {width}", network(width)) for width in config.widths]
    cases += [("1 leaf", single(size)) for size in config.singles]
    for name, (f, leaves) in cases:
        check = ours(f, leaves)
        bars = {chunk: by_hand(f, leaves, chunk) for chunk in config.chunks}
        first = {chunk: timed(bar) for chunk, bar in bars.items()}
        again = {chunk: timed(bar) for chunk, bar in bars.items()}
        best = min(config.chunks, key=again.__getitem__)
        start = timed(check)
        times = *seconds(bars[best], check, config.turns), start, first[best]
        yield name, sum(leaf.size for leaf in leaves), best, *times, check()


def table(config):
    """A row per function."""
    header = ("entries", "best chunk", "by hand s", "ours s", "ratio", "first call s")
    header += ("by hand", "evaluations", "resolution")
    lines = [" " * 20 + "".join(f"{name:>13}" for name in header)]
    with jax.enable_x64(True):
        for name, size, chunk, bar, taken, first, theirs, full in run(config):
            resolution = max(g.resolution for g in full.findings)
            cells = (
                f"{size}",
                f"{chunk}",
                f"{bar:.3g}",
                f"{taken:.3g}",
                f"{taken / bar:.2f}",
                f"{first:.2g}",
                f"{theirs:.2g}",
                f"{full.figures.evaluations}",
                f"{resolution:.0e}",
            )
            lines.append(f"{name:<20}" + "".join(f"{cell:>13}" for cell in cells))
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    print_table(Config, table)
