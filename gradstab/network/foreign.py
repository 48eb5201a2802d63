"""Rules and foreign code that cannot be traced in every way; internal.

A rule for the reverse mode has no forward direction, and its backward pass need not
have a transpose; a call of foreign code may take its arrays only as they are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from gradstab import _compat
from gradstab._attempt import works
from gradstab.program.primitives import Kind, names

_FOREIGN = names(Kind.FOREIGN)


def limited(eqn: _compat.JaxprEqn, /) -> bool:
    """Whether an equation may lack a forward direction, or mapping."""
    return _compat.backward_only(eqn) or _compat.contains(eqn, _FOREIGN)


def can_be_traced(function: Callable[..., Any], /, *arguments) -> bool:
    """Whether a function, of rules that a user wrote, can be traced."""
    return works(jax.eval_shape, function, *arguments)


def over_leading(
    eqns: Sequence[_compat.JaxprEqn], function: Callable[..., Any], /, in_axes: Any = 0
):
    """The function mapped over a leading axis, one by one if it cannot be otherwise.

    Args:
        eqns: the equations that it evaluates.
        function: takes arrays, or pytrees of them.
        in_axes: as of `jax.vmap`; None for what is not mapped over.
    """
    mapped = jax.vmap(function, in_axes=in_axes)
    if not any(map(limited, eqns)):
        return mapped

    def over(*arguments):
        if can_be_traced(mapped, *arguments):
            return mapped(*arguments)
        axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(arguments)
        return _one_by_one(function, axes, arguments)

    return over


def _one_by_one(function: Callable[..., Any], axes, arguments):
    leaves, tree = jax.tree.flatten(arguments)
    axes = jax.tree.leaves(
        jax.tree.map(
            lambda axis, part: jax.tree.map(lambda _: -1 if axis is None else 0, part),
            *(axes, arguments),
            is_leaf=lambda x: x is None,
        )
    )
    moving = [leaf for leaf, axis in zip(leaves, axes, strict=True) if axis == 0]

    def one(rows):
        rows = iter(rows)
        values = [
            next(rows) if axis == 0 else leaf
            for leaf, axis in zip(leaves, axes, strict=True)
        ]
        return function(*tree.unflatten(values))

    return jax.lax.map(one, moving)
