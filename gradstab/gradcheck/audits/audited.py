"""The records of an audit: rules of differentiation, their places, their checks."""

import importlib
import math
from typing import Any

from gradstab._text import printable_lines
from gradstab.gradcheck.findings import GradCheck, Verdict
from gradstab.records import record, static

# From the best to the worst.
_ORDER = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.FAIL)


def severity(check: GradCheck, /) -> tuple:
    """Greater for a worse verdict; among equal ones, for a coarser resolution."""
    return _ORDER.index(check.verdict), check.resolution


@record
class Rule:
    """One custom rule of differentiation, for operands of one set of shapes.

    Attributes:
        checks: at the operands that it was called with first, and last if they differ.
        name: of the function that has the rule, or of the class of the primitive.
        kind: ``custom_vjp``, ``custom_jvp`` or ``hijax``.
        source: where that function is defined, as ``file:line``; may be empty.
        paths: where it is called, such as ``scan/cond[1]/my_rule``, each place once.
        shapes: of its operands, such as ``float64[4,8]``.
        count: how many calls of f's program these are, those of a loop taken as one.
        body: why plain differentiation of the body is no oracle; empty if it is one.
    """

    checks: tuple[GradCheck, ...]
    name: str = static()
    kind: str = static()
    source: str = static()
    paths: tuple[str, ...] = static()
    shapes: tuple[str, ...] = static()
    count: int = static()
    body: str = static(default="")

    @property
    def check(self) -> GradCheck:
        """The worst of the checks."""
        return max(self.checks, key=severity)

    def __str__(self) -> str:
        return (
            f"{self.check.verdict.value} {self.paths[0]}({', '.join(self.shapes)})"
            f"{f' x{self.count}' * (self.count > 1)}: "
            f"resolution {self.check.resolution:.1e}"
        )

    def details(self) -> list[str]:
        """The worst check in lines, and what the reader needs to find the rule."""
        lines = str(self.check).splitlines()
        if self.body:
            lines.append(f"note: its body is no oracle: {self.body}")
        if self.source:
            lines.append(f"note: {self.kind} of {self.name}, defined at {self.source}")
        return lines


@record
class Audit:
    """The custom rules inside of a function: data, printed as a line for each.

    Attributes:
        rules: those that were checked, the worst first.
        unreached: paths of rules that the run did not call, as in a branch not taken.
        constant: paths of rules whose operands no argument of f can move.
        skipped: paths of rules that were left out on request.
        hidden: paths of rules inside of a primitive that cannot be entered.
    """

    rules: tuple[Rule, ...]
    unreached: tuple[str, ...] = static(default=())
    constant: tuple[str, ...] = static(default=())
    skipped: tuple[str, ...] = static(default=())
    hidden: tuple[str, ...] = static(default=())

    @property
    def verdict(self) -> Verdict:
        """The worst of the rules; INCONCLUSIVE if no rule was checked."""
        if not self.rules:
            return Verdict.INCONCLUSIVE
        return max((rule.check for rule in self.rules), key=severity).verdict

    @property
    def resolution(self) -> float:
        """The coarsest of the rules; infinite if no rule was checked."""
        return max((rule.check.resolution for rule in self.rules), default=math.inf)

    @property
    def evaluations(self) -> int:
        """Of all rules together, in all their checks."""
        return sum(check.evaluations for rule in self.rules for check in rule.checks)

    def __str__(self) -> str:
        lines = [f"{self.verdict.value}: {self._counts()}"]
        for rule in self.rules:
            lines.append(f"  {rule}")
            if rule.check.verdict is not Verdict.PASS:
                lines += [f"    {line}" for line in rule.details()]
        for name, meaning in _MEANINGS.items():
            if paths := getattr(self, name):
                lines.append(f"{meaning}: {', '.join(paths)}")
        return printable_lines("\n".join(lines))

    def show(self, console: Any = None) -> None:
        """Prints the same in colours to a rich console, by default the terminal."""
        _views().show_audit(self, console)

    def __repr__(self) -> str:
        return f"<Audit {self}>"

    def _repr_html_(self) -> str:
        return _views().audit_html(self)

    def _counts(self) -> str:
        if not self.rules:
            count = sum(len(getattr(self, name)) for name in _MEANINGS)
            if count:
                return f"{count} rule{'s' * (count > 1)}, of which none was checked"
            return "no custom rule of differentiation was checked"
        verdicts = [rule.check.verdict for rule in self.rules]
        numbers = [f"{verdicts.count(v)} {v.value}" for v in reversed(_ORDER)]
        shown = [number for number in numbers if not number.startswith("0 ")]
        rules = f"{len(verdicts)} rule{'s' * (len(verdicts) > 1)}"
        return f"{rules}, of which {', '.join(shown)}"


def _views():
    # What draws tables takes longer to import than a result takes to print.
    return importlib.import_module("gradstab.gradcheck.views")


_MEANINGS = {
    "unreached": "not called at these arguments",
    "constant": "called with constants only",
    "skipped": "left out",
    "hidden": "inside of what cannot be entered",
}
