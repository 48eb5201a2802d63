r"""The growth exponents of a deep product of Jacobians.

The singular values of :math:`J_L \cdots J_1` spread over more orders of magnitude than
any dtype resolves, so the product is never formed. Each sweep carries an orthonormal
basis through the layers, :math:`J_l Q_{l-1} = Q_l R_l`; the singular values of the
product are those of :math:`R_L \cdots R_1`, whose rows are graded. One sweep from a
random basis is not enough: rounding leaks from the large directions into the small
ones. A sweep forward, one backward through the transposed layers from the basis where
it ended, and one forward again bring the basis to the singular vectors, where the leak
does no harm.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.errors import UserValueError
from gradstab.records import record
from gradstab.spectra.decomposed import real_matrices
from gradstab.spectra.exponents_on_device import (
    CHUNK,
    NOISE,
    layer_roundoff,
    log_diagonals_on_device,
    sweep_on_device,
)
from gradstab.spectra.golub_kahan import two_way
from gradstab.spectra.layer_map import LayerMap
from gradstab.spectra.linear_map import LinearMap
from gradstab.spectra.placement import on_device
from gradstab.spectra.workers import one_blas_thread, over_matrices

# A matrix of so many entries is decomposed in less time than a thread is told to.
_SMALL = 2**13

# Errors of rounding in units of that of one operation for every layer.
_UNITS = 8

# The logarithms of the singular values are found in windows of this width, from a piece
# of the triangular product that overlaps with its neighbours by the margin: wide enough
# for exp(-2 margin) to be 1e-7, and narrow enough, together, for float64 to resolve.
_CORE = 10.0
_MARGIN = 8.0

# The exponent of a zero row: below that of anything, and sums of it are still int64.
_NOTHING = -(2**40)


@record
class Exponents:
    """Growth exponents of products of Jacobians.

    Attributes:
        values: (num, k) ln(singular value of the product) / layers, in descending
            order; -inf for directions that do not get through, NaN where a Jacobian is
            not finite.
        errors: (num, k) how far they may be off.
    """

    values: np.ndarray
    errors: np.ndarray


def exponents(
    layers: Sequence,
    /,
    *,
    top_k: int | None = None,
    tol: float = 1e-6,
    max_sweeps: int = 9,
    max_bytes: float = 2**28,
    spectra_on: str = "auto",
) -> Exponents:
    r"""All growth exponents of :math:`J_L \cdots J_1`, or the largest ones.

    .. math:: \lambda_i = \frac{1}{L} \ln \sigma_i(J_L \cdots J_1)

    Args:
        layers: the Jacobians from the input on: each an array
            ``(num, n_out, n_in)``, a `LinearMap` or a `LayerMap`, one width fitting
            the next. Complex arrays are taken as real ones of twice the size.
        top_k: how many; all ``min(n_0, n_L)`` by default, and at most so many.
        tol: stop after the third sweep, or a later one, that changed nothing by more.
        max_sweeps: stop after so many in any case. A block as large as the network
            also stops when the change no longer falls: what is left is rounding.
        max_bytes: of intermediate results of a `LayerMap`.
        spectra_on: where the basis is made orthonormal: 'device' or 'host', see
            `gradstab.spectra.placement.on_device`.

    Returns:
        The exponents. Arrays are taken to float64, where the device has it; a map
        rounds as its function does. A direction that a layer shrinks below the roundoff
        of its dtype against the layer's typical gain counts as lost. Errors are those
        of rounding, from the part that every layer leaves of a direction, and of sweeps
        that were not made: of a block smaller than the network as much as s sweeps like
        the last one would change, after s of them, or more if the change does not fall.
        Cost: :math:`O(L n m^2)` per sweep and example beside the products, with m the
        smallest width, or ``2 * top_k + 8`` if that is less.

    Raises:
        ValueError: if there are no layers, or their shapes do not fit.

    References:
        Stewart (1997), On graded QR decompositions of products of matrices; Benettin et
        al. (1980), Lyapunov characteristic exponents, for one sweep.

    Examples:
        >>> layer = np.diag([3.0, 1.0, 1e-3, 0.0])[None]
        >>> exponents([layer] * 50).values.round(6)
        array([[ 1.098612,  0.      , -6.907755,      -inf]])
    """
    layers = _of_real_numbers(layers)
    widths = _widths(layers)
    most = min(widths[0], widths[-1])
    num_values = most if top_k is None else min(top_k, most)
    block = min(*widths, most if top_k is None else 2 * top_k + 8)
    with one_blas_thread():
        device = on_device(spectra_on, _shape(layers[0])[0], (max(widths), block))
        limits = tol, max_sweeps, max_bytes, device
        return _iterate(layers, widths[0], block, num_values, *limits)


def _of_real_numbers(layers: Sequence[Any]):
    """The same layers, with the real matrices in the place of complex ones."""
    if not isinstance(layers, (list, tuple)):
        return layers  # a sequence of our own that is computed one by one
    return [real_matrices(a) if np.iscomplexobj(a) else a for a in layers]


def log_diagonals(
    layers: Sequence,
    num_values: int,
    /,
    *,
    max_bytes: float = 2**28,
    spectra_on: str = "auto",
):
    """Logarithms of the diagonals of all R of one sweep from a random basis.

    Args:
        layers: as `exponents` takes them.
        num_values: columns of the basis.
        max_bytes: of intermediate results of a `LayerMap`.
        spectra_on: see `exponents`.

    Returns:
        ``(logs, noise)``, each ``(layers, num, num_values)``: -inf where nothing but
        rounding is left of a direction, NaN where a Jacobian is not finite; and their
        rounding.
    """
    num, _, width = _shape(layers[0])
    if on_device(spectra_on, num, (width, num_values)):
        basis = _random_basis(num, width, num_values)
        logs, noise = log_diagonals_on_device(layers, basis, max_bytes=max_bytes)
        return logs, _UNITS * noise
    logs, noise = [], []
    with one_blas_thread():
        basis = _random_basis(num, width, num_values)
        for _, r, unit in _carried(layers, basis, False, max_bytes):
            diagonal = np.abs(np.diagonal(r, axis1=1, axis2=2))
            with np.errstate(divide="ignore"):
                logs.append(np.log(diagonal))
            noise.append(_UNITS * _noise(r, unit))
    return np.stack(logs), np.stack(noise)


def _random_basis(num: int, width: int, columns: int):
    # Random, so that no singular vector is missing from it; always the same, as it has
    # no influence on the result beyond rounding.
    start = np.random.default_rng(0).standard_normal((num, width, columns))
    return np.linalg.qr(start)[0]


def _iterate(
    layers: Sequence[Any],
    width: int,
    block,
    num_values: int,
    tol: float,
    max_sweeps: int,
    max_bytes: float,
    device: bool,
):
    num = _shape(layers[0])[0]
    basis = _random_basis(num, width, block)
    values = np.full((num, num_values), np.nan)
    change = np.full_like(values, np.inf)
    errors = change
    whole = block == min(_widths(layers))
    for sweep in range(max_sweeps):
        backward = sweep % 2 == 1
        order = reversed(layers) if backward else layers
        run = sweep_on_device if device else _sweep
        basis, product, noise = run(
            order, basis, backward=backward, max_bytes=max_bytes
        )
        before, slower = values, change
        last = np.max(change, initial=0, where=~np.isnan(change))
        logs = np.stack(
            [_ln_singular_values(*one) for one in zip(*product, strict=True)]
        )
        values = _padded(logs, num_values) / len(layers)
        change = _change(values, before)
        now = np.max(change, initial=0, where=~np.isnan(change))
        left = change if whole else _left(change, slower, sweep + 1)
        errors = left + _UNITS * _padded(noise, num_values, 0.0) / len(layers)
        if sweep >= 2 and (now <= tol or (whole and now >= last)):
            break
    return Exponents(values, errors)


def _left(change: np.ndarray, before: np.ndarray, sweeps: int):
    r"""What sweeps that were not made would change.

    Where one value stands out, changes fall by a constant factor f, so all of them sum
    to f / (1 - f) of the last; in a continuum of values they fall like the square of
    the number of sweeps, so they sum to as many times the last. Twice that, as the last
    change is not known better.
    """
    before = np.where(np.isfinite(before) & (before > 0), before, np.inf)
    finite = np.where(np.isfinite(change), change, 0)
    factor = np.clip(finite / before, 0, 1 - 1 / sweeps**2)
    return 2 * change * np.maximum(sweeps, factor / (1 - factor))


def _change(values: np.ndarray, before: np.ndarray):
    same = values == before  # infinities too, whose difference is not defined
    return np.abs(np.where(same, 0, values) - np.where(same, 0, before))


def _sweep(
    layers: Iterable[Any], basis: np.ndarray, *, backward: bool, max_bytes: float
):
    """The basis carried through all layers, the product of the R, and their noise.

    The noise (num, m) is the rounding of the logarithms of their diagonals, and the
    product is ``mantissa * 2.0**exponent[..., None]``, row by row: (num, m, m)
    upper triangular with rows of size near 1, and (num, m) integers.
    """
    num, _, m = basis.shape
    mantissa = np.broadcast_to(np.eye(m), (num, m, m))
    exponent = np.zeros((num, m), np.int64)
    noise = np.zeros((num, m))
    for after, r, unit in _carried(layers, basis, backward, max_bytes):
        noise += np.square(_noise(r, unit))
        mantissa, exponent = _times(r, mantissa, exponent)
        basis = after
    return basis, (mantissa, exponent), np.sqrt(noise)


def _carried(
    layers: Iterable[Any], basis: np.ndarray, backward: bool, max_bytes: float
):
    """A basis carried through all layers: after each, with the R and its roundoff."""
    for layer in layers:
        image = _product(layer, basis, backward, max_bytes)
        finite = np.all(np.isfinite(image), axis=(1, 2))
        image[np.logical_not(finite)] = 0
        basis, r = _orthonormal(image)
        r = _without_noise(r, layer_roundoff(layer))
        r[np.logical_not(finite)] = np.nan
        yield basis, r, layer_roundoff(layer)


def _orthonormal(image: np.ndarray):
    """QR of every matrix: of small ones in one call, of large ones side by side."""
    if image[0].size <= _SMALL:
        return np.linalg.qr(image)
    return map(np.stack, zip(*over_matrices(np.linalg.qr, image), strict=True))


def _noise(r: np.ndarray, unit: float):
    """Rounding of what is left of every direction, relative to it."""
    diagonal = np.abs(np.diagonal(r, axis1=1, axis2=2))
    size = np.sqrt(np.sum(np.square(r / _largest(r)), axis=(1, 2)))[:, None]
    size = size * _largest(r)[:, :, 0]
    alive = diagonal > 0
    return unit * np.where(alive, size / np.where(alive, diagonal, 1), 0)


def _without_noise(r: np.ndarray, roundoff: float):
    """R with the rows of lost directions set to zero."""
    diagonal = np.abs(np.diagonal(r, axis1=1, axis2=2))
    typical = np.sqrt(np.sum(np.square(r / _largest(r)), axis=(1, 2)) / r.shape[-1])
    lost = diagonal <= NOISE * roundoff * typical[:, None] * _largest(r)[:, :, 0]
    return np.where(lost[:, :, None], 0, r)


def _largest(r: np.ndarray):
    largest = np.max(np.abs(r), axis=(1, 2), keepdims=True)
    return np.where(largest > 0, largest, 1)


def _times(r: np.ndarray, mantissa: np.ndarray, exponent: np.ndarray):
    """The product of R and an upper triangular matrix whose rows are scaled."""
    # No row that enters row i of the product is above the largest one from i on.
    over = np.maximum.accumulate(exponent[:, ::-1], axis=1)[:, ::-1]
    shift = np.maximum(exponent[:, None, :] - over[:, :, None], -4000)
    weights = np.triu(np.ldexp(r, np.minimum(shift, 0).astype(np.int32)))
    rows = weights @ mantissa
    _, size = np.frexp(np.max(np.abs(rows), axis=2))
    alive = np.any(rows != 0, axis=2)
    exponent = np.where(alive, over + size, _NOTHING)
    return np.ldexp(rows, -size[:, :, None]), exponent


def _ln_singular_values(mantissa: np.ndarray, exponent: np.ndarray):
    """Ln of the nonzero singular values of a graded triangular matrix, descending."""
    if not np.isfinite(mantissa).all():
        return np.full(len(exponent), np.nan)
    alive = np.diagonal(mantissa) != 0
    mantissa, exponent = mantissa[np.ix_(alive, alive)], exponent[alive]
    logs = np.log(np.abs(np.diagonal(mantissa))) + exponent * math.log(2)
    # Never rising: where a window begins and ends.
    levels = -np.maximum.accumulate(logs[::-1])[::-1]
    values = np.full(len(alive), -np.inf)
    start = 0
    while start < len(levels):
        stop = np.searchsorted(levels, levels[start] + _CORE, "right")
        low = np.searchsorted(levels, levels[start] - _MARGIN, "left")
        high = np.searchsorted(levels, levels[stop - 1] + _MARGIN, "right")
        shift = np.max(exponent[low:high])
        drop = np.maximum(exponent[low:high] - shift, -4000).astype(np.int32)
        piece = np.ldexp(mantissa[low:high, low:high], drop[:, None])
        found = np.linalg.svd(piece, compute_uv=False)[start - low : stop - low]
        with np.errstate(divide="ignore"):
            values[start:stop] = np.log(found) + shift * math.log(2)
        start = stop
    return -np.sort(-values)


def _padded(logs: np.ndarray, num_values: int, beyond: float = -np.inf):
    """The largest ones, and what there is beyond the smallest width of the network."""
    missing = max(num_values - logs.shape[1], 0)
    lost = np.where(np.isnan(logs[:, :1]), np.nan, beyond)
    logs = np.concatenate([logs, np.repeat(lost, missing, axis=1)], axis=1)
    return logs[:, :num_values]


def _product(layer: Any, basis: np.ndarray, backward: bool, max_bytes: float):
    """J or its transpose times the columns of the basis: (num, n, m) in float64."""
    if isinstance(layer, LayerMap):
        return layer.product(basis, backward, max_bytes)
    if not isinstance(layer, LinearMap):
        matrix = np.asarray(layer, np.float64)
        with np.errstate(all="ignore"):  # infinities end in the triangular factors
            return (np.swapaxes(matrix, 1, 2) if backward else matrix) @ basis
    product = jax.vmap(two_way(layer)[backward], in_axes=2, out_axes=2)
    pieces = np.split(basis, range(CHUNK, basis.shape[2], CHUNK), axis=2)
    images = [np.asarray(product(jnp.asarray(p)), np.float64) for p in pieces]
    return np.concatenate(images, axis=2)


def _shape(layer: Any):
    if isinstance(layer, (LinearMap, LayerMap)):
        return (layer.num, *layer.shape)
    return layer.shape


def _widths(layers: Sequence[Any]):
    """The widths of the data between the layers: one more than there are layers."""
    if not layers:
        raise UserValueError("no layers given: a product needs at least one Jacobian.")
    shapes = [_shape(layer) for layer in layers]
    for place, shape in enumerate(shapes):
        if len(shape) != 3 or shape[0] != shapes[0][0]:
            raise UserValueError(
                f"layer {place} has shape {shape}; expected (num, n_out, n_in) with "
                f"num={shapes[0][0]} as in layer 0. Give one Jacobian per example."
            )
        if place and shape[2] != shapes[place - 1][1]:
            raise UserValueError(
                f"layer {place} takes {shape[2]} numbers, but layer {place - 1} gives "
                f"{shapes[place - 1][1]}. List the layers from the input on."
            )
    return [shapes[0][2], *(shape[1] for shape in shapes)]
