"""What one round of evaluations saw, in float64 on the host."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.directions import (
    NUM_COTANGENTS,
    NUM_TANGENTS,
    directions,
    few_digits,
    root_mean_square,
)
from gradstab.gradcheck.problem import MODES, Problem
from gradstab.gradcheck.programs import Programs
from gradstab.gradcheck.steps import REPLICATES, ladder

# Probes that would need more than this at once are taken in turns.
MAX_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class Probes:
    r"""The tables of one argument leaf.

    With tangents ``v_k`` and cotangents ``w_j``, an *entry* is a pair ``(k, j)``.

    Attributes:
        rules: for each mode, the entries :math:`\langle w_j, J v_k \rangle` by the
            rule.
        anchor: those of the VJP with its non-finite numbers set to zero (zero if the
            VJP is not checked).
        residual: ``(levels, replicates, entries)``: central differences minus anchor.
        rounding: ``(levels,)`` by how much rounding alone changes f, root mean square.
        moved: ``(levels,)`` by how much the step did.
        bend: ``(levels,)`` half the gap between the slopes ahead and behind.
        jump: the least change of an output that changed, over the largest output;
            infinite if none did.
        steps: ``(levels,)`` the steps, the largest first.
        scale: of the leaf: its root mean square.
        value: the largest norm of f's value within that distance.
    """

    rules: dict[str, np.ndarray]
    anchor: np.ndarray
    residual: np.ndarray
    rounding: np.ndarray
    moved: np.ndarray
    bend: np.ndarray
    jump: float
    steps: np.ndarray
    scale: float
    value: float


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one round of probes saw.

    Attributes:
        leaves: one record per argument leaf.
        finite: whether f is finite at the point.
        repeats: whether f gave the same value again.
        maps: whether f gave it as one of several points too.
        value: all outputs as one vector.
        evaluations: of f, its JVP and its VJP.
        draw: the directions, to ask other functions along the same.
    """

    leaves: tuple[Probes, ...]
    finite: bool
    repeats: bool
    maps: bool
    value: np.ndarray
    evaluations: int
    draw: "Draw"


@dataclasses.dataclass(frozen=True)
class Draw:
    """Random directions.

    Attributes:
        tangents: per leaf ``(num_tangents, *shape)``.
        cotangents: per output ``(num_cotangents, *shape)``.
    """

    tangents: tuple
    cotangents: tuple

    def astype(self, problem: Problem, /) -> "Draw":
        """The same directions in the dtypes of a problem, which must hold them."""
        tangents = zip(self.tangents, problem.leaves, strict=True)
        cotangents = zip(self.cotangents, problem.outputs, strict=True)
        return Draw(
            tuple(v.astype(x.dtype) for v, x in tangents),
            tuple(w.astype(y.dtype) for w, y in cotangents),
        )


class Prober:
    """Measures one problem as often as asked; compiles once.

    Args:
        problem: what is checked.
        max_bytes: how much memory the evaluations under way may take.
    """

    def __init__(self, problem: Problem, /, *, max_bytes: int = MAX_BYTES):
        self.problem = problem
        self.programs = Programs(problem, lanes=num_lanes(problem, max_bytes))

    def __call__(
        self, point, rng: np.random.Generator, /, *, coarse: bool = False
    ) -> Measurement:
        """One round at ``point``, along fresh directions.

        Costs two evaluations of f per leaf, tangent, replicate and level of the ladder;
        every other level is left out if ``coarse``.
        """
        point = tuple(point)
        draw = _draw(self.problem, rng)
        tables = rule_tables(self.programs, point, draw)
        steps, rungs, scales = _steps(point, rng, self.problem.dtype, coarse=coarse)
        seen = _differences(self.programs, point, draw, tables, steps)
        eps = float(jnp.finfo(self.problem.dtype).eps)
        slack = np.sqrt(eps) * tables["norm"]
        return Measurement(
            leaves=tuple(
                _one_leaf(tables, seen, i, rungs[i], scales[i], eps)
                for i in range(len(point))
            ),
            finite=bool(np.all(np.isfinite(tables["value"]))),
            repeats=bool(tables["gap"] <= slack),
            maps=bool(tables["gap_mapped"] <= slack),
            value=tables["value"],
            evaluations=2 * steps.size + num_rules(self.problem),
            draw=draw,
        )


def num_lanes(problem: Problem, max_bytes: int, /) -> int:
    """How many probes fit: both ends in their own dtype, and float64 copies of both."""
    outputs = sum(y.size for y in problem.outputs)
    fitting = max_bytes // (2 * problem.footprint + 32 * outputs + 1)
    # So many are two turns of a leaf. Every round is to be of turns of one size.
    turn = NUM_TANGENTS * len(REPLICATES) * len(ladder(problem.dtype)[::2])
    return int(np.clip(fitting, 1, turn))


def num_rules(problem: Problem, /) -> int:
    """Evaluations of f and its rules in one call of `rule_tables`."""
    rules = len(problem.leaves) * NUM_TANGENTS if "forward" in problem.modes else 0
    return rules + (NUM_COTANGENTS if "reverse" in problem.modes else 0) + 4


def rule_tables(programs: Programs, point, draw: Draw, /) -> dict:
    """What the rules of a function say along the directions.

    Returns:
        For every mode that was asked for its entries ``(leaves, tangents,
        cotangents)``; ``gradients``, per leaf the VJPs of the cotangents; ``value``,
        all outputs as one vector, ``norm``, its Euclidean norm, and by how much it
        changed when computed again, ``gap``, and among others, ``gap_mapped``.
    """
    raw = programs.rules(point, draw.tangents, draw.cotangents)
    value = _vector(raw["value"])
    with np.errstate(all="ignore"):
        tables = {
            "value": value,
            "norm": _norm(value),
            "gap": _norm(_vector(raw["again"]) - value),
            "gap_mapped": _norm(_vector(raw["mapped"]) - value),
        }
        if "reverse" in raw:
            tables["gradients"] = raw["reverse"]
            tables["reverse"] = _paired(draw.tangents, raw["reverse"])
        if "forward" in raw:
            moved = _vectors(raw["forward"], axes=2)
            tables["forward"] = moved @ _vectors(draw.cotangents).T
    return tables


def _draw(problem, rng) -> Draw:
    """Directions with so few digits that products with the steps are exact."""
    tangents = [directions(rng, [x], num=NUM_TANGENTS)[0] for x in problem.leaves]
    cotangents = directions(rng, problem.outputs, num=NUM_COTANGENTS)
    # The same directions are asked of f in its own precision.
    own = problem.own or problem
    return Draw(
        tuple(
            few_digits(v, _half(x.dtype)).astype(v.dtype)
            for v, x in zip(tangents, own.leaves, strict=True)
        ),
        tuple(
            few_digits(w, _half(y.dtype)).astype(w.dtype)
            for w, y in zip(cotangents, own.outputs, strict=True)
        ),
    )


def _half(dtype) -> int:
    """Half the binary digits of a number."""
    return (jnp.finfo(dtype).nmant + 1) // 2


def _steps(point, rng, dtype, *, coarse):
    """The steps (leaves, tangents, levels, replicates), their levels, and the sizes."""
    scales = np.array([_size(x) for x in point])
    rungs = np.outer(scales, ladder(dtype)[:: 1 + coarse])
    # No two grids share a point: mirrored directions and halved steps would.
    jitter = rng.uniform(0.9, 1.1, (len(point), NUM_TANGENTS, len(REPLICATES)))
    steps = np.einsum("il,ikm,m->iklm", rungs, jitter, REPLICATES)
    digits = [_half(x.dtype) for x in point]
    return np.stack(list(map(few_digits, steps, digits))), rungs, scales


def _size(leaf) -> float:
    """The root mean square of an argument, by which steps are measured; 1 if zero."""
    size = root_mean_square(leaf)
    return size if np.isfinite(size) and size > 0 else 1.0


@np.errstate(all="ignore")
def _differences(programs, point, draw, tables, steps) -> dict:
    """What every probe shows; arrays of the shape of the steps, and of the entries."""
    i, k, *_ = (a.ravel() for a in np.indices(steps.shape, np.int32))
    h = steps.ravel()
    anchor, slopes = _anchor(tables, draw)
    unit = _unit(tables["value"])
    cotangents = _vectors(draw.cotangents) * unit
    probes = []
    turns = programs.ends(point, draw.tangents, anchor, i, k, _narrow(h, point))
    for where, there, here, nudge in turns:
        there, here = (_vectors(y) / unit for y in (there, here))
        change = there - here
        bend = change - 2 * (tables["value"] / unit - here)
        expected = 2 * h[where, None] * slopes[i[where], k[where]]
        residual = change @ cotangents.T - expected + nudge.reshape(len(change), -1)
        probes.append(
            {
                "residual": residual / (2 * h[where, None]),
                "norm": unit * _norm(there),
                "moved": unit * _norm(change),
                "bend": unit * _norm(bend) / (2 * h[where]),
                "jump": _least(change),
            }
        )
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *probes)
    seen = {n: a.reshape(*steps.shape, *a.shape[1:]) for n, a in whole.items()}
    return seen | {"slopes": slopes}


def _narrow(h, point):
    """The steps, in a dtype that every leaf's step survives unchanged."""
    return h.astype(max((x.dtype for x in point), key=lambda d: jnp.finfo(d).nmant))


def _anchor(tables, draw):
    """The finite part of the gradients, and its entries; zero without gradients."""
    if "gradients" not in tables:
        shape = len(draw.tangents), NUM_TANGENTS, NUM_COTANGENTS
        return None, np.zeros(shape)
    finite = tuple(
        np.where(np.isfinite(g), g, g.dtype.type(0)) for g in tables["gradients"]
    )
    return finite, _paired(draw.tangents, finite)


@np.errstate(invalid="ignore", over="ignore")
def _one_leaf(tables, seen, i, steps, scale, eps) -> Probes:
    def rms(a):  # over directions and replicates
        return np.sqrt(np.mean(np.square(a[i]), axis=(0, 2)))

    residual = np.moveaxis(seen["residual"][i], 0, 2)  # levels, replicates, k, j
    norms = rms(seen["norm"])
    near = norms[(steps <= scale) & np.isfinite(norms)]
    return Probes(
        rules={mode: tables[mode][i].ravel() for mode in MODES if mode in tables},
        anchor=seen["slopes"][i].ravel(),
        residual=residual.reshape(*residual.shape[:2], -1),
        rounding=eps * norms,
        moved=rms(seen["moved"]),
        bend=rms(seen["bend"]),
        jump=float(np.fmin.reduce(seen["jump"][i].ravel())),
        steps=steps,
        scale=float(scale),
        value=float(np.max(near, initial=tables["norm"])),
    )


def _paired(tangents, gradients):
    """<g_j, v_k> leaf by leaf: (leaves, tangents, cotangents)."""
    pairs = zip(tangents, gradients, strict=True)
    return np.stack([_vectors([v]) @ _vectors([g]).T for v, g in pairs])


def _vector(arrays):
    return np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays])


def _vectors(arrays, *, axes=1):
    """All arrays side by side, as vectors behind the leading axes, in float64."""
    flat = [np.asarray(a, np.float64) for a in arrays]
    flat = [a.reshape(*a.shape[:axes], -1) for a in flat]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=-1)


def _unit(value):
    largest = np.max(np.abs(value))
    return largest if np.isfinite(largest) and largest > 0 else 1.0


def _least(change):
    """The smallest magnitude that is not zero; infinite if there is none."""
    return np.min(np.where(change == 0, np.inf, np.abs(change)), axis=-1)


def _norm(vectors):
    """Euclidean norms over the last axis, without overflow."""
    unit = _unit(vectors)
    return unit * np.sqrt(np.sum(np.square(vectors / unit), axis=-1))
