"""Where a function is defined and its rule is not, or neither is."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstab._attempt import Refusal, attempt
from gradstab.gradcheck.subject.abilities import program
from gradstab.gradcheck.subject.arguments import floating_part
from gradstab.gradcheck.subject.modes import missing_jvp, missing_vjp
from gradstab.gradcheck.subject.settings import settings
from gradstab.program.bounds import num_beyond


def is_another(f: Callable, given: tuple, args: tuple, /, *, wide: bool) -> bool:
    """Whether f has no meaning at arguments of other shapes, though it has a value.

    An index beyond the end of an axis raises nothing; but at the arguments given there
    was none.

    Args:
        f: a function of pytrees.
        given: the arguments given.
        args: others.
        wide: whether f is called in float64.
    """
    with settings(wide=wide):
        counts = [_num_beyond(f, a, wide) for a in (given, args)]
    return counts[1] > counts[0]


def reads_all(f: Callable, marked: Iterable[tuple], /, *, wide: bool) -> bool:
    """Whether NaN in some entries of the arguments is seen in every case.

    Args:
        f: a function of pytrees.
        marked: arguments with NaN in them.
        wide: whether f is called in float64.
    """
    with settings(wide=wide):
        return not any(_is_finite(f, args, wide) for args in marked)


@dataclasses.dataclass(frozen=True)
class Raised:
    """What a rule raises where f is defined.

    Attributes:
        mode: of the rule.
        refusal: what it raises.
    """

    mode: str
    refusal: Refusal

    def __str__(self) -> str:
        return f"the {self.mode} rule raises {self.refusal.words(100)}"

    def names_size(self, given: tuple, args: tuple, /) -> bool:
        """Whether the error is of a shape that only the arguments given have.

        Then the rule was written for that shape, and says so.

        Args:
            given: the arguments given.
            args: those at which the rule raises.
        """
        pairs = zip(jax.tree.leaves(given), jax.tree.leaves(args), strict=True)
        axes = (zip(np.shape(x), np.shape(y), strict=True) for x, y in pairs)
        sizes = {n for pair in axes for n, m in pair if n != m}
        text = str(self.refusal.error)
        return any(re.search(rf"[(\[,]\s*{n}\s*[,)\]]", text) for n in sizes)


def refusal_of_rule(
    f: Callable, args: tuple, /, *, modes: Sequence[str], wide: bool
) -> Raised | None:
    """What a rule of f raises where f is defined and finite; None if nothing.

    A mode that is missing is no refusal.

    Args:
        f: a function of pytrees.
        args: its arguments.
        modes: those of the rules.
        wide: whether f is called in float64.
    """
    with settings(wide=wide):
        if not _is_finite(f, args, wide):
            return None
        lone, point = _of_leaves(f, args, wide)
        closed = program(lone, point)
        known: Any = closed
        results = lone(point) if closed is None else closed.out_avals
        outputs = tuple(jax.ShapeDtypeStruct(y.shape, y.dtype) for y in results)
        asked = {
            "forward": lambda: missing_jvp(lone, point, known),
            "reverse": lambda: missing_vjp(lone, point, outputs, known),
        }
        for mode in modes:
            missing = attempt(asked[mode])
            if isinstance(missing, Refusal):
                return Raised(mode, missing)
    return None


def _of_leaves(f: Callable, args: tuple, wide: bool):
    dtype: Any = jnp.float64 if wide else None
    of_leaves, point, _ = floating_part(args, dtype)
    return of_leaves(f), point


def _num_beyond(f: Callable, args: tuple, wide: bool) -> int:
    lone, point = _of_leaves(f, args, wide)
    closed = attempt(program, lone, point)
    return 0 if closed is None or isinstance(closed, Refusal) else num_beyond(closed)


def _is_finite(f: Callable, args: tuple, wide: bool) -> bool:
    def values():
        lone, point = _of_leaves(f, args, wide)
        run = lone if program(lone, point) is None else jax.jit(lone)
        return jax.device_get(run(point))

    found: Any = attempt(values)
    if isinstance(found, Refusal):
        return False
    return all(np.all(np.isfinite(np.asarray(y, float))) for y in found)
