"""Arguments with one entry more along some axes.

A rule that goes through blocks of as many entries as there are, or of all of them if
they are fewer, has no last block that is not full until there is one entry more.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree
from gradstab.gradcheck.subject.arguments import SHORTENED

# A new entry is so many times the one before it; at a corner, new along two axes, so
# many times: a matrix that was positive definite stays so.
_NEXT, _CORNER = 9 / 8, 2.0


def sizes_of(args: tuple, /, *, short: bool = False) -> list[int]:
    """The sizes of axes of arrays that may be blocks, the largest first.

    Unsigned integers are left out: they are words of a key.

    Args:
        args: pytrees of anything.
        short: those of two and three entries instead, which often are coordinates.

    >>> args = np.zeros((7, 3)), np.zeros((8, 7)), np.arange(9)
    >>> sizes_of(args), sizes_of(args, short=True)
    ([9, 8, 7], [3])
    """
    leaves = [x for x in jax.tree.leaves(args) if _is_array(x) and not _is_unsigned(x)]
    sizes = {n for leaf in leaves for n in jnp.shape(leaf)}
    wanted = (n for n in sizes if (1 < n < SHORTENED if short else n >= SHORTENED))
    return sorted(wanted, reverse=True)


def longer(args: tuple, sizes: list[int], /) -> tuple:
    """The arguments with all axes of some sizes one entry longer.

    What is new is like the entry before it, an eighth larger; masks and integers are
    continued, and a permutation stays one.

    Args:
        args: pytrees of anything.
        sizes: of the axes, in every array, those of integers included.

    >>> [x.tolist() for x in longer((np.float32([1, 2, 3, 8]), np.arange(4)), [4])]
    [[1.0, 2.0, 3.0, 8.0, 9.0], [0, 1, 2, 3, 4]]
    """
    return jax.tree.map(functools.partial(_longer, sizes=sizes), args)


def with_gaps(args: tuple, sizes: list[int], /):
    """The same with NaN in what is new, along one axis of one array at a time.

    Yields:
        One tuple of arguments for each such axis.
    """
    leaves, tree = jax.tree.flatten(args)
    for i, leaf in enumerate(leaves):
        if not (_is_array(leaf) and _tree.is_floating(leaf)):
            continue
        for axis in _axes(leaf, sizes):
            new = np.array(_longer(leaf, sizes=sizes))
            np.moveaxis(new, axis, 0)[-1] = np.nan
            full = [_longer(x, sizes=sizes) for x in leaves]
            yield jax.tree.unflatten(tree, [*full[:i], new, *full[i + 1 :]])


def _longer(leaf: Any, *, sizes: list[int]):
    if not _is_array(leaf) or not (axes := _axes(leaf, sizes)):
        return leaf
    x = np.asarray(leaf)
    new = np.pad(x, [(0, int(axis in axes)) for axis in range(x.ndim)], mode="edge")
    if _tree.is_floating(leaf):
        size = np.ones((), np.float32)
        for axis in axes:
            shape = [1] * x.ndim
            shape[axis] = new.shape[axis]
            ahead = np.ones(new.shape[axis], np.float32)
            ahead[-1] = _NEXT
            size = size * ahead.reshape(shape)
        new = (new * np.where(size > _NEXT, _CORNER, size)).astype(x.dtype)
    elif x.ndim == 1 and np.array_equal(np.sort(x), np.arange(x.size)):
        new[-1] = x.size
    return jnp.asarray(new) if isinstance(leaf, jax.Array) else new


def _axes(leaf: Any, sizes: list[int]) -> list[int]:
    return [axis for axis, n in enumerate(np.shape(leaf)) if n in sizes]


def _is_unsigned(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.unsignedinteger)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray | jax.Array) and not _tree.is_key(leaf)
