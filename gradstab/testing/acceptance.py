"""Whether what a check has found is within the tolerances of `jax.test_util`.

Not for users; `check_grads` says what is accepted.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.test_util
import numpy as np

from gradstab.gradcheck import GradCheck, Verdict
from gradstab.gradcheck.states import Outcome
from gradstab.gradcheck.subject.problem import Problem, problem
from gradstab.testing.tolerances import Tolerances

# Directions and relative step for the size of a Jacobian: three digits are plenty.
_NUM_DIRECTIONS, _NUM_COTANGENTS, _STEP = 8, 4, 1e-4

_THEIRS = {"forward": "fwd", "reverse": "rev"}


class Acceptance:
    """What is accepted of one function at its arguments.

    Args:
        f: the function.
        args: its arguments.
        tolerances: what is accepted.
        modes: the rules that are checked.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        args: tuple,
        tolerances: Tolerances,
        /,
        *,
        modes: tuple[str, ...],
    ):
        self.f, self.args, self.tolerances, self.modes = f, args, tolerances, modes

    def __call__(self, result: GradCheck, /) -> bool:
        """Whether nothing was seen, and nothing overlooked, above the tolerances."""
        if result.verdict is Verdict.PASS:
            return True
        if not self._is_finite:
            return result.verdict is not Verdict.FAIL and self._jax_accepts()
        doubted = [g for g in result.findings if not g.agrees]
        if result.verdict is Verdict.INCONCLUSIVE and not doubted:
            return False  # nothing could be looked at
        lifted = result.precision == "float64"
        rtol = self.tolerances.relative(lifted=lifted)
        lawful = all(law.holds or law.error <= rtol for law in result.identities)
        if self.tolerances.exact:
            lawful = all(law.holds for law in result.identities)
        return lawful and all(self._is_within(g, rtol) for g in doubted)

    def _is_within(self, finding, rtol) -> bool:
        if self.tolerances.exact:
            return finding.error <= finding.bar and finding.resolution <= rtol
        size = self._sizes.get(finding.leaf)
        atol = self._atol(finding.leaf)
        if size is None:
            allowed = rtol
        elif finding.absolute:
            allowed = atol / size.typical
        else:
            allowed = rtol + (atol / size.jacobian if size.jacobian else 0.0)
        if finding.error > finding.bar:  # an error was seen: how large is it at most?
            return finding.error + finding.bar <= allowed
        if finding.resolution <= allowed:
            return True
        # The true derivative may be zero: then nothing is large relative to it.
        unseen = finding.state == Outcome.VANISHES or self.tolerances.by_user
        if size is None or not unseen or finding.differs:
            return False
        error = size.errors.get(finding.mode, np.inf)
        return bool(error <= atol + rtol * size.jacobian)

    def _atol(self, leaf) -> float:
        size = self._sizes.get(leaf)
        atol = self.tolerances.absolute(lifted=self._task.wide)
        if self.tolerances.by_user or self._task.iterates or size is None:
            return atol
        return atol * min(1.0, size.typical)

    @functools.cached_property
    def _task(self) -> Problem:
        return problem(self.f, self.args, modes=self.modes)

    @functools.cached_property
    def _is_finite(self) -> bool:
        with self._task.context():
            value = self._task.f(self._task.leaves)
        return all(np.all(np.isfinite(y)) for y in (*self._task.leaves, *value))

    @functools.cached_property
    def _sizes(self) -> dict[str, "_Size"]:
        return _sizes(self._task)

    def _jax_accepts(self) -> bool:
        """Whether `jax.test_util` does, to which NaN is like NaN."""
        task, tolerances = self._task.as_given, self.tolerances
        modes = [_THEIRS[mode] for mode in task.modes]
        options = {"rtol": tolerances.rtol, "atol": tolerances.atol}
        with task.context(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                jax.test_util.check_grads(
                    self.f, self.args, order=1, modes=modes, **options
                )
            except AssertionError:
                return False
        return True


@dataclasses.dataclass(frozen=True)
class _Size:
    """Of one leaf's Jacobian, by differences of the value.

    Attributes:
        jacobian: its Frobenius norm.
        typical: f's value over the size of the leaf.
        errors: the norm of what each rule differs by.
    """

    jacobian: float
    typical: float
    errors: dict[str, float]


def _sizes(task: Problem) -> dict[str, _Size]:
    rng = np.random.default_rng(0)

    def normal(like):
        return tuple(rng.standard_normal(y.shape).astype(y.dtype) for y in like)

    def inner(xs, ys):
        pairs = zip(xs, ys, strict=True)
        return sum(np.sum(np.asarray(x) * np.asarray(y), dtype=float) for x, y in pairs)

    def probed(i, v, h):
        """The differences along v, and how far the rules are from them."""
        there, here = (
            task.f(tuple(x + s * h * v if n == i else x for n, x in leaves))
            for s in (1, -1)
        )
        slope = [
            (np.asarray(a) - b) / (2 * h) for a, b in zip(there, here, strict=True)
        ]
        gaps = {mode: [] for mode in task.modes}
        if "forward" in task.modes:
            move = tuple(v if n == i else np.zeros_like(x) for n, x in leaves)
            rule = jax.jvp(task.f, (task.leaves,), (move,))[1]
            gaps["forward"] = [inner(w, rule) - inner(w, slope) for w in cotangents]
        if "reverse" in task.modes:
            pairs = zip(cotangents, gradients, strict=True)
            gaps["reverse"] = [inner([g[i]], [v]) - inner(w, slope) for w, g in pairs]
        return inner(slope, slope), gaps

    def root_mean(squares):
        return float(np.sqrt(np.mean(squares)))

    sizes, leaves = {}, list(enumerate(task.leaves))
    with task.context():
        value = task.f(task.leaves)
        norm = np.sqrt(inner(value, value))
        cotangents = [normal(task.outputs) for _ in range(_NUM_COTANGENTS)]
        if "reverse" in task.modes:
            _, pullback = jax.vjp(task.f, task.leaves)
            gradients = [pullback(w)[0] for w in cotangents]
        for i, x in leaves:
            scale = float(np.sqrt(np.mean(np.square(x)))) or 1.0
            h = np.asarray(_STEP * scale, x.dtype)
            found = [probed(i, normal([x])[0], h) for _ in range(_NUM_DIRECTIONS)]
            sizes[task.names[i]] = _Size(
                jacobian=root_mean([square for square, _ in found]),
                typical=float(norm or 1.0) / scale,
                errors={
                    mode: root_mean(np.square([gaps[mode] for _, gaps in found]))
                    for mode in task.modes
                },
            )
    return sizes
