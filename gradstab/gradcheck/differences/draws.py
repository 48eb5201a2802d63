"""The random directions and steps of one round of probes.

Directions and steps have half the digits of a number each: their products are exact, so
that it is known by how much an argument was really moved.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstab.gradcheck.differences.directions import (
    LARGE,
    NUM_COTANGENTS,
    NUM_TANGENTS,
    directions,
    few_digits,
)
from gradstab.gradcheck.differences.steps import FAR, ladder, replicates
from gradstab.gradcheck.subject.problem import Problem
from gradstab.gradcheck.subject.vectors import root_mean_square

# Of a ladder of so many levels none is left out.
_FEW = 8


@dataclasses.dataclass(frozen=True)
class Draw:
    """Random directions.

    Attributes:
        tangents: per leaf ``(num_tangents, *shape)``.
        cotangents: per output ``(num_cotangents, *shape)``.
        weights: ``(moves, leaves)``: by how much of its tangent each leaf is moved, one
            row for each leaf alone, and one for all together if there are several.
        sizes: per leaf, by which steps are measured.
        held: per leaf which entries are not moved; their tangents are zero.
        paired: whether the second three tangents are sums of the first three.
        outputs: the numbers of the outputs that are looked at, the cotangents of the
            others being zero; None for all.
    """

    tangents: tuple
    cotangents: tuple
    weights: np.ndarray
    sizes: tuple[float, ...]
    held: tuple[np.ndarray, ...]
    paired: bool = False
    outputs: tuple[int, ...] | None = None

    @property
    def is_large(self) -> bool:
        """Whether drawing it takes longer than looking along it at a few steps."""
        return sum(w[0].size for w in self.cotangents) > LARGE

    def at(self, point: tuple, /) -> "Draw | None":
        """The same directions elsewhere; None if other entries are held there."""
        held = held_entries(point)
        if not all(map(np.array_equal, held, self.held)):
            return None
        sizes = [size(x, h) for x, h in zip(point, held, strict=True)]
        return dataclasses.replace(self, weights=_weights(sizes), sizes=tuple(sizes))

    def astype(self, problem: Problem, /) -> "Draw":
        """The same directions in the dtypes of a problem, which must hold them."""
        tangents = zip(self.tangents, problem.leaves, strict=True)
        cotangents = zip(self.cotangents, problem.outputs, strict=True)
        return dataclasses.replace(
            self,
            tangents=tuple(v.astype(x.dtype) for v, x in tangents),
            cotangents=tuple(w.astype(y.dtype) for w, y in cotangents),
        )


@dataclasses.dataclass(frozen=True)
class Steps:
    """How far to go.

    Attributes:
        all: ``(moves, tangents, levels, replicates)``.
        rungs: ``(moves, levels)`` the levels, the largest first.
        scales: ``(moves,)`` the size of what is moved, in units of the step.
        far: like ``all``, at two levels above the size of what is moved.
        far_rungs: those levels.
    """

    all: np.ndarray
    rungs: np.ndarray
    scales: np.ndarray
    far: np.ndarray
    far_rungs: np.ndarray


def draw(
    problem: Problem,
    point: tuple,
    rng: np.random.Generator,
    /,
    *,
    paired: bool,
    proportional: bool = False,
    tied: bool = False,
    outputs: tuple[int, ...] | None = None,
    held: tuple | None = None,
    reach: tuple | None = None,
) -> Draw:
    """Fresh directions for a problem at a point; for the options see `Prober`."""
    held = held_entries(point) if held is None else held
    sizes = [size(x, h) for x, h in zip(point, held, strict=True)]
    if reach is not None:
        sizes = [s * r for s, r in zip(sizes, reach, strict=True)]
    tangents = [directions(rng, [x], num=NUM_TANGENTS)[0] for x in problem.leaves]
    if tied:
        tangents = _tied(tangents, point)
    cotangents = _cotangents(rng, problem.outputs, outputs)
    # The same directions are asked of f in its own precision.
    own = problem.own or problem
    chosen = [
        _tangents(v, _half(x.dtype), paired=paired)
        for v, x in zip(tangents, own.leaves, strict=True)
    ]
    if proportional:
        pairs = zip(point, held, strict=True)
        free = [np.where(h, 0.0, np.asarray(x)) for x, h in pairs]
        chosen = [
            (v * shares(x)).astype(v.dtype) for v, x in zip(chosen, free, strict=True)
        ]
    chosen = [
        np.where(h, v.dtype.type(0), v) if h.any() else v
        for v, h in zip(chosen, held, strict=True)
    ]
    return Draw(
        tuple(chosen),
        tuple(
            few_digits(w, _half(y.dtype)).astype(w.dtype, copy=False)
            for w, y in zip(cotangents, own.outputs, strict=True)
        ),
        _weights(sizes),
        tuple(sizes),
        tuple(held),
        paired,
        outputs,
    )


def toward(
    draw: Draw, problem: Problem, leaf: int, /, *, tangents=None, cotangents: Any = None
):
    """The draw with chosen directions for one leaf, and the first cotangents chosen.

    Args:
        draw: the other directions.
        problem: in whose digits they are to be.
        leaf: its number.
        tangents: ``(num_tangents, *shape)``, of any length but zero.
        cotangents: per output ``(num_tangents, *shape)``, together one vector.

    Returns:
        A draw whose chosen directions have a root mean square of one.
    """
    own, chosen = problem.own or problem, {}
    if tangents is not None:
        v = _scaled((tangents,))[0]
        dtype = draw.tangents[leaf].dtype
        v = few_digits(v, _half(own.leaves[leaf].dtype)).astype(dtype)
        v = np.where(draw.held[leaf], dtype.type(0), v)
        chosen["tangents"] = (*draw.tangents[:leaf], v, *draw.tangents[leaf + 1 :])
    if cotangents is not None:
        scaled = zip(_scaled(cotangents), draw.cotangents, own.outputs, strict=True)
        chosen["cotangents"] = tuple(
            np.concatenate(
                [few_digits(w, _half(y.dtype)).astype(old.dtype), old[len(w) :]]
            )
            for w, old, y in scaled
        )
    return dataclasses.replace(draw, **chosen)


def _scaled(vectors):
    """Rows over several arrays, each with a root mean square of one."""
    flat = [np.asarray(v, np.float64) for v in vectors]
    rows = np.concatenate([v.reshape(len(v), -1) for v in flat], axis=1)
    sizes = np.array([root_mean_square(row) for row in rows])
    return [v / sizes.reshape(-1, *[1] * (v.ndim - 1)) for v in flat]


def steps(
    point: tuple,
    draw: Draw,
    rng: np.random.Generator,
    /,
    *,
    dtype: DTypeLike,
    coarse: bool,
    largest: float = 1.0,
) -> Steps:
    """Steps along a ladder, in proportion to the size of what is moved.

    Args:
        point: the leaves.
        draw: the directions.
        rng: of the jitter.
        dtype: that f computes in.
        coarse: leave out every other level.
        largest: no level is above this.
    """
    together = [1.0] * (len(draw.weights) - len(point))
    scales = np.array([*draw.sizes, *together])
    levels = ladder(dtype)
    levels = levels[::2] if coarse and len(levels) > _FEW else levels
    rungs = np.outer(scales, levels[levels <= largest])
    far_rungs = np.outer(scales, FAR)
    # No two grids share a point: mirrored directions and halved steps would.
    grids = replicates(dtype)
    jitter = rng.uniform(0.9, 1.1, (len(scales), NUM_TANGENTS, len(grids)))
    digits = [_half(x.dtype) for x in point]
    digits += [min(digits)] * len(together)

    def grid(rungs):
        exact = np.einsum("il,ikm,m->iklm", rungs, jitter, grids)
        return np.stack(list(map(few_digits, exact, digits)))

    return Steps(grid(rungs), rungs, scales, grid(far_rungs), far_rungs)


def held_entries(point: tuple, /) -> tuple[np.ndarray, ...]:
    """Per leaf which entries cannot be moved, because they are not finite."""
    return tuple(~np.isfinite(np.asarray(x, np.float64)) for x in point)


def size(leaf: Any, held=None, /) -> float:
    """The root mean square of an argument, by which steps are measured; 1 if zero.

    Args:
        leaf: the argument.
        held: its entries that do not count.
    """
    entries = np.asarray(leaf, np.float64)
    entries = entries if held is None else entries[~held]
    found = root_mean_square(entries) if entries.size else 0.0
    return found if np.isfinite(found) and found > 0 else 1.0


def _cotangents(rng: np.random.Generator, like, watched):
    """Random vectors over the outputs that are looked at, zero for the others."""
    if watched is None:
        return directions(rng, like, num=NUM_COTANGENTS)
    drawn = directions(rng, [like[i] for i in watched], num=NUM_COTANGENTS)
    zeros = [np.zeros((NUM_COTANGENTS, *y.shape), y.dtype) for y in like]
    chosen = dict(zip(watched, drawn, strict=True))
    return tuple(chosen.get(i, zero) for i, zero in enumerate(zeros))


def _tied(tangents, point: Sequence[Any]):
    """The tangents, alike for all entries of one value, of any leaf."""
    values = np.concatenate([np.asarray(x, np.float64).ravel() for x in point])
    _, first, shared = np.unique(values, return_index=True, return_inverse=True)
    rows = np.concatenate([v.reshape(len(v), -1) for v in tangents], axis=1)
    parts = np.split(rows[:, first[shared]], np.cumsum([x.size for x in point])[:-1], 1)
    pairs = zip(parts, tangents, strict=True)
    return [part.reshape(v.shape).astype(v.dtype) for part, v in pairs]


def shares(leaf, /) -> np.ndarray:
    """The size of every entry beside that of the leaf, as powers of two; of zeros one.

    Exact: sums of directions in proportion are sums still.
    """
    shares = np.abs(np.asarray(leaf, np.float64)) / size(leaf)
    return 2.0 ** np.round(np.log2(np.where(shares == 0, 1.0, shares)))


def _weights(sizes):
    """Each leaf alone, and all in proportion to their sizes, as powers of two."""
    alone = np.eye(len(sizes))
    if len(sizes) == 1:
        return alone
    together = [2.0 ** np.round(np.log2(s)) for s in sizes]
    return np.vstack([alone, together])


def _tangents(v, digits, *, paired):
    dtype = v.dtype
    if not paired:
        return few_digits(v, digits).astype(dtype, copy=False)
    # Multiples of one number, so that a sum has no more digits than its terms.
    grid = 2.0 ** (2 - digits) * 2.0 ** np.ceil(np.log2(np.max(np.abs(v)) or 1.0))
    v = np.round(np.asarray(v, np.float64) / grid) * grid
    one, two, three = v[:3]
    v[3:] = one + two, two + three, one - three
    return v.astype(dtype)


def _half(dtype: DTypeLike) -> int:
    """Half the binary digits of a number."""
    return (jnp.finfo(dtype).nmant + 1) // 2
