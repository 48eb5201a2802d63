"""What arguments have in common with few others, and a moved point may have lost.

A function may be defined on symmetric matrices, on distributions, or for a lower end
that is below the upper one. Nothing in it says so; only the point that was given does.
"""

import numpy as np

from gradstab.gradcheck.differences.points import ordered

# Arguments are made in float32 as often as not.
_NEAR = 1e-5


def lost(leaves: tuple, point: tuple, names: tuple[str, ...], /) -> tuple[str, ...]:
    """What the leaves given have and those of the moved point have not, in words.

    Args:
        leaves: the point given.
        point: the moved one.
        names: of the leaves.

    >>> one, other = np.array([[2, 1], [1, 3]]), np.array([[2, 1], [0, 3]])
    >>> lost((one,), (other,), ("args[0]",))
    ('args[0] is symmetric',)
    """
    words = [
        f"{name} {what}"
        for name, x, y in zip(names, leaves, point, strict=True)
        for what, holds in _KINDS.items()
        if holds(np.asarray(x, np.float64)) and not holds(np.asarray(y, np.float64))
    ]
    now = set(ordered(point))
    words += [
        f"{names[i]} is below {names[j]}"
        for i, j in ordered(leaves)
        if (i, j) not in now
    ]
    return tuple(words)


def _is_square(x) -> bool:
    return x.ndim > 1 and x.shape[-1] == x.shape[-2] > 1


def _is_symmetric(x) -> bool:
    return _is_square(x) and _same(x, np.swapaxes(x, -1, -2))


def _is_triangular(x) -> bool:
    return _is_square(x) and (_same(x, np.tril(x)) or _same(x, np.triu(x)))


def _are_distributions(x) -> bool:
    return _has_rows(x) and bool(np.all(x >= 0)) and _same(x.sum(-1), 1.0)


def _are_of_norm_one(x) -> bool:
    return _has_rows(x) and _same(np.square(x).sum(-1), 1.0)


def _has_rows(x) -> bool:
    return x.ndim > 0 and x.shape[-1] > 1


def _same(x, y) -> bool:
    return bool(np.allclose(x, y, rtol=_NEAR, atol=_NEAR * np.max(np.abs(x))))


_KINDS = {
    "is symmetric": _is_symmetric,
    "is triangular": _is_triangular,
    "has rows that sum to one": _are_distributions,
    "has rows of norm one": _are_of_norm_one,
}
