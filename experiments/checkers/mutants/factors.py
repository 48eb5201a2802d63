"""Classes 1 to 5, 7 and 8: factors, signs, terms, and what becomes of the cotangent."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from experiments.checkers.mutants.make import every, mutant, only
from experiments.checkers.operations import (
    norm,
    normalised,
)


def _unbiased(x, gain, bias):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.var(x, axis=-1, keepdims=True, ddof=1)
    return centred * jax.lax.rsqrt(variance + 1e-5) * gain + bias


def _softmax_gradient(x, w, times):
    p = jax.nn.softmax(x, axis=-1)
    return p * (w - times * jnp.sum(w * p, axis=-1, keepdims=True))


def _layer_norm_gradient(x, gain, w, centrings, projections):
    """The gradient of the input, with a term left out (0) or counted twice (2)."""
    unit = normalised(x)
    inverse = jax.lax.rsqrt(jnp.var(x, axis=-1, keepdims=True) + 1e-5)
    g = w * gain
    mean = jnp.mean(g, axis=-1, keepdims=True)
    projection = unit * jnp.mean(g * unit, axis=-1, keepdims=True)
    return inverse * (g - centrings * mean - projections * projection)


def _layer_norm_with(centrings, projections):
    def wrong(args, w, g):
        x, gain, _ = args
        bad = _layer_norm_gradient(x, gain, w, centrings, projections)
        return bad, *g[1:]

    return wrong


def _rms_without_scale(x, gain):
    inverse = jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)
    return x * stop_gradient(inverse) * gain


def _rms_twice(x, gain):
    inverse = jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)
    return x * (inverse**2 / stop_gradient(inverse)) * gain


def _log_softmax_gradient(x, w, times):
    total = jnp.sum(w, axis=-1, keepdims=True)
    return w - times * jax.nn.softmax(x, axis=-1) * total


def _cosine_without_projection(x, y):
    return jnp.sum(x * y, axis=-1) / stop_gradient(norm(x) * norm(y))


def _cosine_projected_twice(x, y):
    lengths = norm(x) * norm(y)
    return jnp.sum(x * y, axis=-1) * stop_gradient(lengths) / lengths**2


FACTORS = [
    mutant(1, "square", "missing factor 2", lambda a, w, g: (g[0] / 2,)),
    mutant(1, "mean squared error", "missing factor 2", every(lambda g: g / 2)),
    mutant(1, "softplus", "extra factor 2", lambda a, w, g: (2 * g[0],)),
    mutant(1, "dense", "kernel over the batch size", only(1, lambda g: g / 1.5)),
    mutant(1, "attention", "keys not scaled", only(1, lambda g: 2 * g)),
    mutant(1, "norm", "half", lambda a, w, g: (g[0] / 2,)),
]

SMALL_FACTORS = [
    mutant(2, "gelu", "slope of the tanh form", of=lambda x: jax.nn.gelu(x)),
    mutant(2, "tanh", "one in a thousand", lambda a, w, g: (1.001 * g[0],)),
    mutant(2, "layer norm", "three in a thousand", every(lambda g: 1.003 * g)),
    mutant(
        2,
        "gelu",
        "slope of x sigmoid(1.702 x)",
        of=lambda x: x * jax.nn.sigmoid(1.702 * x),
    ),
    mutant(
        2,
        "cross entropy",
        "one per cent of smoothing",
        lambda a, w, g: (0.99 * g[0], g[1]),
    ),
    mutant(2, "softmax", "two per cent", lambda a, w, g: (1.02 * g[0],)),
    mutant(2, "silu", "five per cent", lambda a, w, g: (0.95 * g[0],)),
    mutant(2, "log1mexp", "one in ten thousand", lambda a, w, g: (1.0001 * g[0],)),
    mutant(2, "attention", "one in five", every(lambda g: 1.2 * g)),
    mutant(2, "dense", "one in seven", every(lambda g: g / 1.15)),
    mutant(2, "sin", "one in three", every(lambda g: 1.33 * g)),
]

SIGNS = [
    mutant(3, "mean squared error", "sign of the target", only(1, lambda g: -g)),
    mutant(3, "softmax", "sign", lambda a, w, g: (-g[0],)),
    mutant(3, "bilinear", "sign of the right vector", only(2, lambda g: -g)),
    mutant(3, "rope", "rotated forth, not back", of=lambda x: _rope_back(x)),
    mutant(3, "cosine", "sign of one argument", only(0, lambda g: -g)),
]


def _rope_back(x):
    """The transpose of this linear map is the rotation itself."""
    half = x.shape[1] // 2
    row = jnp.arange(1, x.shape[0] + 1, dtype=x.dtype)[:, None]
    angle = -row / (1 + jnp.arange(half, dtype=x.dtype)[None])
    a, b, rest = x[:, :half], x[:, half : 2 * half], x[:, 2 * half :]
    turned = a * jnp.cos(angle) - b * jnp.sin(angle)
    other = a * jnp.sin(angle) + b * jnp.cos(angle)
    return jnp.concatenate([turned, other, rest], axis=1)


MISSING_TERMS = [
    mutant(
        4,
        "softmax",
        "without the normalising term",
        lambda a, w, g: (_softmax_gradient(a[0], w, 0),),
    ),
    mutant(4, "layer norm", "without the mean term", _layer_norm_with(0, 1)),
    mutant(4, "layer norm", "without the projection", _layer_norm_with(1, 0)),
    mutant(
        4,
        "log softmax",
        "without the sum term",
        lambda a, w, g: (_log_softmax_gradient(a[0], w, 0),),
    ),
    mutant(4, "rms norm", "without the projection", of=_rms_without_scale),
    mutant(4, "cosine", "without the projection", of=_cosine_without_projection),
    mutant(
        4,
        "weight norm",
        "without the projection",
        of=lambda v, gain: gain[:, None] * v / stop_gradient(norm(v)[:, None]),
    ),
]

TERMS_TWICE = [
    mutant(5, "layer norm", "mean term twice", _layer_norm_with(2, 1)),
    mutant(
        5,
        "softmax",
        "normalising term twice",
        lambda a, w, g: (_softmax_gradient(a[0], w, 2),),
    ),
    mutant(
        5,
        "log softmax",
        "sum term twice",
        lambda a, w, g: (_log_softmax_gradient(a[0], w, 2),),
    ),
    mutant(5, "rms norm", "projection twice", of=_rms_twice),
    mutant(5, "cosine", "projection twice", of=_cosine_projected_twice),
]


def _uses_first_row(f_name):
    def wrong(args, w, g):
        from experiments.checkers.operations import OPERATIONS

        same = jnp.broadcast_to(w[:1], w.shape)
        return jax.vjp(OPERATIONS[f_name].f, *args)[1](same)

    return wrong


def _uses_ones(f_name):
    def wrong(args, w, g):
        from experiments.checkers.operations import OPERATIONS

        return jax.vjp(OPERATIONS[f_name].f, *args)[1](jnp.ones_like(w))

    return wrong


COTANGENTS = [
    mutant(7, name, "ignores the cotangent", _uses_ones(name))
    for name in ("cross entropy", "tanh", "norm", "mean squared error", "huber")
] + [
    mutant(8, name, "the first row's cotangent for all", _uses_first_row(name))
    for name in ("cross entropy", "layer norm", "dense", "bilinear")
]

MUTANTS = [
    *FACTORS,
    *SMALL_FACTORS,
    *SIGNS,
    *MISSING_TERMS,
    *TERMS_TWICE,
    *COTANGENTS,
]
