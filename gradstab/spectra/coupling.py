"""Whether a function of a batch mixes its examples."""

import jax.numpy as jnp


def mixes_examples(function, data, /):
    """Whether one example's output depends on another example's input.

    Every second example is replaced by its neighbour; if the outputs of the others do
    not stay the same to the last bit, they depend on it. The same is done with the
    halves exchanged. Nothing is assumed of the function, and no tolerance is involved:
    an uncoupled program computes each example by the same operations as before.

    Args:
        function: takes the arrays of ``data``; examples lead every array.
        data: tuple of arrays, ``(examples, ...)``.

    Returns:
        A boolean scalar. Cost: three evaluations. Survives jit.
    """
    num = data[0].shape[0]
    if num < 2:
        return jnp.array(False)
    even = jnp.arange(num) % 2 == 0
    partner = jnp.where(even, jnp.arange(num) + 1, jnp.arange(num) - 1) % num
    out = function(*data)
    differs = jnp.array(False)
    for kept in (even, ~even):
        index = jnp.where(kept, jnp.arange(num), partner)
        moved = function(*(array[index] for array in data))
        same = (moved == out) | ((moved != moved) & (out != out))
        mask = kept.reshape(-1, *[1] * (out.ndim - 1))
        differs |= jnp.any(mask & ~same)
    return differs
