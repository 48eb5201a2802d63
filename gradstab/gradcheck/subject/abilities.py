"""What can be done with a function: traced, mapped, differentiated in which modes."""

import jax
import jax.numpy as jnp

from gradstab import _compat

VMAP, MAP, LOOP = "vmap", "map", "loop"

# What JAX raises at a program that it cannot trace, map or differentiate: one that
# exists in one precision only, a loop in reverse mode, a rule without the mode.
REFUSALS = (TypeError, ValueError, NotImplementedError, AssertionError)

# What tracing raises at code that looks at the values of its arguments.
_CONCRETE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
_NO_FORWARD = "forward mode was not checked: f has a custom_vjp, which has no JVP"
_NO_REVERSE = "reverse mode was not checked: f holds a loop that has no VJP"


def program(f, point, /):
    """The traced program of a function of arrays; None if it cannot be traced."""
    try:
        return jax.make_jaxpr(f)(point)
    except _CONCRETE:
        return None


def abilities(f, point, outputs, modes, closed, /):
    """The modes that f has, how to evaluate it at many points, and notes on both.

    The rules are traced here, so that a broken one raises what it raises.
    """
    missing = _missing(f, point, outputs, modes, closed)
    if set(missing) == set(modes):
        raise TypeError(f"nothing to check: {'; '.join(missing.values())}.")
    kept = tuple(mode for mode in modes if mode not in missing)
    notes = tuple(missing.values())
    if closed is None:
        looped = "f looks at the values of its arguments: it was called, not compiled"
        return kept, LOOP, (*notes, looped)
    if trouble := _trouble_under_vmap(f, point, outputs, kept):
        looped = f"f was probed one point at a time: under vmap it raises {trouble}"
        return kept, MAP, (*notes, looped)
    return kept, VMAP, notes


def _missing(f, point, outputs, modes, closed) -> dict[str, str]:
    """The modes of those asked for that f lacks, with the reason of each."""
    missing = {}
    if "forward" in modes and not _has_jvp(f, point, closed):
        missing["forward"] = _NO_FORWARD
    if "reverse" in modes and not has_vjp(f, point, outputs, traced=closed is not None):
        missing["reverse"] = _NO_REVERSE
    return missing


def _has_jvp(f, point, closed) -> bool:
    def jvp(v):
        return jax.jvp(f, (point,), (v,))[1]

    zeros = jax.tree.map(jnp.zeros_like, point)
    try:
        if closed is None:
            jvp(zeros)
            return True
        # Tracing the JVP of a custom_vjp is not refused: it leaves a mark.
        traced = jax.make_jaxpr(jvp)(zeros)
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        return False
    return not any(_compat.lacks_jvp(eqn) for eqn in traced.eqns)


def has_vjp(f, point, outputs, /, *, traced: bool = True) -> bool:
    """Whether JAX finds a reverse mode; what a broken rule raises is raised."""

    def vjp(w):
        return jax.vjp(f, point)[1](w)

    try:
        if traced:
            jax.eval_shape(vjp, outputs)
        else:
            vjp(tuple(jnp.zeros(y.shape, y.dtype) for y in outputs))
    except ValueError as error:
        if "Reverse-mode differentiation does not work" not in str(error):
            raise
        return False
    return True


def _trouble_under_vmap(f, point, outputs, modes) -> str:
    """The error that f or its rules raise when mapped; empty if none."""

    def vjp(w):
        return jax.vjp(f, point)[1](w)

    def jvp(v):
        return jax.jvp(f, (point,), (v,))[1]

    def rows(like):
        return tuple(jax.ShapeDtypeStruct((2, *x.shape), x.dtype) for x in like)

    try:
        jax.eval_shape(jax.vmap(f), rows(point))
        if "reverse" in modes:
            jax.eval_shape(jax.vmap(vjp), rows(outputs))
        if "forward" in modes:
            jax.eval_shape(jax.vmap(jvp), rows(point))
    # Whatever it is: the functions are the user's, and they trace when not mapped.
    except Exception as error:
        line = (str(error).splitlines() or [""])[0][:100]
        return f"{type(error).__name__}: {line}"
    return ""
