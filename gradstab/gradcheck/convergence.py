r"""Rules that hold for the limit of an iteration, where f stops before it.

An implicit function has the derivative of its limit, by whatever iteration it is
computed: the rule of a fixed point, of a root, of a linear system. What f computes is
the iteration as far as it goes, and differences are differences of that. They are off
by what is missing, and far from the point given that may be everything. Continued, the
iteration gives a better truth.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.differences.points import AS_GIVEN
from gradstab.gradcheck.differences.verdict import differences
from gradstab.gradcheck.examination import TOGETHER, Examination, Look
from gradstab.gradcheck.findings import Finding
from gradstab.gradcheck.states import Outcome
from gradstab.gradcheck.subject.abilities import LOOP, REFUSALS
from gradstab.gradcheck.subject.iterations import CONVERGED, ENDLESS, further
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.vectors import root_mean_square

CONTINUED = " of f with its iterations continued"

# Of an iteration towards a limit not more may be missing at the point given, where its
# rule agrees with f: so many times the resolution asked for.
_MISSING = 100

# An iteration that has come to its limit may move on by so many units of rounding.
_ROUNDED = 64

# The continued f is to be nearer to the rule than f is, and what continuing does to the
# rule smaller than the error that it is accused of, by this factor at least.
_NEARER = 0.5


class Limit:
    """A function and its rules, the iterations of both continued.

    Args:
        seen: the examination of the function. Its point is one at which iterations
            towards a limit have come near it.

    Attributes:
        exists: whether the function iterates.
        accepted: the mode in which it took the place of f at the point given, or "".
    """

    def __init__(self, seen: Examination, /):
        self._seen, self._task = seen, seen.problem
        self._examinations = {}
        self.accepted = ""
        run = self._continued(self._task.f, self._task.leaves)
        self.exists = run is not None
        if run is not None:
            self._value = lambda point: run(point)[0]
            self._drift = self._task.compiled(lambda x: run(x)[1])
            # Where the rule agrees with f not more may be missing.
            enough = min(_MISSING * seen.rtol, CONVERGED)
            self._converges = self._drift_at(self._task.leaves) <= enough

    def is_missed_at(self, point: Sequence[Any], /) -> bool:
        """Whether f is near the limit of an iteration, and not at it."""
        least = _ROUNDED * float(jnp.finfo(self._task.dtype).eps)
        drift = self._drift_at(point)
        return bool(np.any((drift > least) & (drift <= CONVERGED)))

    def is_far_from(self, point: Sequence[Any], /) -> bool:
        """Whether an iteration is far from its limit, which it came near as given."""
        near = self._drift_at(point) <= CONVERGED
        return bool(np.any(self._converges & ~near))

    def examination(self, mode: str, /) -> Examination:
        """That of the continued function with its rule of one mode, continued too."""
        if mode not in self._examinations:
            continued = dataclasses.replace(
                self._task, f=self._with_rule(mode), modes=(mode,), limit=0
            )
            self._examinations[mode] = Examination(
                continued,
                rtol=self._seen.rtol,
                max_bytes=self._seen.max_bytes,
                seed=int(self._seen.stream().integers(2**31)),
            )
        return self._examinations[mode]

    def _with_rule(self, mode: str):
        f = self._task.f
        if mode == "forward":

            def jvp(both):
                return jax.jvp(f, both[:1], both[1:])[1]

            rule = self._continued_rule(jvp, self._task.leaves)
            whole = jax.custom_jvp(self._value)
            whole.defjvp(lambda p, v: (whole(*p), rule((*p, *v))))
        else:

            def vjp(both):
                return jax.vjp(f, both[0])[1](both[1])[0]

            rule = self._continued_rule(vjp, self._task.outputs)
            whole = jax.custom_vjp(self._value)
            whole.defvjp(
                lambda point: (whole(point), point),
                lambda point, w: (rule((point, w)),),
            )
        return lambda point: whole(point)

    def _continued_rule(self, rule, like):
        """The rule of the point and one more vector, such as the one given."""
        with self._task.context():
            other = tuple(jnp.zeros(y.shape, y.dtype) for y in like)
        run = self._continued(rule, (self._task.leaves, other))
        return rule if run is None else lambda both: run(both)[0]

    def _continued(self, f: Callable[..., Any], arguments):
        if self._task.engine == LOOP:
            return None
        try:
            with self._task.context():
                return further(f, arguments, most=self._task.limit or ENDLESS)
        # A program that cannot be taken apart is left as it is.
        except REFUSALS:
            return None

    def _drift_at(self, point: Sequence[Any]):
        with self._task.context():
            return np.asarray(self._drift(tuple(point)))


def against_limit(
    seen: Examination, look: Look, point: Sequence[Any], /, *, where: str
) -> Look:
    """The look, its accusations held against the limit of f's iterations.

    An accusation stands unless the rule is right for f with its iterations continued;
    or that is at least far nearer to it than f is, or f is far from a limit there: then
    nothing is known. A rule that is wrong for f and for its limit differs from both.

    Args:
        seen: the examination.
        look: what was seen there.
        point: the leaves.
        where: the name of the point.

    Cost: nothing unless a rule is accused and f iterates; else that of two looks, with
    four times as many iterations.
    """
    accused = [g for g in look.findings if g.by_differences and g.differs]
    if not accused:
        return look
    limit = limit_of(seen)
    if not limit.exists:
        return look
    settled = {g: g for g in accused}
    modes = {g.mode for g in accused} if limit.is_missed_at(point) else ()
    for mode in sorted(modes):
        wrong = [g for g in accused if g.mode == mode]
        settled |= _in_mode(seen, look, point, mode, wrong, where=where)
    if where != AS_GIVEN and limit.is_far_from(point):
        settled = {g: _far(found) for g, found in settled.items()}
    if where == AS_GIVEN:
        modes = [found.mode for found in settled.values() if not found.differs]
        limit.accepted = modes[0] if modes else ""
    found = tuple(settled.get(g, g) for g in look.findings)
    return dataclasses.replace(look, findings=found)


def limit_of(seen: Examination, /) -> Limit:
    """The function with its iterations continued; made when it is first asked for."""
    seen.limit = seen.limit or Limit(seen)
    return seen.limit


def truth(seen: Examination, /) -> Problem:
    """The problem whose differences the rules agree with at the point given."""
    limit = seen.limit
    if limit is None or not limit.accepted:
        return seen.problem
    return limit.examination(limit.accepted).problem


def _in_mode(
    seen: Examination,
    look: Look,
    point: Sequence[Any],
    mode: str,
    accused,
    *,
    where: str,
) -> dict:
    """What remains of the accusations in one mode."""
    inner = seen.limit.examination(mode)
    before = inner.evaluations
    again = inner.look_twice(point, where=where, coarse=where != AS_GIVEN)
    along = inner.prober.along(tuple(point), look.seen.draw, inner.stream())
    seen.evaluations += inner.evaluations - before + along.evaluations
    known = {g.leaf: g for g in again.findings if g.by_differences}
    return {g: _settled(seen, g, known.get(g.leaf), look.seen, along) for g in accused}


def _settled(seen: Examination, accused, continued, plain, along):
    """What remains of an accusation.

    Args:
        seen: the examination.
        accused: the finding.
        continued: that of the continued function and rule, or None.
        plain: the measurement of f.
        along: that of the continued function along the same directions.
    """
    leaf = [*seen.problem.names, TOGETHER].index(accused.leaf)
    before, after = plain.leaves[leaf], along.leaves[leaf]
    rule, its_limit = (p.rules[accused.mode] for p in (before, after))
    here, there = (
        differences(r, p, dtype=seen.problem.dtype).entries
        for r, p in ((rule, before), (its_limit, after))
    )
    if here is None or there is None or not np.all(np.isfinite(rule)):
        return accused
    apart = root_mean_square(rule - its_limit)
    error = _NEARER * root_mean_square(rule - here)
    if continued is not None and continued.agrees and apart <= error:
        # What is missing in the rule itself hides as large an error.
        missing = apart / (root_mean_square(its_limit) or 1.0)
        resolution = max(continued.resolution, missing)
        return dataclasses.replace(
            continued,
            state=Outcome.AGREES if resolution <= seen.rtol else Outcome.TRUNCATED,
            resolution=resolution,
            oracle=continued.oracle + CONTINUED,
        )
    nearer = root_mean_square(rule - there) <= error
    return dataclasses.replace(accused, state=Outcome.TRUNCATED) if nearer else accused


def _far(finding: Finding):
    if not finding.differs:
        return finding
    return dataclasses.replace(finding, state=Outcome.NOT_CONVERGED)
