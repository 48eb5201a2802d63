"""What users make at a size, as a function and its parameters."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from gradstab import _tree
from gradstab.errors import UserTypeError, call_of_user
from gradstab.network.adapters import (
    Target,
    as_target,
    is_linen,
    takes_parameters,
)
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
    _expect_two_arguments(make, size, key)
    return call_of_user(make, size, key)


def _expect_two_arguments(make: Callable[..., Any], size: int, key: Any) -> None:
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # of a function that is not written in Python
        return
    try:
        signature.bind(size, key)
    except TypeError as error:
        raise UserTypeError(
            f"make is called as make(width, key), and takes {signature}: {error}"
        ) from None


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
    return isinstance(made, tuple) and len(made) == 2 and takes_parameters(made[0])


def is_linen_pair(made: Any, /) -> bool:
    """Whether it is a linen module with its variables."""
    return isinstance(made, tuple) and len(made) == 2 and is_linen(made[0])


def is_output_first(made: Any, /) -> bool:
    """Whether kernels are those of Equinox: (output, input)."""
    equinox = sys.modules.get("equinox")
    if equinox is None or isinstance(made, nnx.Module):
        return False
    tree = made[1] if is_pair(made) else made
    return bool(_tree.nodes_of(tree, equinox.Module))


def params_of(made: Any, /) -> Any:
    """The trained parameters of what was made, as a pytree of arrays.

    Raises:
        TypeError: it holds no arrays, or is no model.
    """
    if isinstance(made, nnx.Module):
        return nnx.state(made, nnx.Param)
    if is_pair(made):
        tree = made[1]
    elif is_linen_pair(made):
        tree = made[1].get("params", made[1]) if isinstance(made[1], Mapping) else None
    else:
        tree = made
    if isinstance(tree, tuple) and tree is made:
        kinds = ", ".join(type(one).__name__ for one in made)
        raise UserTypeError(f"{_RETURN}; it returned a tuple ({kinds})")
    if not any(map(is_trained, jax.tree.leaves(tree))):
        raise UserTypeError(f"{_RETURN}; a {type(made).__name__} holds no arrays")
    return _floating(tree)


_RETURN = (
    "make(width, key) must return a model, a pair (apply, params), or a pair (linen "
    "module, variables)"
)


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
