"""Points that a function may not be meant for: what the arguments' form says.

`jax.test_util` speaks of the arguments alone. A check looks at moved points too, and
there may be what the function excludes: bounds that have changed places, a matrix that
is no longer symmetric, an iteration that does not converge. Not for users.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree
from gradstab.gradcheck import GradCheck
from gradstab.gradcheck.differences.points import AS_GIVEN, BESIDE

SYMMETRIC = "f may be defined on symmetric arguments only: check f((a + a.T) / 2)"
ORDERED = "f may be defined only where its arguments are in the order of those given"
CONVERGES = "f iterates, and may not converge there"
LOOKS = "f looks at the values of its arguments, and may not be meant for these"

# How far entries that a check has made equal are set apart again, in their size.
_APART = 2.0**-3


def is_elsewhere(result: GradCheck, /) -> bool:
    """Whether all that was found wrong was found away from the arguments."""
    wrong = [g for g in result.findings if g.differs]
    here = any(g.point in (AS_GIVEN, BESIDE) for g in wrong)
    return not here and all(law.holds for law in result.identities)


def in_order(args: Sequence[Any], /) -> list[tuple]:
    """Other arguments whose entries are in the order of those given; none without one.

    An order is a pair of floating arguments of which one is less than the other
    everywhere. The points are those given mirrored at zero, and moved together until
    they are nearly equal.
    """
    leaves, structure = jax.tree.flatten(args)
    places = [i for i, x in enumerate(leaves) if _is_real(x)]
    pairs = [(i, j) for i in places for j in places if _is_less(leaves[i], leaves[j])]
    if not pairs:
        return []
    ranks = {i: sum(j == i for _, j in pairs) for i in places}
    ordered = sorted({i for pair in pairs for i in pair}, key=lambda i: ranks[i])
    mirrored, together = list(leaves), list(leaves)
    for i in places:
        mirrored[i] = _like(leaves[i], -np.asarray(leaves[i]))
    for i, j in pairs:
        if np.shape(leaves[i]) == np.shape(leaves[j]):
            one, two = np.asarray(mirrored[i]), np.asarray(mirrored[j])
            mirrored[i] = _like(leaves[i], np.minimum(one, two))
            mirrored[j] = _like(leaves[j], np.maximum(one, two))
    base = np.asarray(leaves[ordered[0]])
    apart = _APART * (float(np.sqrt(np.mean(np.square(base)))) or 1.0)
    for i in ordered:
        level = float(np.mean(base)) + ranks[i] * apart
        together[i] = _like(leaves[i], np.full(np.shape(leaves[i]), level))
    return [structure.unflatten(mirrored), structure.unflatten(together)]


def symmetrized(f: Callable, args: Sequence[Any], /) -> Callable | None:
    """The function of the symmetric parts of those arguments that are symmetric.

    None if no argument is a symmetric matrix.
    """
    places = [i for i, x in enumerate(jax.tree.leaves(args)) if _is_symmetric(x)]
    if not places:
        return None

    def of_symmetric(*args):
        leaves, structure = jax.tree.flatten(args)
        for i in places:
            transposed = jnp.swapaxes(leaves[i], -1, -2)
            leaves[i] = (leaves[i] + jnp.conj(transposed)) / 2
        return f(*structure.unflatten(leaves))

    return of_symmetric


def _is_real(x) -> bool:
    known = isinstance(x, float | np.ndarray | np.generic | jax.Array)
    return bool(known and _tree.is_floating(x) and not jnp.iscomplexobj(x))


def _is_less(x, y) -> bool:
    x, y = np.asarray(x), np.asarray(y)
    try:
        less = np.less(x, y)
    except ValueError:  # their shapes do not fit
        return False
    return bool(less.size and np.all(less))


def _is_symmetric(x) -> bool:
    known = isinstance(x, np.ndarray | jax.Array)
    if not known or not _tree.is_floating(x) or np.ndim(x) < 2:
        return False
    a = np.asarray(x)
    if a.shape[-1] != a.shape[-2] or a.shape[-1] < 2:
        return False
    gap = np.max(np.abs(a - np.conj(np.swapaxes(a, -1, -2))), initial=0.0)
    return bool(gap <= 1e-5 * np.max(np.abs(a), initial=0.0))


def _like(x, array):
    dtype = np.asarray(x).dtype
    return array.astype(dtype) if np.ndim(x) else dtype.type(array)
