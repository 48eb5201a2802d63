r"""The ladder of steps, and the difference quotient that it supports.

A central difference errs by :math:`c h^2` (truncation) plus :math:`\sigma / h`
(rounding); neither constant is known. Every step is therefore taken twice, and what the
two say differently is the noise. Of the quotients and their Richardson extrapolations
the one of least noise is taken that no finer one contradicts (intersection of
confidence intervals).

References:
    Moré and Wild (2012), Estimating derivatives of noisy simulations.
    Goldenshluger and Nemirovski (1997), On spatially adaptive estimation of
    nonparametric regression (the intersection rule).
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstab.gradcheck.subject.vectors import root_mean_square

# The second grid has half the steps of the first: what truncation does to them differs
# by three times what it does to the finer one, so the spread bounds it too.
REPLICATES = (1.0, 0.5)

_FEW_DIGITS = 16

# Standard errors in a bar. With six, a quotient that grows like h^(-1/2) or faster gets
# a bar wider than itself, (2^(1/2) + 1) / (2^(1/2) - 1) = 5.83: an infinite slope or a
# jump never looks resolved.
_CONFIDENCE = 6.0

# Steps that tell a saturated function from a constant: only where one may be either.
FAR = (32.0, 4.0)

_ORDERS = 4  # plain differences, and three extrapolations: errors of h^2 to h^8

# Of a smooth f the truncation is a series in h^2. Where the point lies on a border at
# which its second derivative jumps (elu, huber, relu^2 at 0) it is one in h.
_POWERS = (2, 1)

# The rarer one has to say so much more: of many that say the same one does by chance.
_MUCH_NARROWER = 8


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The best difference quotient of a table.

    Attributes:
        value: ``(entries,)`` the residual at vanishing step.
        bar: the root mean square that its error may have over the entries.
        step: the largest that was used.
    """

    value: np.ndarray
    bar: float
    step: float


def ladder(dtype: DTypeLike, /) -> np.ndarray:
    """Steps as fractions of the size of the argument, the largest first.

    From a half on they are a factor two apart, where a noisy function needs the
    extrapolations of large steps, then four and eight, down to ``eps**0.7``: below that
    a difference is mostly rounding.

    >>> ladder(jnp.float32)[:4]
    array([0.5   , 0.25  , 0.125 , 0.0625])
    """
    exponents = np.array([*range(1, 6), *range(7, 13, 2), *range(14, 60, 3)])
    finest = max(0.7 * jnp.finfo(dtype).nmant, 4)
    return 0.5 ** exponents[exponents <= finest]


@np.errstate(invalid="ignore", over="ignore")
def estimate(residual, rounding, steps, /) -> Estimate | None:
    """Extrapolates a residual to vanishing step.

    Args:
        residual: ``(levels, replicates, entries)``, coarsest first.
        rounding: ``(levels,)`` by how much rounding alone changes the output.
        steps: ``(levels,)``, falling.

    Returns:
        None if no level is finite.
    """
    values, bars, coarsest, powers = [], [], [], []
    for level, order, power, pair in _quotients(residual, steps):
        finest = level + order
        noise = root_mean_square(np.std(pair, axis=0, ddof=1)) / np.sqrt(len(pair))
        bar = np.hypot(_CONFIDENCE * noise, rounding[finest] / steps[finest])
        if np.isfinite(bar):
            values.append(pair.mean(axis=0))
            bars.append(bar)
            coarsest.append(level)
            powers.append(power)
    if not bars:
        return None
    values, bars, coarsest = map(np.array, (values, bars, coarsest))
    even = np.array(powers) == _POWERS[0]
    best = np.flatnonzero(even)[_narrowest(values[even], bars[even], coarsest[even])]
    other = _narrowest(values, bars, coarsest)
    best = other if bars[other] * _MUCH_NARROWER < bars[best] else best
    return Estimate(values[best], float(bars[best]), float(steps[coarsest[best]]))


def replicates(dtype: DTypeLike, /) -> tuple[float, ...]:
    """The grids of steps, as factors: more for a dtype of few digits and few steps.

    >>> len(replicates(jnp.float32)), len(replicates(jnp.bfloat16))
    (2, 16)
    """
    return REPLICATES * (8 if jnp.finfo(dtype).nmant < _FEW_DIGITS else 1)


def num_resolved(moved, rounding, steps, /) -> int:
    """The number of levels above the one where f suddenly stops moving.

    A smooth f moves in proportion to the step. If from one level to the next its
    movement falls to that of rounding, and faster than the fifth power of the step,
    then f moves in stairs (it rounds inside, or it is saturated): finer levels say
    nothing about its slope.
    """
    for level in range(1, len(steps)):
        drop = (steps[level - 1] / steps[level]) ** 5
        still = moved[level] <= 10 * rounding[level]
        if still and moved[level - 1] > drop * moved[level]:
            return level
    return len(steps)


def _quotients(residual, steps):
    """The coarsest level, order, power and numbers of every quotient."""
    for power in _POWERS:
        column = residual
        for order in range(min(_ORDERS, len(steps))):
            if order:
                column = _extrapolated(column, steps, order, power)
            if order or power == _POWERS[0]:
                for level, pair in enumerate(column):
                    yield level, order, power, pair


def _extrapolated(residual, steps, order: int, power):
    """One column of Neville's table: one level fewer, one error term fewer."""
    gain = (steps[:-order] / steps[order:]) ** power
    fine, coarse = residual[1:], residual[:-1]
    return fine + (fine - coarse) / (gain - 1)[:, None, None]


def _narrowest(values, bars, coarsest) -> int:
    """The estimate of least bar among those that no finer one contradicts."""
    apart = np.sqrt(np.mean((values[:, None] - values[None]) ** 2, axis=-1))
    contradicts = apart > bars[:, None] + bars[None]
    finer = coarsest[None] >= coarsest[:, None]
    trusted = ~np.any(contradicts & finer, axis=1)
    bars = np.where(trusted, bars, np.inf)
    # Of several without any noise the finest.
    return int(np.argmax(np.where(bars == np.min(bars), coarsest, -1)))
