"""Deep networks of equal blocks that compile as fast as shallow ones.

The blocks' parameters lie in one array each, with the layer as the leading axis, and a
`jax.lax.scan` runs over it. The compiler sees one block, however many there are.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gradstab.errors import UserValueError


def stack(make: Callable[..., nnx.Module], num: int, /, *, rngs: nnx.Rngs):
    """``num`` blocks as one module whose leaves have a leading axis over the blocks.

    Every block is made with keys of its own, and its initialisers see the shape of a
    single block, so a fan is that of the layer. Statistics and random streams are
    stacked as well: each block has its own.

    Args:
        make: ``make(rngs=rngs)`` is a block, which maps an array to one of like shape.
        num: at least 1.
        rngs: split, not consumed: the streams go on after it.

    Returns:
        A module of the type ``make`` returns. Do not call it: see `scan_blocks`.

    >>> blocks = stack(lambda rngs: nnx.Linear(4, 4, rngs=rngs), 100, rngs=nnx.Rngs(0))
    >>> blocks.kernel.shape
    (100, 4, 4)
    """
    if num < 1:
        raise UserValueError(f"a stack needs at least one block, got {num}.")

    @nnx.split_rngs(splits=num)
    @nnx.vmap
    def make_all(rngs: nnx.Rngs):
        return make(rngs=rngs)

    return make_all(rngs)


def num_blocks(blocks: nnx.Module, /) -> int:
    """The number of blocks in a stack."""
    return jax.tree.leaves(nnx.state(blocks))[0].shape[0]


def call_block(block, h: jax.Array, _):
    """The usual step: the block applied to the signal, with nothing emitted."""
    return block(h), None


def call_and_keep(block, h: jax.Array, _):
    """A step that emits the block's output as well."""
    h = block(h)
    return h, h


def scan_blocks(
    blocks, h: jax.Array, per_block=None, /, *, step=call_block
) -> tuple[Any, Any]:
    """``h`` after all blocks, and what each step emitted.

    The signal is the only carry. What a block changes (running averages, counts of
    random streams) is written back to the stack; in evaluation mode nothing is, so that
    the model can be closed over inside `jax.jit`. A single block is applied without a
    loop, and may change the signal's shape.

    Args:
        blocks: from `stack`.
        h: the signal, an array or a pytree; blocks must keep its shape and dtype.
        per_block: optional pytree with a leading axis over the blocks.
        step: ``(block, h, per_block[i]) -> (h, emitted)``.

    Returns:
        ``(h, emitted)``, the latter with a leading axis over the blocks.

    >>> blocks = stack(lambda rngs: nnx.Linear(4, 4, rngs=rngs), 3, rngs=nnx.Rngs(0))
    >>> h, kept = scan_blocks(blocks, jax.numpy.ones((2, 4)), step=call_and_keep)
    >>> kept.shape, bool((kept[-1] == h).all())
    ((3, 2, 4), True)
    """
    graphdef, params, rest = nnx.split(blocks, nnx.Param, ...)

    def body(h: jax.Array, layer):
        params, rest, x = layer
        block = nnx.merge(graphdef, params, rest, copy=True)
        h, emitted = step(block, h, x)
        return h, (_changes(rest, nnx.state(block, nnx.Not(nnx.Param))), emitted)

    loop = jax.lax.scan if num_blocks(blocks) > 1 else _apply_once
    h, (changed, emitted) = loop(body, h, (params, rest, per_block))
    nnx.update(blocks, changed)
    return h, emitted


def scan_stacks(
    stacks: Iterable, h: jax.Array, /, *, keep: Sequence[int] = ()
) -> tuple[Any, list[Any]]:
    """``h`` after all stacks one after another, and after the blocks to keep.

    Args:
        stacks: from `stack`.
        h: the signal.
        keep: indices of blocks counted through all stacks from 1; 0 is ``h`` as given.

    Returns:
        ``(h, kept)`` with ``kept`` in the order of ``keep``. A stack's trajectory is
        stored only if one of its blocks is kept.
    """
    kept = {0: h}
    before = 0
    for blocks in stacks:
        num = num_blocks(blocks)
        wanted = [i for i in keep if before < i <= before + num]
        h, emitted = scan_blocks(
            blocks, h, step=call_and_keep if wanted else call_block
        )
        kept |= {i: emitted[i - before - 1] for i in wanted}
        before += num
    return h, [kept[i] for i in keep]


def _apply_once(body, carry: Any, xs):
    """`jax.lax.scan` over a leading axis of length 1."""
    carry, ys = body(carry, jax.tree.map(lambda x: jnp.squeeze(x, axis=0), xs))
    return carry, jax.tree.map(lambda y: y[None], ys)


def _changes(before: nnx.State, after: nnx.State) -> nnx.State:
    # An untouched variable still holds the very object that it was merged from.
    old = dict(nnx.to_flat_state(before))
    return nnx.from_flat_state(
        [
            (path, variable)
            for path, variable in nnx.to_flat_state(after)
            if variable.get_value() is not old[path].get_value()
        ]
    )
