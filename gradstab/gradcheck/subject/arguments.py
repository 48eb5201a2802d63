"""Which parts of the arguments and outputs of a function have a derivative.

Complex numbers are taken apart into pairs of real ones, on a last axis of two. A
derivative of the real function of these pairs is what JAX's convention of complex
derivatives says in other words, so a conjugate that a rule forgets changes a sign.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree


def floating_part(args: tuple, dtype, /) -> tuple[Callable, tuple, tuple[str, ...]]:
    """Takes the floating leaves out of the arguments.

    Args:
        args: pytrees of anything. Integers, booleans, None, PRNG keys and whatever else
            is not a floating array or number stay as they are.
        dtype: of the leaves; None for their own.

    Returns:
        ``(of_leaves, point, names)``. The first makes a function of such arguments a
        function of the tuple of leaves to the tuple of its floating outputs.

    Raises:
        ValueError: there is no floating leaf.
    """
    leaves, treedef = jax.tree.flatten(args)
    where = [i for i, leaf in enumerate(leaves) if _has_derivative(leaf)]
    if not where:
        raise ValueError(
            "nothing to check: no argument of f has a floating entry; the leaves are "
            f"[{', '.join(type(leaf).__name__ for leaf in leaves)}]."
        )
    pairs = {i for i in where if jnp.iscomplexobj(leaves[i])}
    names = _names(args)

    def of_leaves(f):
        def floating(point):
            full = list(leaves)
            for i, leaf in zip(where, point, strict=True):
                full[i] = _joined(leaf) if i in pairs else leaf
            return _floating_outputs(f(*jax.tree.unflatten(treedef, full)))

        return floating

    return (
        of_leaves,
        tuple(_split(leaves[i], dtype) for i in where),
        tuple(names[i] + " as (real, imaginary)" * (i in pairs) for i in where),
    )


def _floating_outputs(tree) -> tuple:
    """The non-empty floating arrays of an output, complex ones as pairs."""
    arrays = [jnp.asarray(y) for y in jax.tree.leaves(tree) if _has_derivative(y)]
    return tuple(_split(y, None) for y in arrays)


def _has_derivative(leaf) -> bool:
    if not isinstance(leaf, float | complex | np.ndarray | np.generic | jax.Array):
        return False
    return bool(_tree.is_floating(leaf) and jnp.size(leaf) > 0)


def _split(leaf, dtype):
    if not jnp.iscomplexobj(leaf):
        return jnp.asarray(leaf, dtype)
    return jnp.stack(
        [jnp.asarray(jnp.real(leaf), dtype), jnp.asarray(jnp.imag(leaf), dtype)],
        axis=-1,
    )


def _joined(pair):
    return jax.lax.complex(pair[..., 0], pair[..., 1])


def _names(args):
    return [
        f"args[{i}].{path}".rstrip(".")
        for i, arg in enumerate(args)
        for path in _tree.paths(arg)
    ]
