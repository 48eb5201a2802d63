"""A loss as a program, so that equal ones share what is compiled."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstab import _compat
from gradstab.errors import UserValueError, call_of_user
from gradstab.program.canonical import key_of


class LossProgram:
    """What a loss computes of an output and its constants; equal if that is equal.

    Args:
        closed: its program; the values of the constants are not looked at.
    """

    def __init__(self, closed: Any):
        jaxpr = closed.jaxpr
        inputs = [*jaxpr.constvars, *jaxpr.invars]
        self._run = _compat.program_function(inputs, jaxpr.outvars, jaxpr.eqns)
        self._key = key_of(closed, constants=False) or object()

    def __eq__(self, other) -> bool:
        return isinstance(other, LossProgram) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __call__(self, constants, output: Any) -> jax.Array:
        """The loss, a scalar.

        Args:
            constants: arrays that the loss holds, labels for instance.
            output: what the model returns.
        """
        leaves = jax.tree.leaves(output)
        return self._run(*constants, *leaves)[0]


class Loss(NamedTuple):
    """A loss: what it computes, and the arrays that it holds.

    Attributes:
        program: to be compiled for.
        constants: to be handed in.
    """

    program: LossProgram
    constants: tuple

    def __call__(self, output: Any) -> jax.Array:
        """The loss, a scalar."""
        return self.program(self.constants, output)


def as_loss(loss: "Callable | Loss", shapes, /) -> Loss:
    """A function of the output as a program, with its constants apart.

    Args:
        loss: ``loss(output) -> scalar``.
        shapes: the output's structure, with shapes and dtypes for leaves.

    Raises:
        ValueError: it does not return one real scalar.
    """
    if isinstance(loss, Loss):
        return loss
    # A new function each time: JAX remembers those that it has traced, and a loss may
    # hold other labels by now.
    traced = jax.make_jaxpr(
        lambda output: call_of_user(loss, output), return_shape=True
    )
    closed, made = traced(shapes)
    leaves = jax.tree.leaves(made)
    if len(leaves) != 1 or leaves[0].shape != ():
        shown = made if len(leaves) != 1 else f"shape {leaves[0].shape}"
        raise UserValueError(
            f"loss(output) must return a scalar, got {shown}; take the mean or the sum "
            "over the examples"
        )
    if jnp.issubdtype(leaves[0].dtype, jnp.complexfloating):
        raise UserValueError(
            f"loss(output) must return a real number, got {leaves[0].dtype}; "
            "take the absolute value or .real"
        )
    return Loss(LossProgram(closed), tuple(closed.consts))
