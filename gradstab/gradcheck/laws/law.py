"""Laws that hold to rounding: how far off they are, and how far rounding explains it.

A law compares numbers that one program has computed in two ways. Most hold so well, or
within the error that is accepted of a derivative, that nothing more is asked. For the
others the same numbers are computed again and again with the rounding errors redrawn:
what is far outside of that spread is no rounding.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstab import _compat
from gradstab._attempt import Refusal, attempt
from gradstab.gradcheck.findings import Identity
from gradstab.gradcheck.laws import rounding
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.time_limit import still_in_time
from gradstab.gradcheck.subject.vectors import root_mean_square
from gradstab.program.compiling import run_few_times
from gradstab.program.shared import shared_program

# With eight draws the actual errors lie outside of eight times their largest spread
# less than once in 1e9, if the spread is one of independent errors.
_DRAWS = 8
_MARGIN = 8.0

# The product of an error with two random vectors is by chance as much larger than the
# error itself, or more, once in 400.
LUCK = 3.0


@dataclasses.dataclass(frozen=True)
class Law:
    """Numbers that should be equal, leaf by leaf.

    Attributes:
        name: such as ``linear in the cotangent``.
        leaves: names of the argument leaves; one empty name if there are none.
        residuals: the differences, in float64; zero where neither side is finite.
        sizes: the norms of what is compared.
        detail: what is compared, in words.
        once: whether a side was made elsewhere and is only stood in for by the program
            when rounding is redrawn: then the draws are compared with each other.
        units: of the error that is accepted: the norms of the derivatives.
        exact: whether no error is accepted but rounding.
    """

    name: str
    leaves: tuple[str, ...]
    residuals: tuple[np.ndarray, ...]
    sizes: tuple[float, ...]
    detail: str
    once: bool = False
    units: tuple[float, ...] = ()
    exact: bool = False


def law(
    name: str,
    leaves: Sequence[Any],
    left,
    right,
    /,
    *,
    like=None,
    units=None,
    detail: str = "",
    once: bool = False,
    exact: bool = False,
) -> Law:
    """The law that two tuples of arrays are equal.

    Args:
        name: of the law.
        leaves: names of the arrays.
        left: arrays; what is on trial.
        right: arrays of the same shapes.
        like: arrays whose norms are the scale, and whose finite entries are compared;
            the right side unless given.
        units: numbers that an error is relative to; the scale unless given.
        detail: what is compared, in words.
        once: whether a side was made elsewhere, and not by the program.
        exact: whether no error is accepted but rounding.

    >>> law("equal", ["x"], [np.ones(2)], [np.array([1.0, np.inf])]).residuals
    (array([0., 0.]),)
    """
    like = right if like is None else like
    pairs = [_compared(*three) for three in zip(left, right, like, strict=True)]
    residuals, sizes = zip(*pairs, strict=True)
    units = sizes if units is None else tuple(units)
    return Law(name, tuple(leaves), residuals, sizes, detail, once, units, exact)


@np.errstate(invalid="ignore", over="ignore")
def _compared(left, right, like):
    left, right, like = (np.asarray(a, np.float64) for a in (left, right, like))
    defined = np.isfinite(right) & np.isfinite(like)
    gap = np.where(defined, left - right, 0.0)
    # A number where one is expected, and none is: the largest error there is.
    gap = np.where(np.isfinite(gap), gap, np.inf)
    return gap, _norm(np.where(defined, like, 0.0))


def judge(
    program: Callable,
    inputs: Sequence[tuple],
    laws: Callable[[list], list[Law]],
    /,
    *,
    problem: Problem,
    rng: np.random.Generator,
    rtol: float = 0.0,
    again: Callable[..., list] | None = None,
    redraw: bool = True,
) -> tuple[Identity, ...]:
    """Tries laws on what a program computes.

    Args:
        program: function of arrays to a pytree of arrays. Compiled once.
        inputs: the arguments of its evaluations.
        laws: makes the laws from the list of results, in float64 on the host.
        problem: whose dtype rounds and whose settings are in force.
        rng: draws the rounding errors.
        rtol: a smaller relative error is not accused.
        again: from the compiled program to further results, obtained in some other way,
            each with the number of its input; they follow the others in the list.
        redraw: whether to ask how much rounding explains; if not, every law that does
            not hold to the usual rounding counts as broken.

    Returns:
        One record per law. A law is broken if its error is above ``rtol`` and above
        eight times the spread under redrawn rounding errors. If that cannot be computed
        the law holds, and the record says so.
    """
    closed, shape = jax.make_jaxpr(program, return_shape=True)(*inputs[0])
    tree = jax.tree.structure(shape)
    options = run_few_times(quick=problem.quick)
    compiled = shared_program(closed, options)

    def run(*arrays):
        still_in_time()
        return _host(tree, compiled(*jax.tree.leaves(arrays)))

    runs = [run(*arrays) for arrays in inputs]
    others = again(run) if again else []
    found = laws([*runs, *(result for _, result in others)])
    floors = [_floors(one, problem.dtype, rtol) for one in found]
    settled = all(_within(*pair) for pair in zip(found, floors, strict=True))
    if settled or not redraw:
        return tuple(map(_identity, found, floors))
    if rounding.iterates(closed):
        return tuple(map(_converged, found, floors))
    drawn = []
    draws = _draws(closed, tree, inputs, [n for n, _ in others], rng, options)
    for _ in range(_DRAWS):
        runs = attempt(next, draws)
        if isinstance(runs, Refusal):
            return tuple(
                _unmeasured(*pair, runs) for pair in zip(found, floors, strict=True)
            )
        drawn.append(laws(runs))
    spreads = _spreads(found, drawn)
    bars = [np.maximum(*pair) for pair in zip(floors, spreads, strict=True)]
    return tuple(map(_identity, found, bars))


def not_tried(name: str, reason: str | Refusal, /) -> Identity:
    """The record of a law for which the code has no use, or no room."""
    return Identity(0.0, np.inf, name, "", True, f"not tried: {reason}")


def _draws(
    closed: _compat.ClosedJaxpr,
    tree: Any,
    inputs: Sequence[Any],
    numbers,
    rng: np.random.Generator,
    options,
):
    """The results that `laws` takes, as often as asked, with redrawn rounding."""
    run = jax.jit(rounding.redrawn(closed), compiler_options=options)

    def once(seed, arrays):
        return _host(tree, run(np.uint32(seed), *jax.tree.leaves(arrays)))

    for _ in range(_DRAWS):
        seed, *others = rng.integers(2**32, size=1 + len(numbers))
        pairs = zip(others, numbers, strict=True)
        yield [
            *(once(seed, arrays) for arrays in inputs),
            *(once(other, inputs[number]) for other, number in pairs),
        ]


def _spreads(found, draws):
    """For each law and leaf, how far its residual moves when rounding is redrawn."""
    return [
        _MARGIN * np.max([_moves(*pair) for pair in _pairs(one, others)], axis=0)
        for one, *others in zip(found, *draws, strict=True)
    ]


def _pairs(one, others):
    """What is compared: each draw with what was found, or with another draw."""
    first = others[0] if one.once else one
    return [(first, other) for other in others]


def _moves(one, other):
    pairs = zip(one.residuals, other.residuals, strict=True)
    return [_apart(*pair) for pair in pairs]


@np.errstate(invalid="ignore")
def _apart(one, other) -> float:
    both = np.isfinite(one) & np.isfinite(other)
    if np.any(np.isinf(one) != np.isinf(other)):
        return np.inf
    return _norm(np.where(both, one - other, 0.0))


def _floors(one, dtype: DTypeLike, rtol: float | None):
    """Below this a law holds without a further look, leaf by leaf."""
    limits = jnp.finfo(dtype)
    counts = np.array([r.size for r in one.residuals])
    # Numbers that underflow are gone, whatever the size of the others.
    lost = 16 * float(limits.tiny) * np.sqrt(counts)
    usual = float(limits.eps) ** 0.75 * np.array(one.sizes) + lost
    if one.exact:
        return usual
    return np.maximum(usual, rtol * np.nan_to_num(one.units, posinf=0.0))


def _errors(one):
    return np.array([_norm(r) for r in one.residuals])


def _within(one, bars) -> bool:
    return bool(np.all(_errors(one) <= bars))


def _identity(one, bars) -> Identity:
    """The record of a law: of its worst leaf."""
    errors, units = _errors(one), np.array(one.units)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.where(errors > 0, errors / bars, 0.0)
    worst = int(np.argmax(excess))
    unit = units[worst] or 1.0
    holds = bool(errors[worst] <= bars[worst])
    return Identity(
        error=float(errors[worst] / unit),
        bar=float(bars[worst] / unit),
        name=one.name,
        leaf="" if holds else one.leaves[worst],
        holds=holds,
        detail=one.detail,
    )


def _converged(one, floors) -> Identity:
    if _within(one, floors):
        return _identity(one, floors)
    return not_tried(one.name, "f iterates until it converges, to unknown precision")


def _unmeasured(one, floors, refusal) -> Identity:
    held = _within(one, floors)
    return _identity(one, floors) if held else not_tried(one.name, refusal)


def _host(tree: Any, flat):
    return jax.tree.unflatten(tree, [np.asarray(a) for a in flat])


def _norm(a) -> float:
    size = root_mean_square(a) if a.size else 0.0
    return size * float(np.sqrt(a.size))
