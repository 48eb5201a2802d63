"""The records of a check: what was found, where, and the verdict that it supports."""

import enum
import importlib
import math
from typing import Any

from gradstab._text import printable_lines
from gradstab.gradcheck.curves import Curve
from gradstab.gradcheck.figures import Figures
from gradstab.gradcheck.states import Answer, Outcome
from gradstab.records import record, static

# The names of differences of f begin so; those of the other oracles.
DIFFERENCES = "central differences"
REFERENCE = "autodiff of the reference"
EXPECTED = "autodiff of what is expected"
BODY = "autodiff of the rule's own body"
ROUNDING = "the rule itself in float64"
RANGE = "whether it is finite in its own dtype"

_LINES = 15  # of the text of a result


class Verdict(enum.Enum):
    """The three answers of a check."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@record
class Finding:
    """One derivative rule, with respect to one argument leaf.

    `error`, `bar` and `resolution` are relative to the Frobenius norm of the leaf's
    true Jacobian or, if `absolute`, to the norm of f's value over the size of the leaf.
    The resolution is the worst of all outputs: one whose Jacobian is much smaller than
    that of others is held to its own.

    Attributes:
        error: the measured Frobenius norm of rule minus truth.
        bar: how much of that may be noise.
        resolution: a larger error would have been noticed.
        step: the largest step used, in units of the argument.
        state: whether they agree or differ, or why neither can be said. Its text is
            the sentence that is shown.
        absolute: whether the true derivative is zero.
        leaf: the argument, such as ``args[0].kernel``.
        mode: ``forward`` (the JVP) or ``reverse`` (the VJP).
        oracle: what the rule was compared with.
        point: where: ``as given``, or how the arguments were moved.
        output: the outputs of f concerned, such as ``output.loss``; empty if all are.
    """

    error: float
    bar: float
    resolution: float
    step: float
    state: Outcome = static()
    absolute: bool = static()
    leaf: str = static()
    mode: str = static()
    oracle: str = static()
    point: str = static(default="as given")
    output: tuple[str, ...] = static(default=())

    @property
    def agrees(self) -> bool:
        """Whether the rule was seen to be right, as far as the resolution goes."""
        return self.state == Outcome.AGREES

    @property
    def differs(self) -> bool:
        """Whether the rule was seen to be wrong."""
        return self.state == Outcome.DIFFERS

    @property
    def by_differences(self) -> bool:
        """Whether the oracle is differences of f."""
        return self.oracle.startswith(DIFFERENCES)

    @property
    def proves(self) -> bool:
        """Whether the oracle knows the derivative, and not only the rule's rounding."""
        return self.oracle not in (ROUNDING, RANGE)

    def __str__(self) -> str:
        oracle = "" if self.by_differences else f" against {self.oracle}"
        point = "" if self.point == "as given" else f", {self.point}"
        more = f" and {len(self.output) - 2} more" * (len(self.output) > 2)
        output = f" of {', '.join(self.output[:2])}{more}" * bool(self.output)
        return (
            f"{self.leaf} ({self.mode}{output}{point}): error {self.error:.1e} +- "
            f"{self.bar:.1e}{oracle}, resolution {self.resolution:.1e}"
            f"{' of the size of f (zero derivative)' * self.absolute}: {self.state}"
        )


@record
class Identity:
    """A law that every derivative obeys, tried without differences.

    A law that is broken makes a check fail; one that holds proves nothing by itself.

    Attributes:
        error: by how much it is broken, relative to what it compares.
        bar: how much of that rounding explains, or is accepted.
        name: of the law, such as ``linear in the cotangent``.
        leaf: the argument concerned; empty if all are.
        holds: whether the error is within the bar.
        detail: what was compared, in words.
    """

    error: float
    bar: float
    name: str = static()
    leaf: str = static()
    holds: bool = static()
    detail: str = static(default="")


@record
class Location:
    """The worst wrong entry of an argument leaf's Jacobian, and what may be its cause.

    Attributes:
        value: what the rule says there; complex, in JAX's convention, for a complex
            argument (the gradient), or output (the JVP).
        expected: what the oracle says; NaN where f has no derivative.
        bar: how far that may be off; infinite if the differences do not resolve it.
        leaf: the argument, such as ``args[0].kernel``.
        mode: ``forward`` or ``reverse``; of second derivatives both, such as ``forward
            over reverse``.
        index: of the entry within the leaf.
        count: how many entries were found wrong.
        total: how many entries the leaf has.
        hint: the likely cause, such as ``a constant factor of 1/2``; empty if unknown.
        output: the entry of f's output that is meant, such as ``[2, 0]``, with its path
            before if there are several: ``['loss'][3]``; empty if f returns one number.
        estimated: whether `count` was extrapolated from a sample.
        evaluations: of f, its JVP and its VJP, spent on finding this.
        along: the tangent of a complex entry in forward mode, ``1`` or ``1j``.
        instead: what f has in the place of a derivative, such as a kink.
    """

    value: complex
    expected: complex
    bar: float
    leaf: str = static()
    mode: str = static()
    index: tuple[int, ...] = static()
    count: int = static()
    total: int = static()
    hint: str = static(default="")
    output: str = static(default="")
    estimated: bool = static(default=False)
    evaluations: int = static(default=0)
    along: str = static(default="")
    instead: str = static(default="")

    def __str__(self) -> str:
        where = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        about = "about " * self.estimated
        along = f" along {self.along}" if self.along else ""
        hint = f"\n    likely cause: {self.hint}" if self.hint else ""
        expected = f"expected {self.expected:.8g} +- {self.bar:.1e}"
        if not math.isfinite(self.bar):
            expected = "and the slope of f is not resolved there"
        if self.instead:
            expected = f"where f has {self.instead}, and no derivative"
        return (
            f"  {self.leaf}{where} ({self.mode}{along}{self._of_output()}): the rule "
            f"says {self.value:.8g}, {expected}; {about}{self.count} of {self.total} "
            f"entries are wrong{hint}"
        )

    def _of_output(self) -> str:
        if not self.output:
            return ""
        if self.output.startswith("mixed"):
            return f", of outputs {self.output}"
        path = self.output.startswith(("[", "."))
        return f", of {'output' if path else ''}{self.output}"


@record
class GradCheck:
    """The result of a check: data, printed in at most 15 lines.

    Attributes:
        findings: one per argument leaf and mode, the worst first.
        resolution: the worst of the findings; infinite if nothing was resolved.
        verdict: PASS if `resolution` is at most `rtol`; FAIL if a rule is wrong.
        reason: for FAIL what is wrong, for INCONCLUSIVE why; empty for PASS.
        rtol: the resolution asked for.
        precision: the dtype in which f was checked.
        evaluations: of f, its JVP and its VJP together.
        seed: of the random directions.
        notes: what else the reader should know.
        identities: the laws that were tried without differences.
        locations: where the rule is wrong, the worst argument first; empty unless FAIL.
        moved: how the point was moved, and what came of it there: ``right``, ``wrong``,
            ``undecided``, ``not converged``, or ``not defined`` if f is not finite
            there.
        figures: the norm ratio and the worst relative error of the textbooks, after an
            exhaustive check; else None.
        curves: differences minus rule, step by step, at the point given.
        outside: of moved points at which the rule is wrong, what the arguments given
            have and those have not, such as ``args[0] is symmetric``: f may be defined
            on such arguments only.
    """

    findings: tuple[Finding, ...]
    resolution: float
    verdict: Verdict = static()
    reason: str = static()
    rtol: float = static()
    precision: str = static()
    evaluations: int = static()
    seed: int = static()
    notes: tuple[str, ...] = static()
    identities: tuple[Identity, ...] = ()
    locations: tuple[Location, ...] = ()
    moved: tuple[tuple[str, Answer], ...] = static(default=())
    figures: Figures | None = None
    curves: tuple[Curve, ...] = ()
    outside: tuple[tuple[str, str], ...] = static(default=())

    def __str__(self) -> str:
        head = [
            f"{self.verdict.value}{': ' * bool(self.reason)}{self.reason}",
            f"resolution {self.resolution:.1e}, asked for {self.rtol:.1e}; "
            f"{self.precision}, {self.evaluations} evaluations, seed {self.seed}"
            f"{self._elsewhere()}",
            *self._textbook(),
            *(line for place in self.locations[:2] for line in str(place).splitlines()),
        ]
        notes = _cut([f"note: {note}" for note in self.notes], 3, "notes")
        room = _LINES - len(head) - len(notes)
        findings = [f"  {finding}" for finding in self.findings]
        lines = [*head, *_cut(findings, room, "findings, none worse"), *notes]
        return printable_lines("\n".join(lines))

    def _textbook(self) -> list[str]:
        figures = self.figures
        if figures is None or not figures.ratio_band:
            return []
        return [
            f"  norm ratio {figures.ratio:.1e} ({figures.ratio_band}), worst relative "
            f"error {figures.worst_error:.1e} ({figures.error_band})"
        ]

    def show(self, console: Any = None) -> None:
        """Prints everything as tables to a rich console, by default the terminal."""
        _views().show(self, console)

    def plot(self, axes: Any = None, *, ax: Any = None):
        """Draw by how much differences and rules disagree, against the step.

        Args:
            axes: matplotlib axes; a new figure by default.
            ax: the same, under the name that all figures have for it.

        Returns:
            The matplotlib figure.
        """
        return _views().plot(self, ax=axes if ax is None else ax)

    def __repr__(self) -> str:
        return f"<GradCheck {self}>"

    def _repr_html_(self) -> str:
        return _views().html(self)

    def _elsewhere(self) -> str:
        answers = [answer for _, answer in self.moved]
        counts = [f"{answers.count(a)} {a}" for a in dict.fromkeys(answers)]
        return f"; moved points: {', '.join(counts)}" if counts else ""


def _views():
    # What draws tables takes longer to import than a result takes to print.
    return importlib.import_module("gradstab.gradcheck.views")


def _cut(lines: list[str], room: int, what: str) -> list[str]:
    """The first lines, and how many there are besides, in that much room."""
    if len(lines) <= room:
        return lines
    return [*lines[: room - 1], f"  and {len(lines) - room + 1} more {what}"]
