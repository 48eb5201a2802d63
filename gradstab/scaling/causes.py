"""Which parameter spoils the transfer, and by which multiplier it would not."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from gradstab.scaling.roles import Role
from gradstab.scaling.schemes import OPTIMIZERS, SCHEMES, exponents
from gradstab.scaling.slopes import MARGIN, Slope, Trend

# So much of the parameters must go as a scheme says, each within this or two errors.
_SHARE, NEAR = 0.9, 0.2
_WRONG = (Trend.GROWS, Trend.SHRINKS)

PRODUCTS = (Role.INPUT, Role.HIDDEN, Role.OUTPUT)
"""Roles of what is multiplied with the data."""

NORMALISING = ("adam", "muon")
"""Optimisers that divide by the size of the gradient."""


class Cause(NamedTuple):
    """What is wrong with one parameter.

    Attributes:
        name: of the parameter.
        role: what it is.
        what: 'initial values' or 'learning rate'.
        slope: of what it makes, with the width.
        multiplier: the exponent of the width that would make it flat, to the half.
    """

    name: str
    role: Role
    what: str
    slope: Slope
    multiplier: float

    @property
    def effect(self) -> str:
        """What it is whose size goes with the width."""
        if self.what == "initial values":
            return "what it makes of the data"
        return "what its update does to the data"

    def __str__(self) -> str:
        """The cause in a sentence."""
        return (
            f"{self.name} ({self.role}): {self.effect} goes as width^{self.slope}; "
            f"multiply its {self.what} by width^{self.multiplier:g}"
        )


def initial_causes(
    rows: Sequence[tuple[str, Role, Slope, Slope]],
) -> tuple[Cause, ...]:
    """Parameters whose initial values do not go with the width as they should.

    Of a product from an axis that stays, or between axes that grow, the result keeps
    its size, and so do the rows of an embedding. At the output it may shrink, and what
    must keep its size is what the output makes of the updates of the layers before,
    which are aligned with it.

    Args:
        rows: for each parameter its name, its role, the slope of its gain and that of
            what it makes of updates.
    """
    found = []
    for name, role, gain, passed in rows:
        slope = passed if role is Role.OUTPUT else gain
        wanted = role in PRODUCTS or role is Role.EMBEDDING
        if wanted and slope.trend in _WRONG:
            found.append(_cause(name, role, "initial values", slope))
    return tuple(found)


def rate_causes(
    rows: Sequence[tuple[str, Role, Slope]],
    initial: Sequence[Cause],
    normalises: bool,
) -> tuple[Cause, ...]:
    """Parameters whose learning rate does not go with the width as it should.

    Args:
        rows: for each parameter its name, its role and the slope of the effect of its
            update on data of size 1.
        initial: the parameters whose initial values are wrong.
        normalises: whether the optimiser divides by the size of the gradient.
    """
    before = 0.0
    if not normalises:
        if any(cause.role is not Role.OUTPUT for cause in initial):
            return ()
        # With the output's initial values mended, all gradients before it change.
        before = sum(cause.multiplier for cause in initial)
    found = []
    for name, role, slope in rows:
        if role in (Role.FIXED, Role.AMBIGUOUS):
            continue
        shift = 0.0 if role is Role.OUTPUT else before
        mended = slope._replace(value=slope.value + shift)
        if mended.trend in _WRONG:
            found.append(_cause(name, role, "learning rate", mended))
    return tuple(found)


def _cause(name: str, role: Role, what: str, slope: Slope) -> Cause:
    multiplier = -round(2 * slope.value) / 2
    if abs(multiplier + slope.value) > max(MARGIN, 2 * slope.error) or not multiplier:
        multiplier = -round(slope.value, 2)
    return Cause(name, role, what, slope, multiplier + 0.0)


def own_slope(scheme: str, optimizer: str, role: Role, *, is_matrix: bool) -> float:
    r"""How the effect of a parameter's update goes with the width, in theory.

    The update of a weight that sums over n data has the effect of n aligned terms. The
    gradient of a hidden layer is that of the output, of size 1, times the weights of
    the output; optimisers that normalise do not see it. The orthogonal update of Muon
    has the spectral norm ``sqrt(max(1, out / in))``. For one step of small learning
    rate.

    References:
        Yang and Hu (2021), Tensor Programs IV, section 3.
        Yang, Simon and Bernstein (2023), section 3.
    """
    rate = exponents(scheme, optimizer, role, is_matrix=is_matrix).rate
    aligned = float(role.sums)
    if optimizer == "sgd":
        head = exponents(scheme, optimizer, Role.OUTPUT).size
        before = 0.0 if role is Role.OUTPUT else (-0.5 if head is None else head)
        return rate + before + aligned
    if optimizer == "muon" and is_matrix and role is not Role.VECTOR:
        return rate + (0.5 if role is Role.OUTPUT else 0.0)
    return rate + aligned


def schemes_like(
    rows: Sequence[tuple[Role, bool, Slope, Slope]],
    optimizers: Sequence[str] = OPTIMIZERS,
) -> tuple[tuple[str, str], ...]:
    """The parametrisations that slopes fit, as pairs of scheme and optimiser.

    Args:
        rows: for each parameter its role, whether it is a matrix, the slope of its
            gain and that of the effect of its update.
        optimizers: those that may be.
    """
    rows = [
        row for row in rows if row[0] not in (Role.FIXED, Role.AMBIGUOUS, Role.TIED)
    ]
    rows = [row for row in rows if not math.isnan(row[3].value)]
    if not rows:
        return ()

    def fits(scheme: str, optimizer: str) -> bool:
        near = [
            is_near(own, own_slope(scheme, optimizer, role, is_matrix=matrix))
            and _has_size(scheme, role, gain)
            for role, matrix, gain, own in rows
        ]
        return sum(near) >= _SHARE * len(near)

    pairs = ((scheme, optimizer) for scheme in SCHEMES for optimizer in optimizers)
    return tuple(pair for pair in pairs if fits(*pair))


def _has_size(scheme: str, role: Role, gain: Slope) -> bool:
    """Whether the gain of an output is that of a scheme, if it has one."""
    if role is not Role.OUTPUT or math.isnan(gain.value):
        return True
    size = exponents(scheme, "sgd", role).size
    return is_near(gain, 0.5 + (-0.5 if size is None else size))


def is_near(slope: Slope, wanted: float) -> bool:
    """Whether a slope is that of a scheme: within 0.2, or two errors."""
    # Without an error nothing is known to be near.
    near = max(NEAR, 2 * slope.error) if slope.freedom else 0.0
    return abs(slope.value - wanted) <= near
