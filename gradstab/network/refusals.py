"""What to say of what cannot be analysed as it was given: the leaf, and the way."""

import collections
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from gradstab import _tree


def without_parameters(model: Any, /) -> str:
    """Why a callable that holds no arrays needs more than inputs, and what to write."""
    kind = type(model).__name__
    name = getattr(model, "__name__", kind)
    if hasattr(model, "module") and hasattr(model, "params"):
        return (
            f"a {kind} is no pytree of arrays: give the pair "
            '(model.module, {"params": model.params})'
        )
    if hasattr(model, "stateless_call"):
        return (
            f"a {kind} is no pytree of arrays: give lambda v, x: model.stateless_call("
            "v, model.non_trainable_variables, x)[0] and the values of "
            "model.trainable_variables as its parameters"
        )
    wrapped = getattr(model, "__wrapped__", None)
    if wrapped is not None and any(map(_is_array, jax.tree.leaves(wrapped))):
        return (
            f"{name} hides the arrays of a {type(wrapped).__name__}: give the module "
            "itself, with batched=False if it takes one example"
        )
    return (
        f"no inputs: {name} holds no arrays that can be seen, so it is taken for "
        "apply(params, *inputs). Give analyze(apply, params, x); parameters that it "
        "closes over become its first argument, and a module under jit or vmap is "
        "given itself, with batched=False if it takes one example"
    )


def not_numeric(tree: Any, name: str, /) -> str:
    """Which leaf of a pytree is no array of numbers and no key; empty if all are."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    for path, leaf in flat:
        kind = getattr(getattr(leaf, "dtype", None), "kind", None)
        plain = not hasattr(leaf, "dtype") and not isinstance(leaf, numbers.Number)
        if plain or kind in tuple("OSUMm"):
            what = type(leaf).__name__ if plain else f"an array of kind {kind!r}"
            place = f"{name}{jax.tree_util.keystr(path)}"
            return f"{place} is {what}: give arrays of numbers"
    return ""


def without_examples(inputs: tuple, /) -> str:
    """Which leaves of the inputs do not have the examples on their leading axis."""
    flat, _ = jax.tree_util.tree_flatten_with_path(inputs)
    rows = [
        (f"inputs{jax.tree_util.keystr(path)}", jnp.shape(leaf))
        for path, leaf in flat
        if not _tree.is_key(leaf)
    ]
    shapes = ", ".join(f"{shape} of {name}" for name, shape in rows) or "of nothing"
    head = (
        "every input must have the examples, at least one, on its leading axis; got "
        f"shapes {shapes}."
    )
    lengths = collections.Counter(shape[0] for _, shape in rows if shape)
    if not lengths:
        return f"{head} Options of a model go in apply_kwargs="
    usual = lengths.most_common(1)[0][0]
    odd = [name for name, shape in rows if shape[:1] != (usual,)]
    return (
        f"{head} Options of a model go in apply_kwargs=; what has no examples (here "
        f"{', '.join(odd) or rows[0][0]}: the structure of a graph, a state, a table) "
        "is closed over: lambda params, x: apply(params, x, other)"
    )


def _is_array(leaf: Any):
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")
