"""The stages of a check away from the point given: other points, shapes, integers."""

import dataclasses
from collections.abc import Callable
from typing import Any

from gradstab._attempt import Refusal, attempt
from gradstab.gradcheck.accusations import accusing
from gradstab.gradcheck.conclusion import RIGHT_AT_KINKS, unsettled
from gradstab.gradcheck.convergence import against_limit
from gradstab.gradcheck.differences import points
from gradstab.gradcheck.differences.structure import lost
from gradstab.gradcheck.examination import Examination, Look
from gradstab.gradcheck.stages import places
from gradstab.gradcheck.states import Answer, Outcome
from gradstab.gradcheck.story import Story
from gradstab.gradcheck.subject.arguments import of_other_shapes
from gradstab.gradcheck.subject.other_integers import not_varied, other_integers
from gradstab.gradcheck.subject.problem import problem

ODD = "with an odd number of entries"
FEWER = "with one entry fewer"
INTEGERS = "with other integers and masks"

_NOWHERE = (
    "the rule differs from f at moved points, where f iterates and does not come near "
    "its limit, and agrees with it at none"
)


def at_moved_points(seen: Examination, /) -> Story:
    """Points where a rule may be wrong that is right at the one given."""
    story = Story()
    for where, point in points.moved(seen.problem.leaves, seen.stream()):
        look = seen.look_twice(point, where=where, coarse=True)
        if look.trouble and where == points.GENERIC:
            nearer = {"share": points.NEARER}
            point = points.at_random(seen.problem.leaves, seen.stream(), **nearer)
            look = seen.look_twice(point, where=where, coarse=True)
        look = against_limit(seen, look, point, where=where)
        wrong = tuple(accusing(seen, look, point, where))
        moved = ((where, _answer(look, wrong)),)
        story += Story(wrong, moved=moved, outside=_outside(seen, point, where, wrong))
    answers = {answer for _, answer in story.moved}
    nowhere = Answer.NOT_CONVERGED in answers and Answer.RIGHT not in answers
    trouble = _NOWHERE if nowhere else ""
    return story if story.wrong else dataclasses.replace(story, trouble=trouble)


def _outside(seen: Examination, point: tuple, where: str, wrong):
    """What the point given has and one at which rules are wrong has not."""
    words = lost(seen.problem.leaves, point, seen.problem.names) if wrong else ()
    return ((where, ", ".join(words)),) if words else ()


def _answer(look: Look, wrong) -> Answer:
    if look.trouble:
        return Answer.NOT_DEFINED
    if wrong:
        return Answer.WRONG
    if any(g.state == Outcome.NOT_CONVERGED for g in look.findings):
        return Answer.NOT_CONVERGED
    doubtful = any(g.differs for g in look.findings)
    open_ = unsettled(look.findings, settling=RIGHT_AT_KINKS)
    return Answer.UNDECIDED if doubtful or open_ else Answer.RIGHT


def at_odd_shapes(
    seen: Examination, f: Callable[..., Any], args: tuple, /, *, others, locate
) -> Story:
    """Arguments of other shapes, at which the last block of a rule is not full.

    Args:
        seen: the examination at the shapes given.
        f: the function.
        args: its arguments.
        others: the other functions that are oracles, of the same arguments, by name.
        locate: find the place of an error.
    """
    story = Story()
    if not seen.problem.has_rules:
        return story
    shapes = of_other_shapes(args)
    for size, fewer in shapes:
        where = ODD if size % 2 == 0 else FEWER
        where += f" ({size - 1} for {size})" * (len(shapes) > 1)
        story += _at_other_arguments(
            seen, f, fewer, where, others=others, locate=locate
        )
    return story


def at_other_integers(
    seen: Examination, f: Callable[..., Any], args: tuple, /, *, others, locate
) -> Story:
    """The point given, with other integers and masks.

    Args:
        seen: the examination at those given.
        f: the function.
        args: its arguments.
        others: the other functions that are oracles, of the same arguments, by name.
        locate: find the place of an error.
    """
    task = seen.problem
    if not task.has_rules:
        return Story()
    tried = Story()
    for varied in other_integers(args, seen.stream(), counts=not task.iterates):
        options = {"others": others, "locate": locate}
        tried = _at_other_arguments(seen, f, varied, INTEGERS, **options)
        if tried.moved != ((INTEGERS, Answer.NOT_DEFINED),):
            return tried
    kept = not_varied(args, all_kept=bool(tried.moved))
    note = f"not varied: {', '.join(kept)}"
    return Story(moved=tried.moved, notes=(note,) * bool(kept))


def _at_other_arguments(
    seen: Examination,
    f: Callable[..., Any],
    args: tuple,
    where: str,
    /,
    *,
    others,
    locate,
) -> Story:
    """The same function as another problem, looked at once."""
    precision = "float64" if seen.problem.wide else "own"
    modes = seen.problem.modes

    def traced() -> Examination:
        task = problem(f, args, modes=modes, precision=precision, own=False)
        return Examination(
            task,
            rtol=seen.rtol,
            max_bytes=seen.max_bytes,
            seed=int(seen.stream().integers(2**31)),
            others={name: task.like_f(g) for name, g in others.items()},
        )

    # The functions of the user are traced with arguments that they were not made for.
    inner = attempt(traced)
    if isinstance(inner, Refusal):
        return Story(moved=((where, Answer.NOT_DEFINED),))
    task = inner.problem
    look = inner.look_twice(task.leaves, where=where, coarse=True)
    look = against_limit(inner, look, task.leaves, where=where)
    seen.evaluations += inner.evaluations
    wrong = tuple(accusing(inner, look, task.leaves, where))
    story = Story(wrong, moved=((where, _answer(look, wrong)),))
    return places(inner, story) if locate and wrong else story
