"""What a user hands in, as one function ``apply(params, state, *inputs)``."""

import functools
import numbers
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx

from gradstab import _tree
from gradstab._attempt import works
from gradstab.errors import UserTypeError, call_of_user
from gradstab.network.raw_keys import with_typed_keys
from gradstab.network.refusals import not_numeric, without_parameters


class Target(NamedTuple):
    """A model ready to be traced.

    Attributes:
        apply: ``apply(params, state, *inputs) -> output``.
        params: a pytree of arrays.
        state: a pytree of arrays that are neither parameters nor inputs.
        inputs: tuple of inputs.
    """

    apply: Callable[..., Any]
    params: Any
    state: Any
    inputs: tuple


def as_target(
    model: Any, args, /, *, apply_kwargs=None, batched: bool = True
) -> Target:
    """Recognise a model by its kind and split it into function and arrays.

    Args:
        model: an `nnx.Module`; a pair (linen module, variables); a callable pytree with
            array leaves, such as an Equinox module; or a function
            ``apply(params, *inputs)``.
        args: the inputs; for a function, its parameters first.
        apply_kwargs: keyword arguments of the model.
        batched: False if the model takes one example; it is then mapped over the
            leading axis of the inputs.

    Returns:
        The target. The model is used in the mode it is in (train or eval), and is not
        changed: updates of its state are dropped.

    Raises:
        TypeError: if ``model`` is none of these, or inputs are missing.
    """
    kwargs = apply_kwargs or {}
    while isinstance(model, functools.partial):
        kwargs = model.keywords | kwargs
        model, args = model.func, (*model.args, *args)
    if isinstance(model, nnx.Module):
        target = _from_nnx(model, args, kwargs)
    elif isinstance(model, tuple) and _is_linen_pair(model):
        module, variables = model
        target = _from_linen(module, variables, args, kwargs)
    elif is_linen(model):
        raise UserTypeError(
            "a linen module needs its variables: give the pair (module, variables)"
        )
    elif callable(model) and not takes_parameters(model):
        target = _from_callable_pytree(model, args, kwargs)
    elif callable(model):
        if len(args) < 2:
            raise UserTypeError(without_parameters(model))
        target = _from_function(model, args[0], args[1:], kwargs)
    else:
        raise UserTypeError(
            f"cannot analyse a {type(model).__name__}: give an nnx.Module, a pair "
            "(linen module, variables), a callable pytree, or apply and its parameters"
        )
    if not target.inputs:
        raise UserTypeError("no inputs: analyze(model, x) or analyze(apply, params, x)")
    if stranger := not_numeric(target.inputs, "inputs"):
        raise UserTypeError(stranger)
    target = with_typed_keys(target)
    return target if batched else over_examples(target)


def takes_parameters(model: Any, /) -> bool:
    """Whether a callable holds no arrays of its own: its parameters are given to it.

    A function, also compiled, partly applied, or a method of a linen module; an object
    that is no pytree. Not an `nnx.Module`, and not a pair of module and variables.
    """
    return (
        callable(model)
        and not isinstance(model, nnx.Module)
        and not is_linen(model)
        and not any(map(_is_array, jax.tree.leaves(model)))
    )


def _from_nnx(model: Any, inputs: tuple, kwargs: Mapping[str, Any]):
    graphdef, params, state = nnx.split(model, nnx.Param, ...)

    def apply(params: Any, state: Any, *inputs):
        model = nnx.merge(graphdef, params, state, copy=True)
        return call_of_user(model, *inputs, **kwargs)

    return Target(apply, params, state, tuple(inputs))


def is_linen(model: Any, /) -> bool:
    """Whether it is a module of Flax linen."""
    linen = sys.modules.get("flax.linen")
    return linen is not None and isinstance(model, linen.Module)


def _is_linen_pair(model: Any):
    return len(model) == 2 and is_linen(model[0])


def _from_linen(module, variables: Any, inputs: tuple, kwargs: Mapping[str, Any]):
    if not isinstance(variables, Mapping):
        raise UserTypeError(
            "a linen module needs its variables: give (module, module.init(key, x)), "
            f"not a {type(variables).__name__}"
        )
    if _are_params(module, variables, inputs, kwargs):
        variables = {"params": variables}
    state = {name: value for name, value in variables.items() if name != "params"}

    def apply(params: Any, state: Any, *inputs):
        variables = {"params": params, **state}
        result = call_of_user(module.apply, variables, *inputs, **kwargs)
        return result[0] if kwargs.get("mutable") else result

    return Target(apply, variables.get("params", {}), state, tuple(inputs))


def _are_params(module, variables: Any, inputs: tuple, kwargs: Mapping[str, Any]):
    """Whether the parameters alone were given, in place of the variables."""
    if "params" in variables or not variables:
        return False

    def runs(variables: Any):
        apply = functools.partial(module.apply, **kwargs)
        return works(jax.eval_shape, apply, variables, *_tree.fresh_keys(inputs))

    return not runs(variables) and runs({"params": variables})


def _from_callable_pytree(model: Any, inputs: tuple, kwargs: Mapping[str, Any]):
    params, whole = _set_apart(model, _is_array)

    def apply(params: Any, state: Any, *inputs):
        return call_of_user(whole(params), *inputs, **kwargs)

    return Target(apply, params, (), tuple(inputs))


def _from_function(
    function: Callable[..., Any], params: Any, inputs: tuple, kwargs: Mapping[str, Any]
):
    # Equinox modules hold names, flags and activations among their leaves; a number
    # beside these is an option, such as the rate of a dropout.
    plain = not callable(params) and all(map(_is_numeric, jax.tree.leaves(params)))
    params, whole = _set_apart(params, _is_numeric if plain else _is_array)

    def apply(params: Any, state: Any, *inputs):
        return call_of_user(function, whole(params), *inputs, **kwargs)

    return Target(apply, params, (), tuple(inputs))


def _set_apart(tree: Any, wanted):
    """The wanted leaves of a pytree, and the function that adds the others to them."""
    leaves, structure = jax.tree.flatten(tree)
    ours = [wanted(leaf) for leaf in leaves]
    # The pytree keeps its structure, so that parameters keep their paths.
    pairs = list(zip(leaves, ours, strict=True))
    params = structure.unflatten([leaf if own else None for leaf, own in pairs])

    def whole(params: Any):
        given = iter(jax.tree.leaves(params))
        return structure.unflatten(
            [next(given) if own else leaf for leaf, own in pairs]
        )

    return params, whole


def _is_numeric(leaf: Any):
    return _is_array(leaf) or isinstance(leaf, numbers.Number)


def over_examples(target, /) -> Target:
    """The target of a function of one example, mapped over the leading axis."""

    def apply(params: Any, state: Any, *inputs):
        axes = [jax.tree.map(_example_axis, x) for x in inputs]
        one = jax.vmap(target.apply, in_axes=(None, None, *axes))
        return one(params, state, *inputs)

    return target._replace(apply=apply)


def _example_axis(leaf: Any):
    """Where the examples lie; one key alone is that of all of them."""
    return None if _tree.is_key(leaf) and leaf.ndim == 0 else 0


def _is_array(leaf: Any):
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")
