"""Where a rule is wrong: the entry of the argument, the entry of the output, why."""

import itertools
from collections.abc import Callable

import numpy as np

from gradstab.errors import UserValueError
from gradstab.gradcheck.differences.ladders import Ladder
from gradstab.gradcheck.findings import Finding, Location
from gradstab.gradcheck.places.comparison import Comparison
from gradstab.gradcheck.places.entry import Numbers, is_pair, numbers, place_of
from gradstab.gradcheck.places.hints import cause, part
from gradstab.gradcheck.places.hints.factors import NO_GRADIENT
from gradstab.gradcheck.places.leaf_programs import GROUP, LANES, LeafPrograms
from gradstab.gradcheck.places.search import wrong_entries
from gradstab.gradcheck.states import Outcome
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.vectors import root_mean_square

# Along which an error that has no place is looked for once more.
_DIRECTIONS = 4

# Over so few directions the gap of a kink may look so much smaller than it is.
_LUCK = 2.0

# In the place of an entry: a random combination of all outputs.
_MIXED = "mixed at random"


def locate(
    problem: Problem,
    point: tuple,
    finding: Finding,
    rng: np.random.Generator,
    /,
    *,
    truth: Callable | None = None,
    max_evaluations: int = 600,
    hints: bool = True,
    **way,
) -> Location | None:
    """Finds the worst wrong entry of a leaf's Jacobian, and how many are wrong.

    Args:
        problem: what was checked.
        point: where, one array per leaf.
        finding: of the rule that differs: its leaf and mode.
        rng: of the directions.
        truth: a function of the leaves whose slopes are the truth; None for f itself.
        max_evaluations: of f, its JVP and its VJP, for the place. One wrong entry of
            1e6 needs fewer than 300 in float64; of several, those that this many
            evaluations do not reach are counted from a sample.
        hints: whether to look for the cause too, for about 100 evaluations more.
        **way: how the leaves were moved when it was found: ``held``, ``reach``,
            ``proportional``; see `Prober`.

    Returns:
        The place, the two values there with the bar of the expected one, and the cause
        if one fits. None if no entry stands out of the noise of the differences.

    Raises:
        ValueError: the problem has no leaf of that name.
    """
    seen = comparison(problem, point, finding, rng, truth, **way)
    outputs = (GROUP + 1) * int(np.ceil(np.log(seen.num_outputs) / np.log(GROUP)) + 2)
    search_limit = max_evaluations - LANES - outputs
    wrong = wrong_entries(seen, rng, max_evaluations=search_limit)
    if not wrong.errors:
        return None
    entry = max(wrong.errors, key=lambda i: wrong.errors[i])
    found = _worst_output(seen, entry, rng)
    leaf, index, total = place_of(seen, entry)
    count = wrong.count
    if is_pair(seen):  # of which one part or both may be wrong
        share = len({i // 2 for i in wrong.errors}) / len(wrong.errors)
        count = min(total, int(np.ceil(share * count)))
    return Location(
        value=found.value,
        expected=found.expected,
        bar=found.bar,
        leaf=leaf,
        mode=finding.mode,
        index=index,
        count=count,
        total=total,
        hint=_hint(seen, found, rng, count, total) if hints else "",
        output=found.output,
        estimated=wrong.estimated,
        evaluations=seen.evaluations,
        along=found.along,
        instead=found.instead,
    )


def is_there(
    problem: Problem,
    point: tuple,
    finding: Finding,
    rng: np.random.Generator,
    /,
    **way,
) -> Outcome:
    """Whether the error of a finding without a place is seen along whole directions.

    Args:
        problem: what was checked.
        point: where.
        finding: that says that differences and the rule differ.
        rng: of the directions.
        **way: how the leaves were moved when it was found; see `locate`.

    Returns:
        ``differs`` if it is, or if the differences see too little here; a kink if it is
        within the gap between the one-sided slopes; else that no place was found.
    """
    seen = comparison(problem, point, finding, rng, None, **way)
    error, bar, kink, size = _along(seen, rng)
    if not np.isfinite(error + bar + kink + size):
        return Outcome.DIFFERS
    if bar < error <= bar + kink:
        # A kink that comes of ties is none where they are kept.
        error, bar, kink, _ = _along(seen, rng, tied=True)
        return Outcome.DIFFERS if error > bar + kink else Outcome.KINK
    small = error + bar < finding.error * size / 4
    return Outcome.UNPLACED if error <= bar and small else Outcome.DIFFERS


def _along(seen: Comparison, rng: np.random.Generator, *, tied: bool = False):
    """Error, bar, gap of a kink and size along some directions, root mean squares.

    Args:
        seen: the rule beside its function.
        rng: of the directions.
        tied: move entries that are equal by the same.
    """
    rows = []
    for _ in range(_DIRECTIONS):
        direction = rng.choice([-1.0, 1.0], seen.x.size)
        direction *= rng.uniform(0.5, 1.5, seen.x.size)
        if tied:
            direction = direction[np.unique(seen.x, return_inverse=True)[1].ravel()]
        ladder = seen.ladder(direction)
        best = ladder.best(seen.cotangents)
        with np.errstate(invalid="ignore"):
            error = root_mean_square(seen.rule(direction[None])[0] - best.value)
        gap = ladder.gap(best.level) @ seen.cotangents.T
        kink = _LUCK * root_mean_square(gap)
        rows.append((error, best.bar, kink, root_mean_square(best.value)))
    return map(root_mean_square, zip(*rows, strict=True))


def _hint(seen: Comparison, found, rng: np.random.Generator, count: int, total) -> str:
    if found.instead:
        what = found.instead.partition(",")[0]
        return f"f has {what} there, and the rule is not finite"
    words = cause(seen, rng)
    if words == NO_GRADIENT and count < total:
        return f"no gradient, where f has one for {count} of {total} entries only"
    return words or part(seen, rng)


def hint(
    problem: Problem,
    point: tuple,
    finding: Finding,
    rng: np.random.Generator,
    /,
    *,
    truth: Callable | None = None,
) -> str:
    """The likely cause of a wrong rule in words; empty if none fits.

    `locate` says it too. See `gradstab.gradcheck.places.hints` for what is recognised.
    """
    return cause(comparison(problem, point, finding, rng, truth), rng)


def comparison(
    problem: Problem,
    point: tuple,
    finding: Finding,
    rng: np.random.Generator,
    truth,
    /,
    **way,
) -> Comparison:
    """The rule of a finding beside its function."""
    if finding.leaf not in problem.names:
        raise UserValueError(
            f"no leaf named {finding.leaf!r}; the arguments have: "
            f"{', '.join(problem.names)}."
        )
    leaf = problem.names.index(finding.leaf)
    programs = LeafPrograms(problem, leaf, truth=truth)
    return Comparison(programs, point, finding.mode, rng, **way)


def _worst_output(seen: Comparison, entry, rng: np.random.Generator):
    """The numbers of the output whose derivative is wrong most."""
    direction = np.zeros(seen.x.size)
    direction[entry] = 1.0
    ladder = seen.ladder_of(entry)
    if seen.gradients is None:
        column = seen.push(direction[None])[0]
        output = _largest(column - ladder.quotients[seen.level])
    else:
        output = _bisect_outputs(seen, ladder, entry, rng)
    found = numbers(seen, entry, output, ladder)
    return _along_a_cotangent(seen, ladder, direction) if found.agree else found


def _bisect_outputs(seen, ladder, entry, rng: np.random.Generator) -> int:
    """Cotangents that see a part of the outputs alone; four parts at a time."""
    if not np.isfinite(seen.gradients[:, entry]).all():
        return _largest(ladder.quotients[seen.level])
    weights = rng.standard_normal(seen.num_outputs)
    start, stop = 0, seen.num_outputs
    while stop - start > 1:
        cuts = np.unique(np.linspace(start, stop, GROUP + 1).astype(int)).tolist()
        parts = list(itertools.pairwise(cuts))
        masked = np.zeros((len(parts), seen.num_outputs))
        for row, (a, b) in zip(masked, parts, strict=True):
            row[a:b] = weights[a:b]
        truth = masked @ ladder.quotients[seen.level]
        start, stop = parts[_largest(seen.pull(masked)[:, entry] - truth)]
    return start


def _along_a_cotangent(seen: Comparison, ladder: Ladder, direction):
    """For a rule that is right where it sees one output alone."""
    best = ladder.best(seen.cotangents)
    rule = seen.rule(direction[None])[0]
    row = _largest(rule - best.value)
    both = float(rule[row]), float(best.value[row])
    return Numbers(*both, best.bar, _MIXED)


def _largest(errors) -> int:
    """The place of the largest magnitude; what is not finite is larger."""
    return int(np.argmax(np.where(np.isfinite(errors), np.abs(errors), np.inf)))
