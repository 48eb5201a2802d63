"""Jacobians written out, and all their singular values."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import get_lapack_funcs

from gradstab.network.foreign import can_be_traced
from gradstab.records import Estimate, Spectrum
from gradstab.spectra.decomposed import (
    RELATIVE,
    UNIT,
    Decomposed,
    gram_errors,
    real_matrices,
    roundoff_of,
)
from gradstab.spectra.linear_map import LinearMap
from gradstab.spectra.on_device import decompose_on_device
from gradstab.spectra.placement import on_device
from gradstab.spectra.workers import num_workers, over_matrices

# Tangents pushed through at once: enough to fill the matrix products, few enough that
# the batch of intermediate results of a wide layer stays in tens of megabytes.
_CHUNK = 128

# Powers of two whose squares, and sums of them, stay within the range of float64.
_SQUARABLE = 400

# The shift of the inverse iteration, relative to the largest eigenvalue: above rounding
# of the decomposition, and far below the gap to the next one.
_SHIFT = 1e-9


def dense_jacobian(
    linear_map: LinearMap, /, *, num_examples: int | None = None
) -> jax.Array:
    """The Jacobians written out, by products with the basis vectors.

    Args:
        linear_map: from `jacobian_map`.
        num_examples: keep the first ones only.

    Returns:
        ``(num, n_out, n_in)``. Cost: ``n_in`` products forward, or ``n_out`` backward
        if those are fewer or the map has no forward direction. Survives jit.
    """
    n_out, n_in = linear_map.shape
    forward = linear_map.matvec is not None and n_in <= n_out
    rows = basis_of(linear_map, forward=forward, chunk=_CHUNK)[:, :num_examples]
    return jnp.moveaxis(rows, 0, 2 if forward else 1)


def basis_of(linear_map: LinearMap, /, *, forward: bool, chunk: int) -> jax.Array:
    """The images of all basis vectors.

    Args:
        linear_map: from `jacobian_map`.
        forward: by the forward products, or by the backward ones.
        chunk: how many basis vectors at once.

    Returns:
        ``(size, num, other)``: columns of the Jacobians, or their rows.
    """
    n_out, n_in = linear_map.shape
    product = linear_map.matvec if forward else linear_map.rmatvec
    assert product is not None
    size = n_in if forward else n_out

    def along(index):
        unit = (jnp.arange(size) == index).astype(jnp.float32)
        return product(jnp.broadcast_to(unit, (linear_map.num, size)))

    indices = jnp.arange(size)
    one_by_one = not can_be_traced(jax.vmap(along), indices)
    return jax.lax.map(along, indices, batch_size=None if one_by_one else chunk)


def decompose(
    jacobians, /, *, vectors: bool = False, spectra_on: str = "auto"
) -> Decomposed:
    r"""All singular values of Jacobians that are written out.

    On an accelerator they are found there, see
    `gradstab.spectra.on_device.decompose_on_device`; else by LAPACK on the host. They
    are the roots of the eigenvalues of the Gram matrix in float64, which costs
    half of a decomposition. The eigenvalues err by some units of roundoff :math:`u` of
    the largest, so a value :math:`\sigma_i` by :math:`u \sigma_1^2 / \sigma_i`. In a
    matrix of float32 numbers that is never more than their own rounding; in float64 the
    matrix is decomposed if its smallest value is too small for that.

    Args:
        jacobians: ``(num, n_out, n_in)``, any floating dtype; see `real_matrices` for
            complex ones.
        vectors: whether to find the leading singular vectors as well, by inverse
            iteration.
        spectra_on: 'device' or 'host', see `gradstab.spectra.placement.on_device`.

    Returns:
        Values, errors and vectors. Cost: :math:`O(n^3)` for each Jacobian, and four
        of them in float64 for each core; see `over_matrices`.
    """
    if on_device(spectra_on, len(jacobians), jacobians.shape[1:]):
        return decompose_on_device(jacobians, vectors=vectors)
    jacobians = np.asarray(real_matrices(jacobians))
    matrices = list(jacobians)
    unit = roundoff_of(jacobians.dtype)
    worst = RELATIVE if unit <= UNIT else np.inf
    # If one of the first needs a decomposition, most of the others will.
    count = num_workers() if np.isfinite(worst) else len(matrices)
    first, others = matrices[:count], matrices[count:]
    found = over_matrices(functools.partial(_decompose, worst, vectors), first)
    worst = worst if all(one.by_gram for one in found) else -np.inf
    found += over_matrices(functools.partial(_decompose, worst, vectors), others)
    values, left, right, by_gram = map(np.stack, zip(*found, strict=True))
    errors = unit * max(jacobians.shape[1:]) * values[:, :1]
    errors = errors + np.where(by_gram[:, None], gram_errors(values), 0)
    return Decomposed(
        values,
        errors,
        left,
        right,
        "gram" if by_gram.all() else "svd",
    )


# Cholesky's, without what SciPy looks at for each of a thousand small matrices.
_LAPACK: Any = get_lapack_funcs(("potrf", "potrs"), dtype=np.float64)
_factorize, _solve = _LAPACK


class _Found(NamedTuple):
    """What is found of one matrix."""

    values: np.ndarray
    left: np.ndarray
    right: np.ndarray
    by_gram: bool


def _decompose(worst, vectors: bool, matrix):
    """The values of one matrix, by its Gram matrix if no error is above the worst."""
    wide = np.array(matrix, np.float64)  # in the order in which the numbers lie
    count = min(wide.shape)
    left, right = (np.full(size, np.nan) for size in wide.shape)
    largest = max(np.max(wide), -np.min(wide))
    if not np.isfinite(largest):
        return _Found(np.full(count, np.nan), left, right, True)
    if largest == 0:
        return _Found(np.zeros(count), left, right, True)
    # Squares of very small and of very large entries leave the range of float64.
    _, exponent = np.frexp(largest)
    exponent = 0 if abs(exponent) < _SQUARABLE else exponent
    wide = np.ldexp(wide, -exponent) if exponent else wide
    flat = wide if wide.shape[0] <= wide.shape[1] else wide.T
    gram = flat @ flat.T
    values = _from_gram(gram, worst) if worst > 0 else None
    by_gram = values is not None
    if values is None:
        values = np.linalg.svd(wide, compute_uv=False)
    if vectors:
        one, other = _leading(flat, gram, values[0])
        left, right = (one, other) if flat is wide else (other, one)
    return _Found(np.ldexp(values, exponent), left, right, by_gram)


def _from_gram(gram, worst):
    """The singular values; None if the relative error of one is above the worst."""
    # LAPACK gets a copy by columns, which of the transpose of a symmetric matrix is one
    # piece of memory: the same numbers for 10 % less time at 512 rows.
    squares = np.linalg.eigvalsh(gram.T)[::-1]
    values = np.sqrt(np.maximum(squares, 0))
    with np.errstate(divide="ignore"):
        relative = gram_errors(values[None])[0] / values
    return values if np.all(relative <= worst) else None


def _leading(flat, gram, largest):
    """The leading left and right vectors of a flat matrix, by inverse iteration."""
    np.negative(gram, out=gram)
    gram.flat[:: len(gram) + 1] += (1 + _SHIFT) * largest**2
    factor, failed = _factorize(gram.T, overwrite_a=True)
    if failed:
        raise np.linalg.LinAlgError("the Gram matrix is not below its largest value")
    vector = _start(len(gram))
    for _ in range(2):
        vector, _ = _solve(factor, vector)
        vector /= math.sqrt(vector @ vector)
    other = vector @ flat
    return vector, other / math.sqrt(other @ other)


@functools.lru_cache(maxsize=64)
def _start(size):
    """A random vector, always the same."""
    vector = np.random.default_rng(0).standard_normal(size)
    vector.setflags(write=False)
    return vector


def dense_spectrum(
    jacobians, /, *, coupled: bool = False, spectra_on: str = "auto"
) -> Spectrum:
    """All singular values of Jacobians that are written out; see `decompose`.

    Args:
        jacobians: ``(num, n_out, n_in)``, any floating dtype.
        coupled: whether they are of a whole batch.
        spectra_on: where they are decomposed: 'device', 'host' or 'auto'.

    Returns:
        The spectrum; values are NaN where a Jacobian is not finite. Cost:
        :math:`O(n^3)` per example.

    Examples:
        >>> dense_spectrum(np.diag([3.0, 4.0])[None]).values
        array([[4., 3.]])
    """
    jacobians = real_matrices(jacobians)
    found = decompose(jacobians, spectra_on=spectra_on)
    return spectrum_of(found, jacobians.shape[1:], coupled=coupled)


def spectrum_of(found: Decomposed, shape, /, *, coupled: bool) -> Spectrum:
    """The record of all singular values of Jacobians of a shape."""
    largest = found.values[:, :1]
    unit = np.where(largest > 0, largest, 1)
    values, errors = found.values / unit, found.errors / unit
    relative = Estimate.within(
        np.sum(np.square(values), axis=1), 2 * np.sum(errors * values, axis=1)
    )
    # The squares of very small and of very large numbers are out of range.
    with np.errstate(over="ignore", under="ignore"):
        square = relative.times(np.square(unit[:, 0]))
    return Spectrum(
        values=found.values,
        errors=found.errors,
        frobenius_square=square,
        relative_square=relative,
        shape=tuple(shape),
        coupled=coupled,
        method=found.method,
    )
