"""Do the stated errors of singular values and exponents hold?

Random Jacobians of many kinds of spectra, and random orbits of maps whose exponents are
known, against dense decompositions and closed forms. Expected: the true value of the
same rank is within the stated error, but for the chance that is stated with it: 1e-3
for the largest singular values (by products), 5 % for Lyapunov exponents; all others
are bounds. Of 40 cases in the first seven families of spectra none was outside. A
thousand cases of all of them take hours.

    python -m experiments.stated_errors --cases 1000
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._run import print_table
from gradstab.spectra.exponents import exponents
from gradstab.spectra.golub_kahan import golub_kahan
from gradstab.spectra.linear_map import LinearMap
from gradstab.spectra.lyapunov import lyapunov


@dataclasses.dataclass(frozen=True)
class Config:
    """Flags: cases of each row, sizes, and the seed of all of them."""

    cases: int = 1000
    """How many matrices or sequences for each row."""
    width: int = 96
    top_k: int = 8
    """Singular values or exponents of each case."""
    layers: int = 4
    """Matrices of each product."""
    steps: int = 256
    seed: int = 0


SPECTRA = {
    "Gaussian": lambda rng, n: None,
    "equal distances": lambda rng, n: np.linspace(1, rng.uniform(0, 0.9), n),
    "repeated": lambda rng, n: np.repeat([3.0, 2.0, 1.0, 0.5], -(-n // 4))[:n],
    "clustered": lambda rng, n: np.where(
        np.arange(n) < n // 4,
        3 + 10 ** rng.uniform(-9, -2) * rng.random(n),
        rng.random(n),
    ),
    "slow decay": lambda rng, n: np.arange(1.0, n + 1) ** -rng.uniform(0.05, 1),
    "wide spread": lambda rng, n: np.geomspace(1, 10 ** -rng.uniform(3, 12), n),
    "rank deficient": lambda rng, n: np.arange(n) < rng.integers(1, n // 2),
    "zero": lambda rng, n: np.zeros(n),
}


def jacobian(rng, kind, n):
    """A square matrix with a spectrum of the kind and random vectors."""
    values = SPECTRA[kind](rng, n)
    gaussian = rng.standard_normal((2, n, n))
    if values is None:
        return gaussian[0] / np.sqrt(n)
    left, right = (np.linalg.qr(one)[0] for one in gaussian)
    return (left * np.asarray(values, float)) @ right


def outside(values, errors, truth):
    """The share of values further out than stated, and the largest ratio."""
    both = np.isfinite(values) & np.isfinite(truth)
    distance = np.abs(np.where(both, values, 0) - np.where(both, truth, 0))
    wrong = (distance > errors) | (np.isfinite(values) != np.isfinite(truth))
    ratio = distance / np.where(errors > 0, errors, np.inf)
    return np.mean(wrong), np.max(ratio)


def top_values(config, kind, dtype):
    """Leading singular values by products."""
    n = config.width

    @jax.jit
    def decompose(matrix, key):
        def product(form):
            return lambda v: jnp.einsum(form, matrix, v.astype(dtype))

        linear = LinearMap(product("oi,bi->bo"), product("oi,bo->bi"), 1, (n, n))
        found = golub_kahan(config.top_k)(linear, key)
        return found.values[0], found.bounds[0]

    found = []
    for rng, key in _draws(config):
        matrix = jnp.asarray(jacobian(rng, kind, n), dtype)
        values, bounds = map(np.asarray, decompose(matrix, key))
        exact = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)
        found.append((values, bounds, exact[: config.top_k]))
    return found


def top_exponents(config, kind):
    """Leading exponents of a product against all of them."""
    found = []
    for rng, _ in _draws(config):
        layers = [jacobian(rng, kind, config.width)[None] for _ in range(config.layers)]
        some = exponents(layers, top_k=config.top_k)
        every = exponents(layers).values[0, : config.top_k]
        found.append((some.values[0], some.errors[0], every))
    return found


def rounded_exponents(config, kind):
    """All exponents of products in float32 against those of the same numbers."""
    n = 16

    def linear(matrix):
        matrix = jnp.asarray(matrix, jnp.float32)

        def product(form):
            return lambda v: jnp.einsum(form, matrix, v.astype(jnp.float32))

        return LinearMap(product("oi,bi->bo"), product("oi,bo->bi"), 1, (n, n))

    found = []
    for rng, _ in _draws(config):
        layers = [
            np.asarray(jacobian(rng, kind, n), np.float32) for _ in range(config.layers)
        ]
        some = exponents([linear(layer) for layer in layers])
        every = exponents([np.asarray(layer, np.float64)[None] for layer in layers])
        found.append((some.values[0], some.errors[0], every.values[0]))
    return found


def orbits(config, kind):
    """Lyapunov exponents of maps for which they are known."""
    maps = {"logistic": _logistic, "tied weights": _tied, "Jordan block": _jordan}
    found = []
    for rng, _ in _draws(config):
        steps, truth = maps[kind](rng, config.steps)
        one = lyapunov(steps, num_values=len(truth))
        found.append((one.values[0], one.errors[0], np.sort(truth)[::-1]))
    return found


def _logistic(rng, steps):
    x, found = rng.random(), []
    for _ in range(steps):
        found.append(np.full((1, 1, 1), 4 - 8 * x))
        x = 4 * x * (1 - x)
    return found, np.log([2.0])


def _tied(rng, steps):
    w = rng.standard_normal((4, 4)) / 2
    return [w[None]] * steps, np.log(np.abs(np.linalg.eigvals(w)))


def _jordan(rng, steps):
    size, value = rng.integers(2, 5), rng.uniform(0.3, 1.2)
    w = value * np.eye(size) + np.diag(rng.uniform(0.5, 2, size - 1), 1)
    return [w[None]] * steps, np.full(size, np.log(value))


def _draws(config):
    for case in range(config.cases):
        yield np.random.default_rng([config.seed, case]), jax.random.key(case)


def table(config):
    """A row for each quantity and kind."""
    rows = ["| quantity | kind | outside | largest ratio |", "|---|---|---|---|"]

    def row(quantity, kind, found):
        columns = map(np.concatenate, zip(*found, strict=True))
        share, ratio = outside(*columns)
        rows.append(f"| {quantity} | {kind} | {100 * share:.2f} % | {ratio:.2f} |")
        print(rows[-1], flush=True)

    for kind in SPECTRA:
        row("top values, float32", kind, top_values(config, kind, jnp.float32))
        with jax.enable_x64(True):
            row("top values, float64", kind, top_values(config, kind, jnp.float64))
        row("top exponents", kind, top_exponents(config, kind))
    for kind in ("Gaussian", "equal distances", "clustered", "slow decay"):
        row("exponents, float32", kind, rounded_exponents(config, kind))
    for kind in ("logistic", "tied weights", "Jordan block"):
        row("Lyapunov exponents", kind, orbits(config, kind))
    return "\n".join(rows)


if __name__ == "__main__":
    print_table(Config, table)
