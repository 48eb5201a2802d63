"""Which differences at a moved point accuse a rule."""

from collections.abc import Sequence

import jax
import numpy as np

from gradstab.gradcheck.convergence import limit_of
from gradstab.gradcheck.differences import points
from gradstab.gradcheck.differences.probes import Measurement
from gradstab.gradcheck.differences.standstill import of_standstill
from gradstab.gradcheck.differences.structure import lost
from gradstab.gradcheck.differences.verdict import differences, kink
from gradstab.gradcheck.examination import TOGETHER, Examination, Look
from gradstab.gradcheck.findings import BODY, EXPECTED, Finding
from gradstab.gradcheck.subject import bodies, traits
from gradstab.gradcheck.subject.abilities import LOOP, REFUSALS
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.vectors import root_mean_square

# A gap between one-sided slopes that is so small beside f's value over its argument is
# none.
_SMOOTH = 1e-3

# So far beside a degenerate point (in dtypes of few digits farther), and at so many
# places, one sees which slopes f has around it. By so much, beside their size, they may
# differ where f is smooth.
_NEAR, _FAR, _PLACES = 2.0**-12, 2.0**-6, 12
# Where many entries meet, a slope may be that of few places.
_MORE = 72
_CONTINUOUS = 0.25

# Two numbers are the ends of no interval that something else lies in.
_NO_INTERVAL = 2

# A loop that ends by a tolerance, as that of an adaptive solver of differential
# equations, makes f another function by that much; beside arguments of another size
# than those given its differences may be off by a part of themselves.
_OF_A_TOLERANCE = 1e-2

# Of twelve Gaussian numbers the root mean square exceeds 1.8 once in 2e4.
_LUCK = 1.8


def accusing(
    seen: Examination, look: Look, point: tuple, where: str, /
) -> list[Finding]:
    """The findings at a moved point that are errors of a rule.

    A rule that is not finite is wrong where f is smooth: where f ends, has a pole or a
    kink, slopes may be infinite or missing, and a rule that says so is no error. Where
    arguments were made zero or equal, f may have a kink in several of them at once, and
    each choice of a slope along one of them be as good as another: those are accepted
    that lie between the slopes of f around the point.

    Args:
        seen: the examination.
        look: what was seen at the point.
        point: the leaves there.
        where: its name.
    """
    least = _OF_A_TOLERANCE if seen.problem.iterates else 0.0
    findings = [_of_standstill(seen, look, g) for g in look.findings]
    wrong = [g for g in findings if g.differs and not g.error <= least]
    wrong = [
        g
        for g in wrong
        if np.isfinite(g.error)
        or (_is_smooth(seen, look, g) and not rule_waits(seen.problem, g.mode))
    ]
    # What is expected on purpose is expected at kinks too.
    if EXPECTED in seen.others or not wrong:
        return wrong
    if where not in points.DEGENERATE and not points.has_ties(point):
        return wrong
    around = _Around(seen, point)
    alone = {_key(g) for g in wrong if around.is_no_choice(g)}
    # What is wrong only where ties are kept is no more than a choice among kinks.
    tied = {_key(g) for g in wrong if around.is_tied(g)}
    if len(alone) < len(wrong) and _may_accuse_ties(seen, point):
        if {_key(g) for g in wrong} - alone - tied:
            tied |= _wrong_along_ties(seen, point, where)
        alone |= tied and tied & _other_than_bodies(seen, point, where, tied)
    return [g for g in wrong if _key(g) in alone]


def _of_standstill(seen: Examination, look: Look, finding: Finding) -> Finding:
    """The finding, an accusation if f does not move and the rule says that it does."""
    task, given = seen.problem, seen.at_given
    if not finding.by_differences or given is None or finding.output:
        return finding
    i = _position(seen, finding)
    found = of_standstill(
        finding, look.seen.leaves[i], given.leaves[i], dtype=task.dtype
    )
    # A solver need not find what lies outside of its bracket.
    loops = found.differs and not finding.differs and limit_of(seen).exists
    return finding if loops else found


def _is_smooth(seen: Examination, look: Look, finding: Finding) -> bool:
    probes = look.seen.leaves[_position(seen, finding)]
    typical = (probes.value or 1.0) / probes.scale
    return is_defined_around(look.seen) and kink(probes) <= _SMOOTH * typical


def is_defined_around(measurement: Measurement, /) -> bool:
    """Whether f is finite on both sides of a point if all arguments are moved.

    x log y is zero where x is, for every y: it has a value there, and none beside.
    """
    finest = measurement.leaves[-1].residual[-1:]
    return bool(np.all(np.isfinite(finest)))


def rule_waits(task: Problem, mode: str, /) -> bool:
    """Whether a rule holds a loop that may have been ended, which leaves no number."""

    def vjp(point: tuple, w: Sequence[jax.Array]):
        return jax.vjp(task.f, point)[1](w)

    def jvp(point: tuple, v: Sequence[jax.Array]):
        return jax.jvp(task.f, (point,), (v,))[1]

    rule, other = (jvp, task.leaves) if mode == "forward" else (vjp, task.outputs)
    if task.engine == LOOP:
        return False
    with task.context():
        return traits.waits(jax.make_jaxpr(rule)(task.leaves, other))


class _Around:
    """The slopes of f at a degenerate point and at some places around it.

    Args:
        seen: the examination.
        point: the leaves at the degenerate point.
    """

    def __init__(self, seen: Examination, point: tuple):
        self.seen, self.point, self.rng = seen, point, seen.stream()
        self.at = seen.prober(point, self.rng, coarse=True)
        seen.evaluations += self.at.evaluations
        self.all = [self.at]
        self._look(_PLACES, like=seen.problem.leaves)

    def _look(self, num: int, *, like: tuple = ()):
        """Measures the slopes at more places, along the same directions."""
        seen, rng = self.seen, self.rng
        share = _NEAR if seen.problem.dtype == np.float64 else _FAR
        near = {"share": share, "like": like}
        places = [points.beside(self.point, rng, **near) for _ in range(num)]
        around = [seen.prober.along(p, self.at.draw, rng, coarse=True) for p in places]
        self.all += around
        seen.evaluations += sum(m.evaluations for m in around)

    def is_tied(self, finding: Finding) -> bool:
        """Whether the rule is right, or its choice, along independent directions."""
        error, bar, gap = self._error(finding)
        return bool(error <= _LUCK * gap + bar)

    def is_no_choice(self, finding: Finding) -> bool:
        """Whether no slope of f around the point is as the rule says."""
        if self._is_far(finding) and len(self.all) <= _PLACES + 1:
            self._look(_MORE)
        return self._is_far(finding)

    def _is_far(self, finding: Finding) -> bool:
        error, bar, gap = self._error(finding)
        spread, size = self._spread(finding)
        if not np.isfinite(error):
            return bool(spread <= _CONTINUOUS * size)
        return bool(error > _LUCK * max(spread, gap) + bar)

    def _error(self, finding: Finding):
        """Of the rule at the point; its bar; and half the gap between slopes there."""
        rule, truth = self._truth(finding, self.at)
        if truth.entries is None:
            return np.inf, np.inf, np.inf
        finite = np.all(np.isfinite(rule))
        error = root_mean_square(rule - truth.entries) if finite else np.inf
        return error, truth.bar, truth.kink

    def _spread(self, finding: Finding):
        """By how much slopes around the point differ, and how large they may be."""
        truths = [self._truth(finding, m)[1].entries for m in self.all]
        entries = [e for e in truths if e is not None]
        if len(entries) < len(truths):
            return np.inf, 0.0
        probes = self.at.leaves[_position(self.seen, finding)]
        typical = (probes.value or 1.0) / probes.scale
        size = max(typical, *map(root_mean_square, entries))
        return root_mean_square(np.ptp(np.stack(entries), axis=0)), size

    def _truth(self, finding: Finding, measurement):
        probes = measurement.leaves[_position(self.seen, finding)]
        # A JVP that is not finite beside entries held fixed is left out.
        rule = probes.rules.get(finding.mode, np.full(1, np.nan))
        return rule, differences(rule, probes, dtype=self.seen.problem.dtype)


def _may_accuse_ties(seen: Examination, point: tuple) -> bool:
    """Whether a rule of the user's is there, and the point is no empty interval.

    What JAX does by itself at ties is known, and no one's error. Of more than two
    leaves one that is below another may be the lower end of what holds a third.
    """
    task = seen.problem
    between = [word for word in lost(task.leaves, point, task.names) if "below" in word]
    return task.has_rules and (not between or len(task.leaves) <= _NO_INTERVAL)


def _wrong_along_ties(seen: Examination, point: tuple, where: str) -> set:
    """The rules that are wrong along directions that keep ties, of which f has one."""
    looks = [seen.look(point, where=where, tied=True) for _ in range(2)]
    first, second = ({_key(g) for g in x.findings if g.differs} for x in looks)
    return first & second


def _other_than_bodies(seen: Examination, point: tuple, where: str, tied: set) -> set:
    """The rules that say along ties what automatic differentiation of f does not."""
    look = seen.look(point, where=where, tied=True)
    try:
        plain = bodies.without_rules(seen.problem.f)
        found = seen.ask(BODY, plain, look, point)
    # A body is under no obligation to have a derivative.
    except REFUSALS:
        return tied
    return {_key(g) for g in found if g.differs}


def _position(seen: Examination, finding: Finding) -> int:
    names = seen.problem.names
    return len(names) if finding.leaf == TOGETHER else names.index(finding.leaf)


def _key(finding: Finding):
    return finding.leaf, finding.mode
