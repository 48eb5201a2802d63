"""Watching the gradients of a model changes no bit of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from apart import ZOO, arithmetic

import gradstab as gs
from gradstab import _tree
from gradstab.network.adapters import as_target

ENTRIES = [
    pytest.param(entry, id=entry.name, marks=pytest.mark.slow)
    for entry in ZOO
    if not entry.forward and entry.framework != "public"
]
# One of each framework, and of each structure that a transformation may meet.
SAMPLE = (
    "nnx.sequential",
    "linen.dense",
    "haiku.mlp",
    "equinox.mlp",
    "functions.scan_over_rematerialised_layers",
)


def _loss_of(entry):
    """The mean square of what a model returns, and its parameters and other arrays."""
    handed = entry.make()
    options = dict(handed.options)
    options.pop("boundaries", None)
    select = options.pop("output", lambda out: out)
    apply, params, state, inputs = as_target(handed.model, handed.args, **options)

    def loss(params, state, *inputs):
        out = select(apply(params, state, *_tree.fresh_keys(inputs)))
        found = [jnp.mean(jnp.square(jnp.abs(x))) for x in _tree.floating_leaves(out)]
        return sum(found)

    return loss, (params, state, *inputs)


def _same(ours, others):
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(others), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


@pytest.mark.parametrize("entry", ENTRIES)
def test_value_and_gradients_are_bitwise_those_without_watching(entry):
    with arithmetic(entry):
        loss, args = _loss_of(entry)
        ours, slopes = jax.jit(gs.value_and_grad(loss))(*_tree.fresh_keys(args))
        known = jax.jit(jax.value_and_grad(loss))(*_tree.fresh_keys(args))
    assert _same((ours[0], slopes), known)
    assert len(ours[1].names) > 1


def _mapped(differentiated):
    """Of every example by itself."""

    def run(params, state, x):
        return jax.vmap(lambda one: differentiated(params, state, one[None]))(x)

    return run


def _rematerialised(differentiated):
    return jax.checkpoint(differentiated)


def _descending(differentiated):
    """Three steps of gradient descent in a scan."""

    def run(params, state, x):
        def step(params, _):
            value, grads = differentiated(params, state, x)
            moved = jax.tree.map(lambda w, g: w - w.dtype.type(0.1) * g, params, grads)
            return moved, (value, grads)

        return jax.lax.scan(step, params, None, length=3)

    return run


def _accumulated(differentiated):
    """The gradients of examples one after the other, added up."""

    def run(params, state, x):
        def part(total, one):
            value, grads = differentiated(params, state, one[None])
            return jax.tree.map(jnp.add, total, grads), value

        return jax.lax.scan(part, jax.tree.map(jnp.zeros_like, params), x)

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "around",
    [_mapped, _rematerialised, _descending, _accumulated],
    ids=lambda around: around.__name__[1:],
)
@pytest.mark.parametrize("name", SAMPLE)
def test_they_are_within_a_transformation_too(name, around):
    (entry,) = (entry for entry in ZOO if entry.name == name)
    with arithmetic(entry):
        loss, (params, state, x) = _loss_of(entry)

        def watched(*args):
            (value, _), grads = gs.value_and_grad(loss)(*args)
            return value, grads

        ours, others = (
            jax.jit(around(function))(params, state, x)
            for function in (watched, jax.value_and_grad(loss))
        )
    assert _same(ours, others)
