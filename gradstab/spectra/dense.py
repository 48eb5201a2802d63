"""Singular values of small Jacobians: written out, decomposed in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from gradstab.records import Spectrum
from gradstab.spectra.linear_map import LinearMap

# Tangents pushed through at once: enough to fill the matrix products, few enough that
# the batch of intermediate results of a wide layer stays in tens of megabytes.
_CHUNK = 128


def dense_jacobian(linear_map: LinearMap, /, *, num_examples=None) -> jax.Array:
    """The Jacobians written out, by products with the basis vectors.

    Args:
        linear_map: from `jacobian_map`.
        num_examples: keep the first ones only.

    Returns:
        ``(num, n_out, n_in)``. Cost: ``n_in`` products forward, or ``n_out`` backward
        if those are fewer or the map has no forward direction. Survives jit.
    """
    n_out, n_in = linear_map.shape
    if linear_map.matvec is None or n_out < n_in:
        product, size, axis = linear_map.rmatvec, n_out, 1
    else:
        product, size, axis = linear_map.matvec, n_in, 2
    keep = linear_map.num if num_examples is None else num_examples

    def along(index):
        unit = (jnp.arange(size) == index).astype(jnp.float32)
        return product(jnp.broadcast_to(unit, (linear_map.num, size)))[:keep]

    rows = jax.lax.map(along, jnp.arange(size), batch_size=min(_CHUNK, size))
    return jnp.moveaxis(rows, 0, axis)


def dense_spectrum(jacobians, /, *, coupled=False) -> Spectrum:
    """All singular values of Jacobians that are written out.

    They are found in float64 with one BLAS thread: matrices of a few hundred rows do
    not gain from a second one, and contention for cores can cost a hundredfold.

    Args:
        jacobians: ``(num, n_out, n_in)``, any floating dtype.
        coupled: whether they are of a whole batch.

    Returns:
        The spectrum; values are NaN where a Jacobian is not finite. Cost:
        :math:`O(n^3)` per example.

    Examples:
        >>> dense_spectrum(np.diag([3.0, 4.0])[None]).values
        array([[4., 3.]])
    """
    unit = _roundoff(jacobians.dtype)
    wide = np.asarray(jacobians, np.float64)
    finite = np.isfinite(wide).all(axis=(1, 2))
    values = np.full((len(wide), min(wide.shape[1:])), np.nan)
    with threadpool_limits(limits=1, user_api="blas"):
        values[finite] = np.linalg.svd(wide[finite], compute_uv=False)
    rounding = unit * max(wide.shape[1:]) * values[:, 0]
    return Spectrum(values, rounding, shape=wide.shape[1:], coupled=coupled)


def _roundoff(dtype):
    return float(jnp.finfo(dtype).eps) / 2
