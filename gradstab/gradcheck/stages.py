"""The stages of a check, each an examination in, what it found out."""

import dataclasses
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from gradstab.gradcheck import duel
from gradstab.gradcheck.conclusion import (
    RIGHT_AT_KINKS,
    named,
    settled,
    unsettled,
)
from gradstab.gradcheck.convergence import CONTINUED, against_limit, truth
from gradstab.gradcheck.differences import points
from gradstab.gradcheck.differences.own_precision import OwnPrecision
from gradstab.gradcheck.differences.probes import num_lanes
from gradstab.gradcheck.examination import TOGETHER, Examination, Look
from gradstab.gradcheck.findings import BODY, EXPECTED, ROUNDING, Finding
from gradstab.gradcheck.laws import identities, second_order
from gradstab.gradcheck.laws import transformations as forms
from gradstab.gradcheck.places import localize
from gradstab.gradcheck.places.exhaustive import exhaustive
from gradstab.gradcheck.progress import share_done
from gradstab.gradcheck.states import Answer, Outcome
from gradstab.gradcheck.story import Story
from gradstab.gradcheck.subject import bodies, traits
from gradstab.gradcheck.subject.abilities import REFUSALS, program
from gradstab.gradcheck.subject.arguments import AS_PAIR
from gradstab.gradcheck.subject.problem import Problem, problem

# The relative error that is asked about by default. Coarser dtypes get 0.1.
_RTOL = {"float64": 1e-6, "float32": 1e-2}

# By how much nearer to a kink a rule is judged where f says nothing beside it.
_NEARER = 2.0**-10

# Errors up to this size are those of a tolerance as likely as not, if f holds a loop.
_TOLERANCE = 1e-3

# At most so many wrong leaves are searched for the place of the error.
_SEARCHED = 2


def default_rtol(dtype: DTypeLike) -> float:
    """The resolution asked for if the user does not say."""
    return _RTOL.get(np.dtype(dtype).name, 0.1)


def at_point(seen: Examination, /) -> Story:
    """The point given: beside its kinks, by the rule's body, and what rounding does."""
    look = seen.look_twice(seen.problem.leaves)
    look = against_limit(seen, look, seen.problem.leaves, where=points.AS_GIVEN)
    story = Story(look.findings, notes=_of_limit(look), trouble=look.trouble)
    if story.trouble:
        return story
    if not story.failed and (own := seen.problem.own) is not None:
        story += _rounding(seen, own, look)
    if seen.problem.widened:
        findings = tuple(_with_rounding(story.findings))
        story = dataclasses.replace(story, findings=findings)
    if any(g.state == Outcome.KINK for g in story.findings):
        story = _beside_kinks(seen, story)
    # A rule for the limit of an iteration is not that of the iteration itself.
    truncated = any(g.state == Outcome.TRUNCATED for g in story.findings)
    if seen.problem.has_rules and not truncated and unsettled(story.findings):
        story += _by_body(seen, look)
    return story


def _of_limit(look: Look) -> tuple[str, ...]:
    held = [g for g in look.findings if g.agrees and CONTINUED in g.oracle]
    note = (
        f"f iterates, and stops before its limit: in {named(held)} the rule is that of "
        "f with its iterations continued"
    )
    return (note,) * bool(held)


def _rounding(seen: Examination, own: Problem, look: Look) -> Story:
    """What the rule loses in the dtype of the arguments."""
    lanes = num_lanes(own, seen.max_bytes)
    accepted = max(seen.rtol, default_rtol(own.dtype))
    compare = OwnPrecision(own, lanes=lanes, rtol=accepted)
    seen.in_own = compare.programs
    seen.evaluations += compare.evaluations
    found = tuple(compare(seen.problem.leaves, look.seen))
    lost = [g for g in found if g.state == Outcome.LOST]
    note = f"in {own.dtype} the rule {Outcome.LOST} in {named(lost)}"
    return Story(found, notes=(note,) * bool(lost))


def _with_rounding(found):
    """Findings of formulas that were widened, no finer than the rule's own rounding.

    It is spread over all entries: its root mean square is known from a few.
    """
    own = {(g.leaf, g.mode): 2 * g.error for g in found if g.oracle == ROUNDING}
    for g in found:
        limit = own.get((g.leaf, g.mode), 0.0)
        if g.oracle == ROUNDING or not g.agrees or not g.resolution < limit:
            yield g
        else:
            yield dataclasses.replace(g, resolution=limit)


def _beside_kinks(seen: Examination, story: Story) -> Story:
    """The findings at a kink replaced by those at a point beside."""
    kinks = [g for g in story.findings if g.state == Outcome.KINK]
    point = points.beside(seen.problem.leaves, seen.stream())
    beside = seen.look_twice(point, where=points.BESIDE).findings
    if unsettled(beside, settling=RIGHT_AT_KINKS):
        # Where f is saturated there it may not be so near the kink.
        point = tuple(map(_nearer, seen.problem.leaves, point))
        again = seen.look_twice(point, where=points.BESIDE).findings
        beside = beside if unsettled(again, settling=RIGHT_AT_KINKS) else again
    elsewhere = {(g.leaf, g.mode, g.oracle): g for g in beside}
    beside_together = any(g.leaf == TOGETHER for g in beside)
    findings = tuple(
        elsewhere.get((g.leaf, g.mode, g.oracle), g) if g in kinks else g
        for g in story.findings
        # All arguments together are named only where they say more than each alone.
        if g not in kinks or g.leaf != TOGETHER or beside_together
    )
    note = (
        f"f has a kink in {named(kinks)}: the rule lies between the one-sided slopes "
        "there, and is judged at a point beside"
    )
    return Story(findings, notes=(*story.notes, note))


def _nearer(leaf, moved):
    there, here = np.asarray(moved, np.float64), np.asarray(leaf, np.float64)
    return (here + _NEARER * (there - here)).astype(leaf.dtype)


def _by_body(seen: Examination, look: Look) -> Story:
    """What automatic differentiation of f without its rules says, if it can."""
    try:
        plain = bodies.without_rules(seen.problem.f)
        found = seen.ask(BODY, plain, look, seen.problem.leaves)
    # A body is under no obligation to have a derivative.
    except REFUSALS:
        return Story()
    found = tuple(g for g in found if g.state != Outcome.KINK)
    return Story((*found, *duel.duels(seen, plain, (*look.findings, *found))))


def laws(seen: Examination, /, *, transformations: bool) -> Story:
    """The laws that need no differences, at the point given."""
    task = seen.problem.as_given
    given = {"rtol": seen.rtol}
    found = identities.identities(task, task.leaves, seen.stream(), **given)
    if transformations:
        found += forms.transformations(task, task.leaves, seen.stream(), **given)
    return Story(identities=found)


def of_second_order(seen: Examination, /, *, locate: bool = False) -> Story:
    """The derivatives of the derivatives, as functions of leaves and cotangent.

    Args:
        seen: the examination of f.
        locate: find the place of an error.
    """
    task = seen.problem.as_given
    stream = seen.stream()
    law = second_order.hessian_symmetry(task, task.leaves, stream, rtol=seen.rtol)
    notes = second_order.missing_second_order(task), second_order.off_domain(law)
    story = Story(identities=law, notes=sum(notes, ()))
    for name, g, args in second_order.second_order(task):
        story += _derivative(seen, name, g, args, locate)
    return story


def _derivative(seen: Examination, name: str, g, args: tuple, locate: bool) -> Story:
    given = seen.problem.as_given
    precision = None if given.wide or seen.problem.widened else "own"
    # A constant output of another dtype stays what it is, and so does its cotangent.
    if given.wide and all(y.dtype == np.float64 for y in given.outputs):
        precision = "float64"
    mode = name.split()[0]
    task = problem(g, args, modes=(mode,), precision=precision, own=False)
    inner = Examination(
        _renamed(task, name, given),
        rtol=seen.rtol,
        max_bytes=seen.max_bytes,
        seed=int(seen.stream().integers(2**31)),
    )
    story = at_point(inner)
    if not story.failed and unsettled(story.findings):
        # Where f has a kink its derivative jumps.
        point = points.beside(task.leaves, inner.stream())
        beside = inner.look_twice(point, where=points.BESIDE)
        story = Story(beside.findings, notes=story.notes, trouble=beside.trouble)
    located = places(inner, story).locations if locate and story.failed else ()
    seen.evaluations += inner.evaluations
    trouble = f"{name}: {story.trouble}" if story.trouble else ""
    return Story(
        story.findings,
        locations=tuple(_without_name(place, name) for place in located),
        notes=tuple(inner.notes),
        trouble=trouble,
    )


def _renamed(task: Problem, name: str, given):
    """The problem with the names of f's leaves, and of their derivatives."""
    leaves, forward = given.names, name.endswith("forward")
    kind = "tangent" if forward else "cotangent"
    names = [f"{leaf}, {name}" for leaf in leaves]
    names += [f"{kind} {i}, {name}" for i in range(len(task.names) - len(leaves))]
    outputs = given.output_names if forward else leaves
    what = "tangent" if forward else "gradient"
    # Pairs stay pairs here: they are no gradient in JAX's convention.
    plain = (y.replace(AS_PAIR, " (real, imaginary)") for y in outputs)
    made = [f"the {what} of {y}" for y in plain]
    own = task.own and dataclasses.replace(task.own, names=tuple(names))
    return dataclasses.replace(
        task, names=tuple(names), output_names=tuple(made), own=own
    )


def _without_name(place, name: str):
    """A place in a leaf, and the derivative as its mode."""
    leaf = place.leaf.removesuffix(f", {name}")
    return dataclasses.replace(place, leaf=leaf, mode=name)


def entries(seen: Examination, /, *, progress: bool) -> Story:
    """Every entry of the Jacobian at the point given."""
    task = seen.problem
    with share_done(wanted=progress) as advance:
        full = exhaustive(
            truth(seen),
            task.leaves,
            truth=seen.others.get(EXPECTED),
            rtol=seen.rtol,
            # Without custom rules both modes are JAX's own: the cheaper one will do.
            modes=task.modes if task.has_rules else None,
            max_bytes=seen.max_bytes,
            advance=advance,
        )
    seen.evaluations += full.figures.evaluations
    return Story(
        full.findings,
        locations=full.locations,
        notes=full.figures.notes,
        figures=(full.figures,),
    )


def of_tolerances(seen: Examination, story: Story, /) -> tuple[str, ...]:
    """A note on what small errors may come of, if f holds a loop."""
    wrong = [g for g in story.wrong if g.oracle != ROUNDING]
    slight = [g for g in story.findings if g.proves and g.state == Outcome.SLIGHT]
    near = wrong or slight
    size = max((g.error for g in near), default=np.inf)
    if size > _TOLERANCE or story.broken:
        return ()
    with seen.problem.context():
        closed = program(seen.problem.f, seen.problem.leaves)
    if closed is None or not traits.loops(closed):
        return ()
    return (
        f"f holds a loop: an error of {size:.0e} may be that of a tolerance or a "
        "step inside of f or its rule, not of a formula; rtol= says what is accepted",
    )


def places(seen: Examination, story: Story, /) -> Story:
    """The story with the places where the worst of the wrong rules are wrong, and why.

    An accusation by differences for which there is no wrong entry contradicts itself.
    If the error is not there along whole directions either it is taken back.
    """
    searched = set()
    while len(searched) < _SEARCHED and (g := _worst(seen, story, searched)):
        truth, task = seen.others.get(g.oracle), seen.problem.of_outputs(g.output)
        if g.output and truth is not None:
            truth = seen.problem.only(truth, g.output)
        point = seen.places[g.point]
        way = seen.ways.get(g.point, {})
        place = localize.locate(task, point, g, seen.stream(), truth=truth, **way)
        if place is not None:
            seen.evaluations += place.evaluations
            story += Story(locations=(place,))
        elif g.by_differences:
            state = localize.is_there(task, point, g, seen.stream(), **way)
            if state != Outcome.DIFFERS:
                story = _taken_back(story, g, state)
                continue
        searched.add(g.leaf)
    return story


def _worst(seen: Examination, story: Story, searched) -> Finding | None:
    """The finding of the largest error of which a place is wanted; None if none is."""
    known = {place.leaf for place in story.locations}
    wanted = [
        g
        for g in settled(story.findings)
        if g.differs
        and g.proves
        and g.leaf in set(seen.problem.names) - searched
        and g.leaf.removesuffix(AS_PAIR) not in known
    ]
    return max(wanted, key=lambda g: g.error, default=None)


def _taken_back(story: Story, finding: Finding, state: Any) -> Story:
    """The story without an accusation; at a moved point nothing else is to be said."""
    where = finding.point
    given = where in (points.AS_GIVEN, points.BESIDE)
    instead = (dataclasses.replace(finding, state=state),) * given
    findings = tuple(g for g in story.findings if g != finding) + instead
    wrong = any(g.point == where for g in findings if g.differs)
    moved = tuple(
        (name, Answer.UNDECIDED if name == where and not wrong else answer)
        for name, answer in story.moved
    )
    return dataclasses.replace(story, findings=findings, moved=moved)
