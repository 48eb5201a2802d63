"""A rule beside the function it is the rule of, along any directions of one leaf."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.differences.draws import held_entries, shares, size
from gradstab.gradcheck.differences.ladders import NUM_LEVELS, Ladder, levels
from gradstab.gradcheck.places.leaf_programs import GROUP, LeafPrograms
from gradstab.gradcheck.subject.vectors import root_mean_square

# Rows of a table are combined with so many random cotangents: an error in one output
# is not overlooked because one of them is small there.
NUM_COTANGENTS = 4

# Standard errors in a bar, as in the choice of steps of the check.
_CONFIDENCE = 6.0

# The rule at a kink may err by half the gap between the one-sided slopes; over random
# directions the root mean square of that exceeds 1.8 once in 2e4.
_LUCK = 1.8


@dataclasses.dataclass(frozen=True)
class Slopes:
    """Slopes of f along ``k`` directions, by two central differences each.

    Attributes:
        value: ``(k, outputs)`` extrapolated from a step and its half.
        spread: ``(k, outputs)`` by how much these two differ.
        gap: ``(k, outputs)`` half the gap between the slopes ahead and behind.
        moved: ``(k, entries)`` the directions that rounding has left.
    """

    value: np.ndarray
    spread: np.ndarray
    gap: np.ndarray
    moved: np.ndarray


class Comparison:
    """One rule and its function at one point.

    Everything but the calls of f and of its rule happens on the host in float64.

    Args:
        programs: f and its rules as functions of the leaf; they count what is spent.
        point: where, one array per leaf.
        mode: of the rule; the empty word to look at f alone.
        rng: of the directions.
        held: per leaf which entries are not moved; by default what is not finite.
        reach: per leaf, how many times as far to go as it is large.
        proportional: move every entry in proportion to itself.

    Attributes:
        x: the leaf, flat, in its own dtype.
        held: ``(entries,)`` which are not moved.
        scale: of the leaf: its root mean square.
        steps: the ladder.
        shares: ``(entries,)`` the size of each beside that.
        direction: ``(entries,)`` random, no entry near zero.
        cotangents: ``(NUM_COTANGENTS, outputs)`` random.
        gradients: ``(NUM_COTANGENTS, entries)`` what the rule makes of them (reverse
            mode only).
        value: ``(outputs,)`` of f at the point.
        level: of the ladder whose step is used.
        step: for central differences.
        noise: of ``cotangents @ f``.
    """

    def __init__(
        self,
        programs: LeafPrograms,
        point: tuple,
        mode: str,
        rng: np.random.Generator,
        /,
        *,
        held: tuple | None = None,
        reach: tuple | None = None,
        proportional: bool = False,
    ):
        self.programs, self.point, self.mode = programs, point, mode
        self.problem, self.leaf = programs.problem, programs.leaf
        self.shape, self.num_outputs = programs.shape, programs.num_outputs
        self.x = np.asarray(point[self.leaf]).ravel()
        self.eps = float(jnp.finfo(self.problem.dtype).eps)
        self.held = (held or held_entries(point))[self.leaf].ravel()
        self.scale = size(self.x, self.held) * (reach[self.leaf] if reach else 1.0)
        self.steps = self.scale * levels(self.problem.dtype)
        self.shares = shares(np.where(self.held, 0.0, self.x))
        self.cotangents = rng.standard_normal((NUM_COTANGENTS, self.num_outputs))
        self.direction = rng.choice([-1.0, 1.0], self.x.size)
        self.direction *= rng.uniform(0.7, 1.3, self.x.size) * ~self.held
        self.direction *= self.shares if proportional else 1.0
        self.gradients = self.pull(self.cotangents) if mode == "reverse" else None
        best = self.ladder(self.direction).best(self.cotangents)
        self.level, self.noise = best.level, best.noise
        self.step = float(self.steps[best.level])

    @property
    def evaluations(self) -> int:
        """Of f, its JVP and its VJP, so far."""
        return self.programs.evaluations

    def pull(self, cotangents: Any) -> np.ndarray:
        """``(k, entries)``: the gradients by the rule, of the rows of cotangents."""
        # What is held may have a slope of any kind.
        gradients = self.programs.pull(self.point, cotangents)[self.leaf]
        return np.where(self.held, 0.0, gradients)

    def push(self, directions) -> np.ndarray:
        """``(k, outputs)``: the tangents by the rule, along the rows of directions."""
        return self.programs.push(self.point, directions)

    def slopes(self, directions) -> Slopes:
        """The slopes of f along each row of directions; four evaluations a row."""
        parts = [
            self._slopes(part)
            for part in np.array_split(directions, range(GROUP, len(directions), GROUP))
        ]
        return Slopes(*(np.concatenate(row) for row in zip(*parts, strict=True)))

    def gaps(self, directions, gradients=None) -> tuple[np.ndarray, np.ndarray]:
        """By how much rule and slope differ along each row, and how much that may be.

        Args:
            directions: ``(k, entries)``.
            gradients: ``(cotangents, entries)`` instead of those by the rule.

        Returns:
            Two arrays ``(k,)``, root mean squares over the cotangents. Where the rule
            is not finite the first is infinite; where f is not, the second.
        """
        seen = self.slopes(directions)
        w = self.cotangents
        with np.errstate(invalid="ignore", over="ignore"):
            error = self.rule(seen.moved, gradients) - seen.value @ w.T
            bar = _rms(seen.spread @ w.T) + _CONFIDENCE * self.noise / self.step
            bar += _LUCK * _rms(seen.gap @ w.T)
        error = _rms(error)
        blind = ~np.isfinite(seen.value).all(axis=1)
        error[~np.isfinite(error)] = np.inf
        error[blind], bar[blind | ~np.isfinite(bar)] = 0.0, np.inf
        return error, bar

    def rule(self, directions, gradients=None) -> np.ndarray:
        """``(k, cotangents)``: the table of the rule along the rows of directions.

        Other gradients than its own can be given.
        """
        gradients = self.gradients if gradients is None else gradients
        if gradients is None:
            return self.push(directions) @ self.cotangents.T
        return directions @ gradients.T

    def gap_of_ladder(self, direction) -> tuple[float, float]:
        """The same as `gaps` along one direction, with a step of its own."""
        ladder = self.ladder(direction)
        best = ladder.best(self.cotangents)
        error = root_mean_square(self.rule(direction[None])[0] - best.value)
        kink = root_mean_square(ladder.gap(best.level) @ self.cotangents.T)
        return error, best.bar + _LUCK * kink

    def ladder_of(self, entry: int) -> Ladder:
        """Central differences along one entry, in steps that it is resolved with.

        First in steps like those of all, then in proportion to the entry itself.
        """
        direction = np.zeros(self.x.size)
        direction[entry] = 1.0
        ladder = self.ladder(direction)
        if self.shares[entry] == 1 or ladder.resolves(self.cotangents):
            return ladder
        own = self.ladder(direction, scale=self.scale * self.shares[entry])
        return own if own.resolves(self.cotangents) else ladder

    def ladder(self, direction, *, scale: float | None = None) -> Ladder:
        """Central differences along one direction; 16 evaluations."""
        steps = (scale or self.scale) * levels(self.problem.dtype)
        moves = (steps[:, None] * direction).astype(self.x.dtype)
        ends = np.concatenate([self.x + moves, self.x - moves, [self.x, self.x]])
        values = self.programs.values(self.point, ends)
        there, here, self.value = np.split(values[:-1], [NUM_LEVELS, 2 * NUM_LEVELS])
        self.value = self.value[0]
        rounding = self.eps * np.abs(np.nan_to_num(self.value, posinf=0, neginf=0))
        with np.errstate(invalid="ignore", over="ignore"):
            quotients = (there - here) / (2 * steps[:, None])
            bends = (there + here - 2 * self.value) / (2 * steps[:, None])
        return Ladder(steps, quotients, bends, rounding, self.eps)

    def _slopes(self, directions):
        h = self.step
        moves = [(s * h * directions).astype(self.x.dtype) for s in (1.0, 0.5)]
        ends = np.stack([e for m in moves for e in (self.x + m, self.x - m)])
        values = self.programs.values(self.point, ends.reshape(-1, self.x.size))
        values = values.reshape(4, len(directions), -1)
        ends = ends.astype(np.float64, copy=False)
        with np.errstate(invalid="ignore", over="ignore"):
            coarse, fine = _quotients(values, h)
            moved, moved_fine = _quotients(ends, h)
        # Infinite entries are not moved.
        moved, moved_fine = (np.where(self.held, 0.0, m) for m in (moved, moved_fine))
        with np.errstate(invalid="ignore", over="ignore"):
            bend = (values[0] + values[1] - 2 * self.value) / (2 * h)
            bend_fine = (values[2] + values[3] - 2 * self.value) / h
            value = fine + (fine - coarse) / 3
            gap = 2 * bend_fine - bend
            return value, fine - coarse, gap, moved_fine + (moved_fine - moved) / 3


def _quotients(ends, h):
    """Central differences at a step and at its half."""
    return (ends[0] - ends[1]) / (2 * h), (ends[2] - ends[3]) / h


def _rms(table):
    return np.array([root_mean_square(row) for row in table])
