r"""Gram matrices of Jacobians whose rows differ between examples by a factor only.

The Jacobians of a dense layer are :math:`J_i = D_i W` with diagonal :math:`D_i`, the
slopes of the activation at example i. So :math:`J_i J_i^\top = D_i (W W^\top) D_i`
takes one product of matrices for all examples. Nothing is assumed of a layer: whether
its Jacobians are of that kind is seen in their entries.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# By how many units of roundoff an entry may differ: it, two entries that make the
# factor, and the one that is multiplied were rounded, and so are quotient and product.
_ROUNDED = 8


class Common(NamedTuple):
    """The rows that matrices have in common, each up to a factor.

    Attributes:
        rows: (n, m) of each row the largest example, times a power of two.
        places: (n,) where the largest entry of each lies.
        gram: (n, n) their products with each other, in float64.
        transposed: whether they are columns of the Jacobians.
    """

    rows: np.ndarray
    places: np.ndarray
    gram: np.ndarray
    transposed: bool


def gram_matrices(jacobians, /) -> Callable:
    """How to multiply Jacobians with their transposes.

    Args:
        jacobians: ``(num, n_out, n_in)``.

    Returns:
        A function of one of them and of the same in float64, which returns ``(flat,
        gram)``: the latter or its transpose, with no more rows than columns, and
        ``flat @ flat.T`` up to the rounding of the Jacobian's entries. Cost: one
        product of matrices for all if their rows agree, else one for each.

    Examples:
        >>> first, second = np.array([[1.0, 2.0], [3.0, 5.0]]), np.diag([7.0, 0.5])
        >>> jacobians = np.stack([first, second @ first])
        >>> flat, gram = gram_matrices(jacobians)(jacobians[1], jacobians[1])
        >>> bool(np.all(gram == flat @ flat.T))
        True
    """
    _, n_out, n_in = jacobians.shape
    sides = [False] * (n_out <= n_in) + [True] * (n_in <= n_out)
    common = next(filter(None, (_common(jacobians, side) for side in sides)), None)

    def gram(matrix, wide):
        factors = None if common is None else _factors(common, matrix)
        if common is None or factors is None:
            flat = wide if n_out <= n_in else wide.T
            return flat, flat @ flat.T
        flat = wide.T if common.transposed else wide
        return flat, factors[:, None] * common.gram * factors[None]

    return gram


def _common(jacobians, transposed) -> Common | None:
    """The common rows; None if the first and the last example have none."""
    if len(jacobians) < 3 or jacobians.dtype not in (np.float32, np.float64):
        return None
    flats = jacobians.swapaxes(1, 2) if transposed else jacobians
    few = Common(*_largest_rows(flats[[0, -1]]), np.zeros(()), transposed)
    if any(_factors(few, jacobians[i]) is None for i in (0, -1)):
        return None
    rows, places = _largest_rows(flats)
    # Squares of very small and of very large numbers leave the range of float64.
    rows = np.ldexp(rows, -np.frexp(np.max(np.abs(rows)))[1])
    wide = rows.astype(np.float64)
    return Common(rows, places, wide @ wide.T, transposed)


def _largest_rows(flats):
    """Of every row the example with the largest entry, and where that lies."""
    sizes = np.stack([np.max(np.abs(flat), axis=1) for flat in flats])
    rows = flats[np.argmax(sizes, axis=0), np.arange(flats.shape[1])]
    return rows, np.argmax(np.abs(rows), axis=1)


@np.errstate(invalid="ignore", over="ignore")
def _factors(common, matrix):
    """The factors of the rows of a matrix; None if it has other rows."""
    flat = matrix.T if common.transposed else matrix
    every = np.arange(len(flat))
    base = common.rows[every, common.places]
    factors = flat[every, common.places] / np.where(base == 0, 1, base)
    gap = np.abs(flat - factors[:, None] * common.rows)
    unit = np.finfo(flat.dtype).eps / 2
    agree = np.all(gap <= flat.dtype.type(_ROUNDED * unit) * np.abs(flat))
    return factors.astype(np.float64) if agree else None
