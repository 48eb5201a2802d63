"""Classes 24, 25, 41 and 52: dropout, caps and gates, ties, rows singled out."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from experiments.checkers import points
from experiments.checkers.mutants.make import mutant
from experiments.checkers.operations import (
    cross_entropy,
    norm,
    scores,
)


def _kept(x, seed=0):
    return jax.random.bernoulli(jax.random.key(seed), 0.5, x.shape)


def _dropout_layer(x, kernel, bias):
    h = jnp.tanh(x @ kernel)
    return jnp.where(_kept(h), 2 * h, 0) + bias


def _dropout_layer_unscaled(x, kernel, bias):
    h = jnp.tanh(x @ kernel)
    return jnp.where(_kept(h), h, 0) + bias


def _noisy(x):
    return x * (1 + 0.3 * jax.random.normal(jax.random.key(0), x.shape, x.dtype))


DROPOUTS = [
    mutant(24, "dropout", "not scaled", lambda a, w, g: (g[0] / 2,)),
    mutant(24, "dropout", "not masked", lambda a, w, g: (2 * w,)),
    mutant(
        24,
        "dropout",
        "a fresh mask",
        lambda a, w, g: (jnp.where(_kept(a[0], seed=1), 2 * w, 0),),
    ),
    mutant(
        24,
        "dropout layer",
        "not scaled",
        of=_dropout_layer_unscaled,
        truth=_dropout_layer,
        point=points.dense,
    ),
    mutant(
        24,
        "multiplied noise",
        "the noise forgotten",
        lambda a, w, g: (w,),
        truth=_noisy,
        point=points.vector,
    ),
]


def _capped_logits(logits, labels):
    return cross_entropy(3 * jnp.tanh(logits / 3), labels)


def _capped_logits_linear(logits, labels):
    capped = 3 * jnp.tanh(logits / 3)
    return cross_entropy(logits + stop_gradient(capped - logits), labels)


def _uncapped_attention(q, k, v):
    s = scores(q, k)
    capped = s + stop_gradient(2 * jnp.tanh(s / 2) - s)
    return jax.nn.softmax(capped, axis=-1) @ v


def _biased_attention(q, k, v):
    s = scores(q, k)
    return jax.nn.softmax(s * jax.nn.sigmoid(s), axis=-1) @ v


def _biased_attention_linear(q, k, v):
    s = scores(q, k)
    return jax.nn.softmax(s * stop_gradient(jax.nn.sigmoid(s)), axis=-1) @ v


CHAINS = [
    mutant(25, "capped attention", "slope of the cap left out", of=_uncapped_attention),
    mutant(
        25,
        "capped logits",
        "slope of the cap left out",
        of=_capped_logits_linear,
        truth=_capped_logits,
        point=points.labelled,
    ),
    mutant(
        25,
        "gated attention",
        "slope of the gate left out",
        of=_biased_attention_linear,
        truth=_biased_attention,
        point=points.sequence,
    ),
]


def _tied(shape):
    """Rows in which the largest number is met twice."""
    x = points.generator(shape).standard_normal(points.ROWS[shape])
    x[:, 0] = x[:, -1] = np.max(x, axis=1) + 1
    return (x,)


def _tied_image(shape):
    """Pairs of equal columns: every window has its largest number twice."""
    m, n = points.IMAGE[shape]
    x = points.generator(shape).standard_normal((m, n))
    return (np.repeat(x[:, : (n + 1) // 2], 2, axis=1)[:, :n],)


def _with_zeros(shape):
    x = points.generator(shape).standard_normal(points.ROWS[shape])
    x[:, 0] = 0
    return (x,)


def _one_for_every_tie(args, w, g):
    x = args[0]
    return ((x == jnp.max(x, axis=-1, keepdims=True)) * w[:, None],)


def _pooled(x):
    return jnp.maximum(x[:, :-1], x[:, 1:])


def _pooled_one_for_every_tie(args, w, g):
    x = args[0]
    left, right = x[:, :-1] >= x[:, 1:], x[:, 1:] >= x[:, :-1]
    bad = jnp.zeros_like(x).at[:, :-1].add(w * left).at[:, 1:].add(w * right)
    return (bad,)


TIES = [
    mutant(
        41,
        "row maximum",
        "one for every tie",
        _one_for_every_tie,
        truth=lambda x: jnp.max(x, axis=-1),
        point=_tied,
    ),
    mutant(
        41,
        "pairwise maximum",
        "one for every tie",
        _pooled_one_for_every_tie,
        truth=_pooled,
        point=_tied_image,
    ),
    mutant(
        41,
        "relu",
        "three at zero",
        lambda a, w, g: (jnp.where(a[0] == 0, 3 * w, g[0]),),
        truth=lambda x: jax.nn.relu(x),
        point=_with_zeros,
    ),
    mutant(
        41,
        "absolute value",
        "minus two at zero",
        lambda a, w, g: (jnp.where(a[0] == 0, -2 * w, g[0]),),
        truth=jnp.abs,
        point=_with_zeros,
    ),
]


def _renormed(x):
    """Rows longer than two are shortened to it."""
    length = norm(x)[:, None]
    return jnp.where(length > 2, 2 * x / length, x)


def _renormed_as_scale(x):
    length = norm(x)[:, None]
    return jnp.where(length > 2, x * stop_gradient(2 / length), x)


def _clipped(x):
    length = jnp.sqrt(jnp.sum(x**2))
    return x * jnp.minimum(1, 1 / length)


def _clipped_as_scale(x):
    length = jnp.sqrt(jnp.sum(x**2))
    return x * stop_gradient(jnp.minimum(1, 1 / length))


def _routed(x):
    """The largest entry of every row, times its softmax weight; the rest is zero."""
    p = jax.nn.softmax(x, axis=-1)
    return jnp.where(x >= jnp.max(x, axis=-1, keepdims=True), x * p, 0)


def _routed_without_gate(x):
    p = stop_gradient(jax.nn.softmax(x, axis=-1))
    return jnp.where(x >= jnp.max(x, axis=-1, keepdims=True), x * p, 0)


def _stretched(shape):
    """Rows of lengths between 1 and 1.5, and between 3 and 4.5."""
    x = points.generator(shape).standard_normal(points.ROWS[shape])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return (
        x
        * np.where(np.arange(len(x)) % 2, 3.0, 1.0)[:, None]
        * np.linspace(1, 1.5, len(x))[:, None],
    )


SPARSE = [
    mutant(
        52,
        "renormed rows",
        "the length held constant",
        of=_renormed_as_scale,
        truth=_renormed,
        point=_stretched,
    ),
    mutant(
        52,
        "clipped vector",
        "the length held constant",
        of=_clipped_as_scale,
        truth=_clipped,
        point=points.vector,
    ),
    mutant(
        52,
        "routed rows",
        "the gate detached",
        of=_routed_without_gate,
        truth=_routed,
        point=points.rows,
    ),
]


MUTANTS = [
    *DROPOUTS,
    *CHAINS,
    *TIES,
    *SPARSE,
]
