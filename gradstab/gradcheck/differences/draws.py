"""The random directions and steps of one round of probes.

Directions and steps have half the digits of a number each: their products are exact, so
that it is known by how much an argument was really moved.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.differences.directions import (
    NUM_COTANGENTS,
    NUM_TANGENTS,
    directions,
    few_digits,
)
from gradstab.gradcheck.differences.steps import ladder, replicates
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
        paired: whether the second three tangents are sums of the first three.
        outputs: the numbers of the outputs that are looked at, the cotangents of the
            others being zero; None for all.
    """

    tangents: tuple
    cotangents: tuple
    weights: np.ndarray
    paired: bool = False
    outputs: tuple[int, ...] | None = None

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
    """

    all: np.ndarray
    rungs: np.ndarray
    scales: np.ndarray


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
) -> Draw:
    """Fresh directions for a problem at a point; for the options see `Prober`."""
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
        chosen = [
            (v * _shares(x)).astype(v.dtype) for v, x in zip(chosen, point, strict=True)
        ]
    return Draw(
        tuple(chosen),
        tuple(
            few_digits(w, _half(y.dtype)).astype(w.dtype)
            for w, y in zip(cotangents, own.outputs, strict=True)
        ),
        _weights(point),
        paired,
        outputs,
    )


def toward(
    draw: Draw, problem: Problem, leaf: int, /, *, tangents=None, cotangents=None
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
    point: tuple, weights, rng: np.random.Generator, /, *, dtype, coarse: bool
) -> Steps:
    """Steps along a ladder, in proportion to the size of what is moved."""
    sizes = [size(x) for x in point]
    together = [1.0] * (len(weights) - len(point))
    scales = np.array([*sizes, *together])
    levels = ladder(dtype)
    rungs = np.outer(scales, levels[::2] if coarse and len(levels) > _FEW else levels)
    # No two grids share a point: mirrored directions and halved steps would.
    grids = replicates(dtype)
    jitter = rng.uniform(0.9, 1.1, (len(scales), NUM_TANGENTS, len(grids)))
    grid = np.einsum("il,ikm,m->iklm", rungs, jitter, grids)
    digits = [_half(x.dtype) for x in point]
    digits += [min(digits)] * len(together)
    return Steps(np.stack(list(map(few_digits, grid, digits))), rungs, scales)


def size(leaf, /) -> float:
    """The root mean square of an argument, by which steps are measured; 1 if zero."""
    found = root_mean_square(leaf)
    return found if np.isfinite(found) and found > 0 else 1.0


def _cotangents(rng, like, watched):
    """Random vectors over the outputs that are looked at, zero for the others."""
    if watched is None:
        return directions(rng, like, num=NUM_COTANGENTS)
    drawn = directions(rng, [like[i] for i in watched], num=NUM_COTANGENTS)
    zeros = [np.zeros((NUM_COTANGENTS, *y.shape), y.dtype) for y in like]
    chosen = dict(zip(watched, drawn, strict=True))
    return tuple(chosen.get(i, zero) for i, zero in enumerate(zeros))


def _tied(tangents, point):
    """The tangents, alike for all entries of one value, of any leaf."""
    values = np.concatenate([np.asarray(x, np.float64).ravel() for x in point])
    _, first, shared = np.unique(values, return_index=True, return_inverse=True)
    rows = np.concatenate([v.reshape(len(v), -1) for v in tangents], axis=1)
    parts = np.split(rows[:, first[shared]], np.cumsum([x.size for x in point])[:-1], 1)
    pairs = zip(parts, tangents, strict=True)
    return [part.reshape(v.shape).astype(v.dtype) for part, v in pairs]


def _shares(leaf):
    """The size of every entry beside that of the leaf, as powers of two; of zeros one.

    Exact: sums of directions in proportion are sums still.
    """
    shares = np.abs(np.asarray(leaf, np.float64)) / size(leaf)
    return 2.0 ** np.round(np.log2(np.where(shares == 0, 1.0, shares)))


def _weights(point):
    """Each leaf alone, and all in proportion to their sizes, as powers of two."""
    alone = np.eye(len(point))
    if len(point) == 1:
        return alone
    together = [2.0 ** np.round(np.log2(size(x))) for x in point]
    return np.vstack([alone, together])


def _tangents(v, digits, *, paired):
    dtype = v.dtype
    if not paired:
        return few_digits(v, digits).astype(dtype)
    # Multiples of one number, so that a sum has no more digits than its terms.
    grid = 2.0 ** (2 - digits) * 2.0 ** np.ceil(np.log2(np.max(np.abs(v)) or 1.0))
    v = np.round(np.asarray(v, np.float64) / grid) * grid
    one, two, three = v[:3]
    v[3:] = one + two, two + three, one - three
    return v.astype(dtype)


def _half(dtype) -> int:
    """Half the binary digits of a number."""
    return (jnp.finfo(dtype).nmant + 1) // 2
