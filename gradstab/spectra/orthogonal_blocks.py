"""Blocks of orthonormal vectors that extend a basis."""

import jax.numpy as jnp
from jax import lax

from gradstab.spectra.batched import qr


def next_block(images, basis, scale, rounding, spare, /):
    """The part of the images outside the basis: orthonormal rows, and coefficients.

    Directions in which nothing is left have no coefficients, and come from the spare
    vectors; they are zero where the basis is the whole space.

    Args:
        images: (num, b, n) vectors.
        basis: (num, k, n) orthonormal or zero rows.
        scale: (num,) the largest coefficient so far.
        rounding: what is no larger than this times the scale is nothing.
        spare: (num, b, n) random vectors.

    Returns:
        ``(rows, coefficients, scale)``: the images are ``coefficients @ rows`` and
        their projection. Two passes, as one leaves parts of the basis in what nearly
        cancels. Cost: :math:`O(b k n)` operations.
    """
    rest, first = _factors(_outside(images.astype(basis.dtype), basis))
    rest, second = _factors(_outside(rest, basis))
    coefficients = jnp.einsum("bij,bjk->bik", first, second, precision="highest")
    turn, sizes, back = jnp.linalg.svd(coefficients)
    rows = jnp.einsum("bij,bjn->bin", back, rest, precision="highest")
    scale = jnp.maximum(scale, sizes[:, 0])
    lost = sizes <= rounding * scale[:, None]

    def with_spare(rows):
        rows = jnp.where(lost[:, :, None], 0, rows)
        both = jnp.concatenate([basis, rows], axis=1)
        other, first = _factors(_outside(spare, both))
        other, second = _factors(_outside(other, both))
        left = jnp.abs(_diagonal(first) * _diagonal(second))
        other = jnp.where((left > _NOTHING * rounding)[:, :, None], other, 0)
        number = jnp.maximum(jnp.cumsum(lost, axis=1) - 1, 0)
        other = jnp.take_along_axis(other, number[:, :, None], axis=1)
        return jnp.where(lost[:, :, None], other, rows)

    rows = lax.cond(jnp.any(lost), with_spare, lambda rows: rows, rows)
    return rows, turn * jnp.where(lost, 0, sizes)[:, None], scale


# What is left of a Gaussian vector outside of the whole space is a few units of it.
_NOTHING = 30


def _outside(rows, basis):
    """The rows less their projection on those of the basis."""
    parts = jnp.einsum("bin,bkn->bik", rows, basis, precision="highest")
    return rows - jnp.einsum("bik,bkn->bin", parts, basis, precision="highest")


def _factors(rows):
    """Orthonormal rows, and the triangular matrix that makes the rows of them."""
    q, r = qr(jnp.swapaxes(rows, 1, 2))
    return jnp.swapaxes(q, 1, 2), jnp.swapaxes(r, 1, 2)


def _diagonal(matrices):
    return jnp.diagonal(matrices, axis1=1, axis2=2)
