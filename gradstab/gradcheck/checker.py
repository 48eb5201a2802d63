"""The check: probe, judge, look again before accusing."""

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from gradstab.gradcheck.directions import directions, root_mean_square
from gradstab.gradcheck.findings import GradCheck, Verdict
from gradstab.gradcheck.probes import MAX_BYTES, Prober
from gradstab.gradcheck.problem import MODES, problem
from gradstab.gradcheck.verdict import (
    AGREES,
    DIFFERS,
    KINK,
    UNCONFIRMED,
    judge,
)

# The relative error that is asked about by default. Coarser dtypes get 0.1.
_RTOL = {"float64": 1e-6, "float32": 1e-2}

# How far beside a kink the rule is checked again, in sizes of the argument.
_BESIDE = 2.0**-3


def check(
    f: Callable,
    /,
    *args,
    rtol: float | None = None,
    seed: int = 0,
    modes: tuple[str, ...] = MODES,
    max_bytes: int = MAX_BYTES,
) -> GradCheck:
    r"""Checks the derivatives of a function against differences of its value.

    Each floating argument leaf is moved alone along random directions :math:`v`. The
    central differences of f, extrapolated to vanishing step, are compared with the JVP,
    :math:`\langle w, J v \rangle`, and with the VJP, :math:`\langle J^\top w, v
    \rangle`, for random cotangents :math:`w`. The noise of the differences is measured
    too, so the result says how small an error it would have shown: its *resolution*, an
    upper limit of the relative error :math:`\|E\|_F / \|J\|_F` of every rule, in
    the worst leaf. (An error of rank one can hide once in 5e4 checks.)

    The verdict is PASS if the resolution is at most ``rtol``; FAIL if a rule differs
    from the differences by more than their noise, along two independent sets of
    directions; otherwise INCONCLUSIVE, with a reason. If the true derivative is zero
    the resolution is absolute: relative to f's value over the size of the argument.
    At a kink a rule is accepted if it lies between the one-sided slopes and is right at
    a point beside, and a note says so.

    Everything is lifted to float64, whatever `jax_enable_x64` says, unless f rounds to
    a narrower dtype inside or does not trace in float64; then a note says so.

    Args:
        f: function of pytrees to a pytree, whose floating leaves are checked together.
            If it cannot be traced by `jax.jit` or mapped by `jax.vmap`, it is called
            one point at a time.
        *args: the point. Complex numbers are moved as pairs of real ones. Integers,
            booleans, None and PRNG keys are passed on as given.
        rtol: the resolution asked for; 1e-6 in float64, 1e-2 in float32, else 0.1.
        seed: of the random directions.
        modes: the rules to check: ``forward``, ``reverse`` or both. The forward mode is
            left out, with a note, if f has a `jax.custom_vjp`.
        max_bytes: memory that the evaluations under way may take, roughly.

    Returns:
        The verdict and what it rests on. A wrong rule raises nothing.

    Raises:
        TypeError: f is not callable, or only the forward mode was asked for and f has
            none.
        ValueError: there is nothing to differentiate, or an option is out of range.

    Cost:
        In float64, 432 evaluations of f per argument leaf, whatever its size, mapped
        in turns of at most ``max_bytes``; as many again to confirm an error, and again
        to look beside a kink.

    >>> import jax.numpy as jnp
    >>> result = check(jnp.tanh, jnp.linspace(-1, 1, 5))
    >>> result.verdict, result.resolution < 1e-6
    (<Verdict.PASS: 'PASS'>, True)
    """
    _validate(f, rtol, modes)
    task = problem(f, args, modes=modes)
    rtol = _RTOL.get(task.dtype.name, 0.1) if rtol is None else float(rtol)
    prober = Prober(task, max_bytes=max_bytes)
    spent = []

    def look(point, rng):
        seen = prober(point, rng)
        spent.append(seen.evaluations)
        if trouble := _trouble(seen):
            return trouble, []
        leaves = zip(task.names, seen.leaves, strict=True)
        found = [judge(*leaf, dtype=task.dtype, rtol=rtol) for leaf in leaves]
        return "", list(itertools.chain.from_iterable(found))

    streams = iter(np.random.default_rng(seed).spawn(5))
    trouble, found = _look_twice(look, task.leaves, streams)
    notes = task.notes
    if kinks := [g for g in found if g.state == KINK]:
        point = _beside(task.leaves, next(streams))
        _, beside = _look_twice(look, point, streams)
        elsewhere = {(g.leaf, g.mode): g for g in beside}
        found = [elsewhere.get((g.leaf, g.mode), g) if g in kinks else g for g in found]
        notes += (
            f"f has a kink in {_named(kinks)}: the rule lies between the one-sided "
            "slopes there, and is judged at a point beside",
        )
    return _result(
        found,
        trouble,
        rtol=rtol,
        precision=task.dtype.name,
        evaluations=sum(spent),
        seed=seed,
        notes=notes,
    )


def _validate(f, rtol, modes):
    if not callable(f):
        raise TypeError(
            f"expected a function and its arguments, got {type(f).__name__}"
        )
    if rtol is not None and not 0 < rtol < 1:
        raise ValueError(f"rtol is a relative error between 0 and 1, got {rtol!r}")
    unknown = [mode for mode in modes if mode not in MODES]
    if isinstance(modes, str) or unknown or not modes:
        raise ValueError(f"modes is a tuple of some of {MODES}, got {modes!r}")


def _trouble(seen) -> str:
    if not seen.finite:
        return "f is not finite at the point"
    if not seen.repeats:
        return "f is not deterministic: the same arguments gave another value"
    return ""


def _look_twice(look, point, streams):
    """The findings at a point; a rule is accused only if it differs again."""
    trouble, found = look(point, next(streams))
    if all(g.state != DIFFERS for g in found):
        return trouble, found
    _, again = look(point, next(streams))
    confirmed = {(g.leaf, g.mode) for g in again if g.state == DIFFERS}
    return trouble, [
        dataclasses.replace(g, state=UNCONFIRMED)
        if g.state == DIFFERS and (g.leaf, g.mode) not in confirmed
        else g
        for g in found
    ]


def _beside(point, rng):
    """A point a little away in every leaf, where a kink at the point is not met."""
    moves = [directions(rng, [x], num=1)[0][0] for x in point]
    sizes = [_BESIDE * (root_mean_square(x) or 1.0) for x in point]
    return tuple(
        np.asarray(x + size * v, x.dtype)
        for x, size, v in zip(map(np.asarray, point), sizes, moves, strict=True)
    )


def _result(found, trouble, **fields) -> GradCheck:
    found = tuple(sorted(found, key=_severity, reverse=True))
    wrong = [g for g in found if g.state == DIFFERS]
    vague = [g for g in found if g.state not in (AGREES, DIFFERS)]
    if wrong:
        verdict = Verdict.FAIL
        modes = " and ".join(sorted({g.mode for g in wrong}))
        reason = f"wrong {modes} derivative in {_named(wrong)}"
    elif trouble or vague:
        verdict = Verdict.INCONCLUSIVE
        reason = trouble or f"{vague[0].state} ({_named(vague)})"
    else:
        verdict, reason = Verdict.PASS, ""
    return GradCheck(
        findings=found,
        resolution=max((g.resolution for g in found), default=np.inf),
        verdict=verdict,
        reason=reason,
        **fields,
    )


def _named(found) -> str:
    names = list(dict.fromkeys(g.leaf for g in found))
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)


def _severity(finding):
    return finding.state == DIFFERS, finding.state != AGREES, finding.resolution
