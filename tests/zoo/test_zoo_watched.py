"""Watching the gradients of a model changes no bit of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from apart import ZOO

import gradstab as gs

BARE = [
    pytest.param(entry, id=entry.name, marks=pytest.mark.slow)
    for entry in ZOO
    if entry.framework == "functions" and not entry.forward
]


def _loss_of(entry):
    """The mean square of what a function of parameters and inputs returns."""
    apply, args, options = entry.make()
    one = options.get("batched", True)
    select, more = options.get("output", lambda out: out), options.get("apply_kwargs")

    def loss(params, *inputs):
        def run(*inputs):
            return select(apply(params, *inputs, **(more or {})))

        out = run(*inputs) if one else jax.vmap(run)(*inputs)
        return jnp.mean(jnp.square(jnp.abs(out)))

    return loss, args


@pytest.mark.parametrize("entry", BARE)
def test_value_and_gradients_are_bitwise_those_without_watching(entry):
    loss, (params, *inputs) = _loss_of(entry)
    ours, slopes = jax.jit(gs.value_and_grad(loss))(params, *inputs)
    other, known = jax.jit(jax.value_and_grad(loss))(params, *inputs)
    pairs = zip(
        jax.tree.leaves((ours[0], slopes)), jax.tree.leaves((other, known)), strict=True
    )
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
    assert len(ours[1].names) > 1
