"""All the evaluations of a check, in one compiled program."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _tree
from gradstab.gradcheck.directions import (
    NUM_COTANGENTS,
    NUM_TANGENTS,
    directions,
    root_mean_square,
)
from gradstab.gradcheck.problem import MODES, Problem
from gradstab.gradcheck.steps import REPLICATES, ladder

# Probes that would need more than this at once are taken in turns.
_BYTES = 2**28


@dataclasses.dataclass(frozen=True)
class Probes:
    r"""The tables of one argument leaf, in float64 on the host.

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
        evaluations: of f, its JVP and its VJP.
    """

    leaves: tuple[Probes, ...]
    finite: bool
    repeats: bool
    evaluations: int


class Prober:
    """Measures one problem as often as asked; compiles once."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self._run = jax.jit(functools.partial(_tables, problem.f, problem.modes))

    def __call__(self, point, rng: np.random.Generator, /) -> Measurement:
        """One round at ``point``, along fresh directions.

        Costs two evaluations of f per leaf, tangent, replicate and level of the ladder.
        """
        dtype, leaves = self.problem.dtype, range(len(point))
        tangents = tuple(directions(rng, [x], num=NUM_TANGENTS)[0] for x in point)
        cotangents = directions(rng, self.problem.outputs, num=NUM_COTANGENTS)
        scales = np.array([_size(x) for x in point])
        rungs = np.outer(scales, ladder(dtype))
        # No two grids share a point: mirrored directions and halved steps would.
        jitter = rng.uniform(0.9, 1.1, (len(point), NUM_TANGENTS, len(REPLICATES)))
        steps = np.einsum("il,ikm,m->iklm", rungs, jitter, REPLICATES)
        with self.problem.context():
            raw = self._run(point, tangents, cotangents, steps)
            raw = jax.tree.map(lambda a: np.asarray(a, np.float64), raw)
        eps = float(jnp.finfo(dtype).eps)
        rules = len(point) * NUM_TANGENTS if "forward" in self.problem.modes else 0
        rules += NUM_COTANGENTS if "reverse" in self.problem.modes else 0
        return Measurement(
            leaves=tuple(_one_leaf(raw, i, rungs[i], scales[i], eps) for i in leaves),
            finite=bool(raw["finite"]),
            repeats=bool(raw["gap"] <= np.sqrt(eps) * raw["value"]),
            evaluations=2 * steps.size + rules + 2,
        )


def _size(leaf) -> float:
    """The root mean square of an argument, by which steps are measured; 1 if zero."""
    size = root_mean_square(leaf)
    return size if np.isfinite(size) and size > 0 else 1.0


@np.errstate(invalid="ignore", over="ignore")
def _one_leaf(raw, i, steps, scale, eps) -> Probes:
    def rms(a):  # over directions and replicates
        return np.sqrt(np.mean(np.square(a[i]), axis=(0, 2)))

    residual = np.moveaxis(raw["residual"][i], 0, 2)  # levels, replicates, k, j
    norms = rms(raw["norm"])
    near = norms[(steps <= scale) & np.isfinite(norms)]
    return Probes(
        rules={mode: raw[mode][i].ravel() for mode in MODES if mode in raw},
        anchor=raw["anchor"][i].ravel(),
        residual=residual.reshape(*residual.shape[:2], -1),
        rounding=eps * norms,
        moved=rms(raw["moved"]),
        bend=rms(raw["bend"]),
        jump=float(np.fmin.reduce(raw["jump"][i].ravel())),
        steps=steps,
        scale=float(scale),
        value=float(np.max(near, initial=raw["value"])),
    )


def _tables(f, modes, point, tangents, cotangents, steps):
    """Every number that the check needs, as one program.

    Shapes: ``steps`` (leaves, tangents, levels, replicates); tables of the rules
    (leaves, tangents, cotangents); ``residual`` that of ``steps`` and the cotangents.
    """
    value = f(point)
    unit = _largest(value)
    norm = functools.partial(_norm, unit=unit)
    # Traced again and kept apart by the barrier: the same value, unless f is random.
    again = f(jax.lax.optimization_barrier(point))
    raw = {
        "finite": _tree.all_finite(value),
        "value": norm(value),
        "gap": norm(_minus(again, value)),
    }
    anchor = tuple(jnp.zeros((NUM_COTANGENTS, *x.shape), x.dtype) for x in point)
    if "reverse" in modes:
        _, pullback = jax.vjp(f, point)
        (gradients,) = jax.vmap(pullback)(cotangents)
        raw["reverse"] = _pair(tangents, gradients)
        anchor = jax.tree.map(_finite_part, gradients)
    raw["anchor"] = _pair(tangents, anchor)

    def move(i, k, h):  # h v_k for leaf i, zero for the others
        return tuple(
            jnp.where(i == n, h, jnp.zeros_like(h)).astype(v.dtype) * v[k]
            for n, v in enumerate(tangents)
        )

    def rule(i, k, h):
        _, tangent = jax.jvp(f, (point,), (move(i, k, h),))
        return _project(cotangents, tangent)

    def probe(i, k, h):
        """One central difference, and what tells how far it can be trusted."""
        d = move(i, k, h)
        ends = jax.tree.map(lambda x, d: jnp.stack([x + d, x - d]), point, d)
        there, here = _ends(jax.vmap(f)(ends))
        ahead, behind = _minus(there, value), _minus(value, here)
        # The displacement that rounding x + h v has left: what the VJP says about it is
        # taken off, so if the VJP is right then rounding the input adds no noise.
        shift = _minus(*_ends(ends))
        change = _minus(there, here)
        residual = _project(cotangents, change) - _project(anchor, shift)
        return {
            "residual": residual / (2 * h),
            "norm": norm(there),
            "moved": norm(change),
            "bend": norm(_minus(ahead, behind)) / (2 * h),
            "jump": _least(change) / unit,
        }

    i, k, *_ = np.indices(steps.shape)
    turns = functools.partial(_in_turns, lanes=_lanes(point, value))
    if "forward" in modes:
        one = jnp.ones(steps.shape[:2], steps.dtype)
        raw["forward"] = turns(rule, i[:, :, 0, 0], k[:, :, 0, 0], one)
    return raw | turns(probe, i, k, steps)


def _in_turns(function, *arrays, lanes):
    """The function mapped over arrays of one shape, at most ``lanes`` at once."""
    flat = tuple(jnp.ravel(a) for a in arrays)
    if flat[0].size <= lanes:
        out = jax.vmap(function)(*flat)
    else:
        out = jax.lax.map(lambda a: function(*a), flat, batch_size=lanes)
    shape = arrays[0].shape
    return jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), out)


def _lanes(point, value) -> int:
    both_ends = 2 * sum(x.nbytes for x in point) + 8 * sum(y.nbytes for y in value)
    return max(1, _BYTES // both_ends)


def _pair(tangents, gradients):
    """<g_j, v_k> leaf by leaf: (leaves, tangents, cotangents)."""
    tables = [_rows(v) @ _rows(g).T for v, g in zip(tangents, gradients, strict=True)]
    return jnp.stack(tables)


def _project(cotangents, tree):
    """<w_j, tree> for every row j of the stacked cotangents."""
    pairs = zip(cotangents, tree, strict=True)
    return sum(_rows(w) @ _wide(y).ravel() for w, y in pairs)


def _rows(stack):
    return _wide(stack).reshape(stack.shape[0], -1)


def _ends(stacked):
    return tuple(a[0] for a in stacked), tuple(a[1] for a in stacked)


def _minus(a, b):
    return jax.tree.map(lambda x, y: _wide(x) - _wide(y), a, b)


def _largest(value):
    largest = functools.reduce(jnp.maximum, (jnp.max(jnp.abs(_wide(y))) for y in value))
    return jnp.where(jnp.isfinite(largest) & (largest > 0), largest, 1)


def _least(tree):
    """The smallest magnitude that is not zero; infinite if there is none."""
    sizes = (jnp.min(jnp.abs(jnp.where(a == 0, jnp.inf, a))) for a in tree)
    return functools.reduce(jnp.minimum, sizes)


def _norm(tree, *, unit):
    """The Euclidean norm of numbers whose size is about ``unit``."""
    return unit * jnp.sqrt(sum(jnp.sum(jnp.square(_wide(a) / unit)) for a in tree))


def _finite_part(g):
    return jnp.where(jnp.isfinite(g), g, jnp.zeros_like(g))


def _wide(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
