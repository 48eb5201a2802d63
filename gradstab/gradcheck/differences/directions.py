r"""Random directions, and how small an error they can miss.

A Jacobian :math:`J` (outputs, inputs) is seen through the table
:math:`\langle w_j, J v_k \rangle` of a few tangents and cotangents, all uniform on
spheres: no error can hide by where it sits, and an error in one entry counts for what
it is of the Frobenius norm.
"""

import numpy as np

NUM_TANGENTS = 6
NUM_COTANGENTS = 12

# The root mean square over the table estimates |E|_F. It is furthest below it if E has
# rank one: sqrt(chi2_6 / 6 * chi2_12 / 12), whose 2e-5 quantile is 0.1 (a smaller input
# or output only brings it nearer to 1).
SIGHT = 0.1

# From so many numbers on what is done to each of them costs more than all else.
LARGE = 2**14
_SPLITS = 1e280


def directions(rng: np.random.Generator, like, /, *, num: int) -> tuple:
    r"""Random vectors of Euclidean norm :math:`\sqrt{n}`, for ``n`` entries in all.

    Uniform on that sphere, so :math:`E[v v^\top] = I` and :math:`E |Ev|^2 = |E|_F^2`.

    Args:
        rng: the source of randomness.
        like: arrays or shape records, taken together as one vector.
        num: how many.

    Returns:
        One array ``(num, *shape)`` per entry of ``like``, in its dtype.

    >>> (v,) = directions(np.random.default_rng(0), [np.zeros(3)], num=2)
    >>> np.sum(v**2, axis=1).round(12)
    array([3., 3.])
    """
    normals = [_normals(rng, (num, *leaf.shape)) for leaf in like]
    flat = [z.reshape(num, -1) for z in normals]
    squares = sum(np.einsum("ki,ki->k", z, z, dtype=np.float64) for z in flat)
    radius = np.sqrt(sum(leaf.size for leaf in like) / squares)
    for z in normals:
        z *= radius.astype(z.dtype).reshape(num, *[1] * (z.ndim - 1))
    return tuple(
        z.astype(leaf.dtype, copy=False) for z, leaf in zip(normals, like, strict=True)
    )


def _normals(rng, shape):
    """Of many numbers few digits are enough: their directions are as random."""
    size = np.prod(shape)
    return rng.standard_normal(shape, np.float32 if size > LARGE else np.float64)


def few_digits(a, digits: int, /) -> np.ndarray:
    """Numbers rounded to so many binary digits, in float64.

    >>> few_digits(np.array([0.3, 5.0]), 2)
    array([0.25, 4.  ])
    """
    if np.size(a) > LARGE and max(float(np.max(a)), -float(np.min(a))) < _SPLITS:
        return _split(np.asarray(a), digits)
    mantissa, exponent = np.frexp(np.asarray(a, np.float64))
    return np.ldexp(np.round(mantissa * 2.0**digits), exponent - digits)


def _split(a, digits):
    """The same by sums (Dekker), a part that fits a cache at a time."""
    rounded = np.empty(a.shape)
    given, result = a.ravel(), rounded.ravel()
    for start in range(0, a.size, LARGE):
        part = given[start : start + LARGE].astype(np.float64)
        above = part * (2.0 ** (53 - digits) + 1)
        np.subtract(above, above - part, out=result[start : start + LARGE])
    return rounded
