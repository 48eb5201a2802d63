"""Products with all vectors of a basis at once, for functions of one example."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradstab import _compat, _tree
from gradstab.network import Block, Context
from gradstab.program.trace import is_complex
from gradstab.program.walk import evaluate
from gradstab.spectra.linear_map import packing


def basis_rows(
    example,
    context: Context,
    data: Sequence[jax.Array],
    /,
    *,
    forward: bool,
    chunk: int,
):
    """The Jacobians of some examples, written out row by row.

    A basis vector is the same for all examples, so what happens to it before it meets
    something that depends on the example (the product with the weights, mostly) is done
    once. Where the layer begins with such a product, the images of the basis vectors
    are the weights themselves and nothing is multiplied.

    Args:
        example: an `ExampleBlock`.
        context: as `ExampleBlock.separate` returns it.
        data: likewise, ``(num, *shape in a batch of one)``.
        forward: push tangents forward, or pull cotangents back.
        chunk: basis vectors at once.

    Returns:
        Array ``(size, num, other)``. Survives jit.
    """
    one = [jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for array in data]
    pack, unpack = packing(one, 1)
    over = functools.partial(jax.vmap, in_axes=example.axes)
    out = jax.eval_shape(over(lambda c, d: example(c, *d)), context, data)
    out = jax.ShapeDtypeStruct(out.shape[1:], out.dtype)
    size = sum(map(_tree.real_size, one)) if forward else _tree.real_size(out)
    indices = jnp.arange(size)
    first = first_product(example, context) if forward else None

    def unit(index, dtype: DTypeLike):
        return (indices == index).astype(dtype)

    def tangent(index):
        vector = tuple(unpack(unit(index, jnp.float32)[None]))
        return over(
            lambda c, d: _flat(jax.jvp(functools.partial(example, c), d, vector)[1])
        )(context, data)

    def cotangent(index):
        vector = unit(index, _tree.real_dtype(out.dtype))

        def pull(c, d):
            return jax.vjp(lambda x: _flat(example(c, *unpack(x))), pack(d))[1](vector)

        return over(lambda c, d: pull(c, d)[0][0])(context, data)

    if not forward:
        return _over_basis(cotangent, indices, chunk)
    if first is None:
        return _over_basis(tangent, indices, chunk)

    def after_product(inputs):
        index, image = inputs
        vector = unit(index, one[0].dtype).reshape(one[0].shape)
        push = over(lambda c, d: _flat(first.push(c, d[0], vector, image)))
        return push(context, data)

    return _over_basis(after_product, (indices, first.images), chunk)


def image_rows(
    example,
    context: Context,
    data: Sequence[jax.Array],
    tangents,
    indices,
    /,
    *,
    chunk: int,
):
    """What the Jacobians of some examples make of tangents that are not basis vectors.

    Args:
        example: an `ExampleBlock`.
        context: as `ExampleBlock.separate` returns it.
        data: likewise, ``(num, *shape in a batch of one)``.
        tangents: takes an index, returns a vector of the entries that enter.
        indices: of the tangents.
        chunk: tangents at once.

    Returns:
        Array ``(indices, num, n_out)``. Survives jit.
    """
    one = [jax.ShapeDtypeStruct(array.shape[1:], array.dtype) for array in data]
    _, unpack = packing(one, 1)
    over = functools.partial(jax.vmap, in_axes=example.axes)

    def image(index):
        vector = tuple(unpack(tangents(index).astype(jnp.float32)[None]))
        return over(
            lambda c, d: _flat(jax.jvp(functools.partial(example, c), d, vector)[1])
        )(context, data)

    return _over_basis(image, indices, chunk)


def _over_basis(product, inputs, chunk: int):
    size = jax.tree.leaves(inputs)[0].shape[0]
    if chunk >= size:
        return jax.vmap(product)(inputs)
    return jax.lax.map(product, inputs, batch_size=chunk)


def _flat(array):
    return _tree.real_view(array).reshape(-1)


class FirstProduct(NamedTuple):
    """A product with weights at the beginning of a block.

    Attributes:
        block: the block.
        eqn: its equation.
        images: (n_in, *shape of its result) what it makes of the basis vectors.
    """

    block: Block
    eqn: _compat.JaxprEqn
    images: jax.Array

    def push(self, context: Context, x, tangent, image):
        """What leaves, for the tangent and its image under the product."""
        block, eqn = self.block, self.eqn
        env = block.environment(context, (x,))
        (y,) = evaluate(eqn, [env[v] for v in eqn.invars])
        (out_var,) = eqn.outvars
        others = [other for other in block.eqns if other is not eqn]

        def rest(x, y):
            known = {**env, block.in_vars[0]: x, out_var: y}
            run = _compat.program_function(list(known), [block.out_var], others)
            return run(*known.values())[0]

        return jax.jvp(rest, (x, y), (tangent, image))[1]


def first_product(example, context: Context, /):
    """The product with which a block begins; None if it does not begin so.

    The product has to sum over all entries of the data, which are real, and its weights
    must be the same for all examples and not be computed in the block.

    Args:
        example: an `ExampleBlock`.
        context: as `ExampleBlock.separate` returns it.
    """
    block = example.block
    if len(block.in_vars) != 1:
        return None
    (x,) = block.in_vars
    if is_complex(x):
        return None
    eqn = next((e for e in block.eqns if any(v is x for v in e.invars)), None)
    axes = None if eqn is None else _compat.contracted_axes(eqn)
    if eqn is None or axes is None or eqn.invars[0] is eqn.invars[1]:
        return None
    side = 0 if eqn.invars[0] is x else 1
    weights = _weights(example, context, eqn.invars[1 - side])
    shape = _compat.shape_of(x)
    if weights is None or math.prod(shape[i] for i in axes[side]) != math.prod(shape):
        return None
    pairs = sorted(zip(axes[side], axes[1 - side], strict=True))
    summed = [other for _, other in pairs]
    free = [i for i in range(weights.ndim) if i not in summed]
    out = eqn.outvars[0]
    images = weights.transpose(*summed, *free).astype(_compat.dtype_of(out))
    return FirstProduct(
        block, eqn, images.reshape(math.prod(shape), *_compat.shape_of(out))
    )


def _weights(example, context: Context, variable: _compat.Var):
    block = example.block
    names = (*block.varying_vars, *block.shared_vars)
    axes = (*example.varying_axes, *example.shared_axes)
    values = (*context.varying, *context.shared)
    for name, axis, value in zip(names, axes, values, strict=True):
        if name is variable and axis is None:
            return value
    return None
