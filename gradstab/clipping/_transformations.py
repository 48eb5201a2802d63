"""Optax transformations without state, and maps over updates and parameters."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from gradstab.clipping._arguments import named_leaves
from gradstab.errors import UserValueError


def stateless(transform, /) -> optax.GradientTransformationExtraArgs:
    """A transformation from a function of updates and parameters."""
    return optax.with_extra_args_support(optax.stateless(transform))


def map_with_params(
    function: Callable[..., Any], name: str, updates: Any, params: Any, /
):
    """Map ``function(path, update, parameter)`` over those that have an update.

    Args:
        function: of the dotted path, the update and the parameter.
        name: of the transformation, for the error.
        updates: may have None where the parameters have an array.
        params: None raises an error.
    """
    if params is None:
        raise UserValueError(
            f"{name} needs the parameters: call update(updates, state, params)."
        )
    paths = [path for _, path in named_leaves(updates)]
    names = jax.tree.unflatten(jax.tree.structure(updates), paths)

    def one(update, param: jax.Array, path):
        return None if update is None else function(path, update, param)

    return jax.tree.map(one, updates, params, names, is_leaf=lambda x: x is None)
