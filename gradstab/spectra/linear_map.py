"""A Jacobian as a linear map, one example at a time."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradstab import _tree


@dataclasses.dataclass(frozen=True)
class LinearMap:
    """The Jacobians of a function of a batch, by products with vectors.

    Attributes:
        matvec: ``(num, n_in) -> (num, n_out)``: one tangent per example forward; None
            if the function has a rule for the backward direction only.
        rmatvec: ``(num, n_out) -> (num, n_in)``: one cotangent per example backward.
            Both take vectors of any real dtype.
        num: examples; 1 if the function mixes them, when the one Jacobian is joint.
        shape: (n_out, n_in) of each Jacobian.
    """

    matvec: Callable | None
    rmatvec: Callable
    num: int
    shape: tuple[int, int]


def jacobian_map(
    function: Callable[..., Any],
    data: Sequence[jax.Array],
    /,
    *,
    coupled: bool,
    forward: bool = True,
) -> LinearMap:
    """The Jacobians of ``function`` at ``data``.

    Args:
        function: takes the arrays of ``data``, returns one array; examples lie on the
            leading axis of each. A complex entry counts as two real ones, so what is
            found is the Jacobian of real numbers by real numbers.
        data: tuple of floating arrays.
        coupled: whether the function mixes examples. If it does not, one product of
            the joint function serves all examples at once.
        forward: whether the function has forward derivatives (one with a `custom_vjp`
            inside has not).

    Returns:
        The linear map. Cost of one product: about one evaluation of the function.
    """
    num = 1 if coupled else data[0].shape[0]
    pack, unpack = packing(data, num)

    def packed(x):
        return _tree.real_view(function(*unpack(x))).reshape(num, -1)

    x = pack(data)
    out, pull = jax.vjp(packed, x)
    push = jax.linearize(packed, x)[1] if forward else None
    return LinearMap(
        matvec=None if push is None else lambda v: push(v.astype(x.dtype)),
        rmatvec=lambda w: pull(w.astype(out.dtype))[0],
        num=num,
        shape=(out.shape[1], x.shape[1]),
    )


def packing(data: Sequence[Any], num: int, /):
    """How ``num`` vectors are made of arrays shaped like the data, and back.

    This is where a complex number becomes two real ones; see `_tree.real_view`.

    Args:
        data: arrays, or what has their shapes and dtypes.
        num: how many vectors lie one after the other in each of them.

    Returns:
        ``(pack, unpack)``: arrays to real ``(num, n)`` in the widest of their dtypes,
        and such an array to a list of arrays in their own.
    """
    sizes = [_tree.real_size(a) // num for a in data]
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    wide = _tree.widest(*(_tree.real_dtype(a.dtype) for a in data))

    def pack(arrays):
        rows = [_tree.real_view(a).reshape(num, -1).astype(wide) for a in arrays]
        return jnp.concatenate(rows, axis=1)

    def unpack(x):
        parts = jnp.split(x, ends[:-1], axis=1)
        return [_tree.from_real(*pair) for pair in zip(parts, data, strict=True)]

    return pack, unpack
