"""Very large and very small arguments, in their own dtype: is a rule finite there?

A rule by ``exp(x) / (1 + exp(x))`` is right in exact arithmetic, and NaN where the
exponential ends; its function does not end there. In float64, where the check is made,
it ends later than in the dtype of the arguments.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.accusations import is_defined_around, rule_waits
from gradstab.gradcheck.convergence import limit_of
from gradstab.gradcheck.differences.draws import draw
from gradstab.gradcheck.differences.probes import Probes
from gradstab.gradcheck.differences.tables import num_rules, vector
from gradstab.gradcheck.examination import Examination
from gradstab.gradcheck.findings import RANGE, Finding
from gradstab.gradcheck.states import Answer, Outcome
from gradstab.gradcheck.story import Story
from gradstab.gradcheck.subject import bodies
from gradstab.gradcheck.subject.abilities import LOOP, REFUSALS
from gradstab.gradcheck.subject.programs import Programs
from gradstab.gradcheck.subject.traits import chooses, is_nothing_but_rules
from gradstab.gradcheck.subject.vectors import root_mean_square

# Where the exponential of an argument ends, and that of twice the argument; where its
# cube, its square, and where it itself does.
_OF_LOGARITHM = (0.65, 1.3)
_POWERS = (0.3, 0.45, 0.9)

# Besides all together, so many arguments are moved alone: the largest.
_ALONE = 3

# A rule that is not finite a little before f ends is no error: f must still be right
# when the argument is so many times farther from one, and beside it.
_MARGIN, _BESIDE = 16.0, 2.0**-3

# What f loses in its own dtype, in relation to its value, is no end.
_ALIKE, _UNITS = 1e-2, 16

# A slope must be so far from the largest number; two quotients alike by so much.
_ROOM, _RESOLVED = 2.0**-8, 0.05
_COARSEST, _FINEST = 2.0**-8, 2.0**-21


def at_magnitudes(seen: Examination, /) -> Story:
    """Whether the user's rules are finite where f is, up to where f itself ends.

    Args:
        seen: the examination at the point given.
    """
    task = seen.problem
    own = task.own or task
    if task.iterates or task.waits or own.engine == LOOP:
        return Story()
    story = _Magnitudes(seen, own).story()
    # A rule for the limit of an iteration holds only where that is near.
    loops = any(rule_waits(own, g.mode) for g in story.wrong)
    return Story() if story.wrong and (loops or limit_of(seen).exists) else story


class _Magnitudes:
    """The rules of one problem in its own dtype, at arguments of any size."""

    def __init__(self, seen, own):
        self.seen, self.own = seen, own
        self.limits = jnp.finfo(own.leaves[0].dtype)
        rng = seen.stream()
        self.draw = draw(own, own.leaves, rng, paired=False)
        self.spread = [rng.uniform(1, 1.25, x.shape) for x in own.leaves]

    def story(self) -> Story:
        """What was found at the first size at which something is wrong."""
        for magnitude, margin in self._magnitudes():
            for which in self._moves():
                for sign in self._signs(which):
                    point = self._point(which, magnitude, sign)
                    name = f"with entries near {magnitude:.0e} in {self.own.dtype}"
                    wrong = self._wrong(point, margin, name)
                    if wrong:
                        extreme = margin != 1.0
                        return self._told(wrong, point, name, extreme=extreme)
        if not self.seen.problem.users_rules:
            return Story()
        what = f"with entries of any size in {self.own.dtype}"
        return Story(moved=((what, Answer.RIGHT),))

    def _magnitudes(self):
        """Sizes of entries, and what is farther out than each by the margin."""
        largest, least = float(self.limits.max), float(self.limits.tiny)
        for part in _OF_LOGARITHM:
            yield part * np.log(largest), 1.0
        # At the ends of its numbers JAX's own derivatives are no one's error.
        for power in _POWERS if self.seen.problem.users_rules else ():
            yield largest**power, _MARGIN
            yield least**power, 1 / _MARGIN

    def _moves(self):
        everything = range(len(self.own.leaves))
        yield tuple(everything)
        if len(everything) > 1:
            sizes = [x.size for x in self.own.leaves]
            yield from ((i,) for i in np.argsort(sizes)[::-1][:_ALONE])

    def _signs(self, which):
        """The signs given, and the opposite; all alike where f ends for one of both."""
        given = [np.where(np.asarray(x) < 0, -1.0, 1.0) for x in self.own.leaves]
        moved = np.concatenate([given[i].ravel() for i in which])
        yield given
        if np.ptp(moved) == 0:
            yield [-s for s in given]
        elif not self.was_finite:
            yield [np.ones_like(s) for s in given]
            yield [-np.ones_like(s) for s in given]

    def _point(self, which, magnitude, signs):
        moved = [
            magnitude * s * u if i in which else np.asarray(x)
            for i, (x, s, u) in enumerate(
                zip(self.own.leaves, signs, self.spread, strict=True)
            )
        ]
        pairs = zip(moved, self.own.leaves, strict=True)
        return tuple(np.asarray(a).astype(x.dtype) for a, x in pairs)

    def _wrong(self, point: Sequence[Any], margin, name: str) -> list[Finding]:
        raw = self._rules(self.seen.in_own, point)
        self.was_finite = bool(np.all(np.isfinite(vector(raw["value"]))))
        if not self.was_finite:
            return []
        suspects = self._not_finite(raw)
        if not suspects or not self._is_right_around(point, margin):
            return []
        wide = tuple(
            a.astype(x.dtype)
            for a, x in zip(point, self.seen.problem.leaves, strict=True)
        )
        measured = self.seen.prober(wide, self.seen.stream(), coarse=True)
        self.seen.evaluations += measured.evaluations
        if not is_defined_around(measured):
            return []
        return [
            self._finding(i, mode, probes, name)
            for i, mode in suspects
            if self._has_a_slope(probes := measured.leaves[i])
        ]

    def _rules(self, programs, point: Sequence[Any]):
        self.seen.evaluations += num_rules(programs.problem)
        with np.errstate(all="ignore"):
            return programs.rules(point, self.draw.astype(programs.problem))

    def _not_finite(self, raw) -> list[tuple[int, str]]:
        """The leaves and modes of the rules that are not finite."""
        leaves = range(len(self.own.leaves))
        tables = {
            "reverse": [[g] for g in raw.get("reverse", ())],
            "forward": [[y[i] for y in raw.get("forward", ())] for i in leaves],
        }
        return [
            (i, mode)
            for mode, rows in tables.items()
            for i, row in enumerate(rows)
            if not all(np.all(np.isfinite(np.float64(a))) for a in row)
        ]

    def _is_right_around(self, point: Sequence[Any], margin) -> bool:
        """Whether f, in its own dtype, still is what it is in float64."""
        factors = {1.0, 1 - _BESIDE, 1 + _BESIDE, margin}
        return all(map(self._is_right, [self._times(point, k) for k in factors]))

    def _times(self, point: Sequence[Any], factor):
        pairs = zip(point, self.own.leaves, strict=True)
        moved = [np.any(a != np.asarray(x)) for a, x in pairs]
        return tuple(
            (np.float64(a) * factor).astype(a.dtype) if m else a
            for a, m in zip(point, moved, strict=True)
        )

    @np.errstate(all="ignore")
    def _is_right(self, point: Sequence[Any]) -> bool:
        programs = self.seen.prober.programs
        wide = tuple(
            a.astype(x.dtype)
            for a, x in zip(point, self.seen.problem.leaves, strict=True)
        )
        own = self._rules(self.seen.in_own, point)["value"]
        truth = self._rules(programs, wide)["value"]
        return all(map(self._are_alike, own, truth))

    def _are_alike(self, own, truth) -> bool:
        own, truth = np.float64(own), np.float64(truth)
        share = max(_ALIKE, _UNITS * float(self.limits.eps))
        room = share * np.max(np.abs(truth)) + float(self.limits.tiny) / _ROOM
        return bool(np.all(np.isfinite(own)) and np.max(np.abs(own - truth)) <= room)

    @np.errstate(all="ignore")
    def _has_a_slope(self, probes: Probes) -> bool:
        """Whether quotients of f are finite, alike, and numbers of the own dtype."""
        part = probes.steps / probes.scale
        near = (part <= _COARSEST) & (part >= _FINEST)
        quotients = (probes.anchor + probes.residual[near]).reshape(
            -1, probes.anchor.size
        )
        if not np.all(np.isfinite(quotients)):
            return False
        typical = (probes.value or 1.0) / probes.scale
        size = max(root_mean_square(quotients), typical)
        apart = root_mean_square(np.ptp(quotients, axis=0)), np.min(probes.bend[near])
        ends = np.max(np.abs(quotients)) > _ROOM * float(self.limits.max)
        return not ends and max(apart) <= _RESOLVED * size

    def _finding(self, i: int, mode: str, probes: Probes, name: str) -> Finding:
        bar = float(np.max(probes.rounding / probes.steps))
        numbers = np.inf, bar, np.inf, 0.0
        leaf = self.own.names[i]
        return Finding(*numbers, Outcome.DIFFERS, False, leaf, mode, RANGE, name)

    def _told(self, wrong, point: Sequence[Any], name: str, *, extreme) -> Story:
        """An accusation, unless the fault may be that of what is around the rules.

        At the ends of a dtype, or where all that f computes is finite, a rule need not
        be better than what JAX makes of f.
        """
        if self._is_the_rules(wrong, point, extreme=extreme):
            return Story(tuple(wrong), moved=((name, Answer.WRONG),))
        note = (
            f"{name} the derivative is not finite, nor is that of f without its custom "
            "rules"
        )
        return Story(moved=((name, Answer.UNDECIDED),), notes=(note,))

    def _is_the_rules(self, wrong, point: Sequence[Any], *, extreme) -> bool:
        own = self.own
        with own.context():
            # JAX's own derivative may fail because f was written carelessly, as a rule
            # need not be. Where f is not at fault, a rule may be as good as JAX.
            excused = extreme or not is_nothing_but_rules(own.f, own.leaves)
            if not (excused or bodies.stays_finite(own.f, (tuple(point),))):
                return True
            if not self.seen.problem.users_rules:
                return chooses(own.f, own.leaves)
        mode = wrong[0].mode
        one_mode = dataclasses.replace(own, modes=(mode,))
        try:
            plain = bodies.without_rules(own.f)
            body = Programs(one_mode, lanes=self.seen.in_own.lanes, f=plain)
            raw = self._rules(body, point)
        # A body is under no obligation to have a derivative.
        except REFUSALS:
            return True
        found = {own.names[i] for i, _ in self._not_finite(raw)}
        return not found & {g.leaf for g in wrong}
