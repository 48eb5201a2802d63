r"""How much rounding explains: a program run again with its rounding errors redrawn.

Monte Carlo arithmetic: every floating result inside of the program is multiplied by
:math:`1 + u \xi`, with :math:`u` two units of rounding of its dtype and :math:`\xi`
random in :math:`[-1, 1]`. The spread of the outputs over a few such runs is the error
that rounding makes, whatever cancels inside, however badly a system is conditioned, and
on whichever side of a tie a comparison falls.

References:
    Parker (1997), Monte Carlo arithmetic.
    Vignes (1993), A stochastic arithmetic for reliable scientific computation.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradstab import _compat
from gradstab.program import primitives
from gradstab.program.primitives import Kind
from gradstab.program.walk import called, evaluate, evaluated, split_operands

# The functions of the compiler err by up to about two units.
_UNITS = 2.0


def redrawn(closed: _compat.ClosedJaxpr, /) -> Callable[..., list]:
    """The program with its rounding errors drawn anew.

    Inside of loops that are not scans, of branches and of kernels nothing is redrawn,
    only what goes in and what comes out.

    Args:
        closed: a closed program.

    Returns:
        ``function(seed, *values)`` with an unsigned 32-bit seed; one seed is one draw.
        About three times the cost of the program.

    >>> closed = jax.make_jaxpr(lambda x: (x + 1e6) - 1e6)(jnp.float32(1))
    >>> run = redrawn(closed)
    >>> values = [float(run(jnp.uint32(seed), jnp.float32(1))[0]) for seed in range(8)]
    >>> 0.01 < max(values) - min(values) < 1
    True
    """
    return lambda seed, *values: _evaluate(closed, values, seed)


def iterates(closed: _compat.ClosedJaxpr, /) -> bool:
    """Whether a loop inside goes on until some real number is small enough."""
    return any(_converges(eqn) for eqn in equations(closed))


def equations(program, /):
    """All equations of a program, those of inner programs included."""
    for eqn in program.eqns:
        yield eqn
        for body in _compat.inner_programs(eqn):
            yield from equations(body)


def _converges(eqn: _compat.JaxprEqn) -> bool:
    if _compat.while_parts(eqn) is None:
        return False
    bodies = [getattr(b, "jaxpr", b) for b in _compat.inner_programs(eqn)]
    return any(_is_test(b) and any(map(_is_real, _operands(b))) for b in bodies)


def _is_test(body: _compat.ClosedJaxpr) -> bool:
    return [getattr(v.aval, "dtype", None) for v in body.outvars] == [jnp.bool_]


def _operands(body: _compat.ClosedJaxpr):
    return (v for eqn in equations(body) for v in eqn.invars)


def _evaluate(closed: _compat.ClosedJaxpr, values, seed) -> list:
    places = itertools.count()

    def rule(eqn: _compat.JaxprEqn, operands: Sequence[Any]):
        return _equation(eqn, operands, _mix(seed + jnp.uint32(next(places))))

    return evaluated(closed, values, rule)


def _equation(eqn: _compat.JaxprEqn, operands: Sequence[Any], seed) -> list:
    if primitives.is_a(eqn, Kind.EXACT):
        return evaluate(eqn, operands)
    if (body := called(eqn)) is not None:
        return _evaluate(body, operands, seed)
    if (parts := _compat.scan_parts(eqn)) is not None:
        return _scan(parts, operands, seed)
    terms = _num_terms(eqn)
    wide = primitives.is_a(eqn, Kind.NORMWISE)
    units = _UNITS * math.sqrt(terms)
    if terms > 1 or wide:  # sums cancel: errors are relative to their terms
        operands = [
            _jitter(jnp.asarray(x), units, _mix(seed + jnp.uint32(7 * n + 1)), wide)
            for n, x in enumerate(operands)
        ]
    return [
        _jitter(y, units, _mix(seed + jnp.uint32(7 * n + 4)), wide)
        for n, y in enumerate(evaluate(eqn, operands))
    ]


def _scan(parts: _compat.ScanParts, operands: Sequence[Any], seed) -> list:
    consts, carry, slices = split_operands(parts, operands)

    def step(state: Any, x):
        seed, carry = state
        out = _evaluate(parts.body, [*consts, *carry, *x], seed)
        return (_mix(seed), out[: parts.num_carry]), out[parts.num_carry :]

    (_, carry), ys = jax.lax.scan(
        step, (seed, carry), slices, length=parts.length, reverse=parts.reverse
    )
    return [*carry, *ys]


def _num_terms(eqn) -> float:
    """How many numbers a result may be the sum of."""
    sizes = [math.prod(v.aval.shape) for v in eqn.invars if _is_real(v)]
    results = [math.prod(v.aval.shape) for v in eqn.outvars if _is_real(v)]
    out = max(results, default=0)
    if not sizes or not out:
        return 1
    if primitives.is_named(
        eqn, "dot_general", "conv_general_dilated"
    ):  # (m, k), (k, n) -> (m, n)
        return max(1.0, math.sqrt(math.prod(sizes) / out))
    if primitives.reduces(eqn):
        return max(1.0, max(sizes) / out)
    alike = all(size in (1, out) for size in sizes)
    many = primitives.is_a(eqn, Kind.RUNNING, Kind.NORMWISE)
    return 1 if alike and not many else max(sizes)


def _is_real(v) -> bool:
    dtype = getattr(v.aval, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def _jitter(z, units, seed, normwise):
    if jnp.issubdtype(z.dtype, jnp.complexfloating):
        parts = (_jitter(p, units, seed, normwise) for p in (z.real, z.imag))
        return jax.lax.complex(*parts)
    if not jnp.issubdtype(z.dtype, jnp.floating) or z.size == 0:
        return z
    relative = (units * float(jnp.finfo(z.dtype).eps)) * _uniform(z, seed)
    size = jnp.max(jnp.abs(z)) if normwise else z
    moved = z + size * relative.astype(z.dtype)
    return jnp.where(jnp.isfinite(z), moved, z)


def _uniform(z, seed):
    """Numbers in [-1, 1] that depend on the seed, and on each entry and its place."""
    bits = jax.lax.bitcast_convert_type(z, jnp.dtype(f"uint{8 * z.dtype.itemsize}"))
    if z.dtype.itemsize == 8:
        bits = bits ^ (bits >> 32)
    place = jax.lax.iota(jnp.uint32, z.size).reshape(z.shape)
    mixed = _mix(bits.astype(jnp.uint32) + place * jnp.uint32(0x9E3779B9) + seed)
    return mixed.astype(jnp.float32) * jnp.float32(2**-31) - 1


def _mix(h):
    """A hash of 32 bits (Wellons, lowbias32)."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x7FEB352D)
    h = (h ^ (h >> 15)) * jnp.uint32(0x846CA68B)
    return h ^ (h >> 16)
