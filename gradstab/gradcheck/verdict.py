"""Whether a rule agrees with the differences, and how far these can be trusted."""

import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.directions import SIGHT, root_mean_square
from gradstab.gradcheck.findings import Finding
from gradstab.gradcheck.probes import Probes
from gradstab.gradcheck.steps import estimate, num_resolved

AGREES = "agrees"
DIFFERS = "differs"
KINK = "f has a kink, and the rule lies between its one-sided slopes"
HIDDEN = "noise hides smaller errors"
VANISHES = "the derivative does not stand out from the noise"
UNDEFINED = "f is not finite on both sides of the point, at any step"
STAIRS = "f moves in stairs: it rounds inside, or it is saturated"
UNBOUNDED = "the rule is not finite, and f is too steep to say more"
UNCONFIRMED = "differed along one set of directions and not along another"

# Of twelve Gaussian numbers the root mean square exceeds 1.8 once in 2e4.
_LUCK = 1.8


def judge(leaf: str, probes: Probes, /, *, dtype, rtol: float) -> list[Finding]:
    """One finding for every mode of one argument leaf."""
    oracle = f"central differences in {dtype}"
    return [
        Finding(*_compare(rule, probes, dtype, rtol), leaf, mode, oracle)
        for mode, rule in probes.rules.items()
    ]


def _compare(rule, probes, dtype, rtol):
    """What a finding says: its three numbers, the step, and in words."""
    flat = _is_flat(rule, probes, dtype)
    best, blind = _truth(probes, flat)
    if best is None:
        return np.nan, np.inf, np.inf, 0.0, blind or UNDEFINED, False
    truth = probes.anchor + best.value
    size, bar = root_mean_square(truth), best.bar
    finite = bool(np.all(np.isfinite(rule)))
    error = root_mean_square(rule - truth) if finite else np.inf
    typical = (probes.value or 1.0) / probes.scale
    absolute = flat and size <= bar
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
        state = blind or (HIDDEN if size > bar else VANISHES)
    elif finite and error <= _LUCK * _kink(probes) + bar:
        state = KINK
    elif not finite and bar > rtol * max(size, typical):
        state = UNBOUNDED
    else:
        state = DIFFERS
    return error / unit, bar / unit, resolution, best.step, state, absolute


def _truth(probes, flat):
    """The estimate from steps within the size of the argument, and what limits it."""
    resolved = num_resolved(probes.moved, probes.rounding, probes.steps)
    blind = STAIRS if resolved < len(probes.steps) and not flat else ""
    near = probes.steps <= probes.scale
    if blind:
        near &= np.arange(len(near)) < resolved
    table = probes.residual[near], probes.rounding[near], probes.steps[near]
    return estimate(*table), blind


def _is_flat(rule, probes, dtype) -> bool:
    """Whether rule and f agree that the derivative is zero, not just too small to see.

    The rule says zero (in float64: to rounding), and f does not move at any step, or it
    jumps. A saturated f is not flat: far enough away it moves, and by however little.
    """
    eps = float(jnp.finfo(dtype).eps)
    zero = 100 * eps * probes.value / probes.scale if dtype == np.float64 else 0.0
    still = np.all(~(probes.moved > 8 * probes.rounding))  # or not finite
    return bool(root_mean_square(rule) <= zero and (still or probes.jump > eps**0.25))


def _kink(probes) -> float:
    """Half the gap between the one-sided slopes as the step vanishes; 0 if smooth."""
    return float(np.min(probes.bend, initial=np.inf, where=np.isfinite(probes.bend)))
