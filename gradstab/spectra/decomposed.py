"""What a decomposition of Jacobians finds, and by how much it may be off; internal."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

UNIT = float(np.finfo(np.float64).eps) / 2

# The eigenvalues of a Gram matrix in float64 err by at most this many units of roundoff
# of the largest one: up to 7 at 32 rows and 35 at 1024 were seen in Gaussian matrices.
_GRAM = 64

# In float64 the values found from a Gram matrix are kept if none errs by more than this
# fraction of itself: if the largest is at most 1e4 times the smallest.
RELATIVE = 1e-6


def real_matrices(matrices, /):
    """Complex matrices as real ones of twice the size, that act on pairs.

    Each singular value of a complex matrix is two of the real one. Real matrices are
    returned as they are.

    Args:
        matrices: ``(num, n_out, n_in)``, of NumPy or where JAX computed them.

    Returns:
        Arrays in the same place.

    Examples:
        >>> real_matrices(np.array([[[1 + 2j]]])).tolist()
        [[[1.0, -2.0], [2.0, 1.0]]]
    """
    xp: Any = jnp if isinstance(matrices, jax.Array) else np
    matrices = xp.asarray(matrices)
    if not xp.iscomplexobj(matrices):
        return matrices
    num, n_out, n_in = matrices.shape
    # How the real and the imaginary part that leave depend on each that enters.
    re, im = xp.real(matrices), xp.imag(matrices)
    blocks = xp.stack([xp.stack([re, -im]), xp.stack([im, re])])
    pairs = xp.moveaxis(blocks, (0, 1), (3, 4))
    return pairs.swapaxes(2, 3).reshape(num, 2 * n_out, 2 * n_in)


class Decomposed(NamedTuple):
    """Singular values of some Jacobians, and their leading vectors.

    Attributes:
        values: (num, k) in descending order; NaN where a Jacobian is not finite.
        errors: (num, k) by how much each may be off.
        left: (num, n_out) the leading left vectors, of arbitrary sign; NaN for a
            Jacobian that is zero or not finite, and if they were not asked for.
        right: (num, n_in) the leading right vectors.
        method: 'gram' or 'svd', see `Spectrum`.
    """

    values: np.ndarray
    errors: np.ndarray
    left: np.ndarray
    right: np.ndarray
    method: str


def gram_errors(values):
    """By how much values found from a Gram matrix in float64 may be off."""
    largest = values[:, :1]
    size = np.maximum(values, np.sqrt(_GRAM * UNIT) * largest)
    return _GRAM * UNIT * largest * (largest / np.where(size > 0, size, 1))


def roundoff_of(dtype: DTypeLike) -> float:
    """The unit roundoff of a dtype."""
    return float(jnp.finfo(dtype).eps) / 2
