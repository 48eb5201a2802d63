"""The check: probe, judge, look again before accusing."""

import importlib
from collections.abc import Callable

import numpy as np

from gradstab.gradcheck import points
from gradstab.gradcheck.conclusion import conclude, named, unsettled
from gradstab.gradcheck.examination import Examination, Look
from gradstab.gradcheck.findings import (
    BODY,
    EXPECTED,
    REFERENCE,
    Finding,
    GradCheck,
)
from gradstab.gradcheck.own_precision import LOST, OwnPrecision
from gradstab.gradcheck.probes import MAX_BYTES, num_lanes
from gradstab.gradcheck.problem import MODES, PRECISIONS, problem
from gradstab.gradcheck.verdict import AGREES, DIFFERS, KINK

# The relative error that is asked about by default. Coarser dtypes get 0.1.
_RTOL = {"float64": 1e-6, "float32": 1e-2}
_AT = ("given", "both")
_ORDERS = (1, 2)
_ITERATES = "f iterates: it was checked at the point given only"


def check(
    f: Callable,
    /,
    *args,
    rtol: float | None = None,
    at: str = "both",
    order: int = 1,
    modes: tuple[str, ...] = MODES,
    reference: Callable | None = None,
    expect: Callable | None = None,
    exhaustive: bool = False,
    precision: str | None = None,
    transformations: bool = True,
    locate: bool = True,
    max_bytes: int = MAX_BYTES,
    seed: int = 0,
    progress: bool = False,
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
    directions, or breaks a law that every derivative obeys; otherwise INCONCLUSIVE,
    with a reason. If the true derivative is zero the resolution is absolute: relative
    to f's value over the size of the argument. At a kink a rule is accepted if it lies
    between the one-sided slopes and is right at a point beside, and a note says so.

    Everything is lifted to float64, whatever `jax_enable_x64` says, unless f rounds to
    a narrower dtype inside or does not trace in float64; then a note says so. What
    rounding does to a rule in the dtype of the arguments is a finding of its own: it
    may be ``rtol`` or, if that is more, what is the default in that dtype.

    Args:
        f: function of pytrees to a pytree, whose floating leaves are checked together.
            If it cannot be traced by `jax.jit` or mapped by `jax.vmap`, it is called
            one point at a time.
        *args: the point. Complex numbers are moved as pairs of real ones. Integers,
            booleans, None and PRNG keys are passed on as given.
        rtol: the resolution asked for; 1e-6 in float64, 1e-2 in float32, else 0.1.
        at: ``both``: also at points moved from the one given (larger, smaller, of the
            other sign, with zeros and ties), where f is finite; ``given``: only there.
            A rule that is wrong at a moved point fails; one that nothing can be said
            about there is noted. A function that iterates is not moved.
        order: 2 checks the derivatives of the derivatives too.
        modes: the rules to check: ``forward``, ``reverse`` or both. A mode that f has
            not is left out, with a note.
        reference: a function with the arguments, values and derivatives that f should
            have. Its automatic differentiation is one more oracle.
        expect: a function with the derivatives that the rule is meant to have, instead
            of those of f: how a straight-through estimator is declared.
        exhaustive: compare every entry of the Jacobian too.
        precision: ``float64``: an error if f does not exist in it; ``own``: that of the
            arguments, for code or hardware without float64.
        transformations: try whether the derivatives are the same under `jax.jit`,
            `jax.vmap`, `jax.lax.scan`, `jax.checkpoint` and `jax.shard_map`.
        locate: after FAIL, find the wrong entries and their likely cause.
        max_bytes: memory that the evaluations under way may take, roughly.
        seed: of the random directions.
        progress: show a progress bar of the exhaustive comparison.

    Returns:
        The verdict and what it rests on. A wrong rule raises nothing.

    Raises:
        TypeError: f is not callable, has none of the modes asked for, or does not exist
            in the precision asked for.
        ValueError: there is nothing to differentiate, or an option is out of range.

    Cost:
        In float64, 432 evaluations of f per argument leaf, whatever its size, mapped
        in turns of at most ``max_bytes``; half of that at each of four moved points; as
        many again to confirm an error, and to look beside a kink. About twenty more for
        each other oracle. A small function takes a second, nearly all of it compiling.

    References:
        Moré and Wild (2012), Estimating derivatives of noisy simulations; Goldenshluger
        and Nemirovski (1997), On spatially adaptive estimation of nonparametric
        regression (the choice of step).

    >>> import jax.numpy as jnp
    >>> result = check(jnp.tanh, jnp.linspace(-1, 1, 5))
    >>> result.verdict, result.resolution < 1e-6
    (<Verdict.PASS: 'PASS'>, True)
    """
    _validate(f, rtol, at, order, modes, precision, reference, expect)
    task = problem(f, args, modes=modes, precision=precision)
    others = {REFERENCE: reference, EXPECTED: expect}
    seen = Examination(
        task,
        rtol=_default_rtol(task.dtype) if rtol is None else float(rtol),
        max_bytes=max_bytes,
        seed=seed,
        others={n: task.of_leaves(g) for n, g in others.items() if g is not None},
    )
    look = seen.look_twice(task.leaves)
    found, notes = list(look.findings), list(task.notes)
    if not look.trouble:
        found, notes = _at_point(seen, look, notes)
    moved = ()
    if not look.trouble and at == "both" and not _accused(found):
        more, moved = _at_moved_points(seen)
        found += more
        notes += [_ITERATES] * task.iterates
    return conclude(
        found,
        trouble=look.trouble,
        rtol=seen.rtol,
        precision=task.dtype.name,
        evaluations=seen.evaluations,
        seed=seed,
        notes=(*notes, *seen.notes),
        moved=moved,
    )


def _validate(f, rtol, at, order, modes, precision, reference, expect):
    for function in (f, reference, expect):
        if function is not None and not callable(function):
            raise TypeError(
                f"expected a function and its arguments, got {type(function).__name__}"
            )
    if reference is not None and expect is not None:
        raise ValueError("f has either a reference or an expected derivative, not both")
    if rtol is not None and not 0 < rtol < 1:
        raise ValueError(f"rtol is a relative error between 0 and 1, got {rtol!r}")
    unknown = [mode for mode in modes if mode not in MODES]
    if isinstance(modes, str) or unknown or not modes:
        raise ValueError(f"modes is a tuple of some of {MODES}, got {modes!r}")
    given = {"at": (at, _AT), "order": (order, _ORDERS)}
    for name, (value, known) in (
        given | {"precision": (precision, PRECISIONS)}
    ).items():
        if value not in known:
            raise ValueError(f"{name} is one of {known}, got {value!r}")


def _default_rtol(dtype) -> float:
    return _RTOL.get(np.dtype(dtype).name, 0.1)


def _accused(found) -> bool:
    return any(g.state == DIFFERS for g in found)


def _at_point(seen: Examination, look: Look, notes):
    """All that is said at the point given: beside its kinks, by body, by rounding."""
    task = seen.problem
    found = list(look.findings)
    if task.own is not None and not _accused(found):
        found += _rounding(seen, look)
    if kinks := [g for g in found if g.state == KINK]:
        found = _beside_kinks(seen, found)
        notes = [
            *notes,
            f"f has a kink in {named(kinks)}: the rule lies between the one-sided "
            "slopes there, and is judged at a point beside",
        ]
    if task.has_rules and unsettled(found):
        found += _by_body(seen, look)
    if lost := [g for g in found if g.state == LOST]:
        notes = [*notes, f"in {task.own.dtype} f {LOST[6:]} in {named(lost)}"]
    return found, notes


def _rounding(seen: Examination, look: Look) -> list[Finding]:
    task = seen.problem
    compare = OwnPrecision(
        task,
        lanes=num_lanes(task, seen.max_bytes),
        rtol=max(seen.rtol, _default_rtol(task.own.dtype)),
    )
    seen.evaluations += compare.evaluations
    return compare(task.leaves, look.seen)


def _beside_kinks(seen: Examination, found) -> list[Finding]:
    """The findings at a kink replaced by those at a point beside."""
    point = points.beside(seen.problem.leaves, seen.stream())
    beside = seen.look_twice(point, where=points.BESIDE).findings
    elsewhere = {(g.leaf, g.mode, g.oracle): g for g in beside}
    return [
        elsewhere.get((g.leaf, g.mode, g.oracle), g) if g.state == KINK else g
        for g in found
    ]


def _by_body(seen: Examination, look: Look) -> list[Finding]:
    """What automatic differentiation of f without its rules says, if it can."""
    try:
        bodies = importlib.import_module("gradstab.gradcheck.bodies")
        plain = bodies.without_rules(seen.problem.f)
        found = seen.ask(BODY, plain, look, seen.problem.leaves)
    # A body is under no obligation to have a derivative.
    except (TypeError, ValueError, NotImplementedError, AssertionError):
        return []
    return [g for g in found if g.state != KINK]


def _at_moved_points(seen: Examination):
    """Findings of rules that are wrong at moved points, and what came of each point."""
    wrong, answers = [], []
    if seen.problem.iterates:
        return wrong, ()
    for where, point in points.moved(seen.problem.leaves, seen.stream()):
        look = seen.look_twice(point, where=where, coarse=True)
        accused = [g for g in look.findings if _is_wrong_there(g)]
        open_ = unsettled(look.findings, settling=(AGREES, KINK))
        answers.append((where, _answer(look, accused, open_)))
        wrong += accused
    return wrong, tuple(answers)


def _answer(look, accused, unsettled) -> str:
    if look.trouble:
        return "not defined"
    return "wrong" if accused else "undecided" if unsettled else "right"


def _is_wrong_there(finding) -> bool:
    """Whether a rule is finite, and wrong: at borders infinite slopes are no error."""
    return finding.state == DIFFERS and bool(np.isfinite(finding.error))
