"""The function of one example inside a layer that computes a whole batch.

A layer's program is traced for a batch, and most treat every example alike. Traced
again for a batch of one it is the function of one example; what depends on the example
beside the data (a mask, a token, a dropout pattern) is taken from the batch. Mapped
over the examples it leaves a basis of tangents unbatched, so that the basis is
multiplied with the weights once for a layer, and not once for every example.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat, _tree
from gradstab.network.blocks import Block, Context
from gradstab.program.cache import Cache


@dataclasses.dataclass(frozen=True, eq=False)
class ExampleBlock:
    """What a block computes for one example: a block of a batch of one.

    An axis says where the examples lie in an array of the batch; None is an array that
    all of them share.

    Attributes:
        block: the block, traced with one example.
        varying_axes: of the context that each layer has for itself.
        shared_axes: of the context that all layers of the block share.
        data_axes: of the data that enter.
        out_axis: of the data that leave.
        num_examples: in the batch.
        programs: what was compiled for it once.
    """

    block: Block
    varying_axes: tuple
    shared_axes: tuple
    data_axes: tuple
    out_axis: int
    num_examples: int
    programs: Cache = dataclasses.field(default_factory=Cache, init=False, repr=False)

    @property
    def eqns(self):
        """Its equations, in order."""
        return self.block.eqns

    def __call__(self, context: Context, *data):
        """What leaves for one example; all arrays as in a batch of one."""
        return self.block(context, *data)

    @property
    def axes(self):
        """``in_axes`` of `jax.vmap` for the two results of `separate`."""
        context = Context(_mapped(self.varying_axes), _mapped(self.shared_axes))
        return context, tuple(_mapped(self.data_axes))

    def separate(self, context: Context, data: Sequence[jax.Array], /):
        """Context and data of a batch, the examples on a leading axis of their own.

        Args:
            context: of one layer, from the replay of the batch.
            data: tuple of the data that enter it.

        Returns:
            ``(context, data)``: an array that differs between examples has shape
            ``(examples, *shape in a batch of one)``; the others are as they were.
        """
        varying = map(self._apart, context.varying, self.varying_axes)
        shared = map(self._apart, context.shared, self.shared_axes)
        parts = tuple(map(self._apart, data, self.data_axes))
        return Context(list(varying), list(shared)), parts

    def separate_out(self, out, /):
        """The data that leave a batch, or their gradient, with the examples leading."""
        return self._apart(out, self.out_axis)

    def over_batch(self, context: Context, *data):
        """What leaves for a whole batch, each example computed by itself."""
        context, data = self.separate(context, data)
        out = jax.vmap(lambda c, d: self(c, *d), in_axes=self.axes)(context, data)
        shape = list(out.shape[1:])
        shape[self.out_axis] *= self.num_examples
        return jnp.moveaxis(out, 0, self.out_axis).reshape(shape)

    def _apart(self, array, axis):
        if axis is None:
            return array
        shape = array.shape
        own = (self.num_examples, shape[axis] // self.num_examples)
        split = array.reshape(*shape[:axis], *own, *shape[axis + 1 :])
        return jnp.moveaxis(split, axis, 0)


def example_blocks(network, single, /) -> tuple[ExampleBlock | None, ...]:
    """For each block of a network the function of one of its examples.

    Args:
        network: from `find_layers`.
        single: from `find_layers`, of the same model with the first example only; None
            if it could not be traced.

    Returns:
        One per block; None where the block has no counterpart of the same name, length
        and shapes. That the shapes fit does not prove that the functions are the same:
        see `agree`.
    """
    if single is None or single.names != network.names:
        return (None,) * len(network.blocks)
    return network.programs.get(("examples", single), lambda: _pairs(network, single))


def _pairs(network, single):
    counterpart = {}
    for place, other in zip(network.layers, single.layers, strict=True):
        counterpart.setdefault(place.block, single.blocks[other.block])
    return tuple(
        _pair(block, counterpart[number], network.num_examples)
        for number, block in enumerate(network.blocks)
    )


def agree(
    block: Block,
    example: ExampleBlock,
    context: Context,
    data: Sequence[jax.Array],
    number: int,
    /,
):
    """Whether the function of one example does what the block of the batch does.

    Both are evaluated, and pull the same cotangent back, whose entries are as good as
    random. Where one example acts on another, or a Jacobian differs, the results differ
    but for a cotangent of probability zero.

    Args:
        block: of the batch.
        example: from `example_blocks`.
        context: of the layer.
        data: tuple of the data that enter.
        number: a scalar of uint32: it chooses the cotangent.

    Returns:
        A boolean scalar: whether values and products differ in norm by at most the root
        of their dtype's spacing, and are finite in the same entries. Survives jit.
        Cost: two evaluations and two products.
    """
    out, pull = jax.vjp(lambda *data: block(context, *data), *data)
    same, pull_same = jax.vjp(lambda *data: example.over_batch(context, *data), *data)
    numbers = _scattered(number, _tree.real_size(out))
    cotangent = _tree.from_real(numbers, out)
    found, expected = (same, *pull_same(cotangent)), (out, *pull(cotangent))
    pairs = zip(found, expected, strict=True)
    return jnp.all(jnp.stack([_close(a, b) for a, b in pairs]))


def _scattered(number: int, size):
    """Entries in [-1/2, 1/2) by a hash: drawn, they would compile as long as a layer.

    The mixing is MurmurHash3's: https://github.com/aappleby/smhasher.
    """
    x = jnp.arange(size, dtype=jnp.uint32) + number * np.uint32(0x9E3779B9)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    return (x >> np.uint32(8)).astype(jnp.float32) * 2.0**-24 - 0.5


def _pair(block: Block, one, num):
    """The example block of two blocks; None if their shapes do not fit."""
    whole = (*block.varying_vars, *block.shared_vars, *block.in_vars, block.out_var)
    parts = (*one.varying_vars, *one.shared_vars, *one.in_vars, one.out_var)
    counts = [(len(b.varying_vars), len(b.shared_vars), b.length) for b in (block, one)]
    if counts[0] != counts[1] or len(whole) != len(parts) or not block.in_vars:
        return None
    if not all(_fit(v, w, num) for v, w in zip(whole, parts, strict=True)):
        return None
    axes = [_axis(v, w) for v, w in zip(whole, parts, strict=True)]
    first, second = counts[0][0], sum(counts[0][:2])
    # Nothing tells the axis of a single example from the others: it leads.
    *entering, leaving = [0 if num == 1 else axis for axis in axes[second:]]
    if leaving is None or None in entering:
        return None
    varying, shared = tuple(axes[:first]), tuple(axes[first:second])
    return ExampleBlock(one, varying, shared, tuple(entering), leaving, num)


def _differing(variable: _compat.Var, single):
    pairs = zip(_compat.shape_of(variable), _compat.shape_of(single), strict=True)
    return [axis for axis, (one, other) in enumerate(pairs) if one != other]


def _fit(variable: _compat.Var, single, num):
    """Whether a shape is the other one, or ``num`` times as long along one axis."""
    shape, other = _compat.shape_of(variable), _compat.shape_of(single)
    if _compat.dtype_of(variable) != _compat.dtype_of(single):
        return False
    if len(shape) != len(other):
        return False
    axes = _differing(variable, single)
    return len(axes) < 2 and all(shape[axis] == num * other[axis] for axis in axes)


def _axis(variable: _compat.Var, single):
    """The axis along which the shapes differ; None if they are equal."""
    return next(iter(_differing(variable, single)), None)


def _mapped(axes):
    return [None if axis is None else 0 for axis in axes]


def _close(found, expected):
    fine, finite = jnp.isfinite(found), jnp.isfinite(expected)
    gap = _tree.safe_norm(jnp.where(fine & finite, found - expected, 0))
    size = _tree.safe_norm(jnp.where(finite, expected, 0))
    tolerance = float(np.sqrt(jnp.finfo(expected.dtype).eps))
    return jnp.all(fine == finite) & (gap <= tolerance * size)
