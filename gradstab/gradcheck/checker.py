"""The check: probe, judge, look again before accusing."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gradstab._checked import number, truth, whole_number
from gradstab._checked import seed as checked_seed
from gradstab.errors import UserTypeError, UserValueError
from gradstab.gradcheck.conclusion import conclude
from gradstab.gradcheck.curves import curves
from gradstab.gradcheck.differences.probes import MAX_BYTES
from gradstab.gradcheck.elsewhere import (
    at_moved_points,
    at_odd_shapes,
    at_other_integers,
)
from gradstab.gradcheck.examination import Examination
from gradstab.gradcheck.findings import EXPECTED, REFERENCE, GradCheck
from gradstab.gradcheck.magnitudes import at_magnitudes
from gradstab.gradcheck.stages import (
    at_point,
    default_rtol,
    entries,
    laws,
    of_second_order,
    of_tolerances,
    places,
)
from gradstab.gradcheck.story import Story
from gradstab.gradcheck.subject.problem import MODES, PRECISIONS, problem
from gradstab.gradcheck.subject.time_limit import OutOfTimeError, time_limit

_AT = ("given", "both")
_ORDERS = (1, 2)

_OUT_OF_TIME = (
    "not everything was looked at within {}: there was time for {} evaluations"
)


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
    max_seconds: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> GradCheck:
    r"""Checks the derivatives of a function against differences of its value.

    Each floating argument leaf is moved along random directions :math:`v`, alone and
    together with all others. The central differences of f, extrapolated to vanishing
    step, are compared with the JVP, :math:`\langle w, J v \rangle`, and with the VJP,
    :math:`\langle J^\top w, v \rangle`, for random cotangents :math:`w`. The noise of
    the differences is measured too, so the result says how small an error it would have
    shown: its *resolution*, an upper limit of the relative error :math:`\|E\|_F /
    \|J\|_F` of every rule, in the worst leaf. (An error of rank one can hide once in
    5e4 checks.) If the true derivative is zero the resolution is absolute: relative to
    f's value over the size of the argument. An output whose Jacobian is much smaller
    than those of others is held to its own, and looked at alone if need be.

    * PASS: the resolution is at most ``rtol``, for every leaf and mode, and nothing
      speaks against the rule.
    * FAIL: a rule differs from the differences by more than their noise, along three
      independent sets of directions; or from the reference; or it breaks a law that
      every derivative obeys (linear in the cotangent, adjoint to the JVP, the same
      under transformations, ...); or it loses too many digits in its own dtype.
    * INCONCLUSIVE: neither can be said, and `reason` says why.

    A wrong derivative for which no wrong entry is found is no accusation, unless it is
    seen along whole directions again (if ``locate`` is set). Nor is an error below 1e-2
    at moved points, where f ends a loop by a tolerance: `moved` says "undecided". A law
    that does not hold exactly limits the resolution, if it is accepted.

    At a kink a rule is accepted if it lies between the one-sided slopes and is right at
    a point beside, and a note says so. If the kink comes of ties (equal entries, of any
    argument), it must be right along directions that keep them too.

    Everything is lifted to float64, whatever `jax_enable_x64` says. If f rounds to a
    narrower dtype inside, or does not trace in float64, its program and those of its
    rules are widened, so that what is checked are the formulas; constants and masks
    keep their values. What cannot be widened is checked in its own dtype. Notes say
    what was done. What
    rounding does to a rule in the dtype of the arguments is a finding of its own: it
    may be ``rtol`` or, if that is more, what is the default in that dtype. Where the
    differences see too little, the automatic differentiation of the bodies of f's
    custom rules may acquit a rule; it accuses one only along the direction in which the
    two differ most, and if the differences there agree with it.

    Args:
        f: function of pytrees to a pytree, whose floating leaves are checked together.
            If it cannot be traced by `jax.jit` or mapped by `jax.vmap`, it is called
            one point at a time, which a note says.
        *args: the point. Complex numbers are moved as pairs of real ones. Integers,
            booleans, None and PRNG keys are passed on as given.
        rtol: the resolution asked for; 1e-6 in float64, 1e-2 in float32, else 0.1. A
            smaller error is not accused; one near it is measured along three sets of
            directions, and if they leave open whether it is larger nothing is said.
        at: ``both``: also at points moved from the one given (at random by an eighth of
            every entry, larger, smaller, of the other sign, with zeros and ties, with
            equal arguments), where f is defined and finite; ``given``: only there. If f
            has custom rules, also with one entry fewer along the axes of every size
            that is even or has other divisors, and with other integers and masks; if
            they are the user's, also with equal neighbours, with one entry more (axes
            of two or three entries are left as they are), and with very large and very
            small entries in their own dtype, where a rule must be finite as long as f
            is. A rule that is wrong, or not finite where f is smooth, at a moved point
            fails; one that raises at other shapes where f is defined is INCONCLUSIVE,
            or has a note if it was written for the shape given; what else came of it
            there is in `moved`. Where zeros and ties give f a kink in
            several arguments at once, every slope of f around the point is accepted.
            A function may iterate towards a limit, and its rule hold for that limit: it
            is held against f with its iterations continued, and is not accused where
            they do not come near a limit. A loop until convergence that takes far
            longer than at the point given counts as endless, and f as not defined
            there.
        order: 2 checks the derivatives of the derivatives too: forward over reverse,
            reverse over reverse and reverse over forward, as far as they exist, with an
            independent cotangent.
        modes: the rules to check: ``forward``, ``reverse`` or both. A mode that f has
            not is left out, with a note.
        reference: a function with the arguments, values and derivatives that f should
            have. Its automatic differentiation is one more oracle.
        expect: a function with the derivatives that the rule is meant to have, instead
            of those of f: how a straight-through estimator is declared.
        exhaustive: compare every entry of the Jacobian too, and give the figures of the
            textbooks.
        precision: ``float64``: an error if f does not exist in it; ``own``: that of the
            arguments, for code or hardware without float64.
        transformations: try whether the derivatives are the same under `jax.jit`,
            `jax.vmap`, `jax.lax.scan`, `jax.checkpoint` and `jax.shard_map`.
        locate: after FAIL, find the wrong entries and their likely cause.
        max_bytes: memory that the evaluations under way may take, roughly.
        max_seconds: the time after which the check ends with what it knows by then:
            INCONCLUSIVE, unless something is wrong already. It is looked at between
            compiled programs: neither one that runs nor a compilation is interrupted,
            and the check of a large program outlasts it by one of these. None is no
            limit; but a loop until convergence ends in any case.
        seed: of the random directions.
        progress: show a progress bar of the exhaustive comparison.

    Returns:
        The verdict and what it rests on. A wrong rule raises nothing.

    Raises:
        TypeError: f is not callable, has none of the modes asked for, or does not exist
            in the precision asked for.
        ValueError: there is nothing to differentiate, or an option is out of range.

    Cost:
        It does not depend on the sizes of the leaves, but on their number: with one
        leaf, in float64, 192 evaluations of f at the point given and at each of five
        to seven moved points (half of them where these leave no doubt), none farther
        away than the leaf is large; 48 farther away where a rule says that there is no
        slope; 384 more where that is not enough, to confirm an error (twice) and beside
        a kink; with several, as many for each and for all
        together. What cannot be moved is found in some hundred. About a
        hundred evaluations of the rules, and 300 to 600 to find the place of an error.
        A small function takes 0.4 s of one core, nearly all of it compiling; the
        transformations about as much again.

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
    checked_seed(seed)
    whole_number(max_bytes, "max_bytes", least=1)
    for name, value in {
        "exhaustive": exhaustive,
        "transformations": transformations,
        "locate": locate,
        "progress": progress,
    }.items():
        truth(value, name)
    with time_limit(max_seconds):
        task = problem(f, args, modes=modes, precision=precision)
        oracles = {REFERENCE: reference, EXPECTED: expect}
        given = {name: g for name, g in oracles.items() if g is not None}
        try:
            others = {name: task.like_f(g) for name, g in given.items()}
        except NotImplementedError:  # f has a form in float64, and they have none
            task = task.as_given
            others = {name: task.like_f(g) for name, g in given.items()}
        seen = Examination(
            task,
            rtol=default_rtol(task.as_given.dtype) if rtol is None else float(rtol),
            max_bytes=max_bytes,
            seed=seed,
            others=others,
        )
        story = Story()
        stories = _stories(
            seen,
            f,
            args,
            others=given,
            at=at,
            order=order,
            exhaustive=exhaustive,
            transformations=transformations,
            locate=locate,
            progress=progress,
        )
        try:
            for told in stories:
                story = told
        except OutOfTimeError as limit:
            story += Story(trouble=_OUT_OF_TIME.format(limit, seen.evaluations))
    return conclude(
        story,
        rtol=seen.rtol,
        precision=task.dtype.name,
        evaluations=seen.evaluations,
        seed=seed,
        curves=curves(task.names, seen.at_given),
        notes=(*task.notes, *story.notes, *seen.notes, *of_tolerances(seen, story)),
    )


def _stories(
    seen: Examination,
    f: Callable[..., Any],
    args: tuple,
    /,
    *,
    others,
    at,
    order: int,
    exhaustive,
    transformations,
    locate,
    progress: bool,
) -> Iterator[Story]:
    """What was found after each stage; a stage is left out if it has nothing to add."""
    story = at_point(seen)
    yield story
    if not story.trouble:
        story += laws(seen, transformations=transformations)
        yield story
    if exhaustive and not story.trouble:
        story += entries(seen, progress=progress)
        yield story
    if at == "both" and not story.failed and not story.trouble:
        options = {"others": others, "locate": locate}
        for elsewhere in (
            lambda: at_moved_points(seen),
            lambda: at_magnitudes(seen),
            lambda: at_odd_shapes(seen, f, args, **options),
            lambda: at_other_integers(seen, f, args, **options),
        ):
            story += elsewhere()
            yield story
    if order > 1 and not story.failed and not story.trouble:
        story += of_second_order(seen, locate=locate)
        yield story
    if locate and story.failed:
        yield places(seen, story)


def _validate(
    f: Callable[..., Any],
    rtol: float | None,
    at,
    order: int,
    modes: Sequence[str],
    precision: str | None,
    reference,
    expect,
):
    for name, function in {"f": f, "reference": reference, "expect": expect}.items():
        wanted = name == "f" or function is not None
        if wanted and not callable(function):
            raise UserTypeError(
                f"{name}: expected a function and its arguments, got a "
                f"{type(function).__name__}"
            )
    if reference is not None and expect is not None:
        raise UserValueError(
            "f has either a reference or an expected derivative, not both"
        )
    if rtol is not None:
        number(rtol, "rtol", above=0, below=1)
    unknown = [mode for mode in modes if mode not in MODES]
    if isinstance(modes, str) or unknown or not modes:
        raise UserValueError(f"modes is a tuple of some of {MODES}, got {modes!r}")
    given = {"at": (at, _AT), "order": (order, _ORDERS)}
    for name, (value, known) in (
        given | {"precision": (precision, PRECISIONS)}
    ).items():
        if value not in known:
            raise UserValueError(f"{name} is one of {known}, got {value!r}")
