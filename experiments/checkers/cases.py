"""What a case of the corpus is, and how large its mistake truly is.

A `Mutant` is an operation whose derivative rule is wrong on purpose; a `Case` is a
mutant at one shape, in one dtype. Its size is measured, not declared: the relative
Frobenius error of the rule against automatic differentiation of the plain function, in
float64, in the argument leaf where it is largest.
"""

import contextlib
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.checkers.frozen import half

SHAPES = ("tiny", "odd", "large")
DTYPES = ("float64", "float32", "bfloat16")
WIDE = ("float64", "float32")  # for what does not exist in bfloat16

# Jacobians of at most this many outputs are measured exactly, larger ones by probes.
_EXACT = 64
_PROBES = 32

# A derivative is zero if it is less than this share of the value over the argument.
_ROUNDING = 1e-13


def as_is(f: Callable) -> Callable:
    """The view of a mistake that shows in the plain gradient."""
    return f


@dataclasses.dataclass(frozen=True)
class Mutant:
    """An operation with a mistake in its rule.

    Attributes:
        klass: the number of the class of bugs.
        operation: its name.
        mistake: in words.
        f: the operation with the wrong rule.
        truth: the plain operation.
        point: from a shape's name to the arguments, in float64 (integers stay).
        order: 2 if only second derivatives are wrong.
        view: maps f to the function in whose gradient the mistake shows, such as
            ``lambda f: lambda a, b: f(a, a)``.
        dtypes: those in which the operation exists and the mistake is one.
    """

    klass: int
    operation: str
    mistake: str
    f: Callable
    truth: Callable
    point: Callable[[str], tuple]
    order: int = 1
    view: Callable = as_is
    dtypes: tuple[str, ...] = DTYPES

    @property
    def name(self) -> str:
        """Class, operation and mistake."""
        return f"{self.klass:02d} {self.operation}: {self.mistake}"

    @property
    def half(self) -> str:
        """``tuned`` or ``frozen``, by the hash of the name; see `frozen`."""
        return half(self.name)


@dataclasses.dataclass(frozen=True)
class Case:
    """A mutant at one shape in one dtype."""

    mutant: Mutant
    shape: str
    dtype: str

    @property
    def name(self) -> str:
        """The mutant's name, shape and dtype."""
        return f"{self.mutant.name} | {self.shape} | {self.dtype}"

    @property
    def args(self) -> tuple:
        """The arguments in this dtype."""
        return jax.tree.map(lambda a: _cast(a, self.dtype), self._point())

    @property
    def f(self) -> Callable:
        """The function to be checked: it exists in this dtype only."""
        return rounded(self.mutant.f, self.dtype)

    def size(self) -> float:
        """How wrong the rule is; infinite if it is not finite, 0 if it is right."""
        point = jax.tree.map(lambda a: _cast(a, "float64"), self.args)
        with precise():
            wrong = self.mutant.view(self.mutant.f)
            right = self.mutant.view(self.mutant.truth)
            if self.mutant.order == 2:
                wrong, right = pulled_back(wrong), pulled_back(right)
            return grade(wrong, right, point)

    def _point(self):
        # Numbers of float32, so that float64 and float32 share a point.
        args = self.mutant.point(self.shape)
        return jax.tree.map(lambda a: _cast(a, "float32"), args)


def cases(mutants, shapes=SHAPES, dtypes=DTYPES) -> list[Case]:
    """Every mutant at every shape, in the dtypes in which it exists."""
    return [
        Case(mutant, shape, dtype)
        for mutant in mutants
        for shape in shapes
        for dtype in dtypes
        if dtype in mutant.dtypes
    ]


def rounded(f: Callable, dtype: str) -> Callable:
    """The function as code that exists in one dtype only; float64 leaves it alone."""
    if dtype == "float64":
        return f
    return lambda *args: f(*jax.tree.map(lambda a: _cast_inside(a, dtype), args))


@contextlib.contextmanager
def precise():
    """Float64, full products, and promotion as users have it."""
    with (
        jax.enable_x64(True),
        jax.default_matmul_precision("highest"),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_key_reuse(False),
    ):
        yield


def pulled_back(f: Callable) -> Callable:
    """The gradient of f for one fixed random cotangent, as a function."""

    def gradient(*args):
        floating, restore = _floating(args)
        y, pullback = jax.vjp(lambda *xs: _outputs(f(*restore(xs))), *floating)
        rng = np.random.default_rng(1)
        w = tuple(jnp.asarray(rng.standard_normal(a.shape), a.dtype) for a in y)
        return pullback(w)

    return gradient


def grade(wrong: Callable, right: Callable, args: tuple) -> float:
    """The relative error of a rule in its worst leaf, its value included."""
    floating, restore = _floating(args)
    outputs = jax.eval_shape(lambda xs: _outputs(right(*restore(xs))), floating)
    cotangents = _cotangents(outputs)

    @jax.jit
    def both(xs, cotangents):
        return [pulled(f, xs, cotangents) for f in (wrong, right)]

    def pulled(f, xs, cotangents):
        y, pullback = jax.vjp(lambda xs: _outputs(f(*restore(xs))), xs)
        return y, jax.vmap(pullback)(cotangents)[0]

    (bad_value, bad), (value, good) = both(floating, cotangents)
    probes = np.sqrt(cotangents[0].shape[0])
    size = _norm(value) or 1.0
    sizes = [_norm(_minus(bad_value, value)) / size]
    for x, b, g in zip(floating, bad, good, strict=True):
        scale = float(jnp.sqrt(jnp.mean(jnp.square(x)))) or 1.0
        typical = probes * size / scale
        # The gradient of a similarity with itself is rounding, and no derivative.
        vanishes = _norm(g) <= _ROUNDING * typical
        sizes.append(_norm(b - g) / (typical if vanishes else _norm(g)))
    return max(float(s) if np.isfinite(s) else np.inf for s in sizes)


def _cotangents(outputs):
    """Rows of a scaled random orthogonal matrix, or, for many outputs, normals."""
    total = sum(y.size for y in outputs)
    rng = np.random.default_rng(2)
    if total <= _EXACT:
        flat = np.linalg.qr(rng.standard_normal((total, total)))[0]
        flat *= 1.5 * np.sqrt(total)  # not one, which some wrong rules take it to be
    else:
        flat = rng.standard_normal((_PROBES, total))
    parts = np.split(flat, np.cumsum([y.size for y in outputs])[:-1], axis=1)
    return tuple(
        jnp.asarray(part.reshape(-1, *y.shape), y.dtype)
        for part, y in zip(parts, outputs, strict=True)
    )


def _floating(args):
    """The floating leaves, and the function that puts others in their place."""
    leaves, treedef = jax.tree.flatten(args)
    where = [i for i, a in enumerate(leaves) if _is_floating(a)]

    def restore(xs):
        full = list(leaves)
        for i, x in zip(where, xs, strict=True):
            full[i] = x
        return jax.tree.unflatten(treedef, full)

    return tuple(jnp.asarray(leaves[i]) for i in where), restore


def _outputs(tree):
    return tuple(y for y in jax.tree.leaves(tree) if _is_floating(y))


def _is_floating(a) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(a), jnp.floating))


def _cast(a, dtype):
    return np.asarray(a, jnp.dtype(dtype)) if _is_floating(a) else a


def _cast_inside(a, dtype):
    return a.astype(dtype) if _is_floating(a) else a


def _minus(a, b):
    return jax.tree.map(lambda x, y: x - y, a, b)


def _norm(tree) -> float:
    squares = sum(float(jnp.sum(jnp.square(a))) for a in jax.tree.leaves(tree))
    return float(np.sqrt(squares))
