"""Whether a rule agrees with an oracle, and how far the oracle can be trusted."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.differences.directions import NUM_COTANGENTS, SIGHT
from gradstab.gradcheck.differences.probes import Probes, rounding_of_zero
from gradstab.gradcheck.differences.steps import estimate, num_resolved
from gradstab.gradcheck.findings import DIFFERENCES, Finding
from gradstab.gradcheck.states import Outcome
from gradstab.gradcheck.subject.vectors import root_mean_square

# Of twelve Gaussian numbers the root mean square exceeds 1.8 once in 2e4.
_LUCK = 1.8

# What is measured within a hundredth of the error asked about counts as being so large.
AS_LARGE = 0.99

# An output whose Jacobian is by so much smaller than the largest has a norm of its own.
_SMALL_OUTPUT = 1 / 8

# Next to a jump the differences scatter more than they measure. Then they accuse no one
# unless they are small beside f's value over the argument, and the rule says they are
# not.
_BLIND = 1e-2

# What rounding of its three values adds to a gap between slopes, at most.
_ROUNDED = 2.0

# Where slopes along two directions do not add up to that along the sum, by so much, the
# slope that a rule has chosen may be off by this many times more.
_NONLINEAR = 4.0

# A function that falls faster than this power of the step saturates: to nothing seen.
_POWER = 9

# A slope that vanishes falls below this part of itself before rounding hides it.
_FADED = 0.1

# Rounding of a derivative by automatic differentiation, in units in the last place; of
# dtypes with few digits, what storing it does. A guess: what comes near deciding is far
# larger, 0.3 of the resolution asked for.
_UNITS, _UNITS_OF_FEW = 64, 0.5
_FEW_DIGITS = 1e-6


@dataclasses.dataclass(frozen=True)
class Truth:
    r"""What an oracle says about the derivative of one leaf.

    Attributes:
        entries: the table :math:`\langle w_j, J v_k \rangle`; None if it says
            nothing.
        bar: the root mean square of its error.
        step: the largest step used; zero if none was.
        limit: why it sees no more; None if nothing is in the way.
        kink: half the gap between the one-sided slopes: the oracle's choice of a slope
            may differ from the rule's by so much.
        oracle: its name.
    """

    entries: np.ndarray | None
    bar: float
    step: float
    limit: Outcome | None
    kink: float
    oracle: str


def differences(rule: np.ndarray, probes: Probes, /, *, dtype) -> Truth:
    """What the differences say, from steps within the size of the argument."""
    name = f"{DIFFERENCES} in {dtype}"
    resolved = num_resolved(probes.moved, probes.rounding, probes.steps)
    stairs = resolved < len(probes.steps) and not is_flat(rule, probes, dtype=dtype)
    near = probes.steps <= probes.scale
    if stairs:
        near &= np.arange(len(near)) < resolved
    best = estimate(probes.residual[near], probes.rounding[near], probes.steps[near])
    limit = Outcome.STAIRS if stairs else None
    if best is None:
        return Truth(None, np.inf, 0.0, limit or Outcome.UNDEFINED, 0.0, name)
    entries = probes.anchor + best.value
    corner = kink(probes, coarsest=best.step)
    gap = max(corner, _nonlinearity(entries, best.bar, probes))
    return Truth(entries, best.bar, best.step, limit, gap, name)


def _nonlinearity(entries, bar, probes: Probes) -> float:
    """By how much the slope along a sum is not the sum of slopes; 0 within the noise.

    The median of three equals has a slope along every line, the same on both sides,
    and no gradient all the same.
    """
    if not probes.paired:
        return 0.0
    one, two, three, *sums = entries.reshape(-1, NUM_COTANGENTS)
    alone = one + two, two + three, one - three
    gaps = [root_mean_square(a - b) for a, b in zip(sums, alone, strict=True)]
    return _NONLINEAR * max(gaps) if max(gaps) > 3 * bar else 0.0


def autodiff(entries, /, *, dtype, oracle: str, kink: float = 0.0) -> Truth:
    """What automatic differentiation of another function says."""
    entries = np.ravel(entries)
    if not np.all(np.isfinite(entries)):
        return Truth(None, np.inf, 0.0, Outcome.NO_TRUTH, 0.0, oracle)
    eps = float(jnp.finfo(dtype).eps)
    units = _UNITS if eps < _FEW_DIGITS else _UNITS_OF_FEW
    bar = units * eps * root_mean_square(entries)
    return Truth(entries, bar, 0.0, None, kink, oracle)


def compare(
    rule: np.ndarray,
    truth: Truth,
    probes: Probes,
    /,
    *,
    leaf: str,
    mode: str,
    dtype,
    rtol: float,
) -> Finding:
    """Compares a rule with an oracle.

    Args:
        rule: its entries.
        truth: those of the oracle.
        probes: of the leaf.
        leaf: its name.
        mode: of the rule.
        dtype: the coarsest that f computes in.
        rtol: the resolution asked for.
    """
    if truth.entries is None or not probes.movable:
        limit = truth.limit or Outcome.NO_TRUTH if probes.movable else Outcome.HELD
        nothing = np.nan, np.inf, np.inf, 0.0, limit, False
        return Finding(*nothing, leaf, mode, truth.oracle)
    size = root_mean_square(truth.entries)
    finite = bool(np.all(np.isfinite(rule)))
    gap = _Gap(
        error=root_mean_square(rule - truth.entries) if finite else np.inf,
        size=size,
        bar=truth.bar,
        kink=truth.kink,
        limit=truth.limit,
        finite=finite,
        absolute=is_flat(rule, probes, dtype=dtype) and size <= truth.bar,
        typical=(probes.value or 1.0) / probes.scale,
        rtol=rtol,
        probes=probes,
        dtype=dtype,
    )
    row = next(row for row in _TABLE if row.holds(gap))
    if row.of_zero:
        gap = dataclasses.replace(gap, absolute=True)
    state = row.state or gap.limit
    assert state is not None  # rows without one ask for a limit
    error, bar = gap.error / gap.unit, gap.bar / gap.unit
    numbers = error, bar, gap.resolution(state), truth.step
    return Finding(*numbers, state, gap.absolute, leaf, mode, truth.oracle)


@dataclasses.dataclass(frozen=True)
class _Gap:
    """How far a rule is from an oracle, and what may explain that.

    Attributes:
        error: of the rule, root mean square; infinite if the rule is not finite.
        size: of the oracle's entries.
        bar: how far they may be off.
        kink: how far a slope that the rule has chosen may be from the oracle's.
        limit: why the oracle sees no more.
        finite: whether the rule is.
        absolute: whether the derivative is zero: errors are relative to f then.
        typical: f's value over the size of the argument.
        rtol: the resolution asked for.
        probes: of the leaf.
        dtype: the coarsest that f computes in.
    """

    error: float
    size: float
    bar: float
    kink: float
    limit: Outcome | None
    finite: bool
    absolute: bool
    typical: float
    rtol: float
    probes: Probes
    dtype: np.dtype

    @property
    def unit(self) -> float:
        """What an error is relative to."""
        size = 0.0 if self.absolute else max(self.size, self.bar)
        return size or self.typical

    @property
    def least(self) -> float:
        """The same, as small as it may be: the true norm may be less by the bar."""
        return self.typical if self.absolute else self.size - self.bar

    def visible(self, error: float, /) -> float:
        """The relative error that would show as this much."""
        return error / (SIGHT * self.least) if self.least > 0 else np.inf

    @property
    def accepted(self) -> float:
        """The resolution of a rule whose error is small enough.

        An error that was seen is not claimed to be absent.
        """
        return self.visible(max(self.error, self.bar) + self.bar)

    @property
    def is_accepted(self) -> bool:
        """Whether that is what was asked for."""
        return self.accepted <= self.rtol

    @property
    def of_every_output(self) -> float:
        """The same, or that of the smallest output."""
        floor = self.accepted * self.least
        return max(self.accepted, _of_small_outputs(self.probes, floor))

    @property
    def is_noise(self) -> bool:
        """Whether the error is none that the oracle sees."""
        return self.error <= self.bar

    @property
    def is_blind(self) -> bool:
        """Whether the oracle sees no derivative, and scatters or sees rounding."""
        return self.size <= self.bar and (
            self.bar > _BLIND * self.typical
            or self.error <= rounding_of_zero(self.probes, self.dtype)
        )

    @property
    def is_small_beside_f(self) -> bool:
        """Whether f does not move, and the rule says nearly nothing."""
        small = self.size <= self.bar and self.error < self.rtol * self.typical
        return small and _is_still(self.probes, dtype=self.dtype)

    def resolution(self, state: Outcome, /) -> float:
        """The smallest relative error that would have been noticed."""
        if state in (Outcome.AGREES, Outcome.OVERSHADOWED):
            return self.of_every_output
        # What is as large as twice the bar is out of the noise.
        return self.accepted if state == Outcome.SLIGHT else self.visible(2 * self.bar)


class _Row(NamedTuple):
    """What is said of a gap.

    Attributes:
        holds: the condition.
        state: what is said then; None for what limits the oracle.
        of_zero: whether the derivative is taken to be zero.
    """

    holds: Callable[[_Gap], bool]
    state: Outcome | None
    of_zero: bool = False


# The first condition that holds decides.
_TABLE = (
    _Row(lambda g: g.is_accepted and g.of_every_output <= g.rtol, Outcome.AGREES),
    _Row(lambda g: g.is_accepted, Outcome.OVERSHADOWED),
    _Row(lambda g: g.is_noise and g.limit is not None, None),
    _Row(lambda g: g.is_noise and g.size > g.bar, Outcome.HIDDEN),
    _Row(lambda g: g.is_noise, Outcome.VANISHES),
    _Row(lambda g: g.finite and g.error <= _LUCK * g.kink + g.bar, Outcome.KINK),
    _Row(
        lambda g: not g.finite and g.bar > g.rtol * max(g.size, g.typical),
        Outcome.UNBOUNDED,
    ),
    _Row(lambda g: g.is_blind and g.limit is not None, None),
    _Row(lambda g: g.is_blind, Outcome.VANISHES),
    _Row(lambda g: g.error < AS_LARGE * g.rtol * g.unit, Outcome.SLIGHT),
    _Row(lambda g: g.is_small_beside_f, Outcome.SLIGHT, of_zero=True),
    _Row(lambda g: True, Outcome.DIFFERS),
)


def is_flat(rule: np.ndarray, probes: Probes, /, *, dtype) -> bool:
    """Whether rule and f agree that the derivative is zero, not just too small to see.

    The rule says zero (in float64: to rounding), and f does not move at any step, or it
    jumps, or what it moves by falls faster than the step, but not suddenly, until
    nothing is left of it. A saturated f is not flat: far enough away it moves, and by
    however little; unless it is zero itself, which is not rounded.
    """
    eps = float(jnp.finfo(dtype).eps)
    zero = rounding_of_zero(probes, dtype) if dtype == np.float64 else 0.0
    if not root_mean_square(rule) <= zero:
        return False
    near = probes.steps <= probes.scale
    nothing = np.any((probes.moved + probes.rounding)[near] == 0)
    still = _moves_nowhere(probes) or nothing or probes.jump > eps**0.25
    return bool(still or _fades(probes))


def small_outputs(probes: Probes, /) -> tuple[int, ...]:
    """The numbers of the outputs that are much smaller than the largest.

    Their Jacobians are; the largest of them is the first.
    """
    largest = np.max(probes.sizes, initial=0.0, where=np.isfinite(probes.sizes))
    small = np.flatnonzero(probes.sizes < _SMALL_OUTPUT * largest)
    small = small[np.argsort(-probes.sizes[small], kind="stable")]
    return tuple(small.tolist())


def _of_small_outputs(probes: Probes, floor) -> float:
    """The resolution of the smallest output, for the norm of an error that is seen."""
    small = small_outputs(probes)
    if not small:
        return 0.0
    least = float(probes.sizes[small[-1]])
    return floor / least if least > 0 else np.inf if floor else 0.0


def _moves_nowhere(probes: Probes) -> bool:
    # What is inside of f may grow with a large step, and its rounding too.
    grown = np.maximum(1, 4 * probes.steps / probes.scale)
    return bool(np.all(~(probes.moved > 8 * grown * probes.rounding)))  # or not finite


def _is_still(probes: Probes, *, dtype) -> bool:
    """Whether f does not move at any step, in a dtype whose rounding hides little."""
    return dtype == np.float64 and _moves_nowhere(probes)


def _fades(probes: Probes) -> bool:
    """Whether f moves like a power of the step above one, as far as can be seen."""
    clear = (probes.moved > 10 * probes.rounding) & (probes.steps <= probes.scale)
    slopes = (probes.moved / probes.steps)[clear]
    if not slopes.size or not slopes[-1] <= _FADED * np.max(slopes):
        return False
    seen = np.maximum(probes.moved, probes.rounding)
    steepest = (probes.steps[:-1] / probes.steps[1:]) ** _POWER
    return bool(np.all(seen[:-1] <= steepest * seen[1:]))


@np.errstate(invalid="ignore")
def kink(probes: Probes, /, *, coarsest: float = np.inf) -> float:
    """Half the gap between the one-sided slopes as the step vanishes; 0 if smooth.

    The gap is not that at the smallest step, which is mostly rounding, nor the least of
    all: where a step is longer than the length on which f bends, the slopes on both
    sides may meet. It is that at the step where it changes least, less what it changes.

    Args:
        probes: of the leaf.
        coarsest: no larger step is looked at: those up to which differences were
            believed.
    """
    # Far away a function may bend less than at its kink: on both sides of many.
    near = probes.steps <= min(probes.scale / 8, coarsest)
    if np.count_nonzero(near) < 2:
        near = probes.steps <= probes.scale / 8
    if np.count_nonzero(near) < 2:
        return bend(probes)
    gap, steps = probes.bend[near], probes.steps[near]
    rounded = _ROUNDED * (probes.rounding / probes.steps)[near][1:]
    apart = np.abs(np.diff(gap))
    # A chance agreement of two does not last to the third.
    apart = np.maximum(apart, np.append(apart[1:], 0.0))
    doubt = apart / (steps[:-1] / steps[1:] - 1) + rounded
    doubt = np.where(np.isfinite(doubt), doubt, np.inf)
    best = int(np.argmin(doubt))
    return float(max(gap[1:][best] - doubt[best], 0.0)) if doubt[best] < np.inf else 0.0


@np.errstate(invalid="ignore")
def bend(probes: Probes, /, *, finest: float = 0.0) -> float:
    """Half the least gap between one-sided slopes, at any step near by.

    Args:
        probes: of the leaf.
        finest: no smaller step is looked at: how far apart two points may be that are
            to be the same.
    """
    near = (probes.steps <= probes.scale / 8) & (probes.steps >= finest)
    gap = np.maximum(probes.bend - _ROUNDED * probes.rounding / probes.steps, 0)
    return float(np.min(gap, initial=np.inf, where=np.isfinite(gap) & near))
