"""Programs that call functions of the host, which may not exist in float64.

Tracing does not show it: what a function of the host returns is seen when it runs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradstab import _compat
from gradstab._attempt import Refusal, attempt

# The last is JAX's sparse solver, for which SciPy is called on a CPU.
_CALLS = frozenset({"pure_callback", "io_callback", "ffi_call", "spsolve"})


def calls_host(program, /) -> bool:
    """Whether a traced program calls the host, or code of another library."""
    return any(_compat.contains(eqn, _CALLS) for eqn in program.eqns)


def hosted(
    f: Callable[..., Any],
    point: Sequence[Any],
    outputs: tuple,
    modes: Sequence[str],
    closed: _compat.ClosedJaxpr,
    /,
    *,
    has_rules: bool,
) -> list:
    """What of a function and its rules calls the host: functions with arguments.

    Args:
        f: from a tuple of arrays to a tuple of arrays.
        point: the arrays.
        outputs: shape records of its results.
        modes: those that f has.
        closed: the program of f.
        has_rules: whether it holds custom rules, which may call the host where f does
            not.
    """

    def vjp(point: Sequence[Any], w: Sequence[jax.Array]):
        return jax.vjp(f, point)[1](w)

    def jvp(point: Sequence[Any], v: Sequence[jax.Array]):
        return jax.jvp(f, (point,), (v,))[1]

    found = [(f, (point,))] if calls_host(closed) else []
    if not found and not has_rules:
        return []
    w = tuple(jnp.zeros(y.shape, y.dtype) for y in outputs)
    rules = {"reverse": (vjp, (point, w)), "forward": (jvp, (point, point))}
    for rule, args in (rules[mode] for mode in modes):
        if calls_host(jax.make_jaxpr(rule)(*args)):
            found.append((rule, args))
    return found


def trouble(calls: list, /) -> str:
    """The error that one of these functions raises when it runs; empty if none does."""
    for function, args in calls:
        refusal = attempt(lambda: jax.block_until_ready(jax.jit(function)(*args)))  # noqa: B023
        if isinstance(refusal, Refusal):
            return f"{refusal.kind}: {_last_line(refusal.error)}"
    return ""


def _last_line(error) -> str:
    """That says what was wrong, behind the traceback of the host's function."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "rror: " in line and "CpuCallback" not in line]
    return (telling or lines or [""])[-1][:160]
