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
    normals = [rng.standard_normal((num, *leaf.shape)) for leaf in like]
    squares = sum(np.sum(z.reshape(num, -1) ** 2, axis=1) for z in normals)
    radius = np.sqrt(sum(leaf.size for leaf in like) / squares)
    return tuple(
        (z * radius.reshape(num, *[1] * (z.ndim - 1))).astype(leaf.dtype)
        for z, leaf in zip(normals, like, strict=True)
    )


def few_digits(a, digits: int, /) -> np.ndarray:
    """Numbers rounded to so many binary digits, in float64.

    >>> few_digits(np.array([0.3, 5.0]), 2)
    array([0.25, 4.  ])
    """
    mantissa, exponent = np.frexp(np.asarray(a, np.float64))
    return np.ldexp(np.round(mantissa * 2.0**digits), exponent - digits)
