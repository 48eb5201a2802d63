"""Do singular values found on the device agree with LAPACK's to their stated errors?

Matrices of many kinds and shapes, in float64 and float32, by the programs that an
accelerator runs, in float64 arithmetic and in float32 as on a device that has no other,
against `numpy.linalg.svd` of the same numbers in float64. Expected: each value within
its stated error, and not finite where LAPACK's is not. A CPU runs the same programs. Of
1,008 matrices of float64 and as many of float32 numbers no value was outside; the
largest distance was 0.31 of the stated error in float32 arithmetic and 0.55 in float64.
A minute on one CPU.

    python -m experiments.device_spectra --cases 14
"""

import dataclasses

import numpy as np

from experiments._run import print_table
from gradstab.spectra.on_device import decompose_on_device


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags: matrices of each kind and shape, and the seed of all of them."""

    cases: int = 14
    """How many matrices of each kind and shape."""
    seed: int = 0


SHAPES = ((1, 1), (1, 9), (5, 5), (40, 12), (12, 70), (64, 64))


def _with_values(values):
    """A matrix with these singular values and random vectors."""

    def draw(rng, n_out, n_in):
        size = min(n_out, n_in)
        left = np.linalg.qr(rng.standard_normal((n_out, size)))[0]
        right = np.linalg.qr(rng.standard_normal((n_in, size)))[0]
        return (left * np.asarray(values(rng, size), float)) @ right.T

    return draw


def _gaussian(rng, n_out, n_in):
    return rng.standard_normal((n_out, n_in))


def _with_nan(rng, n_out, n_in):
    matrix = rng.standard_normal((n_out, n_in))
    matrix[rng.integers(n_out), rng.integers(n_in)] = rng.choice([np.nan, np.inf])
    return matrix


KINDS = {
    "Gaussian": _gaussian,
    "repeated": _with_values(lambda rng, n: np.repeat([3.0, 2.0, 1.0], n)[::3][:n]),
    "clustered": _with_values(lambda rng, n: 1 + 1e-9 * rng.random(n)),
    "wide spread": _with_values(
        lambda rng, n: np.geomspace(1, 10 ** -rng.uniform(3, 14), n)
    ),
    "rank-deficient": _with_values(lambda rng, n: np.arange(n) < rng.integers(n + 1)),
    "whole numbers": lambda rng, m, n: (
        rng.integers(-2, 3, (m, 1)) * rng.integers(-2, 3, (1, n))
    ),
    "graded": lambda rng, m, n: (
        rng.standard_normal((m, n)) * np.geomspace(1, 1e-20, m)[:, None]
    ),
    "triangular": lambda rng, m, n: np.triu(np.eye(m, n, dtype=int) * 2 - 1),
    "zero": lambda rng, m, n: np.zeros((m, n)),
    "with NaN or inf": _with_nan,
    "tiny": lambda rng, m, n: rng.standard_normal((m, n)),
    "huge": lambda rng, m, n: rng.standard_normal((m, n)),
}
# Squares of these leave the range of the dtype.
SIZES = {
    ("tiny", "float64"): 1e-200,
    ("tiny", "float32"): 1e-30,
    ("huge", "float64"): 1e200,
    ("huge", "float32"): 1e30,
}


def matrices(kind, shape, dtype, config):
    """Some matrices of one kind and shape."""
    place = [*KINDS].index(kind), SHAPES.index(shape)
    rng = np.random.default_rng([config.seed, *place])
    found = [KINDS[kind](rng, *shape) for _ in range(config.cases)]
    return (np.stack(found) * SIZES.get((kind, dtype), 1.0)).astype(dtype)


def exact(given):
    """LAPACK's values of the same numbers in float64."""
    finite = np.all(np.isfinite(given), axis=(1, 2), keepdims=True)
    found = np.linalg.svd(np.where(finite, given, 0).astype(float), compute_uv=False)
    return np.where(finite[:, :, 0], found, np.nan)


def outside(given, wide):
    """How many values are outside of their errors, of all, and the largest ratio."""
    found = decompose_on_device(given, wide=wide)
    true = exact(given)
    finite = np.isfinite(true)
    wrong = np.isnan(found.values) != ~finite
    distance = np.abs(np.where(finite, found.values, 0) - np.where(finite, true, 0))
    wrong |= finite & ~(distance <= found.errors)
    ratio = distance / np.where(finite & (found.errors > 0), found.errors, np.inf)
    return wrong.sum(), wrong.size, ratio.max()


def table(config):
    """A row for each kind, dtype and arithmetic, and one for all kinds."""
    names = "kind", "numbers", "arithmetic", "matrices", "outside", "values", "ratio"
    rows = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for dtype in ("float64", "float32"):
        for wide in (True, False):
            label = f"{dtype} | {'float64' if wide else 'float32'}"
            every = []
            for kind in KINDS:
                found = [
                    outside(matrices(kind, shape, dtype, config), wide)
                    for shape in SHAPES
                ]
                every += found
                rows.append(_row(kind, label, found, config))
                print(rows[-1], flush=True)
            rows.append(_row("all", label, every, config))
    return "\n".join(rows)


def _row(kind, label, found, config):
    wrong, size, ratio = map(np.array, zip(*found, strict=True))
    cells = (len(found) * config.cases, wrong.sum(), size.sum(), f"{ratio.max():.2f}")
    return f"| {kind} | {label} | {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    print_table(Config, table)
