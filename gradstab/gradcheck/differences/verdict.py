"""Whether a rule agrees with an oracle, and how far the oracle can be trusted."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.differences.directions import NUM_COTANGENTS, SIGHT
from gradstab.gradcheck.differences.probes import Probes
from gradstab.gradcheck.differences.steps import estimate, num_resolved
from gradstab.gradcheck.findings import Finding
from gradstab.gradcheck.subject.vectors import root_mean_square

AGREES = "agrees"
DIFFERS = "differs"
KINK = "f has a kink, and the rule lies between its one-sided slopes"
HIDDEN = "noise hides smaller errors"
VANISHES = "the derivative does not stand out from the noise"
UNDEFINED = "f is not finite on both sides of the point, at any step"
STAIRS = "f moves in stairs: it rounds inside, or it is saturated"
UNBOUNDED = "the rule is not finite, and f is too steep to say more"
UNCONFIRMED = "differed along one set of directions and not along another"
SLIGHT = "differs by less than was asked for, and by too much to pass"
NO_TRUTH = "the oracle's derivative is not finite"

# Of twelve Gaussian numbers the root mean square exceeds 1.8 once in 2e4.
_LUCK = 1.8

# An error of rank one and of the size asked for looks smaller than this part of it in
# less than one of a hundred tables: the quantile of sqrt(chi2_6 / 6 * chi2_12 / 12).
_ACCUSED = 0.3

# Next to a jump the differences scatter more than they measure. Then they accuse no one
# unless they are small beside f's value over the argument, and the rule says they are
# not.
_BLIND = 1e-2

# What rounding of its three values adds to a gap between slopes, at most.
_ROUNDED = 2.0

# Where slopes along two directions do not add up to that along the sum, by so much, the
# slope that a rule has chosen may be off by this many times more.
_NONLINEAR = 4.0

# Rounding of a derivative whose terms cancel, in units of f's value over the argument.
_CANCELLED = 100

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
        limit: why it sees no more, in words; empty if nothing is in the way.
        kink: half the gap between the one-sided slopes: the oracle's choice of a slope
            may differ from the rule's by so much.
        oracle: its name.
    """

    entries: np.ndarray | None
    bar: float
    step: float
    limit: str
    kink: float
    oracle: str


def differences(rule, probes: Probes, /, *, dtype) -> Truth:
    """What the differences say, from steps within the size of the argument."""
    name = f"central differences in {dtype}"
    resolved = num_resolved(probes.moved, probes.rounding, probes.steps)
    stairs = resolved < len(probes.steps) and not is_flat(rule, probes, dtype=dtype)
    near = probes.steps <= probes.scale
    if stairs:
        near &= np.arange(len(near)) < resolved
    best = estimate(probes.residual[near], probes.rounding[near], probes.steps[near])
    limit = STAIRS if stairs else ""
    if best is None:
        return Truth(None, np.inf, 0.0, limit or UNDEFINED, 0.0, name)
    entries = probes.anchor + best.value
    gap = max(kink(probes), _nonlinearity(entries, best.bar, probes))
    return Truth(entries, best.bar, best.step, limit, gap, name)


def _nonlinearity(entries, bar, probes) -> float:
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


def autodiff(entries, /, *, dtype, oracle: str, kink=0.0) -> Truth:
    """What automatic differentiation of another function says."""
    entries = np.ravel(entries)
    if not np.all(np.isfinite(entries)):
        return Truth(None, np.inf, 0.0, NO_TRUTH, 0.0, oracle)
    eps = float(jnp.finfo(dtype).eps)
    units = _UNITS if eps < _FEW_DIGITS else _UNITS_OF_FEW
    bar = units * eps * root_mean_square(entries)
    return Truth(entries, bar, 0.0, "", kink, oracle)


def compare(
    rule, truth: Truth, probes: Probes, /, *, leaf: str, mode: str, dtype, rtol: float
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
    if truth.entries is None:
        nothing = np.nan, np.inf, np.inf, 0.0, truth.limit, False
        return Finding(*nothing, leaf, mode, truth.oracle)
    size, bar = root_mean_square(truth.entries), truth.bar
    finite = bool(np.all(np.isfinite(rule)))
    error = root_mean_square(rule - truth.entries) if finite else np.inf
    typical = (probes.value or 1.0) / probes.scale
    absolute = is_flat(rule, probes, dtype=dtype) and size <= bar
    if absolute:
        unit = least = typical
    else:  # the true norm may be smaller than it looks, by the bar
        unit, least = max(size, bar) or typical, size - bar

    def visible(seen):  # the relative error that would show as this much
        return seen / (SIGHT * least) if least > 0 else np.inf

    # What is as large as twice the bar is out of the noise. An error that was seen, and
    # is small enough to be accepted, is not claimed to be absent.
    resolution, accepted = visible(2 * bar), visible(max(error, bar) + bar)
    if accepted <= rtol:
        resolution, state = accepted, AGREES
    elif error <= bar:
        state = truth.limit or (HIDDEN if size > bar else VANISHES)
    elif finite and error <= _LUCK * truth.kink + bar:
        state = KINK
    elif not finite and bar > rtol * max(size, typical):
        state = UNBOUNDED
    elif size <= bar and (bar > _BLIND * typical or error <= _zero(probes, dtype)):
        state = truth.limit or VANISHES
    elif error - bar <= _ACCUSED * rtol * unit:
        resolution, state = accepted, SLIGHT
    else:
        state = DIFFERS
    numbers = error / unit, bar / unit, resolution, truth.step
    return Finding(*numbers, state, absolute, leaf, mode, truth.oracle)


def is_flat(rule, probes: Probes, /, *, dtype) -> bool:
    """Whether rule and f agree that the derivative is zero, not just too small to see.

    The rule says zero (in float64: to rounding), and f does not move at any step, or it
    jumps. A saturated f is not flat: far enough away it moves, and by however little.
    """
    eps = float(jnp.finfo(dtype).eps)
    zero = _zero(probes, dtype) if dtype == np.float64 else 0.0
    # What is inside of f may grow with a large step, and its rounding too.
    grown = np.maximum(1, 4 * probes.steps / probes.scale)
    still = np.all(~(probes.moved > 8 * grown * probes.rounding))  # or not finite
    return bool(root_mean_square(rule) <= zero and (still or probes.jump > eps**0.25))


def _zero(probes, dtype):
    """What rounding inside of a rule may leave of a derivative that is zero."""
    return _CANCELLED * float(jnp.finfo(dtype).eps) * probes.value / probes.scale


@np.errstate(invalid="ignore")
def kink(probes: Probes, /, *, finest: float = 0.0) -> float:
    """Half the gap between the one-sided slopes as the step vanishes; 0 if smooth.

    Args:
        probes: of the leaf.
        finest: no smaller step is looked at.
    """
    # Far away a function may bend less than at its kink: on both sides of many.
    near = (probes.steps <= probes.scale / 8) & (probes.steps >= finest)
    gap = np.maximum(probes.bend - _ROUNDED * probes.rounding / probes.steps, 0)
    return float(np.min(gap, initial=np.inf, where=np.isfinite(gap) & near))
