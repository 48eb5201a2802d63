"""The whole Jacobian of a rule against the whole Jacobian by differences."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gradstab.gradcheck.differences.ladders import doubt, truncation
from gradstab.gradcheck.figures import Figures, figures
from gradstab.gradcheck.findings import Finding, Location
from gradstab.gradcheck.places.columns import Columns
from gradstab.gradcheck.places.comparison import Comparison
from gradstab.gradcheck.places.hints import cause
from gradstab.gradcheck.places.tally import CONFIDENCE, Plan, Tally
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.vectors import root_mean_square

# Entries of a leaf that choose the step for all.
_SAMPLE = 4

# A quotient within so many differences of two steps, and standard errors, is believed.
_SPREADS = 3.0


class Full(NamedTuple):
    """What the full check found.

    Attributes:
        findings: one per leaf and mode.
        figures: those of the textbooks.
        locations: the worst entry of every leaf and mode that differs, and its cause.
    """

    findings: tuple[Finding, ...]
    figures: Figures
    locations: tuple[Location, ...]


def exhaustive(
    problem: Problem,
    point: tuple,
    /,
    *,
    truth: Callable | None = None,
    rtol: float | None = None,
    modes: tuple[str, ...] | None = None,
    max_bytes: int = 2**28,
    advance: Callable[[str, float], object] | None = None,
    seed: int = 0,
) -> Full:
    """Compares every entry of the Jacobian, leaf by leaf.

    Each entry of a leaf is moved alone, by a step that a few of them chose, and the
    column that f answers is compared with that of the rule. An entry that differs by
    more than the bar is looked at again, at many steps; at a kink the rule may lie
    anywhere between the one-sided slopes.

    Args:
        problem: what is checked.
        point: where, one array per leaf.
        truth: a function of the leaves whose differences are the truth; None for f.
        rtol: the resolution asked for; a leaf that does not reach it does not agree.
            None accepts any.
        modes: of the rules; None for the cheaper one of those that f has.
        max_bytes: that blocks of the Jacobian, and evaluations at once, may take. The
            whole Jacobian is never held.
        advance: called with the leaf's name and the share of all entries that is done.
        seed: of the sample.

    Returns:
        Findings, figures and locations.

    Cost:
        Two evaluations of f for every entry, about 80 per leaf to choose the steps, 16
        for every entry that is looked at again, and as many VJPs as f has outputs (for
        every block again if the Jacobian exceeds half of ``max_bytes``) or as many JVPs
        as there are entries.

    >>> import jax.numpy as jnp
    >>> from gradstab.gradcheck.subject.problem import problem
    >>> task = problem(jnp.tanh, (jnp.linspace(-1, 1, 5),))
    >>> full = exhaustive(task, task.leaves)
    >>> full.findings[0].agrees, full.figures.ratio < 1e-7
    (True, True)
    """
    check = Exhaustive(problem, truth=truth, modes=modes, max_bytes=max_bytes)
    return check(point, rtol=rtol, advance=advance, seed=seed)


class Exhaustive:
    """`exhaustive`, compiled once for several points; the same arguments."""

    def __init__(
        self,
        problem: Problem,
        /,
        *,
        truth: Callable | None = None,
        modes: tuple[str, ...] | None = None,
        max_bytes: int = 2**28,
    ):
        self.problem = problem
        self.modes = modes or (_cheaper(problem),)
        leaves = range(len(problem.leaves))
        options = {"truth": truth, "max_bytes": max_bytes}
        self.columns = [Columns(problem, i, **options) for i in leaves]

    def __call__(
        self, point: tuple, /, *, rtol: float | None = None, advance=None, seed: int = 0
    ) -> Full:
        """See `exhaustive`."""
        before = sum(columns.evaluations for columns in self.columns)
        total = sum(columns.size for columns in self.columns)
        rng = np.random.default_rng(seed)
        done, tallies, places = 0, [], []
        for columns in self.columns:
            name = self.problem.names[columns.leaf]
            found, blocks = self._leaf(columns, point, rng)
            for stop in blocks:
                if advance is not None:
                    advance(name, (done + stop) / total)
            done += columns.size
            tallies += found
            places += [self._place(columns, point, t, rng) for t in found if t.wrong]
        spent = sum(columns.evaluations for columns in self.columns) - before
        findings = tuple(tally.finding(rtol) for tally in tallies)
        return Full(findings, self._figures(tallies, spent), tuple(places))

    def _leaf(self, columns, point: tuple, rng: np.random.Generator):
        """The tallies of all modes, and what fills them: an iterator over blocks."""
        plan = _plan(columns, point, rng)
        tallies = [Tally(plan, mode) for mode in self.modes]

        def blocks():
            rules = [columns.by_rule(point, mode) for mode in self.modes]
            for start, stop in columns.blocks():
                quotients = columns.by_differences(point, plan.step, start, stop)
                for tally, rule in zip(tallies, rules, strict=True):
                    tally.add(start, rule(start, stop), quotients)
                yield stop

        return tallies, blocks()

    def _place(
        self, columns, point: tuple, tally, rng: np.random.Generator
    ) -> Location:
        seen = Comparison(columns.programs, point, tally.mode, rng)
        return tally.location(seen, hint=cause(seen, rng))

    def _figures(self, tallies, spent) -> Figures:
        kinks = sum(tally.kinks for tally in tallies)
        note = f"at {kinks} entries f has a kink, and the rule lies between its slopes"
        return figures(
            np.sum([tally.squares for tally in tallies], axis=0),
            max(tally.worst_error for tally in tallies),
            sum(tally.left_out for tally in tallies),
            dtype=self.problem.dtype,
            evaluations=spent,
            notes=(note,) if kinks else (),
        )


def _cheaper(problem: Problem) -> str:
    """Rows by VJPs or columns by JVPs, whatever is fewer and exists."""
    entries = sum(x.size for x in problem.leaves)
    wide = sum(y.size for y in problem.outputs) > entries
    wanted = "forward" if wide else "reverse"
    return wanted if wanted in problem.modes else problem.modes[0]


def _plan(columns, point: tuple, rng: np.random.Generator) -> Plan:
    """Chooses the step by a few entries, and how far its quotients are believed."""
    seen = Comparison(columns.programs, point, "", rng)  # of f alone
    chosen = rng.choice(columns.size, min(_SAMPLE, columns.size), replace=False)
    ladders = [seen.ladder(np.eye(1, columns.size, i)[0]) for i in chosen]
    apart = _largest([ladder.apart for ladder in ladders])
    noise = _largest([ladder.noise for ladder in ladders])
    steps = ladders[0].steps
    off = doubt(apart, steps, noise)
    level = int(np.argmin([root_mean_square(row) for row in off])) + 1
    # Where f is not finite beside the sample, every entry is looked at again.
    smooth = _SPREADS * _finite(truncation(apart, steps)[level - 1])
    random = CONFIDENCE * _finite(noise / steps[level])
    return Plan(seen, float(steps[level]), smooth, random)


def _finite(a):
    return np.where(np.isfinite(a), a, 0.0)


def _largest(arrays):
    """The largest finite one of each entry; infinite if there is none."""
    stacked = np.where(np.isfinite(arrays), arrays, -np.inf)
    largest = np.max(stacked, axis=0)
    return np.where(np.isfinite(largest), largest, np.inf)
