"""One function under examination: every oracle asked, at any point."""

import dataclasses

import numpy as np

from gradstab.gradcheck.abilities import LOOP, MAP, VMAP, has_vjp
from gradstab.gradcheck.findings import BODY, EXPECTED, Finding
from gradstab.gradcheck.points import AS_GIVEN
from gradstab.gradcheck.probes import (
    Measurement,
    Prober,
    num_lanes,
    num_rules,
    rule_tables,
)
from gradstab.gradcheck.problem import Problem
from gradstab.gradcheck.programs import Programs
from gradstab.gradcheck.verdict import (
    DIFFERS,
    UNCONFIRMED,
    autodiff,
    compare,
    differences,
    kink,
)

_MAPPED = "f gives another value under vmap: it was probed one point at a time"


@dataclasses.dataclass(frozen=True)
class Look:
    """What was seen at one point.

    Attributes:
        trouble: why nothing can be said there; empty if something can.
        findings: one per leaf, mode and oracle.
        seen: the measurement behind them.
    """

    trouble: str
    findings: tuple[Finding, ...]
    seen: Measurement


class Examination:
    """Compares the rules of a problem with every oracle there is.

    Args:
        problem: what is checked.
        rtol: the resolution asked for.
        max_bytes: how much memory the evaluations under way may take.
        seed: of the random directions.
        others: functions of the leaves whose automatic differentiation is an oracle, by
            its name.
    """

    def __init__(self, problem: Problem, /, *, rtol, max_bytes, seed, others=None):
        self.problem, self.rtol, self.max_bytes = problem, rtol, max_bytes
        self.evaluations = 0
        self.notes = []
        self._rng = np.random.default_rng(seed)
        self._prober = Prober(problem, max_bytes=max_bytes)
        self._others = {name: self._other(f) for name, f in (others or {}).items()}

    def stream(self) -> np.random.Generator:
        """Fresh randomness, the same for the same seed and history."""
        return self._rng.spawn(1)[0]

    def look(self, point, /, *, where: str = AS_GIVEN, coarse: bool = False) -> Look:
        """Everything that all oracles say at a point, along fresh directions."""
        seen = self._measured(point, coarse)
        if trouble := _trouble(seen):
            return Look(trouble, (), seen)
        tables = {name: self._table(name, point, seen) for name in self._others}
        found = [
            dataclasses.replace(finding, point=where)
            for i, leaf in enumerate(self.problem.names)
            for mode in seen.leaves[i].rules
            for finding in self._compared(i, leaf, mode, seen.leaves[i], tables)
        ]
        return Look("", tuple(found), seen)

    def look_twice(self, point, /, *, where=AS_GIVEN, coarse=False) -> Look:
        """The same; a rule is accused only if it differs along other directions too."""
        first = self.look(point, where=where, coarse=coarse)
        if all(g.state != DIFFERS for g in first.findings):
            return first
        again = self.look(point, where=where)
        confirmed = {_key(g) for g in again.findings if g.state == DIFFERS}
        findings = [
            dataclasses.replace(g, state=UNCONFIRMED)
            if g.state == DIFFERS and _key(g) not in confirmed
            else g
            for g in first.findings
        ]
        return dataclasses.replace(first, findings=tuple(findings))

    def ask(self, name: str, f, look: Look, point, /) -> tuple[Finding, ...]:
        """Findings of one more oracle at a point that was looked at."""
        self._others = {name: self._other(f)}
        table = {name: self._table(name, point, look.seen)}
        return tuple(
            finding
            for i, leaf in enumerate(self.problem.names)
            for mode in look.seen.leaves[i].rules
            for finding in self._compared(i, leaf, mode, look.seen.leaves[i], table)
            if finding.oracle == name
        )

    def _measured(self, point, coarse) -> Measurement:
        seen = self._prober(point, self.stream(), coarse=coarse)
        self.evaluations += seen.evaluations
        if seen.maps or not seen.finite or not seen.repeats:
            return seen
        if self.problem.engine == VMAP:
            one_by_one = dataclasses.replace(self.problem, engine=MAP)
            self._prober = Prober(one_by_one, max_bytes=self.max_bytes)
            self.problem = one_by_one
            self.notes.append(_MAPPED)
            return self._measured(point, coarse)
        return seen

    def _other(self, f) -> Programs:
        """The programs of another function, in the one mode that serves best."""
        task = self.problem
        with task.context():
            traced = task.engine != LOOP
            reverse = has_vjp(f, task.leaves, task.outputs, traced=traced)
        mode = "reverse" if reverse else "forward"
        one_mode = dataclasses.replace(task, modes=(mode,))
        return Programs(one_mode, f=f, lanes=num_lanes(task, self.max_bytes))

    def _table(self, name, point, seen):
        programs = self._others[name]
        self.evaluations += num_rules(programs.problem)
        tables = rule_tables(programs, tuple(point), seen.draw)
        return tables[programs.problem.modes[0]]

    def _compared(self, i, leaf, mode, probes, tables) -> list[Finding]:
        dtype, rule = self.problem.dtype, probes.rules[mode]
        truths = [
            autodiff(
                table[i],
                probes,
                dtype=dtype,
                oracle=name,
                kink=0.0 if name == EXPECTED else kink(probes),
            )
            for name, table in tables.items()
        ]
        # What is expected on purpose is not what the differences say.
        if EXPECTED not in tables and BODY not in tables:
            truths.insert(0, differences(rule, probes, dtype=dtype))
        given = {"leaf": leaf, "mode": mode, "dtype": dtype, "rtol": self.rtol}
        return [compare(rule, truth, probes, **given) for truth in truths]


def _key(finding):
    return finding.leaf, finding.mode, finding.oracle


def _trouble(seen) -> str:
    if not seen.finite:
        return "f is not finite at the point"
    if not seen.repeats:
        return "f is not deterministic: the same arguments gave another value"
    return ""
