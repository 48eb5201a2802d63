"""Sweeps of an orthonormal basis through layers, on the device; internal.

The same as the sweeps of `gradstab.spectra.exponents`, with batched QR decompositions
where the products are computed. The basis, the triangular factors and their graded
product stay there; that product comes to the host once for each sweep.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstab import _compat, _tree
from gradstab.spectra.decomposed import roundoff_of
from gradstab.spectra.golub_kahan import roundoff, two_way
from gradstab.spectra.layer_map import LayerMap
from gradstab.spectra.linear_map import LinearMap
from gradstab.spectra.on_device import within_range
from gradstab.spectra.placement import has_float64

# A direction that keeps less than this many units of roundoff of the layer's typical
# gain is rounding: that of a rank-one matrix in float32 is 1 to 3 of them.
NOISE = 8

# Columns pushed through a linear map at once.
CHUNK = 128

# In float32 decompositions and products of triangular factors round as well: so many
# units for the product with the layer. With half of that 2 of 7168 exponents of random
# products were outside of their errors, by 2 and 30 %.
_NARROW = 8

# The exponent of a zero row: below that of anything, and sums of it are still int32.
_NOTHING = -(2**28)


def layer_roundoff(layer: Any, /) -> float:
    """The unit roundoff of a layer: of the coarsest dtype in it, or of an array's."""
    if isinstance(layer, LinearMap):
        return roundoff(layer)
    return roundoff_of(layer.dtype)


def sweep_on_device(
    layers,
    basis,
    /,
    *,
    backward: bool,
    max_bytes: float,
    wide: bool | None = None,
):
    """A basis carried through all layers, and the product of the R.

    Args:
        layers: in the order in which they are passed.
        basis: ``(num, n, m)`` of NumPy, or from the sweep before.
        backward: whether by the transposes.
        max_bytes: of intermediate results of a `LayerMap`.
        wide: whether to compute in float64; by default where the device has it.

    Returns:
        ``(basis, (mantissa, exponent), noise)``: the basis on the device, the others in
        NumPy; see `gradstab.spectra.exponents`.
    """
    state, after = None, basis
    for carried, step in _carried(layers, basis, backward, max_bytes, wide):
        after = carried
        with _compat.float64(step.wide), jax.default_matmul_precision("highest"):
            state = _times(step.r, step.exponent, step.noise, *(state or _one(step.r)))
    assert state is not None
    mantissa, exponent, noise = map(np.asarray, state)
    product = mantissa.astype(np.float64), exponent.astype(np.int64)
    return after, product, np.sqrt(noise.astype(np.float64))


def log_diagonals_on_device(
    layers, basis, /, *, max_bytes: float, wide: bool | None = None
):
    """Logarithms of the diagonals of all R, and their noise; ``(layers, num, m)``."""
    found = []
    for _, step in _carried(layers, basis, False, max_bytes, wide):
        with _compat.float64(step.wide):
            diagonal = jnp.abs(jnp.diagonal(step.r, axis1=1, axis2=2))
        found.append((diagonal, step.exponent, step.noise))
    diagonals, exponents, noise = (
        np.stack([np.asarray(one) for one in column]).astype(np.float64)
        for column in zip(*found, strict=True)
    )
    with np.errstate(divide="ignore"):
        return np.log(diagonals) + exponents[:, :, None] * np.log(2), noise


class _Step(NamedTuple):
    """What one layer does to a basis."""

    r: jax.Array  # (num, m, m), near one in size
    exponent: jax.Array  # (num,): of the power of two that R is to be multiplied with
    noise: jax.Array  # (num, m): rounding of what is left of each direction
    wide: bool


def _carried(layers, basis, backward: bool, max_bytes: float, wide: bool | None):
    wide = has_float64() if wide is None else wide
    dtype = jnp.float64 if wide else jnp.float32
    # The products are the programs of the layers, compiled for the precision in which
    # the network is analysed.
    fed = jnp.result_type(float) if wide else jnp.float32
    with _compat.float64(wide):
        basis = jnp.asarray(basis, dtype)
    for layer in layers:
        image, exponent = _image(layer, basis, backward, max_bytes, wide, fed)
        unit = layer_roundoff(layer)
        if not wide:
            unit = max(unit, _NARROW * roundoff_of(dtype))
        with _compat.float64(wide), jax.default_matmul_precision("highest"):
            basis, r, exponent, noise = _decomposed(image, exponent, unit, dtype)
        yield basis, _Step(r, exponent, noise, wide)


def _image(layer: Any, basis, backward: bool, max_bytes: float, wide, fed):
    """J or its transpose times the basis, and exponents of what it is short of."""
    none = np.zeros(len(basis), np.int32)
    if isinstance(layer, (LayerMap, LinearMap)):
        with _compat.float64(wide):
            vectors = basis.astype(fed)
        if isinstance(layer, LayerMap):
            return layer.product(vectors, backward, max_bytes), none
        product = jax.vmap(two_way(layer)[backward], in_axes=2, out_axes=2)
        cuts = [*range(CHUNK, vectors.shape[2], CHUNK)]
        pieces = jnp.split(vectors, cuts, axis=2)
        return jnp.concatenate([product(piece) for piece in pieces], axis=2), none
    if isinstance(layer, np.ndarray) and not wide:
        layer, unit = within_range(layer)
        none = (np.frexp(unit)[1] - 1).astype(np.int32)
    with _compat.float64(wide), jax.default_matmul_precision("highest"):
        return _multiplied(jnp.asarray(layer), basis, backward), none


@functools.partial(jax.jit, static_argnums=2)
def _multiplied(matrices, basis, backward: bool):
    matrices = matrices.astype(basis.dtype)
    return (jnp.swapaxes(matrices, 1, 2) if backward else matrices) @ basis


@functools.partial(jax.jit, static_argnums=(2, 3))
def _decomposed(image, exponent, unit, dtype: DTypeLike):
    """The next basis, and R without lost directions, its exponent and its noise."""
    image = image.astype(dtype)
    finite = jnp.all(jnp.isfinite(image), axis=(1, 2))
    image = jnp.where(finite[:, None, None], image, 0)
    scale = _tree.power_of_two_near(jnp.max(jnp.abs(image), axis=(1, 2)))
    basis, r = jnp.linalg.qr(image / scale[:, None, None])
    diagonal = jnp.abs(jnp.diagonal(r, axis1=1, axis2=2))
    size = jnp.sqrt(jnp.sum(jnp.square(r), axis=(1, 2)))[:, None]
    lost = diagonal <= NOISE * unit * size / r.shape[1] ** 0.5
    r = jnp.where(lost[:, :, None], 0, r)
    r = jnp.where(finite[:, None, None], r, jnp.nan)
    noise = jnp.where(lost, 0, unit * size / jnp.where(lost, 1, diagonal))
    exponent = jnp.asarray(exponent, jnp.int32) + jnp.frexp(scale)[1] - 1
    return basis, r, exponent, noise


def _one(r):
    """The product of no layers: the identity, its exponents, and no noise."""
    num, m, _ = r.shape
    identity = jnp.broadcast_to(jnp.eye(m, dtype=r.dtype)[None], r.shape)
    return identity, jnp.zeros((num, m), jnp.int32), jnp.zeros((num, m), r.dtype)


@jax.jit
def _times(r, shift, noise, mantissa, exponent, before):
    """The product of R and a triangular matrix whose rows are scaled."""
    # No row that enters row i of the product is above the largest one from i on.
    over = jax.lax.cummax(exponent, axis=1, reverse=True)
    gap = jnp.minimum(exponent[:, None, :] - over[:, :, None], 0)
    least = int(jnp.finfo(r.dtype).minexp)
    weights = jnp.where(gap < least, 0, jnp.ldexp(r, jnp.maximum(gap, least)))
    rows = jnp.triu(weights) @ mantissa
    _, size = jnp.frexp(jnp.max(jnp.abs(rows), axis=2))
    alive = jnp.any(rows != 0, axis=2)
    exponent = jnp.where(alive, over + size + shift[:, None], _NOTHING)
    rows = jnp.ldexp(rows, jnp.where(alive, -size, 0)[:, :, None])
    return rows, exponent, before + jnp.square(noise)
