"""How values that are made of parameters alone go with the size of each parameter.

If a parameter is multiplied by c, a value of degree k is multiplied by c to the k: a
kernel has degree one in itself, a normalised kernel degree zero.
"""

from collections.abc import Mapping, Sequence

from gradstab import _compat
from gradstab.program import primitives
from gradstab.program.primitives import Kind

# For each parameter leaf in a value its degree; None if there is none.
Degrees = Mapping[int, float | None]

_POWERS = {"sqrt": 0.5, "rsqrt": -0.5, "cbrt": 1 / 3, "square": 2.0}
_KEEP = (Kind.MOVES, Kind.RESHAPES, Kind.PIECES, Kind.BINARY, Kind.PASSES)
_CHOOSE = (
    *("abs", "add", "sub", "add_any", "max", "min", "select_n", "stop_gradient"),
    *("reduce_max", "reduce_min", "cumsum", "sort", "split", "pad", "copy_p"),
    *("optimization_barrier", "sharding_constraint", "device_put"),
)


def degrees_after(eqn: _compat.JaxprEqn, operands: Sequence[Degrees], /) -> Degrees:
    """The degrees of the results of an equation, from those of its operands.

    A sum has the degree of the terms in which a parameter is: that it adds a constant,
    or another parameter, is not counted.
    """
    leaves = {leaf for degrees in operands for leaf in degrees}
    return {leaf: _degree(eqn, operands, leaf) for leaf in leaves}


def _degree(
    eqn: _compat.JaxprEqn, operands: Sequence[Degrees], leaf: int
) -> float | None:
    mine = [degrees.get(leaf, 0.0) for degrees in operands]
    if any(degree is None for degree in mine):
        return None
    known = [float(degree) for degree in mine if degree is not None]
    if primitives.is_a(eqn, Kind.CONTRACTION) or primitives.is_named(eqn, "mul"):
        return sum(known)
    if primitives.is_named(eqn, "div"):
        return known[0] - known[1]
    if primitives.is_named(eqn, "integer_pow"):
        return known[0] * eqn.params["y"]
    if primitives.is_named(eqn, *_POWERS):
        return known[0] * _POWERS[primitives.name_of(eqn)]
    if primitives.is_a(eqn, *_KEEP) or primitives.is_named(eqn, *_CHOOSE):
        held = {degrees[leaf] for degrees in operands if leaf in degrees}
        return held.pop() if len(held) == 1 else None
    return None
