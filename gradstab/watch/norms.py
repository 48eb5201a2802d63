"""Norms of parameters, of their gradients and updates, for every layer."""

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree
from gradstab.watch import measures as m


def norms_by_row(owners, rows, leaves, /, *, turn: int = 0) -> jax.Array:
    """The norm of what belongs to each row.

    Args:
        owners: for each leaf its row, or those of its slices.
        rows: how many there are.
        leaves: the arrays.
        turn: of the first of them, see `measures.squares`.
    """
    if not owners:
        return jnp.zeros(rows)
    wide = _tree.widest(*(m.accumulator(jnp.result_type(x)) for x in leaves))
    sums, freed = [], []
    for i, (x, own) in enumerate(zip(leaves, owners, strict=True), turn):
        x = _real(x, wide)
        sums.append(m.scaled_squares(x, _axes(x, own), i).reshape(-1, 2))
        freed += [m.freed(wide, i)] * len(_parts(own))
    # Together: of a network of small layers every operation more is seen.
    norms = m.norm(jnp.concatenate(sums) * np.stack(freed))
    return _of_rows(owners, rows, norms)


def cosines_by_row(owners, rows, params, grads, /) -> jax.Array:
    """The cosine of the angle between parameters and gradient of each row.

    NaN where one of them is zero, or not finite.
    """
    if not owners:
        return jnp.full(rows, jnp.nan)
    wide = _tree.widest(*(m.accumulator(jnp.result_type(x)) for x in (*params, *grads)))
    number, parts = _rows(owners), []
    for pair in zip(params, grads, owners, strict=True):
        own = pair[-1]
        # JAX's gradient is the conjugate of that in real and imaginary part.
        arrays = [_real(pair[0], wide), _real(jnp.conj(pair[1]), wide)]
        norms = [_norm(x, own) for x in arrays]
        scales = [_tree.power_of_two_near(norm) for norm in norms]
        w, g = (x / _beside(x, s) for x, s in zip(arrays, scales, strict=True))
        product = _sum(w * g, own)
        for norm, scale in zip(norms, scales, strict=True):
            product = product / jnp.where(norm > 0, norm / scale, 1)
        parts.append([*norms, product])
    weights, slopes, cosines = map(jnp.concatenate, zip(*parts, strict=True))
    whole = [_of_rows(owners, rows, norms) for norms in (weights, slopes)]
    known = (whole[0] > 0) & (whole[1] > 0)
    safe = [jnp.where(known, norms, 1)[number] for norms in whole]
    part = cosines * (weights / safe[0]) * (slopes / safe[1])
    return jnp.where(known, jnp.zeros(rows, wide).at[number].add(part), jnp.nan)


def finite_by_row(owners, rows, shared, norms, leaves, /) -> jax.Array:
    """Whether the gradient of what is only a row's own is finite.

    Args:
        owners: for each leaf its row, or those of its slices.
        rows: how many there are.
        shared: positions of leaves that several rows use.
        norms: of all that belongs to each row.
        leaves: of the gradient.
    """
    finite = jnp.isfinite(norms)
    if not shared:
        return finite
    own = [own for i, own in enumerate(owners) if i not in shared]
    leaves = [leaf for i, leaf in enumerate(leaves) if i not in shared]
    return jnp.isfinite(norms_by_row(tuple(own), rows, leaves))


def products_by_row(owners, rows, first, second, /):
    """Squared norms and product of what belongs to each row of two lists of arrays.

    Args:
        owners: for each leaf its row, or those of its slices.
        rows: how many there are.
        first: the arrays a.
        second: the arrays d.

    Returns:
        ``(products, scales)``: of arrays divided by these powers of two, ``(rows, 2)``,
        the sums of a^2, a d and d^2, ``(rows, 3)``. Nothing overflows, or is lost.
    """
    wide = _tree.widest(*(m.accumulator(jnp.result_type(x)) for x in (*first, *second)))
    number = _rows(owners)
    several = [[_real(x, wide) for x in leaves] for leaves in (first, second)]
    scales = []
    for leaves in several:
        pairs = list(zip(leaves, owners, strict=True))
        parts = [jnp.max(jnp.abs(x), _axes(x, own), initial=0) for x, own in pairs]
        parts = jnp.concatenate([part.reshape(-1) for part in parts])
        largest = jnp.zeros(rows, wide).at[number].max(parts)
        scales.append(_tree.power_of_two_near(largest))
    parts = [np.array(_parts(own)) for own in owners]
    a, d = (
        [x / _beside(x, scale[own]) for x, own in zip(xs, parts, strict=True)]
        for xs, scale in zip(several, scales, strict=True)
    )
    sums = []
    for both in ((a, a), (a, d), (d, d)):
        three = zip(*both, owners, strict=True)
        sums.append(jnp.concatenate([_sum(x * y, own) for x, y, own in three]))
    none = jnp.zeros(rows, wide)
    products = jnp.stack([none.at[number].add(each) for each in sums], axis=-1)
    return products, jnp.stack(scales, axis=-1)


def all_by_row(owners, rows, truths, /) -> jax.Array:
    """Whether all entries of what belongs to each row are true."""
    pairs = zip(truths, owners, strict=True)
    parts = [jnp.all(x, axis=_axes(x, own)).reshape(-1) for x, own in pairs]
    return jnp.ones(rows, bool).at[_rows(owners)].min(jnp.concatenate(parts))


def norm_of_norms(norms, /) -> jax.Array:
    """The norm of arrays with these norms, ``(..., parts)``, without overflow."""
    largest = jnp.max(norms, axis=-1, keepdims=True)
    scale = jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 1)
    total = jnp.sqrt(jnp.sum(jnp.square(norms / scale), axis=-1))
    return scale[..., 0] * total


def _of_rows(owners, rows, norms):
    """Norms of rows, of norms of their parts; each scaled by its own largest part."""
    number = _rows(owners)
    largest = jnp.zeros(rows, norms.dtype).at[number].max(norms)
    scale = jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 1)
    squares = jnp.square(norms / scale[number])
    return scale * jnp.sqrt(jnp.zeros_like(scale).at[number].add(squares))


def _norm(x, owner):
    return m.norm(m.squares(x, _axes(x, owner)).reshape(-1, 2))


def _sum(x, owner):
    return jnp.sum(x, axis=_axes(x, owner)).reshape(-1)


def _beside(x, parts):
    """One number for each part of an array, to be combined with it."""
    return parts.reshape(-1, *[1] * (x.ndim - 1)) if len(parts) > 1 else parts[0]


def _real(x, wide):
    return _tree.real_view(jnp.asarray(x)).astype(wide)


def _axes(x, owner):
    """The axes that the parts of an array have; reductions over them gather nothing."""
    return tuple(range(1 if isinstance(owner, tuple) else 0, x.ndim))


def _parts(owner):
    return owner if isinstance(owner, tuple) else (owner,)


def _rows(owners):
    """The rows of all parts, one after the other."""
    return np.array([row for owner in owners for row in _parts(owner)], int)
