"""The stages of a check away from the point given: other points, shapes, integers."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
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
from gradstab.gradcheck.subject.arguments import (
    has_divisors,
    of_other_shapes,
    shorter,
)
from gradstab.gradcheck.subject.longer import longer, sizes_of, with_gaps
from gradstab.gradcheck.subject.other_integers import not_varied, other_integers
from gradstab.gradcheck.subject.problem import Problem, problem
from gradstab.gradcheck.subject.undefined import is_another, reads_all, refusal_of_rule
from gradstab.gradcheck.subject.uniform import Uniform

ODD = "with an odd number of entries"
FEWER = "with one entry fewer"
MORE = "with one entry more"
INTEGERS = "with other integers and masks"

_REFUSES = "{} f is defined, and {}"

_NOWHERE = (
    "the rule differs from f at moved points, where f iterates and does not come near "
    "its limit, and agrees with it at none"
)


def at_moved_points(seen: Examination, /) -> Story:
    """Points where a rule may be wrong that is right at the one given."""
    story, task = Story(), seen.problem
    # What JAX does by itself at ties is known.
    wanted = {"neighbours": task.users_rules}
    for where, point in points.moved(task.leaves, seen.stream(), **wanted):
        if where == points.NEIGHBOURS and story.wrong:
            break
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
    story, task = Story(), seen.problem
    if not task.has_rules:
        return story
    options = {"others": others, "locate": locate}
    uniform = Uniform(task, f)
    shapes = of_other_shapes(args)
    for size, fewer in shapes:
        where = ODD if size % 2 == 0 else FEWER
        where += f" ({size - 1} for {size})" * (len(shapes) > 1)
        if others or not uniform.at(fewer, {size: size - 1}):
            found = _at_other_arguments(seen, f, args, fewer, where, **options)
            story += _if_meant(seen, f, args, fewer, found)
        else:
            story += Story(moved=((where, Answer.RIGHT),))
    # What iterates need not end where there is more.
    said = story.failed or story.trouble
    if task.users_rules and not task.iterates and not said:
        story += _at_longer(seen, f, args, uniform, **options)
    return story


def _at_longer(
    seen: Examination,
    f: Callable[..., Any],
    args: tuple,
    uniform: Uniform,
    /,
    **options,
) -> Story:
    """One entry more along every axis of a prime size, and along all others at once.

    Blocks as long as an axis leave nothing over before. Where f is not defined so, an
    axis of a prime size is shortened. Axes of two and three entries are made longer
    with the others, and nothing is said of a rule that is not made for that.
    """
    sizes, short = sizes_of(args), sizes_of(args, short=True)
    others = [n for n in sizes if has_divisors(n)]
    primes = [[n] for n in sizes if n not in others]
    several = len(primes) + bool(others) > 1
    look = functools.partial(_one_more, seen, f, args, uniform, **options)
    story = Story()
    for group in primes:
        found = look(group, several=several)
        if _is_undefined(found):
            where = FEWER + f" ({_counts(group, -1)})" * several
            fewer = shorter(args, *group)
            found = _at_other_arguments(seen, f, args, fewer, where, **options)
            found = _if_meant(seen, f, args, fewer, found)
        story += found
    if short and not story.wrong:
        found = look([*others, *short], several=True)
        # Coordinates are as many as there are, and a rule may count on it.
        if found.wrong or not (found.trouble or _is_open(found)):
            return story + found
    return story + look(others, several=several) if others else story


def _one_more(
    seen: Examination,
    f: Callable[..., Any],
    args: tuple,
    uniform: Uniform,
    group: list[int],
    /,
    *,
    several: bool,
    **options,
) -> Story:
    """What is found with one entry more along all axes of some sizes."""
    where = MORE + f" ({_counts(group, 1)})" * several
    more = longer(args, group)
    if not options["others"] and uniform.at(more, {n: n + 1 for n in group}):
        return Story(moved=((where, Answer.RIGHT),))
    found = _at_other_arguments(seen, f, args, more, where, **options)
    return _if_meant(seen, f, args, more, found, gaps=with_gaps(args, group))


def _is_undefined(story: Story) -> bool:
    return [answer for _, answer in story.moved] == [Answer.NOT_DEFINED]


def _is_open(story: Story) -> bool:
    return any(answer != Answer.RIGHT for _, answer in story.moved)


def _counts(sizes: list[int], change: int) -> str:
    return ", ".join(f"{n + change} for {n}" for n in sizes)


def _if_meant(
    seen: Examination,
    f: Callable[..., Any],
    given: tuple,
    args: tuple,
    story: Story,
    /,
    *,
    gaps: Iterable[tuple] = (),
) -> Story:
    """What was found at other shapes, if f was made for them; else that it was not.

    Args:
        seen: the examination.
        f: the function.
        given: its arguments.
        args: those of other shapes.
        story: what was found.
        gaps: the arguments with NaN in entries that f has to read.
    """
    if not (story.failed or story.trouble or story.notes):
        return story
    wide = seen.problem.wide
    if not is_another(f, given, args, wide=wide) and reads_all(f, gaps, wide=wide):
        return story
    return Story(moved=tuple((where, Answer.NOT_DEFINED) for where, _ in story.moved))


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
        tried = _at_other_arguments(seen, f, args, varied, INTEGERS, **options)
        if tried.trouble:
            # What counts need not be anything else to a rule.
            notes = (*tried.notes, tried.trouble)
            tried = dataclasses.replace(tried, notes=notes, trouble="")
        elif tried.moved != ((INTEGERS, Answer.NOT_DEFINED),):
            return tried
    kept = not_varied(args, all_kept=bool(tried.moved))
    note = f"not varied: {', '.join(kept)}"
    return Story(moved=tried.moved, notes=(*tried.notes, *(note,) * bool(kept)))


def _at_other_arguments(
    seen: Examination,
    f: Callable[..., Any],
    given: tuple,
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

    def traced() -> Problem:
        return problem(f, args, modes=modes, precision=precision, own=False)

    # The functions of the user are traced with arguments that they were not made for.
    task = attempt(traced)
    if isinstance(task, Refusal):
        return _refused(seen, f, given, args, where)
    like = attempt(lambda: {name: task.like_f(g) for name, g in others.items()})
    if isinstance(like, Refusal):
        return Story(moved=((where, Answer.NOT_DEFINED),))
    inner = Examination(
        task,
        rtol=seen.rtol,
        max_bytes=seen.max_bytes,
        seed=int(seen.stream().integers(2**31)),
        others=like,
    )
    look = inner.look_twice(task.leaves, where=where, coarse=True)
    look = against_limit(inner, look, task.leaves, where=where)
    seen.evaluations += inner.evaluations
    wrong = tuple(accusing(inner, look, task.leaves, where))
    story = Story(wrong, moved=((where, _answer(look, wrong)),))
    return places(inner, story) if locate and wrong else story


def _refused(
    seen: Examination, f: Callable[..., Any], given: tuple, args: tuple, where: str
) -> Story:
    """Where f or its rule raises: nothing is open there, unless it is the rule alone.

    A rule that was written for the shapes given has a note.
    """
    task, raised = seen.problem, None
    # What iterates need not end there.
    if not task.iterates:
        raised = refusal_of_rule(f, args, modes=task.modes, wide=task.wide)
    if raised is None:
        return Story(moved=((where, Answer.NOT_DEFINED),))
    what = _REFUSES.format(where, raised)
    if raised.names_size(given, args):
        return Story(moved=((where, Answer.UNDECIDED),), notes=(what,))
    return Story(moved=((where, Answer.UNDECIDED),), trouble=what)
