"""The loops inside of a function: an end to each, and what more of them would give.

A loop that goes on until a number is small enough may never end elsewhere, and stops a
little before its limit: by the tolerance of whoever wrote it f is not the function
that was meant, and a rule that is right for the limit is not right for f.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat
from gradstab.gradcheck.subject import traits
from gradstab.gradcheck.subject.unrolled import rolled
from gradstab.program.compiling import quick_options
from gradstab.program.primitives import Kind, names
from gradstab.program.walk import called, evaluated

# At the point given a loop ends, for whoever asks for its derivative has its value.
ENDLESS = 2**20

# Elsewhere it may take so many times as long, and so many iterations more.
_LONGER, _MORE = 8, 200

# An iteration of linear convergence has 1e-5 left: after so many times as many it has
# nothing left in float64. Few iterations converge fast, and take some more anyhow.
_FURTHER, _AND = 4, 8

# What moves on by more of its size is no iteration towards a limit.
CONVERGED = 1e-2


def limit(closed: _compat.ClosedJaxpr, point: Sequence[Any], /) -> int:
    """How many iterations a loop may take until it counts as endless.

    Args:
        closed: the program of a function of the point. It is run once if it holds a
            loop that may not end elsewhere.
        point: a pytree of arrays, where all of its loops end.

    Returns:
        Zero if it holds none.
    """
    if not traits.iterates(closed):
        return 0
    count = _Limited().program(closed)
    run = jax.jit(lambda *values: count(*values)[1], compiler_options=quick_options())
    taken = np.asarray(run(*jax.tree.leaves(point)))
    return _LONGER * int(np.max(taken)) + _MORE


def limited(f: Callable, iterations: int, /) -> Callable:
    """The same function, not to be differentiated; what would not end is not a number.

    Args:
        f: a function of pytrees to a pytree. It is traced at every call.
        iterations: of a loop until convergence, at most.
    """

    def ending(*args):
        closed, shape = jax.make_jaxpr(f, return_shape=True)(*args)
        results, _ = _Limited(most=iterations).run(closed, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return ending


def further(f: Callable, point: tuple, /, *, most: int) -> Callable | None:
    """The function with its iterations continued to four times their number.

    Iterations are loops until convergence, and those of fixed length that consume no
    data, also if they are written out. One that moves on instead of converging is left
    as it is.

    Args:
        f: from a pytree of arrays to a tuple of arrays. Traced once.
        point: the arrays.
        most: how many iterations a loop until convergence may take by itself.

    Returns:
        ``point -> (results, drift)``, not to be differentiated. For every iteration
        inside of f the drift says by how much it moved on, relative to its size. None
        if there is none.

    >>> halves = lambda x: (jax.lax.fori_loop(0, 10, lambda _, y: 1 + y / 2, x[0]),)
    >>> (y,), drift = further(halves, (jnp.float32(4),), most=99)((jnp.float32(4),))
    >>> float(y), [round(float(d), 4) for d in drift]
    (2.0, [0.0005])
    """
    inlined, shape = jax.make_jaxpr(_Inlined().function(f), return_shape=True)(point)
    wanted = range(len(jax.tree.leaves(shape)))
    # What is not needed hides what is repeated.
    needed, used = _compat.needed_program(inlined, wanted)
    closed, still = _compat.needed_program(rolled(needed), wanted)
    kept = itertools.compress(itertools.compress(itertools.count(), used), still)
    kept = list(kept)
    loops = [eqn for eqn in traits.equations(closed) if _is_iteration(eqn)]
    if not loops:
        return None
    places = {id(eqn): n for n, eqn in enumerate(loops)}
    run = _Further(places, most=most).program(closed)

    def continued(point: Sequence[Any]):
        leaves = jax.tree.leaves(point)
        results, drift = run(*(leaves[n] for n in kept))
        return tuple(results), drift

    return continued


# What takes a piece of an array, or changes one.
_PIECES = names(Kind.PIECES)


class _Loops:
    """Runs a program, its loops in a way of one's own.

    Every loop reports a vector of numbers, of which the largest are kept.

    Args:
        size: of the reports.
        most: how many iterations a loop until convergence may take; what it carries is
            not a number if it takes more.
    """

    def __init__(self, size: int = 1, /, *, most: int = ENDLESS):
        self.nothing = np.zeros(size, np.float32)
        self.most = most

    def program(self, closed: _compat.ClosedJaxpr, /) -> Callable:
        """The function ``inputs -> (results, report)`` of a program."""
        return lambda *values: self.run(closed, values)

    def run(self, closed: _compat.ClosedJaxpr, values):
        """The results of a program, and what its loops report."""
        reports: list = [self.nothing]

        def equation(eqn: _compat.JaxprEqn, operands):
            if not self._enters(eqn):
                return _compat.bind(eqn, operands)
            results, report = self._loop(eqn, operands)
            reports.append(report)
            return results

        results = evaluated(closed, values, equation)
        return results, functools.reduce(jnp.maximum, reports)

    def _enters(self, eqn: _compat.JaxprEqn) -> bool:
        """Whether there is something in the equation to be run in another way."""
        return _compat.contains(eqn, traits.LOOPS)

    def _loop(self, eqn: _compat.JaxprEqn, operands):
        if (body := called(eqn)) is not None:
            return self.run(body, operands)
        if (solver := _compat.linear_solver(eqn, operands)) is not None:
            return self.run(*solver)
        if (branches := _compat.cond_branches(eqn)) is not None:
            index, *rest = operands
            return jax.lax.switch(index, list(map(self.program, branches)), *rest)
        if (parts := _compat.scan_parts(eqn)) is not None:
            return self._scan(eqn, parts, operands)
        if (parts := _compat.while_parts(eqn)) is not None:
            return self._while(eqn, parts, operands)
        # Kernels, and what is spread over devices.
        return _compat.bind(eqn, operands), self.nothing

    def _scan(self, eqn: _compat.JaxprEqn, parts: _compat.ScanParts, operands):
        consts, rest = operands[: parts.num_consts], operands[parts.num_consts :]
        start, slices = rest[: parts.num_carry], rest[parts.num_carry :]

        def step(carry: Any, x):
            return self._same(carry, *self.run(parts.body, [*consts, *carry, *x]))

        def reported(state: Any, x):
            (carry, ys), report = step(state[0], x)
            return (carry, jnp.maximum(state[1], report)), ys

        (end, report), ys = jax.lax.scan(
            reported,
            (start, jnp.asarray(self.nothing)),
            slices,
            length=parts.length,
            reverse=parts.reverse,
        )
        if parts.length and not any(map(_is_real, slices)):
            last = [x[0 if parts.reverse else -1] for x in slices]
            again = lambda carry: step(carry, last)[0][0]  # noqa: E731
            end, drift = self._ended(eqn, again, start, end, parts.length)
            report = jnp.maximum(report, drift)
        return [*end, *ys], report

    def _while(self, eqn: _compat.JaxprEqn, parts: _compat.WhileParts, operands):
        num_condition, num_body = parts.num_condition_consts, parts.num_body_consts
        asked, rest = operands[:num_condition], operands[num_condition:]
        consts, start = rest[:num_body], rest[num_body:]

        def goes_on(carry: Any):
            return self.run(parts.condition, [*asked, *carry])[0][0]

        def step(carry: Any):
            inputs = [*consts, *carry]
            (new, _), report = self._same(carry, *self.run(parts.body, inputs))
            return new, report

        def counted(state: Any):
            carry, count, report = state
            on = goes_on(carry)
            new, more = step(carry)
            # Of a loop under vmap every row stops by itself.
            new = [_where(on, y, x) for y, x in zip(new, carry, strict=True)]
            return new, count + on.astype(np.int32), jnp.maximum(report, more)

        endless = traits.may_not_end(eqn)
        most = self.most if endless else np.iinfo(np.int32).max
        rows = _compat.shape_of(parts.condition.jaxpr.outvars[0])
        nothing = start, jnp.zeros(rows, np.int32), jnp.asarray(self.nothing)
        end, count, report = jax.lax.while_loop(
            lambda state: jnp.any(goes_on(state[0]) & (state[1] < most)),
            counted,
            nothing,
        )
        if endless:
            cut = goes_on(end)
            end = [_where(cut, jnp.nan, y) if _is_real(y) else y for y in end]
        count = jnp.max(count, initial=0)
        again = lambda carry: step(carry)[0]  # noqa: E731
        end, own = self._ended(eqn, again, start, end, count)
        return end, jnp.maximum(report, own)

    def _same(self, carry: Any, results, report):
        """The new carry in the dtypes of the old one, and the slices of the results."""
        new = [_like(y, x) for y, x in zip(results, carry, strict=False)]
        return (new, results[len(carry) :]), report

    def _ended(self, eqn: _compat.JaxprEqn, step, start, end, count):
        """The carry to go on with, and the loop's report."""
        del eqn, step, start, count
        return end, self.nothing


class _Inlined(_Loops):
    """Puts the bodies of rules and calls in the place of these."""

    def function(self, f: Callable[..., Any], /):
        """The function f of a tuple."""

        def inlined(point: Sequence[Any]):
            closed = jax.make_jaxpr(f)(point)
            return tuple(self.run(closed, jax.tree.leaves(point))[0])

        return inlined

    def _enters(self, eqn: _compat.JaxprEqn) -> bool:
        # A body may hold a loop that is written out.
        return called(eqn) is not None or super()._enters(eqn)

    def _scan(self, eqn: _compat.JaxprEqn, parts: _compat.ScanParts, operands):
        del parts
        return _compat.bind(eqn, operands), self.nothing

    def _while(self, eqn: _compat.JaxprEqn, parts: _compat.WhileParts, operands):
        del parts
        return _compat.bind(eqn, operands), self.nothing


class _Limited(_Loops):
    """Ends every loop; the report is how many iterations the longest one took."""

    def _scan(self, eqn: _compat.JaxprEqn, parts: _compat.ScanParts, operands):
        if traits.iterates(parts.body):
            return super()._scan(eqn, parts, operands)
        return _compat.bind(eqn, operands), self.nothing

    def _ended(self, eqn: _compat.JaxprEqn, step, start, end, count):
        del step, start
        counts = not traits.may_not_end(eqn)
        return end, self.nothing if counts else jnp.full(1, count, jnp.float32)


class _Further(_Loops):
    """Continues the iterations inside of a program; the report is their drift.

    Args:
        places: of the iterations in the report, by the identity of their equations.
        most: see `_Loops`.
    """

    def __init__(self, places: dict[int, int], /, *, most: int):
        super().__init__(len(places), most=most)
        self.places = places

    def _ended(self, eqn: _compat.JaxprEqn, step, start, end, count):
        if id(eqn) not in self.places:
            return end, self.nothing
        more = (_FURTHER - 1) * jnp.int32(count) + _AND

        def guarded(state: Any):
            carry, left = state
            new = step(carry)
            # At its limit an iteration may divide nothing by nothing.
            sound = jnp.all(jnp.stack([jnp.all(jnp.isfinite(y)) for y in _reals(new)]))
            new = [jnp.where(sound, y, x) for y, x in zip(new, carry, strict=True)]
            return new, left - 1

        last, _ = jax.lax.while_loop(lambda s: s[1] > 0, guarded, (end, more))
        used = [not isinstance(v, _compat.DropVar) for v in eqn.outvars[: len(end)]]
        drift = _drift(
            *(
                [x for x, u in zip(c, used, strict=True) if u]
                for c in (start, end, last)
            )
        )
        converges = drift <= CONVERGED
        kept = [jnp.where(converges, y, x) for y, x in zip(last, end, strict=True)]
        here = np.arange(len(self.nothing)) == self.places[id(eqn)]
        return kept, jnp.where(here, drift, 0.0)


def _drift(start, end, last):
    """By how much a carry moved on, relative to the largest it was."""
    moved = [
        jnp.max(jnp.abs(y - x)) for y, x in zip(_reals(last), _reals(end), strict=True)
    ]
    sizes = [
        jnp.max(jnp.where(jnp.isfinite(x), jnp.abs(x), 0.0))
        for x in (*_reals(start), *_reals(end), *_reals(last))
    ]
    if not moved:
        return jnp.float32(0)
    far = functools.reduce(jnp.maximum, [m.astype(jnp.float32) for m in moved])
    size = functools.reduce(jnp.maximum, [s.astype(jnp.float32) for s in sizes])
    return jnp.where(far > 0, far / jnp.where(size > 0, size, 1.0), 0.0)


def _is_iteration(eqn: _compat.JaxprEqn) -> bool:
    """Whether the loop may be one towards a limit: what it carries are real numbers."""
    if (parts := _compat.scan_parts(eqn)) is not None:
        data = eqn.invars[parts.num_consts + parts.num_carry :]
        carry = eqn.outvars[: parts.num_carry]
        reads_data = any(map(_is_floating, data))
        reads_data |= _walks(parts.body, parts.num_consts)
        return not reads_data and any(map(_is_floating, carry))
    if (parts := _compat.while_parts(eqn)) is not None:
        return any(map(_is_floating, eqn.outvars)) and not _walks(
            parts.body, parts.num_body_consts
        )
    return False


def _walks(body, num_consts) -> bool:
    """Whether a step takes a piece of an array, at a place that changes by steps.

    It goes through data then, and has no more to go through once it has ended.
    """
    changing = body.jaxpr.invars[num_consts:]
    reached = {v for v in changing if not _is_floating(v)}
    for eqn in body.jaxpr.eqns:
        inputs = [v for v in eqn.invars if not isinstance(v, _compat.Literal)]
        if reached.isdisjoint(inputs):
            continue
        if _compat.contains(eqn, _PIECES):
            return True
        reached.update(v for v in eqn.outvars if not _is_floating(v))
    return False


def _is_floating(variable) -> bool:
    return jnp.issubdtype(getattr(variable.aval, "dtype", bool), jnp.inexact)


def _where(rows, y, x):
    """The rows of y that are wanted, else those of x."""
    return jnp.where(rows.reshape(rows.shape + (1,) * (x.ndim - rows.ndim)), y, x)


def _is_real(x) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _reals(arrays) -> list:
    return [x for x in arrays if _is_real(x) and x.size]


def _like(y, x):
    return y if y.dtype == jnp.result_type(x) else y.astype(jnp.result_type(x))
