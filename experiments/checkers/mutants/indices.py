"""Classes 15 to 17: duplicate indices, indices out of bounds, masks."""

import jax
import jax.numpy as jnp

from experiments.checkers import points
from experiments.checkers.mutants.make import mutant
from experiments.checkers.operations import (
    attention,
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


MUTANTS = [
    *DUPLICATES,
    *OUT_OF_BOUNDS,
    *MASKS,
]
