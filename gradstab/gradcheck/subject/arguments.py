"""Which parts of the arguments and outputs of a function have a derivative.

Complex numbers are taken apart into pairs of real ones, on a last axis of two. A
derivative of the real function of these pairs is what JAX's convention of complex
derivatives says in other words, so a conjugate that a rule forgets changes a sign.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstab import _tree
from gradstab.errors import UserValueError

# After the name of a complex leaf, or output, that became a pair of real numbers.
AS_PAIR = " as (real, imaginary)"
_NUMBERS = (float, complex)

# Fewer entries make no blocks: they are coordinates as likely as not.
SHORTENED = 4


def floating_part(
    args: tuple, dtype: DTypeLike, /
) -> tuple[Callable, tuple, tuple[str, ...]]:
    """Takes the floating leaves out of the arguments.

    Args:
        args: pytrees of anything. Integers, booleans, None, PRNG keys and whatever else
            is not a floating array or number stay as they are.
        dtype: of the leaves; None for their own.

    Returns:
        ``(of_leaves, point, names)``. The first makes a function of such arguments a
        function of the tuple of leaves to the tuple of its floating outputs; a list as
        its second argument is filled with the names of these when the function runs.

    Raises:
        ValueError: there is no floating leaf.
    """
    leaves, treedef = jax.tree.flatten(args)
    where = [i for i, leaf in enumerate(leaves) if _has_derivative(leaf)]
    if not where:
        raise UserValueError(
            "nothing to check: no argument of f has a floating entry; the leaves are "
            f"[{', '.join(type(leaf).__name__ for leaf in leaves)}]."
        )
    leaves = _of_one_width(leaves, where)
    pairs = {i for i in where if jnp.iscomplexobj(leaves[i])}
    names = _names(args)

    def of_leaves(f: Callable[..., Any], output_names=None):
        def floating(point: Sequence[Any]):
            full = list(map(_fixed, leaves))
            for i, leaf in zip(where, point, strict=True):
                full[i] = _joined(leaf) if i in pairs else leaf
            results = f(*jax.tree.unflatten(treedef, full))
            if output_names is not None:
                output_names[:] = _output_names(results)
            return _floating_outputs(results)

        return floating

    return (
        of_leaves,
        tuple(_split(leaves[i], dtype) for i in where),
        tuple(names[i] + AS_PAIR * (i in pairs) for i in where),
    )


def _of_one_width(leaves: Sequence[Any], where):
    """The leaves, with Python's numbers rounded to the widest array beside them.

    That is what they are for f. An array that is lifted to float64 holds what it held,
    and -0.3 that is a bound of its entries must be the -0.3 that is one of them.
    """
    dtypes = [leaves[i].dtype for i in where if type(leaves[i]) not in _NUMBERS]
    if not dtypes:
        return leaves
    widest = max(dtypes, key=lambda d: jnp.finfo(d).nmant)
    widest = np.empty(0, widest).real.dtype
    return [
        _rounded(leaf, widest) if i in where and type(leaf) in _NUMBERS else leaf
        for i, leaf in enumerate(leaves)
    ]


def _rounded(number, dtype: DTypeLike):
    if isinstance(number, complex):
        real, imaginary = (_rounded(x, dtype) for x in (number.real, number.imag))
        return complex(real, imaginary)
    return float(np.asarray(number).astype(dtype))


def of_other_shapes(args: tuple, /) -> list[tuple[int, tuple]]:
    """The arguments with all axes of one size one entry shorter, for every such size.

    Blocks and tiles do not fit into it: the last one has to be a part. Sizes that are
    odd and have no divisors are left out: nothing fits into them as they are.

    Args:
        args: pytrees of anything.

    Returns:
        Sizes of axes of floating arrays, the largest even one first, and the arguments
        with all axes of that size shortened in every array, those of integers included.

    >>> shapes = of_other_shapes((np.zeros((8, 3)), np.arange(8), np.eye(2)))
    >>> [(size, [x.shape for x in shorter]) for size, shorter in shapes]
    [(8, [(7, 3), (7,), (2, 2)])]
    """
    leaves = jax.tree.leaves(args)
    sizes = {n for leaf in leaves if _has_derivative(leaf) for n in jnp.shape(leaf)}
    sizes = [n for n in sizes if n >= SHORTENED and has_divisors(n)]
    sizes.sort(key=lambda n: (n % 2, -n))
    return [(size, shorter(args, size)) for size in sizes]


def shorter(args: tuple, size: int, /) -> tuple:
    """The arguments with all axes of one size one entry shorter."""
    return jax.tree.map(functools.partial(_shorter, size=size), args)


def has_divisors(size: int, /) -> bool:
    """Whether a size is no prime, and above one."""
    return any(size % n == 0 for n in range(2, math.isqrt(size) + 1))


def _shorter(leaf: Any, *, size: int):
    if not isinstance(leaf, np.ndarray | jax.Array) or _tree.is_key(leaf):
        return leaf
    return leaf[tuple(slice(n - (n == size)) for n in leaf.shape)]


def _fixed(leaf: Any):
    """What is not moved. Integers of 64 bits do not fit where there are none."""
    if not isinstance(leaf, np.ndarray | jax.Array) or _tree.is_key(leaf):
        return leaf
    if not jnp.issubdtype(leaf.dtype, jnp.integer):
        return leaf
    dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
    return leaf if dtype == leaf.dtype else np.asarray(leaf).astype(dtype)


def _floating_outputs(tree: Any) -> tuple:
    """The non-empty floating arrays of an output, complex ones as pairs."""
    arrays = [jnp.asarray(y) for y in jax.tree.leaves(tree) if _has_derivative(y)]
    return tuple(_split(y, None) for y in arrays)


def _output_names(tree: Any) -> list[str]:
    """The names of the same arrays, such as ``output['loss']``."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [
        f"output{jax.tree_util.keystr(path)}{AS_PAIR * bool(jnp.iscomplexobj(y))}"
        for path, y in flat
        if _has_derivative(y)
    ]


def _has_derivative(leaf: Any) -> bool:
    if not isinstance(leaf, float | complex | np.ndarray | np.generic | jax.Array):
        return False
    return bool(_tree.is_floating(leaf) and jnp.size(leaf) > 0)


def _split(leaf: Any, dtype):
    if not jnp.iscomplexobj(leaf):
        return jnp.asarray(leaf, dtype)
    return jnp.stack(
        [jnp.asarray(jnp.real(leaf), dtype), jnp.asarray(jnp.imag(leaf), dtype)],
        axis=-1,
    )


def _joined(pair):
    return jax.lax.complex(pair[..., 0], pair[..., 1])


def _names(args: Sequence[Any]):
    return [
        f"args[{i}].{path}".rstrip(".")
        for i, arg in enumerate(args)
        for path in _tree.paths(arg)
    ]
