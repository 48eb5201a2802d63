"""A function and its rules as functions of one leaf alone, at many points at once."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.subject.abilities import LOOP, MAP, VMAP
from gradstab.gradcheck.subject.problem import Problem

# Evaluations of f in one call, and of its rules.
LANES = 16
GROUP = 4


class LeafPrograms:
    """Compiled once, for any point; rows are flat and in float64, on the host.

    Args:
        problem: what is checked.
        leaf: the number of the leaf.
        truth: the function to evaluate; None for that of the problem.
        max_bytes: that evaluations at once may take.

    Attributes:
        evaluations: of f, its JVP and its VJP so far. A group of rows that is not full
            is filled up, and what that costs is counted.
        alike: the numbers of the leaves that are shaped like this one.
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
        self.problem, self.leaf, self.evaluations = problem, leaf, 0
        x = problem.leaves[leaf]
        self.shape, self.dtype = x.shape, np.asarray(x).dtype
        self.alike = [i for i, y in enumerate(problem.leaves) if y.shape == x.shape]
        footprint = max(problem.footprint, x.nbytes + 8 * self.num_outputs)
        lanes = int(max(1, min(LANES, max_bytes // footprint)))
        turns = functools.partial(TURNS[problem.engine], lanes=lanes)
        traced = problem.engine != LOOP
        compiled = problem.compiled if traced else (lambda program: program)
        f = problem.f
        self._f = compiled(functools.partial(_values, truth or f, leaf, turns))
        self._vjp = compiled(functools.partial(_pull, f, self.alike, turns))
        self._jvp = compiled(functools.partial(_push, f, leaf, turns))

    @property
    def num_outputs(self) -> int:
        """The number of entries of all outputs together."""
        return sum(y.size for y in self.problem.outputs)

    def values(self, point: Sequence[Any], rows) -> np.ndarray:
        """``(k, outputs)``: f with the leaf replaced by each row ``(k, entries)``."""
        parts = [
            self._call(self._f, point, self._shaped(r)) for r in _parts(rows, LANES)
        ]
        self.evaluations += LANES * len(parts)
        return _joined([_joined(outputs, axis=1) for outputs in parts])[: len(rows)]

    def push(self, point: Sequence[Any], directions) -> np.ndarray:
        """``(k, outputs)``: the tangents by the rule along each row."""
        rows = _parts(directions, GROUP)
        parts = [self._call(self._jvp, point, self._shaped(r)) for r in rows]
        self.evaluations += GROUP * len(parts)
        whole = _joined([_joined(outputs, axis=1) for outputs in parts])
        return whole[: len(directions)]

    def pull(self, point: Sequence[Any], cotangents: Any) -> dict[int, np.ndarray]:
        """``(k, entries)``: the gradients by the rule, of each leaf that is alike."""
        rows = _parts(cotangents, GROUP)
        parts = [self._call(self._vjp, point, self._by_output(r)) for r in rows]
        self.evaluations += (GROUP + 1) * len(parts)
        gradients = zip(self.alike, *parts, strict=True)
        return {i: _joined(g)[: len(cotangents)] for i, *g in gradients}

    def _call(self, program, point: Sequence[Any], rows):
        with self.problem.context():
            out = program(point, rows)
            return [np.asarray(y, np.float64).reshape(len(y), -1) for y in out]

    def _shaped(self, rows):
        return rows.reshape(-1, *self.shape).astype(self.dtype, copy=False)

    def _by_output(self, rows):
        outputs = self.problem.outputs
        parts = np.split(rows, np.cumsum([y.size for y in outputs])[:-1], axis=1)
        return tuple(
            w.reshape(-1, *y.shape).astype(y.dtype)
            for w, y in zip(parts, outputs, strict=True)
        )


def replaced(point: Sequence[Any], leaf: int, x: jax.Array, /):
    """The point with another array as that leaf."""
    return (*point[:leaf], x, *point[leaf + 1 :])


def _values(f: Callable[..., Any], leaf: int, turns, point: Sequence[Any], moved):
    return turns(lambda x: f(replaced(point, leaf, x)), moved)


def _pull(f: Callable[..., Any], wanted, turns, point: Sequence[Any], cotangents: Any):
    _, pullback = jax.vjp(f, point)
    return turns(lambda w: [pullback(w)[0][i] for i in wanted], cotangents)


def _push(f: Callable[..., Any], leaf: int, turns, point: Sequence[Any], directions):
    def tangent(v):
        zeros = tuple(map(jnp.zeros_like, point))
        return jax.jvp(f, (point,), (replaced(zeros, leaf, v),))[1]

    return turns(tangent, directions)


def _vmapped(function: Callable[..., Any], rows, *, lanes):
    if lanes >= LANES:
        return jax.vmap(function)(rows)
    return jax.lax.map(function, rows, batch_size=lanes)


def _mapped(function: Callable[..., Any], rows, *, lanes):
    return jax.lax.map(function, rows)


def _looped(function: Callable[..., Any], rows, *, lanes):
    num = len(jax.tree.leaves(rows)[0])
    out = [function(jax.tree.map(lambda a, k=k: a[k], rows)) for k in range(num)]
    return jax.tree.map(lambda *ys: np.stack([np.asarray(y) for y in ys]), *out)


# How f is evaluated at many points, by the engine of the problem.
TURNS = {VMAP: _vmapped, MAP: _mapped, LOOP: _looped}


def _parts(rows, size: int):
    """Groups of ``size`` rows; the last one is filled up with its last row."""
    rows = np.asarray(rows)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        missing = size - len(part)
        yield _joined([part, *([part[-1:]] * missing)])


def _joined(arrays, axis: int = 0):
    """Without a copy if there is only one; they may be large."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=axis)
