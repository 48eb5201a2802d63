"""What one round of evaluations saw, in float64 on the host."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from gradstab.gradcheck.differences.by_output import (
    columns_of,
    sizes_of_outputs,
)
from gradstab.gradcheck.differences.directions import (
    LARGE,
    NUM_COTANGENTS,
    NUM_TANGENTS,
)
from gradstab.gradcheck.differences.draws import Draw, draw, steps
from gradstab.gradcheck.differences.shown import shown
from gradstab.gradcheck.differences.steps import ladder, replicates
from gradstab.gradcheck.differences.tables import (
    norm,
    num_rules,
    paired,
    rule_tables,
    unit,
    vectors,
)
from gradstab.gradcheck.subject.problem import MODES, Problem
from gradstab.gradcheck.subject.programs import Programs
from gradstab.gradcheck.subject.vectors import root_mean_square

# Probes that would need more than this at once are taken in turns.
MAX_BYTES = 2**28

# An iteration that converges at the point need not a little farther away.
_NEAR = 2.0**-3

# Rounding of a derivative whose terms cancel, in units of f's value over the argument.
CANCELLED = 100


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
        paired: whether the second three tangents are sums of the first three.
        sizes: ``(outputs,)`` of the Jacobian of each output alone. Of one that does not
            move, its value over the scale; of one that moves far away only, zero; of
            one that is not looked at, infinite. Empty if there is but one.
        still: ``(outputs,)`` whether each output that is looked at does not move near
            the point. Empty if there is but one.
        movable: whether any entry is moved.
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
    paired: bool = False
    sizes: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    still: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, bool))
    movable: bool = True


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one round of probes saw.

    Attributes:
        leaves: one record per argument leaf, and, if there are several, one for all of
            them moved together.
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
    draw: Draw


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
        self,
        point,
        rng: np.random.Generator,
        /,
        *,
        coarse: bool = False,
        paired: bool = False,
        proportional: bool = False,
        tied: bool = False,
        outputs: tuple[int, ...] | None = None,
        held: tuple | None = None,
        reach: tuple | None = None,
    ) -> Measurement:
        """One round at ``point``, along fresh directions.

        Args:
            point: the leaves.
            rng: of the directions.
            coarse: leave out every other level.
            paired: make the second three tangents sums of the first three (1 + 2,
                2 + 3, 1 - 3), to see whether the derivative is linear in its direction.
            proportional: move every entry in proportion to itself, so that small ones
                keep their sign.
            tied: move equal entries alike, in all leaves: ties stay ties.
            outputs: the numbers of those to look at; None for all.
            held: per leaf which entries are not to be moved; by default those that are
                not finite.
            reach: per leaf, how many times as far to go as the leaf is large.
        """
        drawn = draw(
            self.problem,
            tuple(point),
            rng,
            paired=paired,
            proportional=proportional,
            tied=tied,
            outputs=outputs,
            held=held,
            reach=reach,
        )
        return self.along(tuple(point), drawn, rng, coarse=coarse)

    def along(self, point, drawn: Draw, rng, /, *, coarse: bool = False) -> Measurement:
        """One round along directions that were drawn before.

        Costs two evaluations of f per leaf, tangent, replicate and level of the ladder.
        First f is called near the point only. Farther away it is called for leaves that
        do not move it, or have no slope: it may be saturated there, or constant.
        """
        task = self.problem
        tables = rule_tables(self.programs, point, drawn)
        largest = _NEAR if task.iterates else 1.0
        options = {"dtype": task.dtype, "coarse": coarse, "largest": largest}
        chosen = steps(point, drawn, rng, **options)
        moves = np.arange(len(drawn.weights))
        near = _differences(self.programs, point, drawn, tables, chosen.all, moves)
        scales, eps = chosen.scales, float(jnp.finfo(task.dtype).eps)
        leaves = [
            _one_move(tables, near, i, chosen.rungs[i], scales[i], eps, drawn)
            for i in moves
        ]
        spent = chosen.all.size
        still = [i for i in moves if _may_be_flat(leaves[i], task.dtype)]
        if still and not task.iterates:
            far = _differences(
                self.programs, point, drawn, tables, chosen.far[still], np.array(still)
            )
            for n, i in enumerate(still):
                given = chosen.far_rungs[i], scales[i], eps, drawn
                beyond = _one_move(tables, far, i, *given, n=n)
                leaves[i] = _extended(leaves[i], beyond)
            spent += chosen.far[still].size
        slack = np.sqrt(eps) * tables["norm"]
        return Measurement(
            leaves=tuple(leaves),
            finite=bool(np.all(np.isfinite(tables["value"]))),
            repeats=bool(tables["gap"] <= slack),
            maps=bool(tables["gap_mapped"] <= slack),
            value=tables["value"],
            evaluations=2 * spent + num_rules(task),
            draw=drawn,
        )


def num_lanes(problem: Problem, max_bytes: int, /) -> int:
    """How many probes fit: both ends in their own dtype, and float64 copies of both."""
    outputs = sum(y.size for y in problem.outputs)
    fitting = max_bytes // (2 * problem.footprint + 32 * outputs + 1)
    # So many are two turns of a leaf. Every round is to be of turns of one size.
    grids, levels = replicates(problem.dtype), ladder(problem.dtype)[::2]
    turn = NUM_TANGENTS * len(grids) * len(levels)
    return int(np.clip(fitting, 1, turn))


@np.errstate(all="ignore")
def _differences(programs, point, draw, tables, steps, moves) -> dict:
    """What every probe shows; arrays of the shape of the steps, and of the entries.

    The steps ``(len(moves), tangents, levels, replicates)`` are those of some moves.
    """
    i, k, *_ = (a.ravel() for a in np.indices(steps.shape, np.int32))
    i, h = moves.astype(np.int32)[i], steps.ravel()
    anchor, slopes = _anchor(tables, draw)
    outputs = programs.problem.outputs
    watched = range(len(outputs)) if draw.outputs is None else draw.outputs
    columns = columns_of(outputs, draw.outputs)
    value = tables["value"][columns]
    size = unit(value)
    middle = value / size
    cotangents = vectors(draw.cotangents)[:, columns] * size
    ends = np.cumsum([outputs[n].size for n in watched])[:-1]
    probes = []
    moved = _narrow(h, point)
    known = None if _rounds_little(point) else anchor
    turns = programs.ends(point, draw, known, i, k, moved)
    for where, there, here, nudge in turns:
        there, here = (vectors(y)[:, columns] for y in (there, here))
        seen = shown(there, here, middle, cotangents, size, ends)
        expected = 2 * h[where, None] * slopes[i[where], k[where]]
        residual = seen["products"] - expected + nudge.reshape(len(there), -1)
        probes.append(
            {
                "residual": residual / (2 * h[where, None]),
                "norm": size * seen["norm"],
                "moved": size * seen["moved"],
                "bend": size * seen["bend"] / (2 * h[where]),
                "jump": seen["jump"],
                "norms": size * seen["norms"],
                "slopes_of": size * seen["changes"] / (2 * h[where, None]),
            }
        )
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *probes)
    seen = {n: a.reshape(*steps.shape, *a.shape[1:]) for n, a in whole.items()}
    return seen | {
        "slopes": slopes,
        "value": norm(value),
        "watched": watched,
        "outputs": len(outputs),
    }


def _rounds_little(point) -> bool:
    """Whether rounding x + h v, at 1e-16 of x, is not worth the price of correcting."""
    size = sum(x.size for x in point)
    # With so many entries the correction doubles the cost of a probe.
    return size > LARGE and all(x.dtype == np.float64 for x in point)


def _narrow(h, point):
    """The steps, in a dtype that every leaf's step survives unchanged."""
    return h.astype(max((x.dtype for x in point), key=lambda d: jnp.finfo(d).nmant))


def _anchor(tables, draw):
    """The finite part of the gradients, and its entries; zero without gradients."""
    if "gradients" not in tables:
        return None, np.zeros((len(draw.weights), NUM_TANGENTS, NUM_COTANGENTS))
    if all(np.all(np.isfinite(g)) for g in tables["gradients"]):
        return tables["gradients"], tables["reverse"]
    finite = tuple(
        np.where(np.isfinite(g), g, g.dtype.type(0)) for g in tables["gradients"]
    )
    return finite, paired(draw, finite)


@np.errstate(invalid="ignore", over="ignore")
def _one_move(tables, seen, i, rungs, scale, eps, draw: Draw, n=None) -> Probes:
    """What was seen of move i, the n-th of those that were made."""
    n = i if n is None else n

    def rms(a):  # over directions and replicates
        return np.sqrt(np.mean(np.square(a[n]), axis=(0, 2)))

    residual = np.moveaxis(seen["residual"][n], 0, 2)  # levels, replicates, k, j
    norms = rms(seen["norm"])
    near = norms[(rungs <= scale) & np.isfinite(norms)]
    several = i < len(draw.sizes) and len(seen["watched"]) > 1
    return Probes(
        rules=_rules(tables, i, draw),
        anchor=seen["slopes"][i].ravel(),
        residual=residual.reshape(*residual.shape[:2], -1),
        rounding=eps * norms,
        moved=rms(seen["moved"]),
        bend=rms(seen["bend"]),
        jump=float(np.fmin.reduce(seen["jump"][n].ravel())),
        steps=rungs,
        scale=float(scale),
        value=float(np.max(near, initial=seen["value"])),
        paired=draw.paired,
        **(sizes_of_outputs(seen, n, rungs, scale, eps) if several else {}),
        movable=not all(h.all() for h in _held_by(draw, i)),
    )


def _rules(tables, i, draw: Draw) -> dict:
    """What the rules say of a move.

    Where entries are held a JVP may be 0 * inf, which says nothing: it is left out if
    there is a VJP, in which such entries are apart from the others.
    """
    found = {mode: tables[mode][i].ravel() for mode in MODES if mode in tables}
    held = [h for h in _held_by(draw, i) if not h.all()]
    if (
        any(h.any() for h in held)
        and len(found) > 1
        and not np.all(np.isfinite(found["forward"]))
    ):
        del found["forward"]
    return found


def _held_by(draw: Draw, i) -> tuple:
    """The held entries of what is moved."""
    return draw.held[i : i + 1] or draw.held


def _may_be_flat(probes: Probes, dtype) -> bool:
    """Whether an output does not move, or a rule says that f has no slope."""
    zero = rounding_of_zero(probes, dtype) if dtype == np.float64 else 0.0
    flat = any(root_mean_square(rule) <= zero for rule in probes.rules.values())
    still = probes.moved[:1] <= 10 * probes.rounding[:1]
    return flat or bool(still.any() or probes.still.any())


def rounding_of_zero(probes: Probes, dtype, /) -> float:
    """What rounding inside of a rule may leave of a derivative that is zero."""
    eps = float(jnp.finfo(dtype).eps)
    return CANCELLED * eps * probes.value / probes.scale


def _extended(near: Probes, far: Probes) -> Probes:
    """The probes near the point, and those farther away as the first levels."""
    levels = ("residual", "rounding", "moved", "bend", "steps")
    both = {n: np.concatenate([getattr(far, n), getattr(near, n)]) for n in levels}
    if len(near.sizes):
        both["sizes"] = np.where(near.still & (far.sizes == 0), 0.0, near.sizes)
    return dataclasses.replace(near, jump=min(near.jump, far.jump), **both)
