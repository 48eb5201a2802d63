"""Central differences at many steps along one direction, and which one to trust."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstab.gradcheck.subject.vectors import root_mean_square

# A smooth f is differentiated best with a step near eps^(1/3); these reach eps^0.7, as
# those of the check do, for leaves whose entries differ in size.
NUM_LEVELS = 7

# Bars are this many times what two quotients differ by, or what rounding does.
_CONFIDENCE = 3.0

# What is so many times as noisy as its rounding may not be noise.
_ROUNDED = 1e3

# Rounding errors of a product and a sum or two, of which a rule is made.
_DIGITS = 32.0


def levels(dtype: DTypeLike, /) -> np.ndarray:
    """Steps as fractions of the size of the argument, the largest first.

    >>> np.log2(levels(jnp.float32)).round(1)
    array([ -2. ,  -4.4,  -6.7,  -9. , -11.4, -13.7, -16.1])
    """
    bits = jnp.finfo(dtype).nmant
    return 0.5 ** np.linspace(min(6, bits // 8), 0.7 * bits, NUM_LEVELS)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Derivatives at vanishing step.

    Attributes:
        value: ``(rows,)``.
        bar: by how much they may be off, root mean square.
        level: of the ladder, the largest step being level 0.
        noise: by how much rounding changes what was differentiated.
    """

    value: np.ndarray
    bar: float
    level: int
    noise: float


@dataclasses.dataclass(frozen=True)
class Ladder:
    """Central differences along one direction, the largest step first.

    Attributes:
        steps: ``(levels,)`` in units of the argument.
        quotients: ``(levels, outputs)``.
        bends: ``(levels, outputs)`` half the gap between the slopes ahead and behind.
        rounding: ``(outputs,)`` of f, by its dtype.
        eps: of that.
    """

    steps: np.ndarray
    quotients: np.ndarray
    bends: np.ndarray
    rounding: np.ndarray
    eps: float

    def best(self, weights) -> Estimate:
        """The derivatives of ``weights @ f``, for weights ``(rows, outputs)``.

        One level serves all rows.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            series = self.quotients @ weights.T
            apart = np.array([root_mean_square(d) for d in np.diff(series, axis=0)])
        floor = root_mean_square(np.abs(weights) @ self.rounding)
        noise = jitter(apart[:, None], self.steps, np.array([floor]))
        off = doubt(apart[:, None], self.steps, noise)[:, 0]
        level = int(np.argmin(off)) + 1
        bar = float(_CONFIDENCE * off[level - 1])
        bar += _DIGITS * self.eps * root_mean_square(series[level])
        return Estimate(series[level], bar, level, float(noise[0]))

    def resolves(self, weights) -> bool:
        """Whether a derivative of ``weights @ f`` stands out, or f moves by rounding.

        Steps over many periods of f are noise too, and say nothing of its slope.
        """
        best = self.best(weights)
        floor = root_mean_square(np.abs(weights) @ self.rounding)
        return bool(
            best.bar < root_mean_square(best.value) or best.noise <= _ROUNDED * floor
        )

    def each(self, noise) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The derivatives of all outputs, each at its own level.

        Args:
            noise: ``(outputs,)`` of f, as other ladders saw it: of many outputs, some
                look quiet along one ladder by chance.

        Returns:
            Three arrays ``(outputs,)``: the derivatives, by how much they may be off,
            and half the gap between the slopes ahead and behind.
        """
        off = doubt(self.apart, self.steps, np.maximum(noise, self.noise))
        level = np.argmin(off, axis=0) + 1
        outputs = np.arange(off.shape[1])
        value = self.quotients[level, outputs]
        bar = 2 * _CONFIDENCE * off[level - 1, outputs]
        bar += _DIGITS * self.eps * np.abs(value)
        return value, bar, np.abs(self.gap(level))

    def gap(self, level) -> np.ndarray:
        """``(outputs,)``: half the gap between the one-sided slopes, at no step.

        Of a smooth f it shrinks with the step: from two steps, nothing is left of it.
        """
        outputs = np.arange(self.bends.shape[1])
        gain = self.steps[level - 1] / self.steps[level]
        fine, coarse = self.bends[level, outputs], self.bends[level - 1, outputs]
        with np.errstate(invalid="ignore"):
            gap = fine + (fine - coarse) / (gain - 1)
        return np.where(np.isfinite(gap), gap, 0.0)

    @property
    def apart(self) -> np.ndarray:
        """``(levels - 1, outputs)``: by how much neighbouring quotients differ."""
        with np.errstate(invalid="ignore", over="ignore"):
            return np.abs(np.diff(self.quotients, axis=0))

    @property
    def noise(self) -> np.ndarray:
        """``(outputs,)``: by how much rounding changes f."""
        return jitter(self.apart, self.steps, self.rounding)


def jitter(apart, steps, floor, /) -> np.ndarray:
    """By how much rounding changes what was differentiated: ``(columns,)``.

    Args:
        apart: ``(levels - 1, columns)`` by how much neighbouring quotients differ.
        steps: ``(levels,)``.
        floor: ``(columns,)`` the least that it can be.
    """
    apart = np.where(np.isfinite(apart), apart, np.inf)
    # From the least on, the quotients come apart again because of rounding; if the last
    # is the least, rounding is not seen.
    least = np.argmin(apart, axis=0)
    fine = np.arange(len(apart))[:, None] >= least
    fine &= (least < len(apart) - 1) & np.isfinite(apart)
    seen = np.where(fine, apart, 0.0) * steps[1:, None]
    return np.maximum(floor, np.max(seen, axis=0))


def doubt(apart, steps, noise, /) -> np.ndarray:
    """By how much the finer quotient of each pair may be off: like ``apart``."""
    return np.maximum(truncation(apart, steps), noise / steps[1:, None])


def truncation(apart, steps, /) -> np.ndarray:
    """How much of that the steps cause, if rounding does not.

    The truncation of a quotient is smaller than that of the coarser one by the ratio of
    the steps at least, if f has a slope there that changes at a finite rate.
    """
    apart = np.where(np.isfinite(apart), apart, np.inf)
    # Truncation can vanish by chance at one level, not at two.
    after = np.concatenate([apart[1:], np.zeros_like(apart[:1])])
    return np.maximum(apart, after) * (steps[1:] / steps[:-1])[:, None]
