"""Many initialisations of one model, with a leading axis over them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gradstab import _tree
from gradstab._checked import whole_number
from gradstab.errors import UserTypeError, UserValueError, call_of_user

# What a function of a key raises if it looks at the values of traced arrays.
_NOT_TRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def initializations(make: Callable[..., Any], key: jax.Array, num: int, /) -> Any:
    """Initialise a model many times: an ensemble, for ``analyze(..., ensemble=True)``.

    Args:
        make: ``make(key)`` returns parameters (any pytree of arrays, the variables of
            a linen module among them), an `nnx.Module` or a callable pytree (an
            Equinox module).
        key: a PRNG key; it is split into one for each initialisation.
        num: how many.

    Returns:
        What ``make`` returns, every array with a new leading axis of length ``num``:
        parameters and state alike. A module comes back as a module; it is to be given
        to `analyze`, not to be called. What is not an array is that of one call.
        Cost: one call of ``make`` with the keys mapped over; ``num`` calls if it cannot
        be traced.

    Raises:
        ValueError: if ``num`` is below one, or if all initialisations came out equal.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> key = jax.random.key(0)
        >>> def make(key):
        ...     return {"w": jax.random.normal(key, (3, 3)), "b": jnp.zeros(3)}
        >>> jax.tree.map(jnp.shape, initializations(make, key, 10))
        {'b': (10, 3), 'w': (10, 3, 3)}

        A model of Flax NNX:

        >>> from flax import nnx
        >>> def make(key):
        ...     return nnx.Linear(3, 4, rngs=nnx.Rngs(params=key))
        >>> initializations(make, key, 10).kernel.shape
        (10, 3, 4)

        And the variables of one of Flax linen, to be analysed with its module as the
        pair ``(module, variables)``:

        >>> from flax import linen
        >>> module = linen.Dense(4)
        >>> variables = initializations(
        ...     lambda key: module.init(key, jnp.ones((1, 3))), key, 10
        ... )
        >>> variables["params"]["kernel"].shape
        (10, 3, 4)
    """
    if not callable(make):
        raise UserTypeError(
            f"make must be a function make(key) -> parameters: {make!r}"
        )
    whole_number(num, "num", least=1)
    if not hasattr(key, "dtype"):
        raise UserTypeError(
            f"key must be a PRNG key, such as jax.random.key(0); got {key!r}"
        )
    parts = []

    def arrays(key: jax.Array) -> list[jax.Array]:
        found, rebuild = _taken_apart(call_of_user(make, key))
        parts.append(rebuild)
        return found

    keys = jax.random.split(key, num)
    try:
        # Not under jit: compiling the initialisers of 64 layers as one program takes
        # minutes, while mapped over the keys one by one those of one shape share one.
        found = jax.vmap(arrays)(keys)
    except _NOT_TRACEABLE:
        parts.clear()
        rows = [arrays(one) for one in keys]
        found = [jnp.stack(leaves) for leaves in zip(*rows, strict=True)]
    if num > 1 and not _differ(found):
        raise UserValueError(
            f"all {num} initialisations are equal: make(key) must draw the parameters "
            "with its key, e.g. nnx.Rngs(params=key)"
        )
    return parts[0](found)


def member(ensemble: Any, index: int | jax.Array, /) -> Any:
    """One initialisation of an ensemble: a pytree without the leading axis."""
    return jax.tree.map(lambda leaf: leaf[index], ensemble)


def ensemble_size(params: Any, state: Any = (), /) -> int:
    """How many initialisations there are.

    Args:
        params: parameters with a leading axis over initialisations.
        state: state, likewise.

    Raises:
        ValueError: if the leading axes differ in length, or there are fewer than two.
    """
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves((params, state))]
    lengths = sorted({shape[0] if shape else 0 for shape in shapes})
    if len(lengths) != 1 or lengths[0] < 2:
        raise UserValueError(
            "an ensemble needs a leading axis over at least two initialisations on "
            f"every array of parameters and state; got lengths {lengths or 'of none'}. "
            "gradstab.initializations(make, key, num) makes one"
        )
    return lengths[0]


def _taken_apart(model: Any) -> tuple[list, Callable[[list], Any]]:
    """The arrays of a model, and the function that puts others in their places."""
    if isinstance(model, nnx.Module):
        graphdef, state = nnx.split(model)
        leaves, tree = jax.tree.flatten(state)
        return leaves, lambda found: nnx.merge(graphdef, tree.unflatten(found))
    leaves, tree = jax.tree.flatten(model)
    which = [i for i, leaf in enumerate(leaves) if _is_array(leaf)]
    # Functions and numbers of a model are no arrays; traced arrays must not be kept.
    others = [None if _is_array(leaf) else leaf for leaf in leaves]

    def rebuild(found: list) -> Any:
        filled = list(others)
        for i, leaf in zip(which, found, strict=True):
            filled[i] = leaf
        return tree.unflatten(filled)

    return [leaves[i] for i in which], rebuild


def _differ(leaves: list) -> bool:
    floating = _tree.floating_leaves(leaves)
    return any(np.any(leaf != leaf[:1]) for leaf in map(np.asarray, floating))


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")
