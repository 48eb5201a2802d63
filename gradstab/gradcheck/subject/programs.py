"""The compiled programs of a check: the rules at a point, and f beside it."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.subject.abilities import LOOP, MAP
from gradstab.gradcheck.subject.iterations import limit, limited
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.time_limit import still_in_time


class Programs:
    """Evaluates one function at many points; compiles each program once.

    Args:
        problem: whose function, unless ``f`` is given, and whose precision.
        f: another function of the same leaves.
        lanes: how many evaluations may be under way at once.
    """

    def __init__(
        self, problem: Problem, /, *, lanes: int, f: Callable[..., Any] | None = None
    ):
        self.problem = problem
        self.lanes = lanes
        f = problem.f if f is None else f
        turns = functools.partial(_TURNS.get(problem.engine, _mapped), lanes=lanes)
        programs = (
            functools.partial(_rules, f, problem, turns),
            functools.partial(_ends, f, turns),
        )
        if problem.limit:
            programs = [limited(p, problem.limit) for p in programs]
        # Rules may hold loops that f does not; it is seen where they are first asked.
        unseen = problem.has_rules and not problem.limit and problem.engine != LOOP
        self._unseen = programs[0] if unseen else None
        if problem.engine != LOOP:
            programs = map(problem.compiled, programs)
        self._rules, self._ends = programs

    def _end_loops(self, rules, given):
        compiled: Any = self._rules
        most = limit(compiled.program(*given), given)
        if most:
            self._rules = self.problem.compiled(limited(rules, most))

    def rules(self, point: Sequence[Any], draw) -> dict:
        """The value of f and the rows of its Jacobian that the rules give.

        Args:
            point: the leaves.
            draw: tangents, cotangents, and the weights with which leaves are moved.

        Returns:
            On the host: ``value`` and, computed once more, ``again``, and as one of
            two points, ``mapped``; ``reverse``, per leaf the gradients
            ``(num_cotangents, *shape)``; ``forward``, per output the tangents
            ``(moves, num_tangents, *shape)``; the latter two if f has them.
        """
        still_in_time()
        with self.problem.context():
            given = point, draw.tangents, draw.weights, draw.cotangents
            if self._unseen is not None:
                self._end_loops(self._unseen, given)
                self._unseen = None
            return jax.device_get(self._rules(*given))

    def ends(self, point: Sequence[Any], draw, anchor, i, k, h):
        r"""Values on both sides of the point, for probes along move i of tangent k.

        Args:
            point: the leaves.
            draw: tangents, whose products with the steps must be exact, and weights.
            anchor: per leaf the gradients of some cotangents, or None.
            i: ``(probes,)`` which leaves are moved: the row of the weights.
            k: ``(probes,)`` along which of their tangents.
            h: ``(probes,)`` by how much.

        Yields:
            For at most ``lanes`` probes at once ``(where, there, here, nudge)``: the
            slice of the probes, the outputs at :math:`x + h v` and at :math:`x - h v`
            as rounded, and :math:`\langle g, 2 h v - (x_+ - x_-) \rangle`, what
            rounding these points takes away from the displacement.
        """
        lanes = self.lanes
        with self.problem.context():
            fixed = jax.device_put((point, draw.tangents, draw.weights, anchor))
        for start in range(0, len(h), lanes):
            still_in_time()
            where = slice(start, min(start + lanes, len(h)))
            # A turn that is not full is filled up: another program costs more.
            probes = [np.resize(a[where], lanes) for a in (i, k, h)]
            with self.problem.context():
                both, nudge = jax.device_get(self._ends(*fixed, *probes))
            count = where.stop - start
            there, here = (
                tuple(y[first : first + count] for y in both) for first in (0, lanes)
            )
            yield where, there, here, nudge[:count]


def _rules(
    f: Callable[..., Any],
    problem: Problem,
    turns,
    point: Sequence[Any],
    tangents,
    weights,
    cotangents: Any,
):
    value = f(point)
    found = {"value": value, "again": value, "mapped": value}
    if not problem.once:
        # Traced again and kept apart by the barrier: the same value, unless random.
        found["again"] = f(jax.lax.optimization_barrier(point))
        pair = jax.tree.map(lambda x: jnp.stack([x, x + x * 2.0**-7]), tuple(point))
        found["mapped"] = tuple(y[0] for y in turns(f, pair))
    modes = problem.modes
    if "reverse" in modes:
        _, pullback = jax.vjp(f, point)
        (found["reverse"],) = turns(pullback, cotangents)
    if "forward" in modes:
        num = tangents[0].shape[0]
        i, k = np.divmod(np.arange(len(weights) * num), num)

        def rule(i, k):
            v = _move(tangents, weights, i, k, np.ones((), np.int32))
            return jax.jvp(f, (point,), (v,))[1]

        rows = turns(rule, i, k)
        found["forward"] = tuple(y.reshape(-1, num, *y.shape[1:]) for y in rows)
    return found


def _ends(
    f: Callable[..., Any],
    turns,
    point: Sequence[Any],
    tangents,
    weights,
    anchor,
    i,
    k,
    h,
):
    def probe(i, k, h):
        d = _move(tangents, weights, i, k, h)
        there = jax.tree.map(lambda x, d: _stored(x + d), point, d)
        here = jax.tree.map(lambda x, d: _stored(x - d), point, d)
        if anchor is None:
            nudge = jnp.zeros(())
        else:
            pairs = zip(point, d, there, here, anchor, strict=True)
            nudge = sum(_lost_by_rounding(*pair) for pair in pairs)
        return there, here, nudge

    there, here, nudge = jax.vmap(probe)(i, k, h)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), there, here)
    return turns(f, both, lanes=2 * len(i)), nudge


def _move(tangents, weights, i, k, h):
    """The step h along tangent k, for every leaf as much of it as row i says."""
    share = jnp.asarray(weights)[i]
    return tuple(
        (share[n].astype(v.dtype) * h.astype(v.dtype)) * jnp.asarray(v)[k]
        for n, v in enumerate(tangents)
    )


def _stored(x: jax.Array):
    """The number as it is in memory; fused programs keep more digits of narrow ones."""
    limits = jnp.finfo(x.dtype)
    if limits.nmant >= jnp.finfo(jnp.float32).nmant:
        return x
    return jax.lax.reduce_precision(x, limits.nexp, limits.nmant)


def _lost_by_rounding(x: jax.Array, d, there, here, gradients):
    """<g, 2 d - (there - here)> for every row g of the stacked gradients."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    x, d, there, here = (a.astype(wide) for a in (x, d, there, here))
    lost = _lost(x, d, there) - _lost(x, -d, here)
    # Of what is not moved nothing is lost, and it may be infinite.
    lost = jnp.where(d == 0, 0, lost)
    return gradients.astype(wide).reshape(len(gradients), -1) @ lost.ravel()


def _lost(a, b, total):
    """Exactly a + b - total, for a total that was rounded (Knuth's two-sum)."""
    kept = total - a
    return (a - (total - kept)) + (b - kept)


def _mapped(function: Callable[..., Any], *arrays, lanes):
    """The function mapped over the leading axis, at most ``lanes`` rows at once."""
    if len(jax.tree.leaves(arrays)[0]) <= lanes:
        return jax.vmap(function)(*arrays)
    return jax.lax.map(lambda a: function(*a), arrays, batch_size=lanes)


def _one_by_one(function: Callable[..., Any], *arrays, lanes):
    """The same without `jax.vmap`, compiled."""
    del lanes
    return jax.lax.map(lambda a: function(*a), arrays)


def _in_python(function: Callable[..., Any], *arrays, lanes):
    """The same without any tracing."""
    del lanes
    count = len(jax.tree.leaves(arrays)[0])
    rows = []
    for j in range(count):
        still_in_time()
        rows.append(function(*jax.tree.map(lambda a, j=j: a[j], arrays)))
    return jax.tree.map(lambda *parts: jnp.stack(parts), *rows)


_TURNS = {MAP: _one_by_one, LOOP: _in_python}
