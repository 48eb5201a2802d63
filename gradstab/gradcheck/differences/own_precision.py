"""What a rule loses by rounding: the rule in its own dtype against itself in float64.

A rule may be right in exact arithmetic and useless in float32: 1 - y**2 of a saturated
y, a residual kept in bfloat16. Differences in float64 do not see that.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.differences.probes import Measurement, Probes
from gradstab.gradcheck.differences.tables import num_rules, rule_tables
from gradstab.gradcheck.differences.verdict import bend
from gradstab.gradcheck.findings import ROUNDING, Finding
from gradstab.gradcheck.states import Outcome
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.programs import Programs
from gradstab.gradcheck.subject.vectors import root_mean_square

# What rounding in f's own dtype may do, in units of what it does to f's value. The sums
# inside a derivative are other sums than those inside f. Of a dtype with few digits so
# many units would be everything.
_UNITS, _UNITS_OF_FEW = 64, 8
_FEW_DIGITS = 1e-6


class OwnPrecision:
    """Compares the rules of a problem in its own dtype with those in float64.

    Args:
        own: the problem in its own dtype.
        lanes: how many evaluations may be under way at once.
        rtol: the relative error by rounding that is accepted.
    """

    def __init__(self, own: Problem, /, *, lanes: int, rtol: float):
        self.own, self.rtol = own, rtol
        self.programs = Programs(self.own, lanes=lanes)
        self.evaluations = num_rules(self.own)

    def __call__(self, point: Sequence[Any], seen: Measurement, /) -> list[Finding]:
        """One finding per leaf and mode; none where f, or its rule, is not finite."""
        pairs = zip(map(np.asarray, point), self.own.leaves, strict=True)
        with np.errstate(over="ignore"):
            own = [x.astype(y.dtype) for x, y in pairs]
        draw = seen.draw.astype(self.own)
        tables = rule_tables(self.programs, tuple(own), draw)
        if not np.all(np.isfinite(tables["value"])):
            return []
        gap = root_mean_square(tables["value"] - seen.value) * np.sqrt(len(seen.value))
        return [
            self._finding(i, leaf, mode, tables[mode][i].ravel(), seen.leaves[i], gap)
            for i, leaf in enumerate(self.own.names)
            for mode in self.own.modes
            if np.all(np.isfinite(seen.leaves[i].rules.get(mode, np.nan)))
        ]

    @np.errstate(invalid="ignore", over="ignore")
    def _finding(
        self, i: int, leaf, mode: str, entries, probes: Probes, gap
    ) -> Finding:
        wide = probes.rules[mode]
        finite = bool(np.all(np.isfinite(entries)))
        error = root_mean_square(entries - wide) if finite else np.inf
        size = root_mean_square(wide)
        # One dtype may hold a kink apart from the point that the other does not, and
        # what an argument is rounded by moves the derivative too: the bend says so.
        eps = float(jnp.finfo(self.own.dtype).eps)
        units = _UNITS if eps < _FEW_DIGITS else _UNITS_OF_FEW
        near = bend(probes, finest=units * eps * probes.scale)
        bar = 2 * near + units * (eps * probes.value + gap) / probes.scale
        if error <= self.rtol * size:
            state = Outcome.AGREES
        else:
            state = Outcome.LOST if error <= bar else Outcome.DIFFERS
        unit = size or probes.value / probes.scale or 1.0
        numbers = error / unit, bar / unit, (error + bar) / unit, 0.0
        return Finding(*numbers, state, size == 0, leaf, mode, ROUNDING)
