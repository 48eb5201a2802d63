"""A function, and the rule of its derivative, without the rounding inside of them.

Code in mixed precision rounds to bfloat16 wherever it says so, whatever dtype its
arguments have, and differences of such a function see little. The same program with
every narrow number widened is the function that was meant; and its rule, widened as
well, is the formula that was meant. A rule that rounds to a coarser dtype than its
function does goes on doing that: it is a mistake as likely as not.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import DTypeLike

from gradstab import _compat
from gradstab.program.primitives import Kind, is_a, name_of
from gradstab.program.walk import called, evaluated, split_operands

_WIDE = jnp.float64

# They read the digits of a number, of a wider one others, or are made for a dtype.


def unrounded(
    f: Callable, point: tuple, outputs: tuple, /, *, forward: bool, dtype: DTypeLike
):
    """A function of arrays in float64 throughout, with the rule of its derivative.

    Args:
        f: from a tuple of arrays to a tuple of arrays, which rounds inside.
        point: the arrays.
        outputs: shape records of the results.
        forward: whether f has a forward mode. Then its JVP is widened, which is
            transposed in reverse mode, as JAX does with that of f; else its VJP.
        dtype: the coarsest that f computes in. What is coarser stays so.

    Returns:
        A function like f, to be called with float64 arrays under `jax.enable_x64`.
        Numbers that do not depend on the arrays (masks, constants) keep their values.
        It raises a NotImplementedError where float64 cannot be put in the place of what
        is there: in kernels, callbacks, loops until convergence, complex numbers, and
        where the digits of a number are read.

    Cost: two traces.
    """
    if forward:
        program = jax.make_jaxpr(lambda x, v: jax.jvp(f, (x,), (v,))[1])(point, point)
        with_rule = _with_jvp
    else:
        like = tuple(jnp.zeros(y.shape, y.dtype) for y in outputs)
        program = jax.make_jaxpr(lambda x, w: jax.vjp(f, x)[1](w))(point, like)
        with_rule = _with_vjp
    widened = _Widening(dtype).function
    return with_rule(widened(jax.make_jaxpr(f)(point)), widened(program))


def _with_jvp(value: Any, rule):
    wide = jax.custom_jvp(lambda point: tuple(value(*point)))
    wide.defjvp(lambda p, v: (wide(*p), tuple(rule(*p[0], *v[0]))))
    return lambda point: wide(point)


def _with_vjp(value: Any, rule):
    wide = jax.custom_vjp(lambda point: tuple(value(*point)))
    wide.defvjp(
        lambda point: (wide(point), point),
        lambda point, w: (tuple(rule(*point, *w)),),
    )
    return lambda point: wide(point)


class _Widening:
    """Evaluates programs in float64; what is coarser than a dtype stays so.

    Args:
        dtype: the coarsest that is widened.
    """

    def __init__(self, dtype: DTypeLike):
        self.digits = jnp.finfo(dtype).nmant

    def function(self, closed: _compat.ClosedJaxpr, /) -> Callable[..., list]:
        """The function ``float64 inputs -> float64 results`` of a program."""
        return lambda *values: list(map(_wide, self._results(closed, values)))

    def _results(self, closed: _compat.ClosedJaxpr, values):
        return evaluated(closed, values, self._equation)

    def _equation(self, eqn: _compat.JaxprEqn, operands) -> list:
        if not any(map(_is_wide, operands)):
            return _fixed(eqn, operands)
        if (body := called(eqn)) is not None:
            return self._results(body, operands)
        if (parts := _compat.scan_parts(eqn)) is not None:
            return self._scan(parts, operands)
        if (branches := _compat.cond_branches(eqn)) is not None:
            index, *rest = operands
            return jax.lax.switch(index, list(map(self.function, branches)), *rest)
        return self._widened(eqn, list(map(_wide, operands)))

    def _widened(self, eqn: _compat.JaxprEqn, operands) -> list:
        name, changed = name_of(eqn), _compat.widened_parameters(eqn, _WIDE)
        combines = "update_jaxpr" in changed
        if is_a(eqn, Kind.ONE_DTYPE) or (_compat.inner_programs(eqn) and not combines):
            raise NotImplementedError(f"{name} in float64")
        if name == "reduce_precision" and eqn.params["mantissa_bits"] >= self.digits:
            return operands
        results = _compat.bind(eqn, operands, **changed)
        if any(map(_is_narrow, results)):
            raise NotImplementedError(f"{name} in float64")
        coarse = _coarser(eqn, self.digits)
        return results if coarse is None else [_wide(y.astype(coarse)) for y in results]

    def _scan(self, parts: _compat.ScanParts, operands) -> list:
        consts, carry, slices = split_operands(parts, operands)

        def step(carry: Any, x: Any):
            out = list(map(_wide, self._results(parts.body, [*consts, *carry, *x])))
            return out[: parts.num_carry], out[parts.num_carry :]

        carry, ys = jax.lax.scan(
            step,
            list(map(_wide, carry)),
            slices,
            length=parts.length,
            reverse=parts.reverse,
        )
        return [*carry, *ys]


def _coarser(eqn: _compat.JaxprEqn, digits):
    """The dtype of an equation's result if it has fewer digits; else None."""
    dtypes = {_compat.dtype_of(v) for v in eqn.outvars if _compat.is_floating(v)}
    coarse = [d for d in dtypes if jnp.finfo(d).nmant < digits]
    return coarse[0] if coarse else None


def _fixed(eqn: _compat.JaxprEqn, operands) -> list:
    """What does not depend on the leaves, and need not be traced."""
    if any(isinstance(x, Tracer) for x in operands):
        return _compat.bind(eqn, operands)
    with jax.ensure_compile_time_eval():
        return _compat.bind(eqn, operands)


def _wide(x: Any):
    return jnp.asarray(x).astype(_WIDE) if _is_narrow(x) else x


def _is_narrow(x: Any) -> bool:
    dtype = jnp.asarray(x).dtype if jnp.isscalar(x) else x.dtype
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise NotImplementedError("complex numbers in float64")
    return jnp.issubdtype(dtype, jnp.floating) and dtype != _WIDE


def _is_wide(x: Any) -> bool:
    return getattr(x, "dtype", None) == _WIDE
