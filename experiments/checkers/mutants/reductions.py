"""Classes 6, 9, 10, 13, 14, 39 and 40: sums, normalisers, inputs, detached paths."""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from experiments.checkers import points
from experiments.checkers.mutants.make import mutant, only
from experiments.checkers.operations import (
    OPERATIONS,
    normalised,
)


def _rows_kept(w, kept):
    return w * kept.reshape(-1, *[1] * (w.ndim - 1)).astype(w.dtype)


def _last_block(name, arguments):
    """The sums over the rows forget every block but the last."""

    def wrong(args, w, g):
        late = jnp.arange(w.shape[0]) >= w.shape[0] // 2
        bad = jax.vjp(OPERATIONS[name].f, *args)[1](_rows_kept(w, late))
        return tuple(
            b if i in arguments else a
            for i, (a, b) in enumerate(zip(g, bad, strict=True))
        )

    return wrong


def _cumsum_in_blocks(args, w, g):
    late = jnp.arange(w.size) >= w.size // 2
    ahead = jnp.cumsum((w * late)[::-1])[::-1]
    near = jnp.cumsum((w * ~late)[::-1])[::-1]
    return (jnp.where(late, ahead, near),)


LOST_SUMS = [
    mutant(6, "dense", "bias of the last block", _last_block("dense", {2})),
    mutant(6, "layer norm", "gain of the last block", _last_block("layer norm", {1})),
    mutant(
        6, "square dense", "kernel of the last block", _last_block("square dense", {1})
    ),
    mutant(6, "cumsum", "no carry between blocks", _cumsum_in_blocks),
    mutant(6, "rms norm", "gain of the last block", _last_block("rms norm", {1})),
]


def _as_if_summing_to_one(args, w, g):
    logits, weights = args
    gradient = w[:, None] * (jax.nn.softmax(logits, axis=-1) - weights)
    return gradient, g[1]


def _weighted_mean(x, weights):
    return jnp.sum(x * weights, axis=-1) / jnp.sum(weights, axis=-1)


def _weighted(shape):
    x, weights = points.targets(shape)
    return x, weights


NORMALISERS = [
    mutant(
        9, "soft cross entropy", "weights taken to sum to one", _as_if_summing_to_one
    ),
    mutant(
        9,
        "share",
        "the sum taken as constant",
        of=lambda x: x / stop_gradient(jnp.sum(x, axis=-1, keepdims=True)),
    ),
    mutant(
        9,
        "soft cross entropy",
        "weighted mean not divided",
        lambda a, w, g: tuple(x * jnp.sum(a[1], axis=-1, keepdims=True) for x in g),
        truth=_weighted_mean,
        point=_weighted,
    ),
    mutant(
        9,
        "cosine",
        "vectors taken to be of length one",
        of=lambda x, y: jnp.sum(x * y, axis=-1),
    ),
]


def _logits_for_log_probabilities(args, w, g):
    log_p, labels = args
    picked = jax.nn.one_hot(labels, log_p.shape[1], dtype=log_p.dtype)
    return w[:, None] * (jax.nn.softmax(log_p, axis=-1) - picked), g[1]


def _logits_for_probabilities(args, w, g):
    p, y = args
    return w * (p - y), g[1]


def _linear_layer(x, kernel, bias):
    return x @ kernel + bias


INPUTS = [
    mutant(10, "likelihood", "gradient of the logits", _logits_for_log_probabilities),
    mutant(
        10, "binary cross entropy", "gradient of the logits", _logits_for_probabilities
    ),
    mutant(10, "tanh layer", "the slope of tanh left out", of=_linear_layer),
    mutant(10, "sigmoid", "gradient of the sum", lambda a, w, g: (w,)),
]


def _scale_columns(x, gain):
    return x * gain


def _shift_columns(x, bias):
    return jnp.tanh(x + bias)


def _compare_columns(x, y):
    return jnp.sum(jnp.square(x - y), axis=1)


def _other_axis(f):
    """The gradient of the broadcast argument summed over the wrong axis."""

    def wrong(args, w, g):
        x, small = args
        wide = jax.vjp(f, x, jnp.broadcast_to(small, x.shape))[1](w)[1]
        return g[0], jnp.sum(wide, axis=1)

    return wrong


def _broadcast(name, f):
    fields = {"truth": f, "point": points.square_rows_and_scale}
    return mutant(13, name, "summed over the wrong axis", _other_axis(f), **fields)


BROADCASTS = [
    _broadcast("scaled columns", _scale_columns),
    _broadcast("shifted columns", _shift_columns),
    _broadcast("compared columns", _compare_columns),
]


def _silu_of(x, beta):
    return x * jax.nn.sigmoid(beta * x)


def _beta_of_first_row(args, w, g):
    return g[0], jax.vjp(_silu_of, *args)[1](w.at[1:].set(0))[1]


def _mean_over_rows(i):
    def wrong(args, w, g):
        mean = g[i] / args[0].shape[0]
        return (*g[:i], mean, *g[i + 1 :])

    return wrong


OVER_REDUCED = [
    mutant(14, "dense", "mean over the batch for the bias", _mean_over_rows(2)),
    mutant(14, "layer norm", "mean over the batch for the gain", _mean_over_rows(1)),
    mutant(14, "rms norm", "mean over the batch for the gain", _mean_over_rows(1)),
    mutant(
        14,
        "silu of a scale",
        "the first row's scale for all",
        _beta_of_first_row,
        truth=_silu_of,
        point=points.rows_and_scale,
    ),
]


def _tiny_share(x, y):
    return jnp.sum(jnp.sin(x)) + 1e-3 * jnp.sum(jnp.cos(y))


def _residual_block(x, kernel, bias):
    return x + jnp.tanh(x @ kernel) @ kernel.T + jnp.sum(bias)


DETACHED = [
    mutant(39, "tanh", "zero", lambda a, w, g: (0 * g[0],)),
    mutant(39, "softmax", "zero", lambda a, w, g: (0 * g[0],)),
    mutant(
        39,
        "two sums",
        "zero for the small one",
        only(1, lambda g: 0 * g),
        truth=_tiny_share,
        point=points.vectors,
    ),
    mutant(
        39,
        "residual block",
        "the block detached",
        of=lambda x, k, b: x + stop_gradient(jnp.tanh(x @ k) @ k.T) + jnp.sum(b),
        truth=_residual_block,
        point=points.dense,
    ),
    mutant(
        39,
        "mean of squares",
        "zero",
        lambda a, w, g: (0 * g[0],),
        truth=lambda x: jnp.mean(x**2),
        point=points.vector,
    ),
]


def _norm_with_constant_mean(x, gain, bias):
    centred = x - stop_gradient(jnp.mean(x, axis=-1, keepdims=True))
    variance = jnp.var(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + 1e-5) * gain + bias


def _norm_with_constant_variance(x, gain, bias):
    centred = x - jnp.mean(x, axis=0, keepdims=True)
    variance = stop_gradient(jnp.var(x, axis=0, keepdims=True))
    return centred * jax.lax.rsqrt(variance + 1e-5) * gain + bias


def _group_statistics_detached(x, gain, bias):
    half = x.shape[-1] // 2
    parts = [x[:, :half], x[:, half : 2 * half]]
    parts = [p + stop_gradient(normalised(p) - p) for p in parts]
    return jnp.concatenate([*parts, x[:, 2 * half :]], axis=1) * gain + bias


LEAKS = [
    mutant(40, "layer norm", "the mean detached", of=_norm_with_constant_mean),
    mutant(40, "batch norm", "the variance detached", of=_norm_with_constant_variance),
    mutant(40, "group norm", "the statistics detached", of=_group_statistics_detached),
    mutant(
        40,
        "softmax",
        "the denominator detached",
        of=lambda x: jnp.exp(
            x - (stop_gradient(jax.nn.logsumexp(x, axis=-1, keepdims=True)))
        ),
    ),
]

MUTANTS = [
    *LOST_SUMS,
    *NORMALISERS,
    *INPUTS,
    *BROADCASTS,
    *OVER_REDUCED,
    *DETACHED,
    *LEAKS,
]
