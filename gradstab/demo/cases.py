"""The three cases, each with what was found, in words and as a figure."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from gradstab.demo import diverging, vanishing, wrong_rule
from gradstab.gradcheck import GradCheck, Verdict
from gradstab.report import Report


class Case(NamedTuple):
    """What was found of a program.

    Attributes:
        program: what it is, in words.
        call: what of gradstab it is handed to.
        result: a `gradstab.Report`, a `gradstab.GradCheck` or a `diverging.Run`, which
            has a `gradstab.History`.
        found: whether the fault is.
        says: the sentences of the result.
    """

    program: str
    call: str
    result: Any
    found: bool
    says: tuple[str, ...]

    def plot(self):
        """The matplotlib figure of the result."""
        return getattr(self.result, "history", self.result).plot()


def network(folder: pathlib.Path, /) -> Case:
    """The network, analysed."""
    del folder
    return of_network(vanishing.examine())


def rule(folder: pathlib.Path, /) -> Case:
    """The rule, checked."""
    del folder
    return of_rule(wrong_rule.examine())


def run(folder: pathlib.Path, /) -> Case:
    """The run, watched; its history is written to the folder."""
    return of_run(diverging.examine(folder))


CASES: dict[str, Callable[[pathlib.Path], Case]] = {
    "vanishing": network,
    "wrong_rule": rule,
    "diverging": run,
}
"""What is examined, by the names of the pictures."""


def of_network(report: Report, /) -> Case:
    """What the analysis of a network says."""
    return Case(
        f"a network of {vanishing.DEPTH} sigmoid layers, as it is initialised",
        "gs.analyze",
        report,
        report.verdict == "vanishing",
        (f"verdict: {report.verdict}", *report.reasons[:1]),
    )


def of_rule(result: GradCheck, /) -> Case:
    """What the check of a rule says."""
    head = f"{result.verdict.value}{': ' * bool(result.reason)}{result.reason}"
    places = (line for one in result.locations for line in str(one).splitlines())
    return Case(
        "a custom gradient of a normalisation",
        "gs.check",
        result,
        result.verdict is Verdict.FAIL,
        (head, *(line.strip() for line in places)),
    )


def of_run(run: diverging.Run, /) -> Case:
    """What the watch over a run says, up to the step at which it is stopped."""
    attribution, num = run.attribution, len(run.history)
    said = [alarm.partition(" (")[0] for alarm in run.alarms]
    said += str(attribution).replace(f"; {UNMEASURED}", "").splitlines()
    now, best = run.losses[num - 1], run.losses[:num].min()
    said.append(f"the loss is {now:.2f}, and was {best:.2f} at best")
    if run.diverged is not None:
        later = run.diverged - num
        said[-1] += f"; if nobody stops it, it is above its start {later} steps later"
    return Case(
        "a training whose learning rate grows on after its warm-up",
        "gs.value_and_grad, gs.History",
        run,
        bool(run.alarms) and attribution.norm.grows,
        tuple(said),
    )


# At level "light" there are no cosines.
UNMEASURED = "whether its growth is radial was not measured"
