"""Arguments that all clippers share: thresholds, and names of parameters."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.tree_util import GetAttrKey, keystr

from gradstab.errors import UserTypeError, UserValueError


def check_number(
    name: str, value: Any, /, low: float = 0.0, high: float = math.inf
) -> None:
    """Raise unless the value is a scalar in the closed range; traced ones pass."""
    if callable(value):
        raise UserTypeError(
            f"{name} is a function; to schedule it, write "
            f"optax.inject_hyperparams(...)({name}=schedule)."
        )
    if value is None or isinstance(value, str):
        raise UserValueError(f"{name} must be a number, got {value!r}.")
    if jnp.ndim(value) != 0:
        raise UserValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}.")
    if isinstance(value, Tracer):
        return
    try:
        size = float(value)
    except (TypeError, ValueError) as error:
        raise UserValueError(f"{name} must be a number, got {value!r}.") from error
    if not low <= size <= high:
        raise UserValueError(f"{name} must be in [{low:g}, {high:g}], got {value}.")


def check_count(name: str, value: Any, /, low: int = 1) -> None:
    """Raise unless the value is a Python or NumPy integer of at least ``low``."""
    if isinstance(value, jax.Array):
        raise UserValueError(
            f"{name} is a size and cannot be traced; with optax.inject_hyperparams, "
            f"pass static_args=('{name}',)."
        )
    if isinstance(value, bool) or value != int(value) or value < low:
        raise UserValueError(f"{name} must be a whole number >= {low}, got {value}.")


def named_leaves(tree: Any, /) -> list[tuple[str, str]]:
    """The dotted name of every leaf's layer and of the leaf, as in `jax.tree.leaves`.

    The ``value`` inside an NNX variable is no part of the name.

    >>> named_leaves({"blocks": [{"bias": 0, "kernel": 1}], "scale": 2})
    [('blocks.0', 'blocks.0.bias'), ('blocks.0', 'blocks.0.kernel'), ('', 'scale')]
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    paths = [_without_variable(path) for path, _ in flat]
    return [(_dotted(path[:-1]), _dotted(path)) for path in paths]


def matcher(pattern: str | Callable[[str], bool] | None, /) -> Callable[[str], bool]:
    """A predicate over dotted names, from itself, a regular expression or nothing."""
    if pattern is None:
        return lambda name: False
    if callable(pattern):
        return pattern
    return lambda name: re.search(pattern, name) is not None


def find_stacked(pattern, names, leaves: Sequence[Any], /) -> list[bool]:
    """Which leaves are stacked; raises if none is though some were expected."""
    found = [matcher(pattern)(name) for name in names]
    if pattern is not None and names and not any(found):
        raise UserValueError(
            f"stacked={pattern!r} matches no parameter; there are: {', '.join(names)}."
        )
    for name, leaf, is_stacked in zip(names, leaves, found, strict=True):
        if is_stacked and jnp.ndim(leaf) == 0:
            raise UserValueError(f"{name} is a scalar, so it cannot be stacked.")
    return found


def _without_variable(path):
    is_value = bool(path) and path[-1] == GetAttrKey("value")
    return path[:-1] if is_value else path


def _dotted(path) -> str:
    return keystr(path, simple=True, separator=".")
