"""What can be done with a function: traced, mapped, differentiated in which modes."""

import itertools
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
        looped = f"f was probed one point at a time: under vmap it {trouble}"
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


def misshapen_under_vmap(
    f: Callable[..., Any], point: Sequence[Any], outputs: Sequence[Any], /
) -> str:
    """What else than an array for every point f gives if mapped; empty if nothing.

    A batching rule (`jax.custom_batching.custom_vmap`) may return whatever it likes.

    Args:
        f: a function of a tuple of arrays to one.
        point: the tuple.
        outputs: shapes and dtypes of its results.
    """
    results = attempt(jax.eval_shape, jax.vmap(f), _rows(point))
    return "" if isinstance(results, Refusal) else _misshapen(results, outputs)


def _trouble_under_vmap(
    f: Callable[..., Any], point: Sequence[Any], outputs: tuple, modes: Sequence[str]
) -> str:
    """What f or its rules do when mapped instead of what they should; or nothing."""

    def vjp(w: Sequence[jax.Array]):
        return jax.vjp(f, point)[1](w)

    def jvp(v: Sequence[jax.Array]):
        return jax.jvp(f, (point,), (v,))[1]

    # They trace when not mapped.
    rules = {"reverse": (vjp, outputs, point), "forward": (jvp, point, outputs)}
    wanted = [rule for mode, rule in rules.items() if mode in modes]
    for function, like, given in [(f, point, outputs), *wanted]:
        results = attempt(jax.eval_shape, jax.vmap(function), _rows(like))
        if isinstance(results, Refusal):
            return f"raises {results.words(100)}"
        if other := _misshapen(results, given):
            return other
    return ""


def _rows(like: Sequence[Any]) -> tuple:
    """Two of each array."""
    return tuple(jax.ShapeDtypeStruct((2, *x.shape), x.dtype) for x in like)


def _misshapen(results, like: Sequence[Any]) -> str:
    """What the first results are that are not two of each array; empty if all are."""
    found = [y.shape for y in jax.tree.leaves(results)]
    wanted = [(2, *x.shape) for x in like]
    if found == wanted:
        return ""
    pairs = itertools.zip_longest(found, wanted, fillvalue="no array")
    shape, other = next((a, b) for a, b in pairs if a != b)
    return f"gives {shape} for two points, where {other} is the shape of two results"
