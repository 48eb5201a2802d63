"""All columns of the Jacobian of one leaf, by differences and by the rule."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.places.leaf_programs import LeafPrograms, replaced
from gradstab.gradcheck.subject.abilities import VMAP
from gradstab.gradcheck.subject.problem import Problem

# Perturbed copies of a leaf under way at once, in bytes: what fits a cache is fastest,
# but fewer than 32 copies do not pay for the start of a turn.
_CACHE = 2**20
_LEAST_LANES, _MOST_LANES = 32, 64

# Columns or rows that one call computes, in turns of as many as fit.
_PER_CALL = 2**10


class Columns:
    """The Jacobian of one leaf, some columns (entries of the leaf) at a time.

    Only this leaf is batched: what f computes from the others alone is computed once,
    and products with them read them once for all.

    Args:
        problem: what is checked.
        leaf: the number of the leaf.
        truth: the function whose differences are taken; None for that of the problem.
        max_bytes: that a block of columns, and evaluations at once, may take.

    Attributes:
        programs: f and its rules along any direction of the leaf.
        width: the number of columns in a block.
        evaluations: of f, its JVP and its VJP so far; blocks that are not full count as
            full, as they are computed.
    """

    def __init__(
        self,
        problem: Problem,
        leaf: int,
        /,
        *,
        truth: Callable | None = None,
        max_bytes: int = 2**28,
    ):
        self.problem, self.leaf, self.max_bytes = problem, leaf, max_bytes
        self.programs = LeafPrograms(problem, leaf, truth=truth, max_bytes=max_bytes)
        self.size = problem.leaves[leaf].size
        self.num_outputs = self.programs.num_outputs
        nbytes = problem.leaves[leaf].nbytes
        each = max(problem.footprint, nbytes + 8 * self.num_outputs)
        self.lanes, turns = _split(self.size, nbytes, each, self.num_outputs, max_bytes)
        self.width = self.lanes * turns
        out = 8 * self.num_outputs
        self.row_lanes, turns = _split(
            self.num_outputs, out, each, self.size, max_bytes
        )
        self.row_width = self.row_lanes * turns
        self._spent = 0
        static = problem.f, leaf, self.lanes
        moving = truth or problem.f, leaf, self.lanes
        self._differences = problem.compiled(functools.partial(_differences, *moving))
        self._tangents = problem.compiled(functools.partial(_tangents, *static))
        static = problem.f, leaf, self.row_lanes, problem.outputs
        self._gradients = problem.compiled(functools.partial(_gradients, *static))

    @property
    def evaluations(self) -> int:
        """Of f, its JVP and its VJP."""
        return self._spent + self.programs.evaluations

    def blocks(self) -> Iterator[tuple[int, int]]:
        """The first column of each block and the one after its last."""
        for start in range(0, self.size, self.width):
            yield start, min(start + self.width, self.size)

    def by_differences(
        self, point: Sequence[Any], step, start: int, stop: int
    ) -> np.ndarray:
        """``(stop - start, outputs)``: central differences with one step for all."""
        x = np.asarray(point[self.leaf]).ravel()
        there, here = (x[start:stop] + step), (x[start:stop] - step)
        if self.problem.engine == VMAP:
            self._spent += 2 * self.width
            change = self._call(self._differences, point, start, self.width, step)
        else:
            change = self._one_by_one(point, x, start, stop, there, here)
        # What is infinite stays where it is.
        ends = (np.where(np.isfinite(e), e, 0) for e in (there, -here))
        moved = sum(e.astype(np.float64) for e in ends)
        moved = np.where(np.isfinite(x[start:stop]), moved, 2 * step)
        return change[: stop - start] / moved[:, None]

    def by_rule(
        self, point: Sequence[Any], mode: str
    ) -> Callable[[int, int], np.ndarray]:
        """A function of ``start, stop`` that gives the same columns by the rule.

        In reverse mode the rule gives whole rows. They are kept if half of
        ``max_bytes`` holds them; otherwise they are computed again for every block.
        """
        if mode == "forward":
            return functools.partial(self._tangent_columns, point)
        if 8 * self.size * self.num_outputs > self.max_bytes // 2:
            return lambda start, stop: self._all_rows(point, start, stop).T
        rows = self._all_rows(point, 0, self.size)
        return lambda start, stop: rows[:, start:stop].T

    def _tangent_columns(self, point: Sequence[Any], start: int, stop: int):
        if self.problem.engine != VMAP:
            return self.programs.push(point, _one_hots(self.size, start, stop))
        self._spent += self.width
        columns = self._call(self._tangents, point, start, self.width)
        return columns[: stop - start]

    def _all_rows(self, point: Sequence[Any], start: int, stop: int):
        rows = np.empty((self.num_outputs, stop - start))
        for first in range(0, self.num_outputs, self.row_width):
            last = min(first + self.row_width, self.num_outputs)
            if self.problem.engine == VMAP:
                self._spent += self.row_width + 1
                part = self._call(self._gradients, point, first, self.row_width)
            else:
                weights = _one_hots(self.num_outputs, first, last)
                part = self.programs.pull(point, weights)[self.leaf]
            rows[first:last] = part[: last - first, start:stop]
        return rows

    def _call(self, program, point: Sequence[Any], start: int, width, *numbers):
        lanes = self.row_lanes if program is self._gradients else self.lanes
        with self.problem.context():
            starts = np.arange(start, start + width, lanes, dtype=np.int32)
            return np.asarray(program(point, starts, *numbers), np.float64)

    def _one_by_one(self, point: Sequence[Any], x, start: int, stop: int, there, here):
        rows = np.repeat(x[None], 2 * (stop - start), axis=0)
        places = np.arange(start, stop)
        rows[np.arange(stop - start), places] = there
        rows[np.arange(stop - start, len(rows)), places] = here
        values = self.programs.values(point, rows)
        return values[: stop - start] - values[stop - start :]


def _split(num, nbytes, each, beside, max_bytes: float):
    """How many at once, and in how many turns a call takes them.

    Args:
        num: how many there are.
        nbytes: of what is perturbed.
        each: bytes of an evaluation.
        beside: the length of one result.
        max_bytes: not to be exceeded by either.
    """
    lanes = min(
        _MOST_LANES, num, max(_CACHE // nbytes, _LEAST_LANES), max(max_bytes // each, 1)
    )
    per_call = min(_PER_CALL, max(max_bytes // (32 * beside), 1))
    return lanes, max(1, min(-(-num // lanes), per_call // lanes))


def _differences(
    f: Callable[..., Any], leaf, lanes, point: Sequence[Any], starts, step
):
    x = point[leaf]
    places = jnp.arange(x.size, dtype=starts.dtype).reshape(x.shape)

    def end(i: int, h):
        moved = jnp.where(places == i, x + h.astype(x.dtype), x)
        return _joined(f(replaced(point, leaf, moved)))

    def chunk(start):
        i = start + jnp.arange(lanes, dtype=starts.dtype)
        there = jax.vmap(lambda i: end(i, step))(i)
        return there - jax.vmap(lambda i: end(i, -step))(i)

    return _in_turns(chunk, starts)


def _tangents(f: Callable[..., Any], leaf, lanes, point: Sequence[Any], starts):
    x = point[leaf]
    places = jnp.arange(x.size, dtype=starts.dtype).reshape(x.shape)
    zeros = tuple(map(jnp.zeros_like, point))

    def column(i: int):
        direction = replaced(zeros, leaf, (places == i).astype(x.dtype))
        return _joined(jax.jvp(f, (point,), (direction,))[1])

    def chunk(start):
        return jax.vmap(column)(start + jnp.arange(lanes, dtype=starts.dtype))

    return _in_turns(chunk, starts)


def _gradients(
    f: Callable[..., Any],
    leaf,
    lanes,
    outputs,
    point: Sequence[Any],
    starts,
):
    _, pullback = jax.vjp(f, point)
    firsts = np.cumsum([0, *(y.size for y in outputs)])[:-1]

    def row(i):
        one_hot = tuple(
            (first + jnp.arange(y.size, dtype=i.dtype) == i)
            .reshape(y.shape)
            .astype(y.dtype)
            for first, y in zip(firsts, outputs, strict=True)
        )
        return pullback(one_hot)[0][leaf].ravel()

    def chunk(start):
        return jax.vmap(row)(start + jnp.arange(lanes, dtype=starts.dtype))

    return _in_turns(chunk, starts)


def _in_turns(chunk, starts):
    out = jax.lax.map(chunk, starts)
    return out.reshape(-1, out.shape[-1])


def _joined(arrays):
    return jnp.concatenate([y.ravel() for y in arrays])


def _one_hots(size: int, start: int, stop: int):
    rows = np.zeros((stop - start, size))
    rows[np.arange(stop - start), np.arange(start, stop)] = 1.0
    return rows
