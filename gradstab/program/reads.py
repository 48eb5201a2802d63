"""What an equation reads and computes: the parameters of JAX's primitives.

Beside `_compat`, and like it the one place where such parameters are read. What is not
in the table at the end is taken to read everything.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradstab import _compat
from gradstab._compat import JaxprEqn, Literal, Var, dtype_of, shape_of


class Reach(NamedTuple):
    """Position p along an axis depends only on some positions along another axis.

    Those are ``stride * p + low`` to ``stride * p + high``, as far as they exist.
    """

    axis: int
    stride: int = 1
    low: int = 0
    high: int = 0

    def through(self, inner: "Reach", /) -> "Reach":
        """This reach, into an axis that itself depends on a third one by the inner."""
        axis, stride, low, high = inner
        return Reach(
            axis,
            stride * self.stride,
            stride * self.low + low,
            stride * self.high + high,
        )


def reads(eqn: JaxprEqn, position: int, /) -> tuple[Reach | None, ...]:
    """How the result of an equation depends on one of its operands.

    Args:
        eqn: an equation with one result.
        position: of the operand.

    Returns:
        For each axis of the result the reach into an axis of the operand; None where
        nothing is known, so that all of the operand may be read.
    """
    rule = _RULES.get(eqn.primitive.name)
    rank = len(shape_of(eqn.outvars[0]))
    known = rule(eqn, position) if rule else {}
    return tuple(known.get(axis) for axis in range(rank))


def num_bytes(variable: Var | Literal, /) -> int:
    """The bytes that a variable takes; eight for an entry of a dtype without a size."""
    dtype = dtype_of(variable)
    size = dtype.itemsize if isinstance(dtype, np.dtype) else 8
    return math.prod(shape_of(variable)) * size


def num_flops(eqn: JaxprEqn, /) -> float | None:
    """Multiplications and additions of a product or convolution; None for others."""
    name = eqn.primitive.name
    numbers: Any = eqn.params.get("dimension_numbers")
    entries = math.prod(shape_of(eqn.outvars[0])) if eqn.outvars else 0
    if name == "conv_general_dilated":
        kernel = shape_of(eqn.invars[1])
        return 2.0 * entries * math.prod(kernel) / max(kernel[numbers.rhs_spec[0]], 1)
    if name == "dot_general":
        shape = shape_of(eqn.invars[0])
        return 2.0 * entries * math.prod(shape[i] for i in numbers[0][0])
    if name == "ragged_dot_general":
        return 2.0 * entries * shape_of(eqn.invars[0])[-1]
    return None


def _broadcast(eqn: _compat.JaxprEqn, position: int) -> dict[int, Reach]:
    shape = shape_of(eqn.invars[0])
    axes = eqn.params["broadcast_dimensions"] if position == 0 else ()
    out = shape_of(eqn.outvars[0])
    return {to: Reach(i) for i, to in enumerate(axes) if shape[i] == out[to]}


def _transpose(eqn: _compat.JaxprEqn, position: int) -> dict[int, Reach]:
    return {to: Reach(axis) for to, axis in enumerate(eqn.params["permutation"])}


def _squeeze(eqn: _compat.JaxprEqn, position: int) -> dict[int, Reach]:
    removed = {axis % len(shape_of(eqn.invars[0])) for axis in eqn.params["dimensions"]}
    return _without(eqn, removed)


def _reduce(eqn: _compat.JaxprEqn, position: int) -> dict[int, Reach]:
    return _without(eqn, set(eqn.params["axes"]))


def _without(eqn: _compat.JaxprEqn, removed: set[int]) -> dict[int, Reach]:
    """The axes that are left if some are taken out."""
    kept = (i for i in range(len(shape_of(eqn.invars[0]))) if i not in removed)
    return {to: Reach(axis) for to, axis in enumerate(kept)}


def _reshape(eqn: _compat.JaxprEqn, position: int) -> dict[int, Reach]:
    """Leading and trailing axes that stay as they are; those between may be merged."""
    old, new = shape_of(eqn.invars[0]), shape_of(eqn.outvars[0])
    ahead = _num_equal(old, new)
    behind = min(_num_equal(old[::-1], new[::-1]), min(len(old), len(new)) - ahead)
    kept = {i: Reach(i) for i in range(ahead)}
    ends = range(1, behind + 1)
    return kept | {len(new) - i: Reach(len(old) - i) for i in ends}


def _num_equal(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = zip(first, second, strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _slice(eqn: _compat.JaxprEqn, position: int) -> dict[int, Reach]:
    starts, rank = eqn.params["start_indices"], len(shape_of(eqn.invars[0]))
    strides = eqn.params["strides"] or (1,) * rank
    return {i: Reach(i, strides[i], starts[i], starts[i]) for i in range(rank)}


def _pad(eqn: _compat.JaxprEqn, position: int) -> dict[int, Reach]:
    if position != 0:  # the value to pad with is one number
        return {}
    sides = enumerate(eqn.params["padding_config"])
    return {i: Reach(i, 1, -low, -low) for i, (low, _, gap) in sides if gap == 0}


def _concatenate(eqn: _compat.JaxprEqn, position: int) -> dict[int, Reach]:
    joined = eqn.params["dimension"]
    rank = len(shape_of(eqn.outvars[0]))
    return {i: Reach(i) for i in range(rank) if i != joined}


def _reversed(eqn: _compat.JaxprEqn, position: int) -> dict[int, Reach]:
    mirrored = eqn.params["dimensions"]
    rank = len(shape_of(eqn.outvars[0]))
    return {i: Reach(i) for i in range(rank) if i not in mirrored}


def _product(eqn: _compat.JaxprEqn, position: int) -> dict[int, Reach]:
    contracted, batch = eqn.params["dimension_numbers"]
    summed, shared = contracted[position], batch[position]
    rank = len(shape_of(eqn.invars[position]))
    free = [i for i in range(rank) if i not in summed and i not in shared]
    # The result has the batch axes, then those of the first operand, then the second's.
    first = len(shared) if position == 0 else len(shape_of(eqn.outvars[0])) - len(free)
    kept = {to: Reach(axis) for to, axis in enumerate(shared)}
    return kept | {first + to: Reach(axis) for to, axis in enumerate(free)}


def _convolution(eqn: _compat.JaxprEqn, position: int) -> dict[int, Reach]:
    p = eqn.params
    if position != 0 or p["batch_group_count"] != 1:
        return {}
    lhs, rhs, out = p["dimension_numbers"]
    kernel = shape_of(eqn.invars[1])
    found = {out[0]: Reach(lhs[0])}
    axes = zip(lhs[2:], rhs[2:], out[2:], strict=True)
    for i, (axis, size, to) in enumerate(axes):
        if p["lhs_dilation"][i] == 1:
            reach = (kernel[size] - 1) * p["rhs_dilation"][i]
            low = -p["padding"][i][0]
            found[to] = Reach(axis, p["window_strides"][i], low, low + reach)
    return found


def _window(eqn: _compat.JaxprEqn, position: int) -> dict[int, Reach]:
    p, found = eqn.params, {}
    for i, size in enumerate(p["window_dimensions"]):
        if p["base_dilation"][i] == 1:
            low = -p["padding"][i][0]
            reach = (size - 1) * p["window_dilation"][i]
            found[i] = Reach(i, p["window_strides"][i], low, low + reach)
    return found


_RULES: dict[str, Callable[..., dict[int, Reach]]] = {
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "reshape": _reshape,
    "slice": _slice,
    "pad": _pad,
    "concatenate": _concatenate,
    "rev": _reversed,
    "dot_general": _product,
    "conv_general_dilated": _convolution,
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and"), _reduce
    ),
    **dict.fromkeys(
        ("reduce_window_max", "reduce_window_min", "reduce_window_sum"), _window
    ),
}
