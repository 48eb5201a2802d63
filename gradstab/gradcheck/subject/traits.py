"""What the program of a function tells before it is run."""

import math

import jax.numpy as jnp

from gradstab import _compat

_LOOPS = frozenset({"while", "scan"})


def roundings(jaxpr, /) -> set:
    """The dtypes to which a program rounds a wider number inside."""
    found = set()
    for eqn in _equations(jaxpr):
        widest = max((_bits(v) for v in eqn.invars), default=0)
        narrow = [v.aval for v in eqn.outvars if 0 < _bits(v) < widest]
        found.update(jnp.finfo(aval.dtype).dtype for aval in narrow)
    return found


def largest_array(jaxpr, /) -> int:
    """The bytes of the largest result of an equation, at any depth."""
    sizes = (_bytes(v) for eqn in _equations(jaxpr) for v in eqn.outvars)
    return max(sizes, default=0)


def has_rules(jaxpr, /) -> bool:
    """Whether the program holds a custom rule of differentiation."""
    return any(map(_compat.is_rule, _equations(jaxpr)))


def convolves(jaxpr, /) -> bool:
    """Whether the program holds a convolution, slow without a compiler's efforts."""
    return any(
        eqn.primitive.name == "conv_general_dilated" for eqn in _equations(jaxpr)
    )


def iterates(jaxpr, /) -> bool:
    """Whether the program holds a loop until convergence, or a rule around a loop.

    Such a rule may hold for the limit of the iteration only, and far away from the
    point given the iteration need not come near it.
    """
    return any(
        eqn.primitive.name == "while"
        or (_compat.is_rule(eqn) and _compat.contains(eqn, _LOOPS))
        for eqn in _equations(jaxpr)
    )


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in _compat.inner_programs(eqn):
            yield from _equations(inner)


def _bits(variable) -> int:
    dtype = getattr(variable.aval, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        return 0
    return jnp.finfo(dtype).nmant


def _bytes(variable) -> int:
    aval = variable.aval
    itemsize = getattr(getattr(aval, "dtype", None), "itemsize", 0)
    return itemsize * math.prod(getattr(aval, "shape", ()))
