"""PRNG keys of the old style: arrays of integers that only their use makes keys."""

from typing import Any

import jax
import jax.numpy as jnp

from gradstab import _tree


def with_typed_keys(target, /):
    """The target with typed keys in the place of raw ones among its inputs.

    A raw key is ``uint32`` of the shape of `jax.random.PRNGKey`: (2,) unless another
    generator is the default. Two examples of one integer each of this dtype are taken
    for a key. Keys of examples, (examples, 2), are integers like others.

    Args:
        target: a `gradstab.network.adapters.Target`.

    Returns:
        A target whose function gives the model what it was given.
    """
    raw = jax.tree.map(_is_raw_key, target.inputs)
    if not any(jax.tree.leaves(raw)):
        return target

    def apply(params: Any, state: Any, *inputs):
        given = jax.tree.map(_as_raw, raw, inputs)
        return target.apply(params, state, *given)

    inputs = jax.tree.map(_as_typed, raw, target.inputs)
    return target._replace(apply=apply, inputs=inputs)


def _is_raw_key(leaf: Any):
    if _tree.is_key(leaf) or jnp.result_type(leaf) != jnp.uint32:
        return False
    return jnp.shape(leaf) == _shape()


def _shape():
    data = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)))
    return data.shape


def _as_typed(raw, leaf: Any):
    return jax.random.wrap_key_data(jnp.asarray(leaf)) if raw else leaf


def _as_raw(raw, leaf: Any):
    return jax.random.key_data(leaf) if raw else leaf
