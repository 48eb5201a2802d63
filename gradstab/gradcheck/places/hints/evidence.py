"""What a hint is tried against."""

import dataclasses

import numpy as np

from gradstab.gradcheck.places.comparison import Comparison, Slopes
from gradstab.gradcheck.subject.vectors import root_mean_square

# Two groups of directions; with the cotangents, tables of 32 numbers.
_NUM_DIRECTIONS = 8

# A hypothesis has to explain all but this share of the error.
_UNEXPLAINED = 0.02


@dataclasses.dataclass(frozen=True)
class Evidence:
    """A wrong rule and the truth about it, in tables of directions and cotangents.

    Attributes:
        seen: the rule beside its function.
        slopes: of f, along random directions.
        truth: ``(directions, cotangents)`` what the table should be.
        rule: ``(directions, cotangents)`` what it is by the rule.
        gradients: ``(cotangents, entries)`` by the rule; None in forward mode, unless
            the reverse mode is wrong in the same way.
        bar: by how much an entry of `truth` may be off.
        rng: for further directions.
    """

    seen: Comparison
    slopes: Slopes
    truth: np.ndarray
    rule: np.ndarray
    gradients: np.ndarray | None
    bar: float
    rng: np.random.Generator

    @property
    def error(self) -> float:
        """The root mean square of rule minus truth."""
        with np.errstate(invalid="ignore", over="ignore"):
            return root_mean_square(self.rule - self.truth)

    def fits(self, table, other=None) -> bool:
        """Whether two tables are one; the second is the truth if not given."""
        other = self.truth if other is None else other
        return self.is_nothing(root_mean_square(table - other))

    def is_nothing(self, error, bar=None) -> bool:
        """Whether an error is within the bar, and small beside that of the rule."""
        small = min(self.bar if bar is None else bar, _UNEXPLAINED * self.error)
        return bool(error <= small)

    def by_output(self, array):
        """Rows ``(k, outputs)`` as one array ``(k, *shape)`` per output of f."""
        outputs = self.seen.problem.outputs
        ends = np.cumsum([y.size for y in outputs])[:-1]
        parts = zip(np.split(array, ends, axis=1), outputs, strict=True)
        return [part.reshape(len(array), *y.shape) for part, y in parts]

    def shaped(self, rows):
        """Rows ``(k, entries)`` in the shape of the leaf."""
        return np.asarray(rows).reshape(len(rows), *self.seen.shape)


def is_flat(known: Evidence, /) -> bool:
    """Whether f does not move at all, along any direction, and the rule says it does.

    A rule of its own is meant to: nothing else makes a derivative of stairs.
    """
    still = not known.slopes.value.any()
    return bool(still and known.seen.problem.has_rules and known.rule.any())


def evidence(seen: Comparison, rng: np.random.Generator, /) -> Evidence:
    """Looks along random directions: 32 evaluations of f, and 8 or 5 of the rule."""
    signs = rng.choice([-1.0, 1.0], (_NUM_DIRECTIONS, seen.x.size))
    slopes = seen.slopes(signs * rng.uniform(0.5, 1.5, signs.shape))
    rule, gradients = seen.rule(slopes.moved), seen.gradients
    if gradients is None and "reverse" in seen.problem.modes:
        gradients = _if_alike(seen.pull(seen.cotangents), slopes, rule, seen.eps)
    w = seen.cotangents
    with np.errstate(invalid="ignore", over="ignore"):
        bar = 3 * root_mean_square(slopes.spread @ w.T) + 6 * seen.noise / seen.step
        # The rule rounds too.
        bar += 100 * seen.eps * root_mean_square(slopes.value @ w.T)
    return Evidence(seen, slopes, slopes.value @ w.T, rule, gradients, bar, rng)


def _if_alike(gradients: np.ndarray, slopes, rule, eps: float):
    """The gradients, if they say the same as the rule of the forward mode."""
    with np.errstate(invalid="ignore"):
        apart = root_mean_square(slopes.moved @ gradients.T - rule)
    return gradients if apart <= 1e4 * eps * root_mean_square(rule) else None
