"""Classes 15 to 20, 24, 25, 41 and 52: indices, masks, edges, windows, ties, rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import stop_gradient

from experiments.benchmarks.checkers import points
from experiments.benchmarks.checkers.mutants.make import mutant, only
from experiments.benchmarks.checkers.operations import (
    attention,
    cross_entropy,
    norm,
    pooled_mean,
    scores,
)


def _overwritten(args, w, g):
    table, ids = args
    return jnp.zeros_like(table).at[ids].set(w), g[1]


def _overwritten_layer(args, w, g):
    table, ids = args
    slopes = w * (1 - jnp.tanh(table[ids]) ** 2)
    return jnp.zeros_like(table).at[ids].set(slopes), g[1]


def _sampled(x, where):
    """Linear interpolation between the rows."""
    low = jnp.clip(jnp.floor(where), 0, x.shape[0] - 2).astype(int)
    part = (where - low)[:, None]
    return (1 - part) * x[low] + part * x[low + 1]


def _sampled_overwriting(args, w, g):
    x, where = args
    low = jnp.clip(jnp.floor(where), 0, x.shape[0] - 2).astype(int)
    part = (where - low)[:, None]
    bad = jnp.zeros_like(x).at[low].set((1 - part) * w).at[low + 1].set(part * w)
    return bad, g[1]


def _between_rows(shape):
    rng, (m, n) = points.generator(shape), points.ROWS[shape]
    return rng.standard_normal((m, n)), rng.uniform(0.1, m - 1.1, 2 * m)


DUPLICATES = [
    mutant(15, "gather", "duplicates overwrite", _overwritten),
    mutant(15, "embedding", "duplicates overwrite", _overwritten_layer),
    mutant(
        15,
        "interpolation",
        "duplicates overwrite",
        _sampled_overwriting,
        truth=_sampled,
        point=_between_rows,
    ),
]


def _taken(table, ids):
    return jnp.take(table, ids, axis=0, mode="clip")


def _filled(table, ids):
    return jnp.take(table, ids, axis=0, mode="fill", fill_value=0)


def _scattered(x, ids):
    return jnp.zeros_like(x).at[ids].add(jnp.sin(x), mode="drop")


def _kept_in_bounds(args, w, g):
    table, ids = args
    return jnp.zeros_like(table).at[ids].add(w, mode="drop"), g[1]


def _clamped(args, w, g):
    table, ids = args
    last = jnp.minimum(ids, table.shape[0] - 1)
    return jnp.zeros_like(table).at[last].add(w), g[1]


def _gathered_clamped(args, w, g):
    x, ids = args
    return w[jnp.minimum(ids, x.shape[0] - 1)] * jnp.cos(x), g[1]


OUT_OF_BOUNDS = [
    mutant(
        16,
        "clamped gather",
        "drops what is out of bounds",
        _kept_in_bounds,
        truth=_taken,
        point=points.ids_beyond,
    ),
    mutant(
        16,
        "filled gather",
        "clamps what is out of bounds",
        _clamped,
        truth=_filled,
        point=points.ids_beyond,
    ),
    mutant(
        16,
        "dropping scatter",
        "gathers what was dropped",
        _gathered_clamped,
        truth=_scattered,
        point=points.ids_beyond,
    ),
]


def _masked_softmax(x, ids):
    kept = jnp.arange(x.shape[1])[None] <= ids[:, None]
    return jnp.where(kept, jax.nn.softmax(jnp.where(kept, x, -1e9), axis=-1), 0)


def _masked_mean(x, ids):
    kept = jnp.arange(x.shape[1])[None] <= ids[:, None]
    return jnp.sum(jnp.where(kept, jnp.sin(x), 0), axis=-1) / (ids + 1).astype(x.dtype)


def _unmasked_softmax_gradient(args, w, g):
    p = jax.nn.softmax(args[0], axis=-1)
    return p * (w - jnp.sum(w * p, axis=-1, keepdims=True)), g[1]


def _unmasked_mean_gradient(args, w, g):
    x, ids = args
    return jnp.cos(x) * (w / (ids + 1).astype(x.dtype))[:, None], g[1]


def _lengths(shape):
    x, ids = points.labelled(shape)
    ids[0] = 0  # at least one row that is masked
    return x, ids


MASKS = [
    mutant(17, "causal attention", "the mask forgotten", of=attention),
    mutant(
        17,
        "masked softmax",
        "the mask forgotten",
        _unmasked_softmax_gradient,
        truth=_masked_softmax,
        point=_lengths,
    ),
    mutant(
        17,
        "masked mean",
        "the mask forgotten",
        _unmasked_mean_gradient,
        truth=_masked_mean,
        point=_lengths,
    ),
]

EDGES = [
    mutant(18, "tanh", "the last entry dropped", lambda a, w, g: (g[0].at[-1].set(0),)),
    mutant(
        18,
        "dense",
        "the last row of the kernel dropped",
        only(1, lambda g: g.at[-1].set(0)),
    ),
    mutant(18, "attention", "the last key dropped", only(1, lambda g: g.at[-1].set(0))),
    mutant(
        18, "layer norm", "the last gain dropped", only(1, lambda g: g.at[-1].set(0))
    ),
    mutant(
        18,
        "square dense",
        "the last fifth of the kernel dropped",
        only(1, lambda g: g.at[-max(1, g.shape[0] // 5) :].set(0)),
    ),
    mutant(
        18,
        "cumsum",
        "the last entry dropped",
        lambda a, w, g: (jnp.cumsum(w[::-1].at[0].set(0))[::-1],),
    ),
]


def _smoothed(mode, x):
    wide = jnp.pad(jnp.tanh(x), ((1, 1), (0, 0)), mode=mode)
    return (wide[:-2] + 2 * wide[1:-1] + wide[2:]) / 4


def _border(name, mode, other):
    return mutant(
        19,
        f"{name} smoothing",
        "the wrong border",
        of=functools.partial(_smoothed, other),
        truth=functools.partial(_smoothed, mode),
        point=points.rows,
    )


BORDERS = [
    _border("reflecting", "reflect", "constant"),
    _border("periodic", "wrap", "constant"),
    _border("extending", "edge", "reflect"),
]


def _dilated_the_other_way(x, kernel):
    out = jax.lax.conv_general_dilated(
        x[None, None], kernel[None, None], (1, 1), "SAME", rhs_dilation=(3, 2)
    )
    return out[0, 0]


def _every_third(x, kernel):
    """A convolution along the rows whose kernel skips two of three."""
    out = jax.lax.conv_general_dilated(
        x[None, None], kernel[None, None], (1, 1), "SAME", rhs_dilation=(1, 3)
    )
    return out[0, 0]


def _every_second(x, kernel):
    out = jax.lax.conv_general_dilated(
        x[None, None], kernel[None, None], (1, 1), "SAME", rhs_dilation=(1, 2)
    )
    return out[0, 0]


def _image_and_kernel(shape):
    return points.normals(lambda s: [points.IMAGE[s], (3, 3)], shape)


STRIDES = [
    mutant(
        20, "dilated convolution", "the dilations swapped", of=_dilated_the_other_way
    ),
    mutant(
        20,
        "convolution along rows",
        "a dilation of two for three",
        of=_every_second,
        truth=_every_third,
        point=_image_and_kernel,
    ),
    mutant(20, "pooled mean", "the window turned", of=lambda x: pooled_mean(x, (3, 1))),
    mutant(
        20,
        "convolution",
        "the kernel not flipped",
        lambda a, w, g: (_flipped(a, w), g[1]),
    ),
]


def _flipped(args, w):
    """The transpose of a correlation with the kernel as it lies."""
    out = jax.lax.conv_general_dilated(
        w[None, None], args[1][None, None], (1, 1), "SAME"
    )
    return out[0, 0]


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
    *DUPLICATES,
    *OUT_OF_BOUNDS,
    *MASKS,
    *EDGES,
    *BORDERS,
    *STRIDES,
    *DROPOUTS,
    *CHAINS,
    *TIES,
    *SPARSE,
]
