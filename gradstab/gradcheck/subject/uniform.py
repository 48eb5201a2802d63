"""Rules that treat all entries along an axis alike, however many there are.

Of such a rule nothing is learned at another shape: it is the same program, and has no
last block that could be lost.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat
from gradstab._attempt import Refusal, attempt
from gradstab.gradcheck.subject.abilities import VMAP
from gradstab.gradcheck.subject.arguments import SHORTENED, floating_part
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.traits import equations
from gradstab.program.primitives import acts_on_entries, is_named, reduces

# Beside what acts on single entries and what reduces axes.
_ALIKE = (
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "dot_general",
    "expand_dims",
    "squeeze",
    "transpose",
)
_CALLS = ("jit", "pjit", "closed_call", "core_call")

# No part of a name or of a number with a point; and a mark for one.
_NUMBER, _SIZE = re.compile(r"(?<![\w.])\d+(?![\w.])"), "#"


class Uniform:
    """Says whether the rules of a problem are the same programs at other shapes.

    Args:
        problem: at the shapes given.
        f: the function of the user's.
    """

    def __init__(self, problem: Problem, f: Callable, /):
        self.problem, self.f = problem, f
        self._given: Any = None

    def at(self, args: tuple, changes: dict[int, int], /) -> bool:
        """Whether they are, but for sizes, and made of operations that lose nothing.

        Args:
            args: arguments of other shapes.
            changes: the new sizes of axes, by the old ones.
        """
        task = self.problem
        if task.engine != VMAP or task.widened or task.hosted:
            return False
        with task.context():
            if self._given is None:
                self._given = attempt(self._programs, task.f, task.leaves)
            other = attempt(self._moved, args)
        if isinstance(self._given, Refusal) or isinstance(other, Refusal):
            return False
        if not all(map(_loses_nothing, other)):
            return False
        pairs = zip(map(str, self._given), map(str, other), strict=True)
        return all(_are_alike(*pair, changes) for pair in pairs)

    def _moved(self, args: tuple) -> list:
        dtype: Any = jnp.float64 if self.problem.wide else None
        of_leaves, point, _ = floating_part(args, dtype)
        return self._programs(of_leaves(self.f), point)

    def _programs(self, f: Callable, point: Sequence[Any]) -> list:
        """The programs of values and derivatives in the modes of the problem."""

        def vjp(x: tuple, w: tuple):
            value, pullback = jax.vjp(f, x)
            return value, pullback(w)

        def jvp(x: tuple, v: tuple):
            return jax.jvp(f, (x,), (v,))

        made = []
        if "reverse" in self.problem.modes:
            made.append(jax.make_jaxpr(vjp)(point, jax.eval_shape(f, point)))
        if "forward" in self.problem.modes:
            made.append(jax.make_jaxpr(jvp)(point, point))
        return made


def _loses_nothing(closed: _compat.ClosedJaxpr) -> bool:
    """Whether every operation treats all entries along an axis alike.

    Nothing among them counts entries, and arrays that are closed over may be masks.
    """
    if any(np.size(value) > 1 for _, value in _compat.constants(closed)):
        return False
    return all(map(_is_alike, equations(closed)))


def _is_alike(eqn: _compat.JaxprEqn) -> bool:
    return acts_on_entries(eqn) or reduces(eqn) or is_named(eqn, *_ALIKE, *_CALLS)


def _are_alike(given: str, other: str, changes: dict[int, int]) -> bool:
    """Whether two programs in words are the same, but for some numbers in them.

    A short size is also the number of an axis, or an exponent: it may stay.
    """
    if _NUMBER.sub(_SIZE, given) != _NUMBER.sub(_SIZE, other):
        return False
    found = (map(int, _NUMBER.findall(text)) for text in (given, other))
    return all(
        m == changes.get(n, n) or m == n < SHORTENED
        for n, m in zip(*found, strict=True)
    )
