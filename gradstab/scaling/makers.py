"""What users make at a size, as a function and its parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import nnx

from gradstab import _tree
from gradstab.errors import UserTypeError, call_of_user
from gradstab.network.adapters import Target, as_target
from gradstab.network.trained import trained_only


def made_by(make: Callable[..., Any], size: int, key: jax.Array, /) -> Any:
    """What ``make(size, key)`` gives.

    Raises:
        TypeError: ``make`` cannot be called so.
    """
    if not callable(make):
        raise UserTypeError(
            "make must be a function: make(width, key) -> model, or (apply, params); "
            f"got a {type(make).__name__}"
        )
    return call_of_user(make, size, key)


def target_of(made: Any, inputs: tuple, /, *, batched: bool = True) -> Target:
    """The function and the trained parameters of what was made.

    Args:
        made: a model as for `gradstab.analyze`, or a pair ``(apply, params)``.
        inputs: tuple of inputs.
        batched: False if the model takes one example.
    """
    model, args = (made[0], (made[1], *inputs)) if is_pair(made) else (made, inputs)
    target = as_target(model, args, batched=batched)
    return trained_only(target, model)[0]


def is_pair(made: Any, /) -> bool:
    """Whether it is ``(apply, params)``; a linen module with its variables is not."""
    return isinstance(made, tuple) and len(made) == 2 and _is_function(made[0])


def _is_function(model: Any) -> bool:
    linen = type(model).__module__.startswith("flax.linen") or any(
        base.__module__.startswith("flax.linen") for base in type(model).__mro__
    )
    return callable(model) and not isinstance(model, nnx.Module) and not linen


def params_of(made: Any, /) -> Any:
    """The trained parameters of what was made, as a pytree of arrays.

    Raises:
        TypeError: it holds no arrays.
    """
    if is_pair(made):
        return _floating(made[1])
    if isinstance(made, nnx.Module):
        return nnx.state(made, nnx.Param)
    if isinstance(made, tuple) and len(made) == 2:  # linen: module and variables
        variables = made[1]
        return _floating(variables.get("params", variables))
    if not any(map(_tree.is_floating, jax.tree.leaves(made))):
        raise UserTypeError(
            f"a {type(made).__name__} holds no arrays: make(width, key) must return a "
            "model, (apply, params) or (linen module, variables)"
        )
    return _floating(made)


def _floating(tree: Any) -> Any:
    return jax.tree.map(lambda x: x if is_trained(x) else None, tree)


def is_trained(leaf: Any, /) -> bool:
    """Whether a leaf is a floating array."""
    return hasattr(leaf, "shape") and _tree.is_floating(leaf)


def names_of(params: Any, /) -> list[str]:
    """The dotted path of every parameter, without the collection of Flax linen."""
    names = _tree.paths(params, is_leaf=_is_variable)
    return [name.removeprefix("params.") for name in names]


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable) and len(jax.tree.leaves(node)) == 1


def shapes_of(params: Any, /) -> list[tuple[int, ...]]:
    """The shape of every parameter."""
    return [leaf.shape for leaf in jax.tree.leaves(params)]


def ratios(shape: Sequence[int], base: Sequence[int], /) -> list[float]:
    """By how much each axis is longer than that of the base.

    >>> ratios((3, 128), (3, 64))
    [1.0, 2.0]
    """
    return [long / max(short, 1) for long, short in zip(shape, base, strict=True)]
