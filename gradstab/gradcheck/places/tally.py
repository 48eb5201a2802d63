"""The entries of one leaf's Jacobian as they come in, judged one by one."""

import dataclasses

import numpy as np

from gradstab.gradcheck.findings import DIFFERENCES, Finding, Location
from gradstab.gradcheck.places.comparison import Comparison
from gradstab.gradcheck.places.entry import numbers, place_of
from gradstab.gradcheck.states import Outcome

# After so many wrong columns no further one is looked at again.
_ENOUGH = 32

# Standard errors that are believed of rounding.
CONFIDENCE = 6.0

# Relative errors below eps to this power (1e-7 in float64) are no errors of a formula.
_FORMULA = 0.45

# The bands of relative errors begin at 1e-7. Entries whose bar is a larger part of them
# are left out there, unless they differ by more than the bar.
_CLEAR = 1e7


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the columns of one leaf are differentiated, and how far they are believed.

    Attributes:
        seen: f along directions of the leaf, to look at an entry again.
        step: of the quotients.
        smooth: ``(outputs,)`` by how much the step may falsify a quotient.
        random: ``(outputs,)`` by how much rounding may.
    """

    seen: Comparison
    step: float
    smooth: np.ndarray
    random: np.ndarray


class Tally:
    """Sums over the entries of one leaf, and the entries that are wrong.

    Args:
        plan: how they are differentiated.
        mode: of the rule.

    Attributes:
        squares: sums of the squares of quotient minus rule, of quotient and of rule.
        worst_error: the largest of those relative to the larger of the two.
        left_out: how many entries are too small for that, for differences to tell.
        wrong: how many entries are.
        kinks: how many differ, and lie between the one-sided slopes.
        undefined: at how many f is not finite on both sides, at any step.
    """

    def __init__(self, plan: Plan, mode: str):
        self.plan, self.seen, self.mode = plan, plan.seen, mode
        self.bars = plan.smooth + plan.random
        self._noise = plan.random * plan.step / CONFIDENCE
        self.squares = np.zeros(3)
        self.worst_error, self.left_out = 0.0, 0
        self.wrong = self.kinks = self.undefined = 0
        self._columns, self._worst = 0, (-1.0, 0, 0, np.nan, np.nan, np.nan)
        self._least = plan.seen.eps**_FORMULA
        self._looked, self._looked_bars = 0, 0.0

    def add(self, start: int, rule: np.ndarray, quotients: np.ndarray) -> None:
        """Judges columns ``(columns, outputs)``, the first being entry ``start``."""
        held = self.seen.held[start : start + len(rule), None]
        # Entries that are not finite have no slope: nothing is asked of them.
        rule, quotients = (np.where(held, 0.0, a) for a in (rule, quotients))
        with np.errstate(invalid="ignore", over="ignore"):
            excess = np.max(np.abs(rule - quotients) - self.bars, axis=1)
        excess = np.where(np.isnan(excess), np.inf, excess)
        for k in np.argsort(-excess, kind="stable"):
            if excess[k] <= 0:
                break
            quotients[k] = self._look_again(start + int(k), rule[k], quotients[k])
        self._sum(rule, quotients)

    def _look_again(self, entry, rule: np.ndarray, quotients: np.ndarray):
        """One column at many steps; what is to be believed of it."""
        if self._columns >= _ENOUGH:
            self.wrong += int(np.sum(~(np.abs(rule - quotients) <= self.bars)))
            return quotients
        self._looked += 1
        ladder = self.seen.ladder_of(entry)
        # Their noise was seen in other steps.
        noise = self._noise if ladder.steps[0] == self.seen.steps[0] else 0.0
        value, bar, kink = ladder.each(noise)
        with np.errstate(invalid="ignore"):
            error = np.abs(rule - value)
        error = np.where(np.isfinite(error), error, np.inf)
        blind = ~np.isfinite(value) | ~np.isfinite(bar)
        small = bar + self._least * np.abs(value)
        wrong = (error > small + kink) & ~blind
        kinked = (error > small) & ~wrong & ~blind
        self.undefined += int(np.sum(blind))
        self._looked_bars += float(np.sum(bar[~blind] ** 2))
        self.kinks += int(np.sum(kinked))
        if wrong.any():
            self._columns += 1
            self.wrong += int(np.sum(wrong))
            self._keep_worst(entry, np.where(wrong, error, -1.0), rule, value, bar)
        return np.where(kinked | blind, rule, value)

    def _keep_worst(self, entry, error, rule: np.ndarray, value, bar):
        output = int(np.argmax(error))
        if error[output] > self._worst[0]:
            numbers = float(rule[output]), float(value[output]), float(bar[output])
            self._worst = float(error[output]), entry, output, *numbers

    def _sum(self, rule: np.ndarray, quotients: np.ndarray):
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.where(quotients == rule, 0.0, np.abs(quotients - rule))
            error = np.where(np.isnan(error), np.inf, error)
            finite = (np.where(np.isfinite(a), a, 0.0) for a in (quotients, rule))
            self.squares += [np.sum(a**2) for a in (error, *finite)]
            size = np.maximum(np.abs(quotients), np.abs(rule))
            clear = (size > _CLEAR * self.bars) | (error > self.bars)
            relative = np.divide(error, size, out=np.zeros_like(error), where=clear)
        self.left_out += int(np.sum(~clear & (size > 0)))
        self.worst_error = float(np.max(relative, initial=self.worst_error))

    def finding(self, rtol: float | None) -> Finding:
        """What a check says about this leaf and mode."""
        error, size, _ = np.sqrt(self.squares).tolist()
        others = self.seen.x.size - self._looked
        bar = float(np.sqrt(others * np.sum(self.bars**2) + self._looked_bars))
        absolute = bool(size <= bar)
        unit = np.linalg.norm(self.seen.value) / self.seen.scale if absolute else size
        unit = float(unit) or 1.0
        least = unit if absolute else size - bar
        accepted = bar if self.wrong else error
        resolution = self._visible(accepted, others) / least + self._least
        resolution = resolution if least > 0 else np.inf
        state = Outcome.AGREES
        if self.wrong:
            state = Outcome.DIFFERS
        elif self.undefined:
            state, resolution = Outcome.UNDEFINED, np.inf
        elif rtol is not None and not resolution <= rtol:
            state = Outcome.VANISHES if absolute else Outcome.HIDDEN
        name = self.seen.problem.names[self.seen.leaf]
        oracle = f"{DIFFERENCES} of every entry in {self.seen.problem.dtype}"
        numbers = error / unit, bar / unit, resolution, self.plan.step
        return Finding(*numbers, state, absolute, name, self.mode, oracle)

    def _visible(self, error, others):
        """An upper limit of the norm of the rule's error.

        Rounding errors are independent of it: they can hide a little of it in one
        entry, and add to what is seen in all. What the steps do could cancel it.
        """
        smooth = np.sqrt(others * np.sum(self.plan.smooth**2) + self._looked_bars)
        return error + float(smooth) + float(np.max(self.plan.random))

    def location(self, seen: Comparison, /, hint: str = "") -> Location:
        """The worst of the wrong entries that were looked at again.

        Args:
            seen: the rule beside its function.
            hint: the cause.
        """
        _, entry, output, value, expected, bar = self._worst
        leaf, index, _ = place_of(seen, entry)
        found = numbers(seen, entry, output)
        if np.iscomplexobj(found.value) or found.instead:
            value, expected, bar = found.value, found.expected, found.bar
        return Location(
            value=value,
            expected=expected,
            bar=bar,
            leaf=leaf,
            mode=self.mode,
            index=index,
            count=self.wrong,
            total=self.seen.x.size * self.seen.num_outputs,
            output=found.output,
            hint=hint,
            along=found.along,
            instead=found.instead,
        )
