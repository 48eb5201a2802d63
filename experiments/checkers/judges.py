"""The checkers that are compared: each takes a function and a point, and judges.

An exception other than a checker's own complaint is the verdict ERROR: neither a catch
nor a pass.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

import gradstab as gs
from experiments.checkers.cases import precise

PASS, FAIL, INCONCLUSIVE, ERROR = "PASS", "FAIL", "INCONCLUSIVE", "ERROR"

# Steps of the textbook's central difference: that of CS231n in float64, and what suits
# the coarser dtypes best.
_STEPS = {"float64": 1e-5, "float32": 1e-3, "bfloat16": 1e-1}

# CS231n: "use only few dimensions"; the ratio is taken over this many at most.
_COORDINATES = 256


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What a checker said, how small an error it claims to see, and what it cost."""

    verdict: str
    resolution: float = float("nan")
    evaluations: int = 0
    seconds: float = 0.0
    reason: str = ""


def gradstab_check(f: Callable, args, *, dtype, order=1, expect=None) -> Judgement:
    """`gradstab.check` as it comes, with nothing tuned."""
    with jax.numpy_rank_promotion("allow"):
        result = gs.check(f, *args, order=order, expect=expect)
    return Judgement(
        result.verdict.value,
        float(result.resolution),
        result.evaluations,
        reason=result.reason,
    )


def jax_check_grads(f: Callable, args, *, dtype, order=1, expect=None) -> Judgement:
    """`jax.test_util.check_grads` with its own tolerances, in the case's dtype."""
    xs, restore = _floating(args)
    calls = []

    def counted(*xs):
        calls.append(1)
        return _outputs(f(*restore(xs)))

    with _setting(dtype):
        xs = [jnp.asarray(x) for x in xs]
        try:
            _check_grads(counted, xs, order)
        except AssertionError as error:
            reason = " ".join(str(error).split())[:100]
            return Judgement(FAIL, evaluations=len(calls), reason=reason)
    return Judgement(PASS, evaluations=len(calls))


def _check_grads(f, xs, order):
    """Both modes if the function has both."""
    try:
        check_grads(f, xs, order)
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        check_grads(f, xs, order, modes=("rev",))


def textbook_ratio(f: Callable, args, *, dtype, order=1, expect=None) -> Judgement:
    """Ng's ratio of norms for central differences of one step, with his bands.

    Above 1e-3 there is a mistake, below 1e-5 there is none, and between the two he
    would look again. First derivatives only.
    """
    xs, restore = _floating(args)
    h = _STEPS[dtype]
    with _setting(dtype):
        numeric, analytic = _slopes(lambda xs: _outputs(f(*restore(xs))), xs, h)
    gap = np.linalg.norm(numeric - analytic)
    ratio = gap / max(np.linalg.norm(numeric) + np.linalg.norm(analytic), 1e-300)
    verdict = PASS if ratio < 1e-5 else FAIL if not ratio <= 1e-3 else INCONCLUSIVE
    evaluations = 2 * len(numeric) + 2
    return Judgement(verdict, evaluations=evaluations, reason=f"ratio {ratio:.1e}")


def _slopes(f, xs, h):
    """Central differences and the gradient of a random sum of the outputs."""
    rng = np.random.default_rng(0)
    xs = tuple(jnp.asarray(x) for x in xs)
    shapes = jax.eval_shape(f, xs)
    w = [jnp.asarray(rng.standard_normal(y.shape), y.dtype) for y in shapes]

    def scalar(xs):
        return sum(jnp.sum(a * b) for a, b in zip(f(xs), w, strict=True))

    sizes = [x.size for x in xs]
    chosen = rng.permutation(sum(sizes))[:_COORDINATES]
    leaf = np.searchsorted(np.cumsum(sizes), chosen, side="right")
    index = chosen - np.concatenate([[0], np.cumsum(sizes)])[leaf]

    def difference(leaf, index):
        ends = []
        for step in (h, -h):
            moved = [
                x.ravel()
                .at[index]
                .add(jnp.where(leaf == i, step, 0).astype(x.dtype), mode="drop")
                .reshape(x.shape)
                for i, x in enumerate(xs)
            ]
            ends.append(scalar(tuple(moved)))
        return (ends[0] - ends[1]) / (2 * h)

    numeric = jax.jit(
        lambda *where: jax.lax.map(lambda a: difference(*a), where, batch_size=16)
    )(leaf, index)
    gradients = jax.grad(scalar)(xs)
    flat = jnp.concatenate([g.ravel() for g in gradients])
    return np.asarray(numeric, float), np.asarray(flat, float)[chosen]


JUDGES = {
    "gradstab.check": gradstab_check,
    "jax check_grads": jax_check_grads,
    "textbook ratio": textbook_ratio,
}


def judged(name: str, f: Callable, args, **options) -> Judgement:
    """The judgement of one checker, timed; what it cannot do is an ERROR."""
    start = time.perf_counter()
    try:
        judgement = JUDGES[name](f, args, **options)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        judgement = Judgement(ERROR, reason=reason)
    return dataclasses.replace(judgement, seconds=time.perf_counter() - start)


@contextlib.contextmanager
def _setting(dtype):
    with precise(), contextlib.ExitStack() as stack:
        if dtype != "float64":
            stack.enter_context(jax.enable_x64(False))
        yield


def _floating(args):
    """Floating leaves, and how to put others in their place; the rest is closed over.

    The others are spared integers, which would stop them with a TypeError.
    """
    leaves, treedef = jax.tree.flatten(args)
    where = [i for i, a in enumerate(leaves) if _is_floating(a)]

    def restore(xs):
        full = list(leaves)
        for i, x in zip(where, xs, strict=True):
            full[i] = x
        return jax.tree.unflatten(treedef, full)

    return tuple(leaves[i] for i in where), restore


def _outputs(tree):
    return tuple(y for y in jax.tree.leaves(tree) if _is_floating(y))


def _is_floating(a) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(a), jnp.floating))
