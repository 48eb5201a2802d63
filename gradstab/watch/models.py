"""Models among the arguments of a loss: Flax NNX modules, and those of Equinox.

JAX differentiates with respect to pytrees of floating arrays. A model of NNX is an
object whose variables change while it runs; a model of Equinox is a pytree that holds
functions and names beside its arrays. Either is taken as its own framework takes it.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gradstab import _tree
from gradstab.errors import UserTypeError, UserValueError, call_of_user


def is_array(leaf: Any, /) -> bool:
    """Whether a leaf has a dtype and a shape."""
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")


def is_number(leaf: Any, /) -> bool:
    """Whether a leaf is an array, or a number of Python's."""
    return is_array(leaf) or isinstance(leaf, bool | int | float | complex)


class Differentiated:
    """Arguments that a loss is differentiated with respect to.

    Of arguments with a module of Equinox in them, or with any leaf that is no number,
    these are the floating arrays, as for `equinox.filter_value_and_grad`.

    Args:
        args: the arguments.

    Attributes:
        params: the leaves.

    Raises:
        TypeError: a leaf of an argument of arrays alone is not floating.
    """

    def __init__(self, args: tuple):
        leaves, self._tree = jax.tree.flatten(args)
        self._owned = [own for arg in args for own in _owned(arg)]
        self._leaves = leaves
        self.params = [x for x, own in self._pairs(leaves) if own]
        names = [n for n, own in self._pairs(_tree.paths(args)) if own]
        for name, leaf in zip(names, self.params, strict=True):
            _expect_floating(name, leaf)

    def whole(self, params) -> tuple:
        """The arguments with these arrays in place of those that were given."""
        given = iter(params)
        return self._tree.unflatten(
            [next(given) if own else x for x, own in self._pairs(self._leaves)]
        )

    def alone(self, params) -> tuple:
        """The same with None in place of what is not differentiated."""
        given = iter(params)
        return self._tree.unflatten([next(given) if o else None for o in self._owned])

    def _pairs(self, values):
        return zip(values, self._owned, strict=True)


def _owned(arg: Any) -> list[bool]:
    """For each leaf of an argument whether the loss is differentiated by it."""
    leaves = jax.tree.leaves(arg)
    if all(map(is_number, leaves)) and not _holds_equinox(arg):
        return [True] * len(leaves)
    return [is_array(leaf) and _is_floating(leaf) for leaf in leaves]


def _holds_equinox(arg: Any) -> bool:
    equinox = sys.modules.get("equinox")
    return equinox is not None and bool(_tree.nodes_of(arg, equinox.Module))


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _expect_floating(name: str, leaf: Any):
    if not _is_floating(leaf):
        name = name.partition(".")[2] or "the argument"
        raise UserTypeError(
            f"a loss is differentiated with respect to floating arrays; {name} is of "
            f"{jnp.result_type(leaf)}. Hand what is not trained in as another argument"
        )


def holds_modules(args, /) -> bool:
    """Whether there are objects of NNX among the arguments: modules, random keys."""
    return bool(_tree.nodes_of(args, nnx.Pytree))


class OfModules:
    """A loss of NNX modules as one of their variables.

    `flax.nnx.value_and_grad` is the model: the loss is differentiated with respect to
    the parameters of the modules that it is differentiated by, and what else it changes
    of any module (batch statistics, counts of random keys) is changed in that module.

    Args:
        loss_fn: the loss.
        filters: for each position that it is differentiated by, which variables.
        has_aux: whether it returns a pair.
        args: positional arguments.
        kwargs: others.

    Attributes:
        args: to call this with, and to differentiate by, in place of ``args``.

    Raises:
        TypeError: what it is differentiated by holds modules, but is none.
        ValueError: a module is handed in twice, once to be differentiated by.
    """

    def __init__(self, loss_fn, filters: dict[int, Any], has_aux: bool, args, kwargs):
        self._function, self._filters, self._has_aux = loss_fn, filters, has_aux
        self._num_args = len(args)
        given = dict(enumerate(args)) | kwargs
        modules = {i: x for i, x in given.items() if holds_modules(x)}
        _expect_modules(modules, filters)
        self._modules = modules
        self._graph, params, self._rest = self._split(tuple(modules.values()))
        chosen = [
            params.get(list(modules).index(i), nnx.State({})) if i in modules else x
            for i, x in ((i, given[i]) for i in filters)
        ]
        self._others = [i for i in given if i not in modules and i not in filters]
        self.args = (*chosen, self._rest, [given[i] for i in self._others])

    def _split(self, modules):
        def wanted(path, variable):
            position = list(self._modules)[path[0]]
            if position not in self._filters:
                return False
            chosen = nnx.filterlib.to_predicate(self._filters[position])
            return chosen(path[1:], variable)

        return nnx.split(modules, wanted, ...)

    def __call__(self, *args):
        """The loss, and beside it the auxiliary output and the changed variables."""
        *chosen, rest, others = args
        given: dict[Any, Any] = dict(zip(self._others, others, strict=True))
        given |= dict(zip(self._filters, chosen, strict=True))
        numbers = {i: number for number, i in enumerate(self._modules)}
        params = {numbers[i]: given[i] for i in self._filters if i in numbers}
        merged = nnx.merge(self._graph, nnx.State(params), rest, copy=True)
        given |= dict(zip(self._modules, merged, strict=True))
        kwargs = {i: x for i, x in given.items() if isinstance(i, str)}
        args = [given[i] for i in range(self._num_args)]
        result = call_of_user(self._function, *args, **kwargs)
        value, aux = result if self._has_aux else (result, None)
        graph, params_after, after = self._split(merged)
        _expect_same_attributes(self._graph, graph, rest, after)
        pairs = zip(jax.tree.leaves(params), jax.tree.leaves(params_after), strict=True)
        kept = all(before is now for before, now in pairs)
        return value, (aux, (after, nnx.State({}) if kept else params_after))

    def update(self, variables, /) -> None:
        """Change the modules as the loss has changed its copies of them."""
        nnx.update(tuple(self._modules.values()), *variables)


def _expect_modules(modules, filters):
    for i, wanted in filters.items():
        if i not in modules and wanted is not nnx.Param:
            raise UserTypeError(
                f"argument {i} is no NNX module, of which nnx.DiffState chooses "
                "variables"
            )
    shared = set()
    for i, x in modules.items():
        if i in filters and not isinstance(x, nnx.Pytree):
            raise UserTypeError(
                f"argument {i}, which the loss is differentiated by, holds NNX modules "
                f"and is a {type(x).__name__}: give each module as an argument"
            )
        variables = {id(v) for _, v in nnx.iter_graph(x) if isinstance(v, nnx.Variable)}
        if shared & variables:
            raise UserValueError(
                f"argument {i} shares variables with one before it: give each module "
                "once"
            )
        shared |= variables


def _expect_same_attributes(before, after, rest, left):
    same = jax.tree.structure(rest) == jax.tree.structure(left)
    if same and before != after:
        raise UserValueError(
            "the loss changes attributes of the model that are no arrays. Make them "
            "nnx.Variable, or set them outside of the loss"
        )
