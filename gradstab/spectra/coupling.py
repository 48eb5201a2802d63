"""Whether a function of a batch mixes its examples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.network import Context, compiled, layer_slice


def coupled_layers(network, flow, /) -> tuple[bool, ...]:
    """Which layers mix examples, in depth order; see `mixes_examples`.

    Layers into which no data enter, or in which examples do not lie on the leading
    axis, are not looked at: False.

    Args:
        network: from `find_layers`.
        flow: from `propagate`.

    Returns:
        A boolean per layer. Cost: see `mixes_examples`, of all layers in one program.
    """
    replay = flow.replay
    found = compiled(network, _couples)(replay.contexts, replay.entering)
    found = [np.asarray(array) for array in found]
    return tuple(bool(layer_slice(found, place)) for place in network.layers)


def leads_with_examples(network, place, /) -> bool:
    """Whether examples lie on the leading axis of all data of a layer."""
    shapes = (*place.in_shapes, place.out_shape)
    return all(shape[:1] == (network.num_examples,) for shape in shapes)


def _couples(network, contexts, entering):
    first = {place.block: place for place in reversed(network.layers)}
    return [
        _block_couples(
            network, first[number], block, contexts[number], entering[number]
        )
        for number, block in enumerate(network.blocks)
    ]


def _block_couples(network, place, block, context, data):
    layers = () if place.index is None else (block.length,)
    if not data or not leads_with_examples(network, place):
        return jnp.zeros(layers, bool)
    if not layers:
        return mixes_examples(functools.partial(block, context), data)

    def one(slices):
        varying, data = slices
        here = Context(varying, context.shared)
        return mixes_examples(functools.partial(block, here), data)

    return jax.lax.map(one, (context.varying, data))


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
    return 1.25 * jnp.roll(finite, 1, axis=0) + jnp.max(jnp.abs(finite)) + 1


def _choose(kept):
    """Takes the kept examples of one array and the remaining ones of another."""
    return lambda one, other: jnp.where(
        kept.reshape(-1, *[1] * (one.ndim - 1)), one, other
    )
