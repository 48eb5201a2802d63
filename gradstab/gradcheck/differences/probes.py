"""What one round of evaluations saw, in float64 on the host."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from gradstab.gradcheck.differences.both_sides import joined, on_both_sides
from gradstab.gradcheck.differences.by_output import sizes_of_outputs
from gradstab.gradcheck.differences.directions import NUM_TANGENTS
from gradstab.gradcheck.differences.draws import Draw, draw, steps
from gradstab.gradcheck.differences.steps import ladder, replicates
from gradstab.gradcheck.differences.tables import num_rules, rule_tables
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

    @property
    def trouble(self) -> str:
        """Why nothing can be said at the point; empty if something can."""
        if not self.finite:
            return "f is not finite at the point"
        if not self.repeats:
            return "f is not deterministic: the same arguments gave another value"
        return ""


class Prober:
    """Measures one problem as often as asked; compiles once.

    Args:
        problem: what is checked.
        max_bytes: how much memory the evaluations under way may take.
    """

    def __init__(self, problem: Problem, /, *, max_bytes: int = MAX_BYTES):
        self.problem = problem
        self.programs = Programs(problem, lanes=num_lanes(problem, max_bytes))
        self._drawn: Draw | None = None

    def __call__(
        self,
        point: tuple,
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
        enough: Callable | None = None,
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
            enough: see `along`. Large directions are drawn once for all such rounds.
        """
        again = self._drawn and enough and self._drawn.at(tuple(point))
        drawn = again or draw(
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
        if enough is not None and drawn.is_large:
            self._drawn = drawn
        return self.along(tuple(point), drawn, rng, coarse=coarse, enough=enough)

    def along(
        self,
        point: tuple,
        drawn: Draw,
        rng: np.random.Generator,
        /,
        *,
        coarse: bool = False,
        enough: Callable | None = None,
    ) -> Measurement:
        """One round along directions that were drawn before.

        Costs two evaluations of f per leaf, tangent, replicate and level of the ladder.
        First f is called near the point only. Farther away it is called for leaves that
        do not move it, or have no slope: it may be saturated there, or constant.

        Args:
            point: the leaves.
            drawn: the directions.
            rng: of the steps.
            coarse: leave out every other level.
            enough: told what half of the levels show, whether the others are not
                needed.
        """
        task = self.problem
        tables = rule_tables(self.programs, point, drawn)
        largest = _NEAR if task.iterates else 1.0
        options = {"dtype": task.dtype, "coarse": coarse, "largest": largest}
        chosen = steps(point, drawn, rng, **options)
        moves = np.arange(len(drawn.weights))
        near, known = {}, np.arange(0)
        for part in _parts(chosen.rungs.shape[1], halved=enough is not None):
            given = self.programs, point, drawn, tables, chosen.all[:, :, part], moves
            near, known = joined(near, on_both_sides(*given), known, part)
            leaves = [
                _one_move(
                    tables, near, i, chosen.rungs[i, known], chosen.scales[i], drawn
                )
                for i in moves
            ]
            still = [i for i in moves if _may_be_flat(leaves[i], task.dtype)]
            seen = _measurement(task, tables, drawn, leaves, len(known))
            if enough is not None and not still and enough(seen):
                return seen
        if not still or task.iterates:
            return seen
        far = on_both_sides(
            self.programs, point, drawn, tables, chosen.far[still], np.array(still)
        )
        for n, i in enumerate(still):
            given = chosen.far_rungs[i], chosen.scales[i], drawn
            leaves[i] = _extended(leaves[i], _one_move(tables, far, i, *given, n=n))
        spent = seen.evaluations + 2 * chosen.far[still].size
        return dataclasses.replace(seen, leaves=tuple(leaves), evaluations=spent)


def _parts(num_levels, *, halved) -> list:
    """The numbers of the levels, all at once or every other one first."""
    levels = np.arange(num_levels)
    return [levels[::2], levels[1::2]] if halved else [levels]


def _measurement(task: Problem, tables, drawn, leaves, num_levels) -> Measurement:
    slack = np.sqrt(float(jnp.finfo(task.dtype).eps)) * tables["norm"]
    per_level = len(drawn.weights) * NUM_TANGENTS * len(replicates(task.dtype))
    return Measurement(
        leaves=tuple(leaves),
        finite=bool(np.all(np.isfinite(tables["value"]))),
        repeats=bool(tables["gap"] <= slack),
        maps=bool(tables["gap_mapped"] <= slack),
        value=tables["value"],
        evaluations=2 * num_levels * per_level + num_rules(task),
        draw=drawn,
    )


def num_lanes(problem: Problem, max_bytes: int, /) -> int:
    """How many probes fit: both ends in their own dtype, and float64 copies of both."""
    outputs = sum(y.size for y in problem.outputs)
    fitting = max_bytes // (2 * problem.footprint + 32 * outputs + 1)
    # So many are four turns of a leaf. Every round is to be of turns of one size.
    grids, levels = replicates(problem.dtype), ladder(problem.dtype)[::4]
    turn = NUM_TANGENTS * len(grids) * len(levels)
    return int(np.clip(fitting, 1, turn))


@np.errstate(invalid="ignore", over="ignore")
def _one_move(tables, seen, i, rungs, scale, draw: Draw, n=None) -> Probes:
    """What was seen of move i, the n-th of those that were made."""
    n, eps = i if n is None else n, seen["eps"]

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


def _may_be_flat(probes: Probes, dtype: DTypeLike) -> bool:
    """Whether an output does not move, or a rule says that f has no slope."""
    zero = rounding_of_zero(probes, dtype) if dtype == np.float64 else 0.0
    flat = any(root_mean_square(rule) <= zero for rule in probes.rules.values())
    still = probes.moved[:1] <= 10 * probes.rounding[:1]
    return flat or bool(still.any() or probes.still.any())


def rounding_of_zero(probes: Probes, dtype: DTypeLike, /) -> float:
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
