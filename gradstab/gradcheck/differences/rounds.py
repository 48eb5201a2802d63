"""Several looks taken together: is an error larger than what was asked for, or smaller?

The table of one look shows a third to twice of an error of rank one. Those of three,
along independent directions, show more; and of an error that is a multiple of the
derivative, a factor of 1 + 1e-7, every entry of every table shows how large it is.
"""

import dataclasses

import numpy as np

from gradstab.gradcheck.differences.probes import Probes
from gradstab.gradcheck.differences.verdict import AS_LARGE, Truth
from gradstab.gradcheck.findings import Finding
from gradstab.gradcheck.states import Outcome
from gradstab.gradcheck.subject.vectors import root_mean_square

NUM_ROUNDS = 3

# The 2e-5 quantile of the root mean square over three tables of an error of rank one,
# sqrt(mean of three chi2_5 / 5 * chi2_12 / 12): one degree of freedom goes to the
# multiple of the derivative. The 99 % quantile.
_SIGHT = 0.31
_LUCK = 1.56

# From here on no error is near what was asked for.
_FAR = 4.0


@dataclasses.dataclass(frozen=True)
class Round:
    """A rule and an oracle along one set of directions, and what came of it.

    Attributes:
        finding: that of this round alone.
        rule: the entries of the rule.
        truth: the oracle.
        probes: of the leaf.
    """

    finding: Finding
    rule: np.ndarray
    truth: Truth
    probes: Probes


def is_near(finding: Finding, rtol: float, /) -> bool:
    """Whether a second look may say better if the error is smaller than asked for."""
    if finding.state == Outcome.SLIGHT:
        return True
    return finding.differs and finding.error < _FAR * rtol


def weighed(rounds: list[Round], /, *, rtol: float, acquits: bool = True) -> Finding:
    r"""The finding of the first round in the light of all.

    The error :math:`E = c J + R` is split into a multiple of the derivative and a rest.
    Only what the rest may hide depends on luck: :math:`|E| \le |c| |J| + |R|`.

    Args:
        rounds: along independent directions.
        rtol: the error asked about.
        acquits: whether a smaller error is accepted if it was seen to be one.

    Returns:
        It agrees if no larger error is likely to look so small, differs if no smaller
        one is likely to look so large; else it differs slightly.
    """
    first = rounds[0].finding
    truth, rule = (
        np.concatenate(parts)
        for parts in zip(*((r.truth.entries, r.rule) for r in rounds), strict=True)
    )
    size, error = root_mean_square(truth), root_mean_square(rule - truth)
    bar = max(r.truth.bar for r in rounds)
    probes = rounds[0].probes
    multiple = 0.0
    if first.absolute:
        unit = least = (probes.value or 1.0) / probes.scale
    else:
        unit, least = max(size, bar), size - bar
        scaled = truth / (size or 1.0)
        multiple = float(np.vdot(scaled, rule - truth) / truth.size)
    if not np.isfinite(error) or least <= 0 or unit <= 0:
        return first
    rest = root_mean_square(rule - truth - multiple * truth / (size or 1.0))
    most = (abs(multiple) + (max(rest, bar) + bar) / _SIGHT) / least
    fewest = np.hypot(multiple, max(rest - bar, 0.0) / _LUCK) / unit
    numbers = {"error": error / unit, "bar": bar / unit}
    if most <= rtol and acquits:
        numbers |= {"state": Outcome.AGREES, "resolution": most}
    elif fewest < AS_LARGE * rtol:
        numbers |= {"state": Outcome.SLIGHT, "resolution": most}
    else:
        numbers |= {"state": Outcome.DIFFERS}
    return dataclasses.replace(first, **numbers)
