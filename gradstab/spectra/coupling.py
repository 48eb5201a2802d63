"""Whether a function of a batch mixes its examples."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree
from gradstab.network import (
    ExampleBlock,
    agree,
    example_blocks,
    layer_slice,
)
from gradstab.network.foreign import can_be_traced
from gradstab.program.compiled import compiled
from gradstab.spectra.one_way import may_be_one_way


class ExampleFunctions(NamedTuple):
    """What is known of the examples of every layer, in depth order.

    Attributes:
        functions: the function of one example, where there is one that agrees with the
            layer; else None.
        coupled: whether the layer mixes examples; None if nobody looked.
    """

    functions: tuple[ExampleBlock | None, ...]
    coupled: tuple[bool | None, ...]


def example_functions(network, flow, single=None, /) -> ExampleFunctions:
    """Take the layers of a batch apart into functions of one example.

    Where a function of one example gives the same values and products as the layer at
    the data at hand, it is used from then on; and as it knows nothing of the others,
    the layer does not mix examples. Elsewhere `mixes_examples` says whether it does.

    Args:
        network: from `find_layers`.
        flow: from `propagate`.
        single: from `find_layers` for the first example only; without it no function
            is found.

    Returns:
        Functions and couplings. Cost: two products for every layer, by one compiled
        program for every block; see `mixes_examples` for layers without a function.
    """
    pairs = example_blocks(network, single)
    agreeing = [
        pairs[place.block] is not None and _agrees(network, flow, pairs, number, place)
        for number, place in enumerate(network.layers)
    ]
    functions = tuple(
        pairs[place.block] if same else None
        for place, same in zip(network.layers, map(bool, agreeing), strict=True)
    )
    known = [function is not None for function in functions]
    return ExampleFunctions(functions, _coupled(network, flow, known))


def coupled_layers(network, flow, /) -> tuple[bool, ...]:
    """Which layers mix examples, in depth order; see `mixes_examples`.

    Layers into which no data enter, or in which examples do not lie on the leading
    axis, are not looked at: False.

    Args:
        network: from `find_layers`.
        flow: from `propagate`.

    Returns:
        A boolean per layer. Cost: see `mixes_examples`, in one program for every block.
    """
    return _coupled(network, flow, [False] * len(network.layers))


def leads_with_examples(network, place, /) -> bool:
    """Whether examples lie on the leading axis of all data of a layer."""
    shapes = (*place.in_shapes, place.out_shape)
    return all(shape[:1] == (network.num_examples,) for shape in shapes)


def _coupled(network, flow, known):
    """Whether layers mix examples; of those that are known it is known not."""
    found = []
    for place, apart in zip(network.layers, known, strict=True):
        block = network.blocks[place.block]
        look = not apart and block.in_vars and leads_with_examples(network, place)
        found.append(look and compiled(block, _couples)(*_at(flow, place)))
    return tuple(map(bool, found))


def _at(flow, place):
    replay = flow.replay
    return layer_slice(replay.contexts, place), layer_slice(replay.entering, place)


def _agrees(network, flow, pairs, number, place):
    pair, block = pairs[place.block], network.blocks[place.block]
    arrays = (*_at(flow, place), np.uint32(number))
    run = compiled(pair, _agree, block)
    if may_be_one_way(block) and not can_be_traced(run, *arrays):
        return False  # foreign code that takes the batch as it is
    return run(*arrays)


def _agree(pair, block, context, data, number):
    key = jax.random.fold_in(jax.random.key(0), number)
    return agree(block, pair, context, data, key)


def _couples(block, context, data):
    return mixes_examples(functools.partial(block, context), data)


def mixes_examples(function, data, /):
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

    def compare(out, kept):
        choose = _choose(kept)
        moved = function(*map(choose, data, others))
        out = jnp.where(jnp.all(kept), moved, out)
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


def _choose(kept):
    """Takes the kept examples of one array and the remaining ones of another."""
    return lambda one, other: jnp.where(
        kept.reshape(-1, *[1] * (one.ndim - 1)), one, other
    )
