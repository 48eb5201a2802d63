"""What can be done with a function: traced, mapped, differentiated in which modes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from gradstab._attempt import Refusal, attempt
from gradstab.errors import UserTypeError
from gradstab.gradcheck.subject.modes import REFUSALS as REFUSALS
from gradstab.gradcheck.subject.modes import Missing, missing_jvp, missing_vjp
from gradstab.gradcheck.subject.modes import has_vjp as has_vjp

VMAP, MAP, LOOP = "vmap", "map", "loop"

# What tracing raises at code that looks at the values of its arguments.
_CONCRETE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def program(f: Callable[..., Any], point: Sequence[Any], /):
    """The traced program of a function of arrays; None if it cannot be traced."""
    try:
        return jax.make_jaxpr(f)(point)
    except _CONCRETE:
        return None


def abilities(
    f: Callable[..., Any],
    point: Sequence[Any],
    outputs: tuple,
    modes: Sequence[str],
    closed,
    /,
):
    """The modes that f has, how to evaluate it at many points, and notes on both.

    The rules are traced here, so that a broken one raises what it raises.
    """
    missing = _missing(f, point, outputs, modes, closed)
    notes = tuple(
        f"{mode} mode was not checked: {m.reason}" for mode, m in missing.items()
    )
    if set(missing) == set(modes):
        if unusual := [m.error for m in missing.values() if not m.usual]:
            raise unusual[0]
        raise UserTypeError(f"nothing to check: {'; '.join(notes)}.")
    kept = tuple(mode for mode in modes if mode not in missing)
    if closed is None:
        looped = "f looks at the values of its arguments: it was called, not compiled"
        return kept, LOOP, (*notes, looped)
    if trouble := _trouble_under_vmap(f, point, outputs, kept):
        looped = f"f was probed one point at a time: under vmap it raises {trouble}"
        return kept, MAP, (*notes, looped)
    return kept, VMAP, notes


def _missing(
    f: Callable[..., Any],
    point: Sequence[Any],
    outputs: tuple,
    modes: Sequence[str],
    closed,
) -> dict[str, Missing]:
    """The modes of those asked for that f lacks, with the reason of each."""
    found = {}
    if "forward" in modes:
        found["forward"] = missing_jvp(f, point, closed)
    if "reverse" in modes:
        found["reverse"] = missing_vjp(f, point, outputs, closed)
    return {mode: missing for mode, missing in found.items() if missing is not None}


def _trouble_under_vmap(
    f: Callable[..., Any], point: Sequence[Any], outputs: tuple, modes: Sequence[str]
) -> str:
    """The error that f or its rules raise when mapped; empty if none."""

    def vjp(w: Sequence[jax.Array]):
        return jax.vjp(f, point)[1](w)

    def jvp(v: Sequence[jax.Array]):
        return jax.jvp(f, (point,), (v,))[1]

    def rows(like):
        return tuple(jax.ShapeDtypeStruct((2, *x.shape), x.dtype) for x in like)

    # They trace when not mapped.
    rules = {"reverse": (vjp, outputs), "forward": (jvp, point)}
    wanted = [rule for mode, rule in rules.items() if mode in modes]
    for function, like in [(f, point), *wanted]:
        refusal = attempt(jax.eval_shape, jax.vmap(function), rows(like))
        if isinstance(refusal, Refusal):
            return refusal.words(100)
    return ""
