"""Classes 44 and 46 to 48: equal eigenvalues, complex numbers, solvers, collectives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from experiments.checkers import points
from experiments.checkers.cases import WIDE
from experiments.checkers.mutants.make import mutant
from experiments.checkers.operations import (
    symmetric,
)


def _through_eigenvectors(function):
    """A function of a symmetric matrix; autodiff divides by the gaps of its values."""

    def f(a):
        values, vectors = jnp.linalg.eigh(symmetric(a), symmetrize_input=False)
        return (vectors * function(values)) @ vectors.T

    return f


def _near_identity(shape):
    """Degenerate: twice the identity, and the last value apart."""
    n = points.SQUARE[shape] + 1
    return (np.diag([2.0] * (n - 1) + [3.0]),)


def _degenerate(name, function, truth):
    by_values = _through_eigenvectors(function)
    return mutant(
        44,
        name,
        "divides by the gaps of equal eigenvalues",
        of=by_values,
        truth=truth,
        point=_near_identity,
        dtypes=WIDE,
    )


DEGENERATE = [
    _degenerate(
        "matrix exponential", jnp.exp, lambda a: jax.scipy.linalg.expm(symmetric(a))
    ),
    _degenerate("matrix square", jnp.square, lambda a: symmetric(a) @ symmetric(a)),
    _degenerate(
        "matrix inverse", lambda v: 1 / v, lambda a: jnp.linalg.inv(symmetric(a))
    ),
]


def _complex_product(a, b, c, d):
    z = jax.lax.complex(a, b) * jax.lax.complex(c, d)
    return z.real, z.imag


def _spectrum(a, b):
    z = jnp.fft.fft(jax.lax.complex(a, b))
    return z.real, z.imag


def _complex_square(a, b):
    z = jax.lax.complex(a, b) ** 2
    return z.real, z.imag


def _unconjugated_product(args, w, g):
    u, v = jax.lax.complex(*w), jax.lax.complex(*args[2:])
    bad = u * v
    return bad.real, bad.imag, *g[2:]


def _unconjugated_spectrum(args, w, g):
    bad = jnp.fft.fft(jax.lax.complex(*w))
    return bad.real, bad.imag


def _unconjugated_square(args, w, g):
    bad = 2 * jax.lax.complex(*args) * jax.lax.complex(*w)
    return bad.real, bad.imag


_four = points.point(lambda s: [(points.LENGTH[s],)] * 4)


_parts = points.point(lambda s: [(points.LENGTH[s],)] * 2)


COMPLEX = [
    mutant(
        46,
        "complex product",
        "factor not conjugated",
        _unconjugated_product,
        truth=_complex_product,
        point=_four,
        dtypes=WIDE,
    ),
    mutant(
        46,
        "fourier transform",
        "transposed without conjugation",
        _unconjugated_spectrum,
        truth=_spectrum,
        point=_parts,
        dtypes=WIDE,
    ),
    mutant(
        46,
        "complex square",
        "slope not conjugated",
        _unconjugated_square,
        truth=_complex_square,
        point=_parts,
        dtypes=WIDE,
    ),
]


def _square_root(x):
    """Newton's iteration; its derivative runs through it."""
    y = jnp.ones_like(x)
    for _ in range(8):
        y = (y + x / y) / 2
    return y


def _settled(a, b):
    """The fixed point of h = tanh(A h / 4 + b)."""
    h = jnp.zeros_like(b)
    for _ in range(60):
        h = jnp.tanh(_shrunk(a) @ h + b)
    return h


def _shrunk(a):
    return a / (4 * a.shape[0] ** 0.5)


def _one_step(a, b):
    h = stop_gradient(_settled(a, b))
    return jnp.tanh(_shrunk(a) @ h + b)


def _ridge(a, b):
    return jnp.linalg.solve(a.T @ a + 0.5 * jnp.eye(a.shape[1], dtype=a.dtype), a.T @ b)


def _ridge_with_constant_gram(a, b):
    gram = stop_gradient(a.T @ a) + 0.5 * jnp.eye(a.shape[1], dtype=a.dtype)
    return jnp.linalg.solve(gram, a.T @ b)


def _small_steps(f):
    """The implicit equation solved by too few terms of its series."""

    def wrong(args, w, g):
        a, b = args
        h = f(a, b)
        slope = 1 - h**2
        u = w
        for _ in range(2):
            u = w + _shrunk(a).T @ (slope * u)
        return jax.vjp(lambda a, b: jnp.tanh(_shrunk(a) @ h + b), a, b)[1](u)

    return wrong


_matrix_and_vector = points.point(
    lambda s: [(points.SQUARE[s],) * 2, (points.SQUARE[s],)]
)


IMPLICIT = [
    mutant(
        47,
        "square root by Newton",
        "the last step alone",
        of=lambda x: (
            (stop_gradient(_square_root(x)) + x / stop_gradient(_square_root(x))) / 2
        ),
        truth=_square_root,
        point=points.positive,
    ),
    mutant(
        47,
        "fixed point",
        "one step",
        of=_one_step,
        truth=_settled,
        point=_matrix_and_vector,
    ),
    mutant(
        47,
        "fixed point",
        "two terms of the series",
        _small_steps(_settled),
        truth=_settled,
        point=_matrix_and_vector,
    ),
    mutant(
        47,
        "ridge regression",
        "the matrix held constant",
        of=_ridge_with_constant_gram,
        truth=_ridge,
        point=points.system,
        dtypes=WIDE,
    ),
]


def _on_devices(f):
    """Every row on a device of its own, as `jax.vmap` plays them."""
    return jax.vmap(f, axis_name="devices")


def _summed_with(transposed):
    """Sums over the devices, and how often the cotangent is summed again."""

    def total(x):
        here = jax.lax.psum(x, "devices")
        number = jax.lax.psum(1, "devices")
        factor = number if transposed else 1
        return factor * here - stop_gradient((factor - 1) * here)

    return total


def _distributed_share(total, x):
    return jnp.exp(x) / total(jnp.exp(x))


def _distributed_centre(total, x):
    return jnp.tanh(x) * total(x)


def _distributed_norm(total, x):
    return x / jnp.sqrt(total(x**2))


def _collective(name, f):
    right = _on_devices(functools.partial(f, _summed_with(False)))
    wrong = _on_devices(functools.partial(f, _summed_with(True)))
    return mutant(
        48,
        name,
        "the cotangent summed over the devices twice",
        of=wrong,
        truth=right,
        point=points.rows,
    )


COLLECTIVES = [
    _collective("distributed softmax", _distributed_share),
    _collective("distributed sum", _distributed_centre),
    _collective("distributed norm", _distributed_norm),
]


MUTANTS = [
    *DEGENERATE,
    *COMPLEX,
    *IMPLICIT,
    *COLLECTIVES,
]
