"""Indices that are known before a program runs, and lie beyond the end of an axis.

`x[3]` of three entries raises nothing in JAX: it is x[2], or zero, or NaN. A function
that was written for four entries is none of three, though it has a value there.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gradstab import _compat
from gradstab.program.primitives import is_named, name_of
from gradstab.program.walk import (
    as_closed,
    called,
    environment,
    evaluate,
    outputs,
    walk,
)

# Larger arrays of indices are not followed.
_ENTRIES = 4096


class _Unknown:
    """The place of a value that only running the program gives."""


_UNKNOWN = _Unknown()


def num_beyond(closed: _compat.ClosedJaxpr, /) -> int:
    """How many equations have an index, known before, beyond the end of an axis.

    Loops and branches are not looked into. Cost: the integer operations on constants.

    >>> import jax
    >>> [num_beyond(jax.make_jaxpr(lambda x: x[3])(np.ones(n))) for n in (4, 3)]
    [0, 1]
    """
    return len(list(_beyond(closed, [_UNKNOWN] * len(closed.jaxpr.invars))[0]))


def _beyond(closed: _compat.ClosedJaxpr, values: Sequence) -> tuple[list, list]:
    """The equations with such indices, and the results as far as they are known."""
    found = []

    def rule(eqn: _compat.JaxprEqn, operands: list) -> list:
        body = called(eqn)
        if body is not None and len(as_closed(body).jaxpr.invars) == len(operands):
            inside, results = _beyond(as_closed(body), operands)
            found.extend(inside)
            return results
        if any(_is_outside(*index) for index in _indices(eqn, operands)):
            found.append(eqn)
        known = all(value is not _UNKNOWN for value in operands)
        if known and all(map(_is_index, eqn.outvars)):
            return evaluate(eqn, operands)
        return [_UNKNOWN] * len(eqn.outvars)

    env = environment(closed, values)
    env = {v: x if _is_index(v) else _UNKNOWN for v, x in env.items()}
    env = walk(closed.jaxpr.eqns, env, rule)
    return found, outputs(closed, env)


def _is_index(variable: Any) -> bool:
    dtype = getattr(variable.aval, "dtype", None)
    whole = isinstance(dtype, np.dtype) and dtype.kind in "iub"
    return whole and math.prod(_compat.shape_of(variable)) <= _ENTRIES


def _indices(eqn: _compat.JaxprEqn, operands: Sequence) -> Iterator[tuple]:
    """Known indices along an axis, and the largest that there may be."""
    if not eqn.invars:
        return
    shape = _compat.shape_of(eqn.invars[0])
    if is_named(eqn, "dynamic_slice", "dynamic_update_slice"):
        update = is_named(eqn, "dynamic_update_slice")
        part = _compat.shape_of(eqn.invars[1]) if update else eqn.params["slice_sizes"]
        starts = operands[1 + update :]
        for start, n, taken in zip(starts, shape, part, strict=True):
            yield start, n - taken
    elif is_named(eqn, "gather"):
        axes = eqn.params["dimension_numbers"].start_index_map
        sizes = eqn.params["slice_sizes"]
        for k, axis in enumerate(axes):
            yield _column(operands[1], k), shape[axis] - sizes[axis]
    elif name_of(eqn).startswith("scatter"):
        numbers = eqn.params["dimension_numbers"]
        for k, axis in enumerate(numbers.scatter_dims_to_operand_dims):
            if axis in numbers.inserted_window_dims:
                yield _column(operands[1], k), shape[axis] - 1


def _column(indices: Any, number: int):
    return indices if indices is _UNKNOWN else np.asarray(indices)[..., number]


def _is_outside(index: Any, most: int) -> bool:
    if index is _UNKNOWN or np.size(index) == 0:
        return False
    return bool(np.any(np.asarray(index) > most) or np.any(np.asarray(index) < 0))
