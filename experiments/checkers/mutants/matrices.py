"""Classes 11, 12 and 22: transposes, triangles, ranks."""

import jax
import jax.numpy as jnp

from experiments.checkers import points
from experiments.checkers.mutants.make import mutant, only
from experiments.checkers.operations import (
    normalised,
    rms_norm,
)


def _quadratic(x, a):
    return jnp.sum((x @ a) * x, axis=-1)


TRANSPOSED = [
    mutant(11, "square dense", "kernel transposed", only(1, lambda g: g.T)),
    mutant(
        11,
        "square dense",
        "input by the untransposed kernel",
        lambda a, w, g: (w @ a[1], g[1]),
    ),
    mutant(11, "bilinear", "matrix transposed", only(1, lambda g: g.T)),
    mutant(
        11,
        "solve",
        "solved with the untransposed matrix",
        lambda a, w, g: (g[0], jnp.linalg.solve(a[0], w)),
    ),
    mutant(
        11,
        "quadratic form",
        "taken to be symmetric",
        lambda a, w, g: (2 * w[:, None] * (a[0] @ a[1]), g[1]),
        truth=_quadratic,
        point=points.square_dense,
    ),
]


def _upper_quadratic(x, a):
    return jnp.sum((x @ jnp.triu(a)) * x, axis=-1)


TRIANGLES = [
    mutant(
        12,
        "cholesky",
        "gradient of the lower triangle alone",
        lambda a, w, g: (jnp.tril(g[0] + g[0].T) - jnp.diag(jnp.diag(g[0])),),
    ),
    mutant(
        12,
        "triangular solve",
        "upper triangle not masked",
        lambda a, w, g: (-g[1] @ _solved(a).T, g[1]),
    ),
    mutant(
        12,
        "log determinant",
        "gradient of the lower triangle alone",
        lambda a, w, g: (jnp.tril(2 * g[0]) - jnp.diag(jnp.diag(g[0])),),
    ),
    mutant(
        12,
        "triangular form",
        "lower triangle not masked",
        lambda a, w, g: (g[0], jax.vjp(_quadratic, *a)[1](w)[1]),
        truth=_upper_quadratic,
        point=points.square_dense,
    ),
]


def _solved(args):
    return jax.scipy.linalg.solve_triangular(jnp.tril(args[0]), args[1], lower=True)


def _gain_of_rank_two(f):
    """Sums over the first axis only, and takes the first of the second."""

    def wrong(args, w, g):
        x, gain, *rest = args
        wide = jnp.broadcast_to(gain, x.shape)
        bad = jnp.sum(jax.vjp(f, x, wide, *rest)[1](w)[1], axis=0)[0]
        return (g[0], bad, *g[2:])

    return wrong


def _softmax_over_axis_one(args, w, g):
    p = jax.nn.softmax(args[0], axis=-1)
    return (p * (w - jnp.sum(w * p, axis=1, keepdims=True)), *g[1:])


def _softmax(x, gain, bias):
    return jax.nn.softmax(x, axis=-1)


def _norm_of(x, gain, bias):
    return normalised(x) * gain + bias


def _rms_of(x, gain, bias):
    return rms_norm(x, gain) + bias


def _rank_three(name, mistake, wrong, f):
    return mutant(22, name, mistake, wrong, truth=f, point=points.batch)


RANKS = [
    _rank_three(
        "layer norm of rank 3", "one axis summed", _gain_of_rank_two(_norm_of), _norm_of
    ),
    _rank_three(
        "rms norm of rank 3", "one axis summed", _gain_of_rank_two(_rms_of), _rms_of
    ),
    _rank_three(
        "softmax of rank 3",
        "term over the second axis",
        _softmax_over_axis_one,
        _softmax,
    ),
]


MUTANTS = [
    *TRANSPOSED,
    *TRIANGLES,
    *RANKS,
]
