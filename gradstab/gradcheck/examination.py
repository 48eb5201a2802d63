"""One function under examination: every oracle asked, at any point."""

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np

from gradstab.gradcheck.differences.outputs import with_small_outputs
from gradstab.gradcheck.differences.points import AS_GIVEN, has_ties
from gradstab.gradcheck.differences.probes import Measurement, Prober, num_lanes
from gradstab.gradcheck.differences.reach import (
    differ_in_size,
    farther,
    too_small,
)
from gradstab.gradcheck.differences.rounds import NUM_ROUNDS, Round, is_near, weighed
from gradstab.gradcheck.differences.tables import num_rules, rule_tables
from gradstab.gradcheck.differences.verdict import autodiff, compare, differences, kink
from gradstab.gradcheck.findings import EXPECTED, Finding
from gradstab.gradcheck.held import HAZY, held, held_notes, steep_entries
from gradstab.gradcheck.states import Outcome
from gradstab.gradcheck.subject.abilities import LOOP, MAP, VMAP, has_vjp
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.programs import Programs

# A look at half of the steps is enough if it resolves so much more than was asked for.
_MARGIN = 1e-2

TOGETHER = "all arguments together"

_PROPORTIONAL = (
    "f is not finite on both sides of the point unless every entry is moved in "
    "proportion to itself, as it was"
)

_IN_SIZE = (
    "entries of one argument differ in size: each was moved, and errors of each count, "
    "in proportion to its own"
)

# How often steps are made larger where f hardly moves.
_GROWTHS = 4

_MAPPED = "f gives another value under vmap: it was probed one point at a time"


@dataclasses.dataclass(frozen=True)
class Look:
    """What was seen at one point.

    Attributes:
        trouble: why nothing can be said there; empty if something can.
        findings: one per leaf, mode and oracle.
        seen: the measurement behind them.
        rounds: what each finding rests on, by leaf, mode and oracle.
    """

    trouble: str
    findings: tuple[Finding, ...]
    seen: Measurement
    rounds: dict = dataclasses.field(default_factory=dict)


class Examination:
    """Compares the rules of a problem with every oracle there is.

    Args:
        problem: what is checked.
        rtol: the resolution asked for.
        max_bytes: how much memory the evaluations under way may take.
        seed: of the random directions.
        others: functions of the leaves whose automatic differentiation is an oracle, by
            its name.

    Attributes:
        evaluations: of f, its rules and the other functions, so far.
        notes: what the reader should know.
        places: the points looked at, by name.
        prober: what measures.
        in_own: the programs of f in its own precision.
        at_given: the last measurement at the point given.
        limit: f with its iterations continued, once it was asked for.
        ways: the options of the looks that decided, by the name of the point.
    """

    def __init__(self, problem: Problem, /, *, rtol, max_bytes, seed, others=None):
        self.problem, self.rtol, self.max_bytes = problem, rtol, max_bytes
        self.evaluations = 0
        self.notes = []
        self.places = {AS_GIVEN: problem.leaves}
        self.at_given = None
        self.limit: Any = None
        self.ways = {}
        self._rng = np.random.default_rng(seed)
        self.prober = Prober(problem, max_bytes=max_bytes)
        self.in_own = self.prober.programs
        self.others = others or {}
        self._others = {name: self._other(f) for name, f in self.others.items()}

    def stream(self) -> np.random.Generator:
        """Fresh randomness, the same for the same seed and history."""
        return self._rng.spawn(1)[0]

    def look(
        self, point, /, *, where: str = AS_GIVEN, alone: bool = True, **options
    ) -> Look:
        """Everything that all oracles say at a point, along fresh directions.

        Args:
            point: the leaves.
            where: the name of the point.
            alone: look again, at small outputs alone, if large ones hide them.
            **options: see `Prober`.
        """
        self.places[where] = point
        seen = self._measured(point, options)
        self.at_given = seen if where == AS_GIVEN else self.at_given
        if trouble := seen.trouble:
            return Look(trouble, (), seen)
        if where == AS_GIVEN:
            for text in held_notes(self.problem, seen):
                self._note(text)
        # What is expected on purpose is not what the differences say.
        given = {"differ": EXPECTED not in self._others, "where": where}
        rounds = self._judged(seen, point, self._others, **given)

        def look(outputs):
            part = self._measured(point, options | {"outputs": outputs})
            return self._judged(part, point, self._others, **given)

        if alone:
            wanted = {"names": self.problem.output_names, "rtol": self.rtol}
            thorough = not options.get("coarse", False)
            rounds = with_small_outputs(rounds, look, thorough=thorough, **wanted)
        return Look("", tuple(r.finding for r in rounds.values()), seen, rounds)

    def look_twice(self, point, /, *, where=AS_GIVEN, coarse=False) -> Look:
        """The same; a rule is accused only if two more looks confirm it.

        They are along directions of which some are sums of others: a function may have
        a slope along every line and no gradient, and does not always show it. The first
        look is at every other step; unless ``coarse`` one at all steps follows if that
        is not enough for every rule, or nearly not; if ``coarse``, it begins with every
        fourth step. Where f ends too near for any step,
        entries are moved in proportion to themselves, or held. Where f hardly moves,
        they are moved farther; where that says nothing and entries differ in size, in
        proportion to their own. At a kink that comes of ties f is looked at along
        directions that keep them. An error near the one asked about is weighed along
        three sets of directions.
        """
        way: dict[str, Any] = {}
        brief = coarse and not self._others
        given = {"enough": self._is_enough} if brief else {}
        look = self.look(point, where=where, coarse=True, alone=coarse, **given)
        edge = Outcome.UNDEFINED, Outcome.UNBOUNDED
        if any(g.state in edge for g in look.findings):
            look, way = self._defined(look, point, where, coarse=coarse)
        if not coarse and not look.trouble:
            look, way = self._seen_well(look, point, where, way)
        look = self._looked_again(look, point, where, way, coarse=coarse)
        if not coarse and not way and any(g.state in HAZY for g in look.findings):
            masks, spent = steep_entries(self.problem, look, point, self.stream())
            self.evaluations += spent
            if masks is not None:
                way = {"held": masks}
                look = self.look(point, where=where, **way)
                look = self._looked_again(look, point, where, way, coarse=coarse)
        self.ways[where] = way
        return self._along_ties(look, point, where, way)

    def _looked_again(self, look, point, where, way, *, coarse) -> Look:
        """The look, its accusations confirmed or taken back by two more."""
        more = []
        while len(more) < NUM_ROUNDS - 1:
            accused = _accuses(look)
            slight = any(g.state == Outcome.SLIGHT for g in look.findings)
            if not accused and (coarse or not slight):
                break
            again = self.look(point, where=where, paired=accused, **way)
            states = {_key(g): g.state for g in again.findings}
            findings = [self._confirmed(g, states) for g in look.findings]
            look = dataclasses.replace(look, findings=tuple(findings))
            more.append(again.rounds)
        if len(more) == NUM_ROUNDS - 1:
            findings = [self._weighed(g, [look.rounds, *more]) for g in look.findings]
            look = dataclasses.replace(look, findings=tuple(findings))
        return look

    def _confirmed(self, finding, again: dict) -> Finding:
        """The finding, no longer an accusation if another look did not confirm it."""
        state = again.get(_key(finding))
        near = state == Outcome.SLIGHT and is_near(finding, self.rtol)
        if not finding.differs or state == Outcome.DIFFERS or near:
            return finding
        instead = Outcome.KINK if state == Outcome.KINK else Outcome.UNCONFIRMED
        return dataclasses.replace(finding, state=instead)

    def _weighed(self, finding, looks) -> Finding:
        """The finding, along all directions if its error is near that asked about."""
        key = _key(finding)
        rounds = [rounds[key] for rounds in looks if key in rounds]
        alike = all(
            r.truth.entries is not None and r.finding.output == finding.output
            for r in rounds
        )
        if not is_near(finding, self.rtol) or len(rounds) < NUM_ROUNDS or not alike:
            return finding
        # What few digits resolve is asked about by default, and no wish of anyone.
        exact = self.problem.dtype == np.float64 and not self.problem.widened
        return weighed(rounds, rtol=self.rtol, acquits=exact)

    def _defined(self, look, point, where, *, coarse) -> tuple[Look, dict]:
        """A look along steps that do not leave where f is defined, if there are any."""
        look_along = functools.partial(
            self.look, point, where=where, coarse=True, alone=coarse
        )
        undefined = {g.leaf for g in look.findings if g.state == Outcome.UNDEFINED}
        steep = {g.leaf for g in look.findings if g.state == Outcome.UNBOUNDED}
        if undefined:
            careful = look_along(proportional=True)
            if all(g.state != Outcome.UNDEFINED for g in careful.findings):
                self._note(_PROPORTIONAL)
                return careful, {"proportional": True}
        masks = list(look.seen.draw.held)
        for i, name in enumerate(() if coarse else self.problem.names):
            if name not in undefined | steep:
                continue
            options = {"steep": name in steep}
            mask, spent = held(self.problem, point, i, self.stream(), **options)
            self.evaluations += spent
            # Where no entry has a slope, that is what there is to say.
            masks[i] = masks[i] if name in steep and mask.all() else mask
        if all(map(np.array_equal, masks, look.seen.draw.held)):
            return look, {}
        held_fixed = tuple(masks)
        return look_along(held=held_fixed), {"held": held_fixed}

    def _seen_well(self, look, point, where, way) -> tuple[Look, dict]:
        """Looks along other steps as long as some rule is neither right nor wrong."""
        zero = {g.leaf for g in look.findings if g.absolute}
        if self._is_clear(look) and not too_small(look.seen, self.problem, zero):
            return look, way
        reach = (1.0,) * len(point)
        for _ in range(0 if _accuses(look) else _GROWTHS):
            reach = farther(look.seen, self.problem, reach)
            if reach is None:
                break
            other = {**way, "reach": reach}
            grown = self.look(point, where=where, coarse=True, alone=False, **other)
            look, way = _merged(look, grown), other
        if not self._is_clear(look):
            look = _merged(look, self.look(point, where=where, **way))
        if not (self._is_clear(look) or _accuses(look)) and differ_in_size(point):
            other = {**way, "proportional": True}
            look, way = _merged(look, self.look(point, where=where, **other)), other
            self._note(_IN_SIZE)
        return look, way

    def _along_ties(self, look, point, where, way) -> Look:
        """The kinks that are errors where ties are kept, if two looks say so."""
        kinked = any(g.state == Outcome.KINK for g in look.findings)
        if not kinked or not has_ties(point):
            return look
        fixed = {"held": way["held"]} if "held" in way else {}
        tied = [self.look(point, where=where, tied=True, **fixed) for _ in range(2)]
        first, second = ({_key(g): g for g in t.findings} for t in tied)
        wrong = {
            key: g
            for key, g in first.items()
            if g.differs and key in second and second[key].differs
        }
        findings = [
            wrong.get(_key(g), g) if g.state == Outcome.KINK else g
            for g in look.findings
        ]
        # Between arguments ties are kept only if all are moved.
        known = {_key(g) for g in findings}
        findings += [g for key, g in wrong.items() if key not in known]
        return dataclasses.replace(look, findings=tuple(findings))

    def _is_clear(self, look) -> bool:
        """Whether every rule is accused, or acquitted with a margin."""
        return all(g.differs or self._is_acquitted(g) for g in look.findings)

    def _is_acquitted(self, finding) -> bool:
        return finding.agrees and finding.resolution <= _MARGIN * self.rtol

    def _is_enough(self, seen: Measurement) -> bool:
        """Whether a measurement says what there is to say, with a margin."""
        if seen.trouble:
            return True
        rounds = self._judged(seen, (), {}, differ=True)
        return all(self._is_acquitted(one.finding) for one in rounds.values())

    def ask(self, name: str, f, look: Look, point, /) -> list[Finding]:
        """Findings of one more oracle at a point that was looked at."""
        programs = {name: self._other(f)}
        rounds = self._judged(look.seen, point, programs)

        def alone(outputs):
            part = self._measured(point, {"outputs": outputs})
            return self._judged(part, point, programs)

        wanted = {"names": self.problem.output_names, "rtol": self.rtol}
        rounds = with_small_outputs(rounds, alone, **wanted)
        return [r.finding for r in rounds.values()]

    def _measured(self, point, options) -> Measurement:
        seen = self.prober(point, self.stream(), **options)
        self.evaluations += seen.evaluations
        if seen.maps or not seen.finite or not seen.repeats:
            return seen
        if self.problem.engine == VMAP:
            one_by_one = dataclasses.replace(self.problem, engine=MAP)
            self.prober = Prober(one_by_one, max_bytes=self.max_bytes)
            self.problem = one_by_one
            self._note(_MAPPED)
            return self._measured(point, options)
        return seen

    def _note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def _other(self, f) -> Programs:
        """The programs of another function, in the one mode that serves best."""
        task = self.problem
        with task.context():
            traced = task.engine != LOOP
            reverse = has_vjp(f, task.leaves, task.outputs, traced=traced)
        mode = "reverse" if reverse else "forward"
        one_mode = dataclasses.replace(task, modes=(mode,))
        return Programs(one_mode, f=f, lanes=num_lanes(task, self.max_bytes))

    def _table(self, programs, point, seen):
        self.evaluations += num_rules(programs.problem)
        tables = rule_tables(programs, tuple(point), seen.draw)
        return tables[programs.problem.modes[0]]

    def _judged(self, seen, point, others, *, differ=False, where=AS_GIVEN) -> dict:
        """What other functions and the differences say, by leaf, mode and oracle."""
        task, found = self.problem, []
        tables = {
            name: self._table(other, point, seen) for name, other in others.items()
        }
        names = itertools.chain(task.names, [TOGETHER])
        for i, (leaf, probes) in enumerate(zip(names, seen.leaves, strict=False)):
            for mode, rule in probes.rules.items():
                truths = [differences(rule, probes, dtype=task.dtype)] * differ
                truths += [self._truth(n, t[i], probes) for n, t in tables.items()]
                given = {"leaf": leaf, "mode": mode, "dtype": task.dtype}
                for truth in truths:
                    g = compare(rule, truth, probes, rtol=self.rtol, **given)
                    g = dataclasses.replace(g, point=where)
                    found.append(Round(g, rule, truth, probes))
        # Together the arguments can only accuse, and only a rule right for each alone.
        accused = [r.finding for r in found if r.finding.differs]
        wrong = {(g.mode, g.oracle) for g in accused if g.leaf != TOGETHER}
        return {
            _key(g): one
            for one in found
            if (g := one.finding).leaf != TOGETHER
            or ((g.mode, g.oracle) not in wrong and _speaks(g))
        }

    def _truth(self, name, table, probes):
        # What is expected is expected at kinks too.
        slack = 0.0 if name == EXPECTED else kink(probes)
        dtype = self.problem.dtype
        return autodiff(table, dtype=dtype, oracle=name, kink=slack)


def _accuses(look) -> bool:
    return any(g.differs for g in look.findings)


def _merged(look, other) -> Look:
    """The findings that say something, of two looks along different steps.

    What differs along any is wrong, what agrees along one is right along that.
    """
    if other.trouble:
        return look
    found = dict(look.rounds)
    for key, one in other.rounds.items():
        g, mine = one.finding, found.setdefault(key, one).finding
        finer = g.agrees and mine.agrees and g.resolution < mine.resolution
        if g.differs or finer or not (mine.agrees or mine.differs):
            found[key] = one
    return Look("", tuple(one.finding for one in found.values()), other.seen, found)


def _speaks(finding) -> bool:
    return finding.differs or finding.state == Outcome.KINK


def _key(finding):
    return finding.leaf, finding.mode, finding.oracle
