"""Which of the arrays that a model holds are trained.

A parameter is a real or complex floating array that an optimiser would move. Masks,
index tables and keys are none, by their dtype; running statistics are none, by where
they stand: in another collection of Flax linen than ``params``, in a `nnx.Variable`
that is no `nnx.Param`, in a wrapper called ``NonTrainable``.
"""

import collections
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from gradstab import _tree
from gradstab.network.adapters import Target, is_linen

# Collections of Flax linen, and of models made with it, that no optimiser moves.
_COLLECTIONS = frozenset(
    {
        *("batch_stats", "buffers", "cache", "constants", "intermediates", "losses"),
        *("metrics", "params_axes", "perturbations", "state", "stats"),
    }
)


def trained_only(target: Target, model: Any, /) -> tuple[Target, tuple[str, ...]]:
    """The target with all that is not trained among its state.

    Args:
        target: from `as_target`.
        model: what the user handed in.

    Returns:
        ``(target, notes)``; the notes say what is no parameter, empty if all is. The
        parameters keep their paths.
    """
    leaves, tree = jax.tree.flatten(target.params)
    places = _tree.paths(target.params, is_leaf=_is_single)
    fixed = _fixed(target.params, model)
    trained = [
        not fix and _tree.is_floating(leaf)
        for leaf, fix in zip(leaves, fixed, strict=True)
    ]
    if all(trained):
        return target, ()
    pairs = list(zip(leaves, trained, strict=True))
    params = tree.unflatten([leaf if own else None for leaf, own in pairs])
    rest = [leaf for leaf, own in pairs if not own]

    def apply(params: Any, state: Any, *inputs):
        state, rest = state
        ours, others = iter(jax.tree.leaves(params)), iter(rest)
        whole = [next(ours if own else others) for own in trained]
        return target.apply(tree.unflatten(whole), state, *inputs)

    kinds = [
        _kind(place, leaf, fix)
        for place, (leaf, own), fix in zip(places, pairs, fixed, strict=True)
        if not own
    ]
    listed = ", ".join(f"{n} {kind}" for kind, n in collections.Counter(kinds).items())
    state = target.state, rest
    note = f"arrays that count as no parameters: {listed}"
    return Target(apply, params, state, target.inputs), (note,)


def _fixed(params: Any, model: Any):
    """For every leaf whether it stands where no parameter is."""
    if isinstance(params, Mapping) and "params" in params:
        owner = getattr(model, "__self__", None)
        others = set(params) - {"params"}
        if is_linen(owner) or others <= _COLLECTIONS:
            parts = {
                name: jax.tree.map(lambda _: True, params[name]) for name in others
            }
            parts["params"] = _by_wrapper(params["params"])
            return jax.tree.leaves(parts)
    return jax.tree.leaves(_by_wrapper(params))


def _by_wrapper(tree: Any):
    """The tree with a boolean for every leaf: whether a wrapper says it is fixed."""

    def inside(node):
        fixed = _is_fixed(node)
        return [fixed for _ in jax.tree.leaves(node)]

    nodes = jax.tree.leaves(tree, is_leaf=_is_wrapper)
    return [inside(node) for node in nodes]


def _is_wrapper(node):
    return isinstance(node, nnx.Variable) or type(node).__name__ == "NonTrainable"


def _is_fixed(node):
    return _is_wrapper(node) and not isinstance(node, nnx.Param)


def _is_single(node):
    # A Variable of Flax NNX is a node with an attribute, and no name, for its array.
    return isinstance(node, nnx.Variable) and len(jax.tree.leaves(node)) == 1


def _kind(place, leaf: Any, fixed):
    """What to call an array that is not trained."""
    if not fixed:
        return f"of {jax.numpy.result_type(leaf)}"
    first = place.partition(".")[0]
    return f"in {first}" if first in _COLLECTIONS else "of running state"
