"""A loss of anybody's model as a function of a pytree of arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx

from gradstab.errors import UserTypeError, UserValueError, call_of_user
from gradstab.watch.differentiating import expect_scalar, pair_of
from gradstab.watch.models import Differentiated, holds_modules


class PureLoss(NamedTuple):
    """A loss without an object in it.

    Attributes:
        tree: the parameters as a pytree of arrays, by whose paths they are named.
        loss: ``loss(tree, *batch)``, a real scalar.
    """

    tree: Any
    loss: Callable


def pure_loss(loss_fn: Callable, params: Any, has_aux: bool = False, /) -> PureLoss:
    """A loss of NNX or Equinox modules, or of arrays, as one of arrays.

    What the loss changes in a module of NNX (batch statistics) is not changed there.

    Args:
        loss_fn: ``loss_fn(params, *batch)``.
        params: a pytree of arrays, an `flax.nnx.Module`, or an Equinox module.
        has_aux: whether the loss returns a pair of itself and anything else.

    Raises:
        TypeError: the loss is no function, its value no real scalar, or the parameters
            hold NNX modules and are none.
        ValueError: there are no parameters.
    """
    if not callable(loss_fn):
        raise UserTypeError(f"a loss must be a function, got {loss_fn!r}")
    whole = _identity
    if isinstance(params, nnx.Module):
        graph, own, rest = nnx.split(params, nnx.Param, ...)
        params = nnx.to_pure_dict(own)

        def whole(tree):
            return nnx.merge(graph, tree, rest, copy=True)

    elif holds_modules(params):
        raise UserTypeError(
            f"the parameters hold NNX modules and are a {type(params).__name__}: give "
            "one module, or a pytree of arrays"
        )
    given = Differentiated((params,))
    (tree,) = given.alone(given.params)
    if not given.params:
        raise UserValueError("there are no parameters: no floating arrays")

    def loss(tree, *batch):
        (params,) = given.whole(jax.tree.leaves(tree))
        result = call_of_user(loss_fn, whole(params), *batch)
        value = pair_of(result)[0] if has_aux else result
        expect_scalar(value)
        return value

    return PureLoss(tree, loss)


def _identity(tree):
    return tree
