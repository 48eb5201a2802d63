"""Iterations that were written out: the same equations again and again, in a row.

A Python loop leaves no loop in the program. Whether it comes to a limit is seen once it
is one.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradstab import _compat
from gradstab.program.canonical import Forms
from gradstab.program.walk import environment, outputs, retraced, walk

# Fewer repetitions are no iteration; nor is one operation, as in a power by products.
_LEAST, _SHORTEST = 3, 2

# So many lengths of a repetition are tried from each equation.
_TRIED = 32

# What a variable is made by: the same repetition, or the one before it.
_SAME, _BEFORE = "same", "before"

# Where a variable is made: the equation, counted from the first of a repetition, and
# which of its results.
Slot = tuple[int, int]


class _Repetition(NamedTuple):
    """Equations that are repeated.

    Attributes:
        start: the first equation.
        period: how many equations are one repetition.
        count: how many repetitions there are.
        first: what the first one reads in the place of what each gets from the one
            before it, by where that is made.
        kept: where the last one makes what is read after it, and not by the next one.
    """

    start: int
    period: int
    count: int
    first: dict[Slot, _compat.Var]
    kept: tuple[Slot, ...] = ()

    @property
    def end(self) -> int:
        """The first equation after all repetitions."""
        return self.start + self.period * self.count


def rolled(closed: _compat.ClosedJaxpr, /) -> _compat.ClosedJaxpr:
    """The program with what it does at least three times in a row put into a loop.

    Each repetition reads what is there before the first one, and what the one before it
    has made. What is made in between stays inside.

    Args:
        closed: a program whose calls are inlined.

    Returns:
        A program of the same inputs and results; the same one if nothing is repeated.

    >>> def root(x, y):
    ...     for _ in range(6):
    ...         y = (y + x / y) / 2
    ...     return y
    >>> program = jax.make_jaxpr(root)(2.0, 1.0)
    >>> len(program.jaxpr.eqns), len(rolled(program).jaxpr.eqns)
    (18, 1)

    Cost: a few dictionaries over the equations, and a trace if one is repeated.
    """
    repetitions = _Search(closed).repetitions()
    if not repetitions:
        return closed

    def run(*values):
        env, done, eqns = environment(closed, values), 0, closed.jaxpr.eqns
        for one in repetitions:
            walk(eqns[done : one.start], env)
            _loop(eqns, one, env)
            done = one.end
        return outputs(closed, walk(eqns[done:], env))

    return retraced(closed, run)


def _loop(eqns: Sequence[_compat.JaxprEqn], one: _Repetition, env: dict) -> None:
    """Adds what the last repetition makes to the values of variables."""
    slots = (*one.first, *one.kept)
    # What the first repetition reads is another variable than what all others do.
    begin = one.start + one.period
    before, made, last = (
        [_variable(eqns, at, slot) for slot in slots]
        for at in (one.start, begin, one.end - one.period)
    )
    start = [env[v] for v in one.first.values()]
    start += [jnp.zeros(_compat.shape_of(v)) for v in made[len(start) :]]

    def step(carry: Any, _):
        inner = env | dict(zip(before, carry, strict=True))
        walk(eqns[begin : begin + one.period], inner)
        return [_strong(inner[v], v) for v in made], None

    start = [_strong(x, v) for x, v in zip(start, made, strict=True)]
    end, _ = jax.lax.scan(step, start, length=one.count)
    env.update(zip(last, end, strict=True))


def _variable(eqns: Sequence[_compat.JaxprEqn], at: int, slot: Slot) -> _compat.Var:
    return eqns[at + slot[0]].outvars[slot[1]]


def _strong(x: Any, like: _compat.Var) -> jax.Array:
    """The array in the dtype of a variable, and not weakly so."""
    return jax.lax.convert_element_type(x, _compat.dtype_of(like))


class _Search:
    """Finds the repetitions in a program.

    Args:
        closed: the program.
    """

    def __init__(self, closed: _compat.ClosedJaxpr, /):
        self.eqns, numbers = closed.jaxpr.eqns, Forms()
        self.forms = [
            numbers.number([eqn], _variables(eqn.invars), eqn.outvars)
            for eqn in self.eqns
        ]
        self.made: dict[_compat.Var, tuple[int, int]] = {}
        self.read: dict[_compat.Var, int] = {}
        for n, eqn in enumerate(self.eqns):
            self.made.update((v, (n, i)) for i, v in enumerate(eqn.outvars))
            self.read.update((v, n) for v in _variables(eqn.invars))
        returned = _variables(closed.jaxpr.outvars)
        self.read.update((v, len(self.eqns)) for v in returned)

    def repetitions(self) -> list[_Repetition]:
        """Those that do not overlap, in order."""
        found, start = [], 0
        while start + _LEAST * _SHORTEST <= len(self.eqns):
            one = self._at(start)
            start = start + 1 if one is None else one.end
            kept = None if one is None else self._kept(one)
            if one is not None and kept is not None and one.period >= _SHORTEST:
                found.append(one._replace(kept=kept))
        return found

    def _at(self, start: int) -> _Repetition | None:
        """The shortest repetition from an equation on."""
        rest = self.forms[start:]
        most = len(rest) // _LEAST
        alike = (p for p in range(1, most + 1) if rest[p] == rest[0])
        for period in itertools.islice(alike, _TRIED):
            whole = rest[:period] * _LEAST
            if rest[: len(whole)] == whole and (one := self._from(start, period)):
                return one
        return None

    def _from(self, start: int, period: int) -> _Repetition | None:
        """The repetition of so many equations from the first of them on, if it is."""
        wanted, first = self._sources(start + period, period), {}
        variables = _read_by(self.eqns[start : start + period])
        for v, wants in zip(variables, wanted, strict=True):
            if wants[0] is _BEFORE:
                if self._place(v) >= start or first.setdefault(wants[1], v) is not v:
                    return None
            elif wants != self._source(v, start, start):
                return None
        count, end = 2, start + 2 * period
        while (
            self.forms[end : end + period] == self.forms[start : start + period]
            and self._sources(end, period) == wanted
        ):
            count, end = count + 1, end + period
        if count < _LEAST or not first:
            return None
        return _Repetition(start, period, count, first)

    def _sources(self, at: int, period: int) -> list:
        """Where a repetition has everything from that it reads."""
        variables = _read_by(self.eqns[at : at + period])
        return [self._source(v, at, at - period) for v in variables]

    def _source(self, v: _compat.Var, at: int, before: int):
        """A variable itself, or by which equation of which repetition it is made."""
        place, i = self.made.get(v, (-1, 0))
        if place >= at:
            return _SAME, (place - at, i)
        return (_BEFORE, (place - before, i)) if place >= before else (None, v)

    def _place(self, v: _compat.Var) -> int:
        return self.made.get(v, (-1, 0))[0]

    def _kept(self, one: _Repetition) -> tuple[Slot, ...] | None:
        """What of the last repetition is read later; None if more than that is."""
        kept = []
        for n in range(one.start, one.end):
            for i, v in enumerate(self.eqns[n].outvars):
                if self.read.get(v, -1) < one.end:
                    continue
                slot = n - (one.end - one.period), i
                if slot[0] < 0:
                    return None
                kept += [slot] if slot not in one.first else []
        return tuple(kept)


def _variables(atoms: Sequence[Any]) -> list[_compat.Var]:
    return [v for v in atoms if not isinstance(v, _compat.Literal)]


def _read_by(eqns: Sequence[_compat.JaxprEqn]) -> list[_compat.Var]:
    """What equations read, in order."""
    return [v for eqn in eqns for v in _variables(eqn.invars)]
