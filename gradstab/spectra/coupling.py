"""Whether a function of a batch mixes its examples."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree
from gradstab.network import (
    ExampleBlock,
    LayerRun,
    Network,
    NetworkRun,
    agree,
    example_blocks,
)
from gradstab.network.blocks import Block, Context
from gradstab.network.foreign import can_be_traced
from gradstab.program.compiled import compiled
from gradstab.spectra.one_way import may_be_one_way


def find_examples(run: NetworkRun, single: Network | None = None, /) -> NetworkRun:
    """Take the layers of a batch apart into functions of one example.

    Where a function of one example gives the same values and products as the layer at
    the data at hand, it is used from then on; and as it knows nothing of the others,
    the layer does not mix examples. Elsewhere `mixes_examples` says whether it does.

    Args:
        run: from `propagate`.
        single: from `find_layers` for the first example only; without it no function
            is found.

    Returns:
        The run, with functions of one example and couplings. A layer into which no data
        enter, or in which examples do not lie on the leading axis, is not looked at: it
        counts as one that does not mix them. Cost: two products for every layer, by one
        compiled program for every block; see `mixes_examples` for layers without a
        function.
    """
    pairs = example_blocks(run.network, single)
    candidates = [pairs[layer.place.block] for layer in run.layers]
    agreeing = [
        pair is not None and _agrees(layer, pair, number)
        for number, (layer, pair) in enumerate(zip(run.layers, candidates, strict=True))
    ]
    examples = tuple(
        pair if same else None
        for pair, same in zip(candidates, map(bool, agreeing), strict=True)
    )
    run = dataclasses.replace(run, examples=examples)
    coupled = [_is_to_look_at(layer) and _mixes(layer) for layer in run.layers]
    return dataclasses.replace(run, coupled=tuple(map(bool, coupled)))


def _is_to_look_at(layer: LayerRun):
    """Whether the layer can mix examples, for all that is known of it."""
    return bool(
        layer.example is None and layer.function.in_vars and layer.leads_with_examples
    )


def _mixes(layer: LayerRun):
    return compiled(layer.function, _couples)(layer.context, layer.data)


def _agrees(layer: LayerRun, pair: ExampleBlock, number: int):
    """Whether the function of one example does what the layer does."""
    arrays = layer.context, layer.data, np.uint32(number)
    program = compiled(pair, _agree, layer.function)
    if may_be_one_way(layer.function) and not can_be_traced(program, *arrays):
        return False  # foreign code that takes the batch as it is
    return program(*arrays)


def _agree(pair, block: Block, context: Context, data: Sequence[jax.Array], number):
    return agree(block, pair, context, data, number)


def _couples(block: Block, context: Context, data: Sequence[jax.Array]):
    return mixes_examples(functools.partial(block, context), data)


def mixes_examples(function: Callable[..., Any], data: Sequence[jax.Array], /):
    """Whether one example's output depends on another example's input.

    Half of the examples are replaced by something else; if the outputs of the others
    do not stay the same to the last bit, they depend on it. This is done with halves
    that part every pair of examples: those in whose number one binary digit is set, and
    those in which it is not. Nothing is assumed of the function, and no tolerance is
    involved: an uncoupled program computes each example by the same operations as
    before.

    Args:
        function: takes the arrays of ``data``; examples lead every array.
        data: tuple of arrays, ``(examples, ...)``.

    Returns:
        A boolean scalar. Cost: an evaluation and two for every binary digit of the
        number of examples. Survives jit.
    """
    num = data[0].shape[0]
    if num < 2:
        return jnp.array(False)
    digits = 1 << np.arange(int(num - 1).bit_length())
    halves = (np.arange(num)[None] & digits[:, None]) == 0
    others = [_changed(array) for array in data]

    def compare(out, mask: jax.Array):
        choose = _choose(mask)
        moved = function(*map(choose, data, others))
        out = jnp.where(jnp.all(mask), moved, out)
        same = (moved == out) | ((moved != moved) & (out != out))
        return out, ~jnp.all(choose(same, jnp.ones_like(same)))

    # The unchanged batch goes first and through the same loop: compiled elsewhere, the
    # same operations may be fused otherwise and round otherwise.
    whole = np.ones((1, num), bool)
    masks = jnp.asarray(np.concatenate([whole, halves, ~halves]))
    shape = jax.eval_shape(function, *data)
    _, differs = jax.lax.scan(compare, jnp.zeros(shape.shape, shape.dtype), masks)
    return jnp.any(differs)


def _changed(array):
    """The array with other examples: each one's neighbour, shifted and enlarged.

    A neighbour alone would not do: in a dead or collapsed network examples are equal.
    """
    finite = jnp.where(jnp.isfinite(array), array, 0)
    shift = jnp.max(jnp.abs(finite), initial=0).astype(array.dtype) + 1
    # Turned by half a right angle, so that both parts of a complex number change.
    shift = shift * (1 + 1j) if _tree.is_complex(array) else shift
    return 1.25 * jnp.roll(finite, 1, axis=0) + shift


def _choose(mask: jax.Array):
    """Takes the examples of a mask of one array and the remaining ones of another."""
    return lambda one, other: jnp.where(
        mask.reshape(-1, *[1] * (one.ndim - 1)), one, other
    )
