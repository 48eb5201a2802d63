"""Weights, biases and activations, read off the values that a block is given."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat, _tree
from gradstab.network import Activation, Block, Context
from gradstab.network.activations import is_elementwise
from gradstab.network.foreign import can_be_traced, limited
from gradstab.program import primitives
from gradstab.program.compiling import quick_options
from gradstab.program.shared import SharedProgram
from gradstab.theory.laws import NoTheoryError, Shift, Weights
from gradstab.theory.structure import Product, Step, leaves, needed

# Squared gains of random directions agree this well in float32 if singular values are
# equal. Those of a Gaussian n x n matrix differ by sqrt(2 / n): by 1 % at n = 20000.
# Of numbers whose variances are multiplied with others in float64.
_SMALLEST = 1e-120

_EQUAL = 1e-4
_PROBES = 6


class NormFit(NamedTuple):
    """A normalisation, recognised by what it does.

    Attributes:
        kind: 'layer', 'rms' or 'batch'.
        gain_square: mean square of its scales.
        even: whether they are all the same.
        eps: what it adds to the variance.
    """

    kind: str
    gain_square: float
    even: bool
    eps: float


@dataclasses.dataclass(frozen=True)
class Reader:
    """The values that the equations of one layer are given.

    Attributes:
        block: the layer's block.
        context: its `Context`.
    """

    block: Block
    context: Context

    def values(self) -> dict:
        """The context by variable; random keys are new ones each time."""
        return self.block.environment(self.context, [None] * len(self.block.in_vars))

    def function(self, step: Step) -> Activation:
        """What the step does to its root."""
        return Activation(step.eqns, step.root, step.result, context=self.values())

    def image(self, step: Step, x: np.ndarray) -> np.ndarray:
        """What the step makes of an array like its root, in float64."""
        run = self._shared(_image, step)
        x = np.asarray(x, _compat.dtype_of(step.root))
        return np.asarray(run(self._known(step), x), np.float64)

    def _shared(self, function: Callable[..., Any], step: Step) -> SharedProgram:
        """A function of a step, compiled once for all steps that do the same."""
        return self.block.programs.get(
            (function, step),
            lambda: SharedProgram(functools.partial(function, step), quick_options()),
        )

    def _known(self, step: Step) -> list:
        """The values that the step needs beside its root."""
        values = self.values()
        return [values[v] for v in leaves(step.eqns, step.root)]

    def value(self, variable: _compat.Var) -> Any:
        """The value of a variable that no data enter."""
        values = self.values()
        if variable in values:
            return values[variable]
        eqns = needed(self.block.eqns, variable, variable)
        return Activation(eqns, variable, variable, context=values)(None)

    def weights(self, step: Product) -> Weights:
        """The weights of a product.

        Raises:
            NoTheoryError: if their squares are out of range.
        """
        array = np.asarray(self.value(step.weight)).astype(np.float64)
        within_range(array, "weights")
        _, fan_in = _compat.unit_axes(step.eqn, step.position)
        orthogonal = array.ndim == 2 and _is_orthogonal(array)
        variance = np.mean(np.square(array)) if orthogonal else np.var(array)
        return Weights(float(variance), fan_in, orthogonal)

    def shift(self, step: Step) -> Shift:
        """Statistics of s and t where the step makes s x + t of x."""
        run = self._shared(_at_zero_and_one, step)
        ends = run(self._known(step))
        t, end = (np.asarray(one, np.float64) for one in ends)
        s = end - t
        return Shift(
            gain=float(np.mean(s)),
            gain_square=float(np.mean(np.square(s))),
            even=bool(np.ptp(s) <= 1e-6 * np.max(np.abs(s), initial=0.0)),
            mean=float(np.mean(t)),
            variance=float(np.var(t)),
        )

    def activation(self, step: Step) -> "PerEntry":
        """The activation, if its parameters are the same for all units.

        Raises:
            NoTheoryError: if they are not, or a rule in it cannot be mapped.
        """
        values = self.values()
        x = jax.ShapeDtypeStruct(
            (1, *_compat.shape_of(step.root)), _compat.dtype_of(step.root)
        )
        slopes = jax.vmap(self.function(step).slopes)
        if any(map(limited, step.eqns)) and not can_be_traced(slopes, x):
            raise NoTheoryError("an activation of foreign code")
        for variable in leaves(step.eqns, step.root):
            array = values[variable]
            if _tree.is_key(array) or np.ptp(np.asarray(array, np.float64)) > 0:
                raise NoTheoryError("an activation that differs from unit to unit")
        # Functions of the same equations that agree to five digits at these points are
        # one: their averages are computed once.
        run = self._shared(_at_points, step)
        with np.errstate(all="ignore"):
            digits = [f"{y:.4e}" for y in np.asarray(run(self._known(step)))]
        return PerEntry(self.function(step), tuple(digits))

    def norm(self, step: Step) -> NormFit:
        """The normalisation that the step is.

        Raises:
            NoTheoryError: if it is none of those known.
        """
        shape, dtype = _compat.shape_of(step.root), _compat.dtype_of(step.root)
        # Narrow dtypes round what comes out, and what goes in: that is done before.
        ends = (dtype, _compat.dtype_of(step.result))
        coarse = 4 * max(float(jnp.finfo(end).eps) for end in ends)
        far, near = max(1e-3, coarse), max(1e-4, coarse)
        # A mean that tells whether it is taken off.
        x = 0.5 + np.random.default_rng(0).standard_normal(shape)
        x = x.astype(dtype)
        scales = (np.asarray(scale, dtype) for scale in (2.0**10, 2.0**-10))
        large, small = (self.image(step, x * scale) for scale in scales)
        x = np.asarray(x, np.float64)
        for kind, axes, centred in _norms(len(shape)):
            unit = _normalised(x, axes, centred)
            others = tuple(range(len(shape) - 1))
            gains = np.sum(large * unit, others) / np.sum(unit**2, others)
            if np.max(np.abs(large - gains * unit)) > far * np.max(np.abs(large)):
                continue
            square = float(np.mean(gains**2))
            even = bool(np.ptp(gains) <= near * np.max(np.abs(gains)))
            share = np.sum(small**2) / np.sum((gains * unit) ** 2)
            return NormFit(kind, square, even, max(0.0, 2.0**-20 * (1 / share - 1)))
        raise NoTheoryError("a normalisation that is none of layer, RMS and batch")


class PerEntry:
    """An activation as a function of any array, equal to others that do the same.

    Equations that hold programs or constants of one shape are evaluated for as many
    entries at a time as that shape has.
    """

    def __init__(self, activation: Activation, digits: tuple[str, ...]) -> None:
        self.activation = activation
        names = tuple(map(primitives.name_of, activation.eqns))
        self._key = names, str(_compat.dtype_of(activation.root)), digits

    def __call__(self, x: jax.Array) -> jax.Array:
        """The activation of every entry of an array of any shape."""
        return _of_entries(self.activation, x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PerEntry) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _of_entries(activation: Activation, x: jax.Array) -> jax.Array:
    shape = _compat.shape_of(activation.root)
    dtype = _compat.dtype_of(activation.root)
    if all(map(_takes_any_shape, activation.eqns)):
        numbers = {
            v: jnp.broadcast_to(activation.context[v].reshape(-1)[0], x.shape)
            for v in leaves(activation.eqns, activation.root)
        }
        return dataclasses.replace(activation, context=numbers)(x.astype(dtype))
    flat = x.reshape(-1).astype(dtype)
    rows = jnp.pad(flat, (0, -flat.size % math.prod(shape))).reshape(-1, *shape)
    return jax.vmap(activation)(rows).reshape(-1)[: flat.size].reshape(x.shape)


def _activation(step: Step, known: Sequence) -> Activation:
    """What a step does to its root, for the values that it needs beside it."""
    context = dict(zip(leaves(step.eqns, step.root), known, strict=True))
    return Activation(step.eqns, step.root, step.result, context=context)


def _image(step: Step, known: Sequence, x: jax.Array) -> jax.Array:
    return _activation(step, known)(x)


def _at_zero_and_one(step: Step, known: Sequence) -> list[jax.Array]:
    shape, dtype = _compat.shape_of(step.root), _compat.dtype_of(step.root)
    function = _activation(step, known)
    return [function(jnp.full(shape, x, dtype)) for x in (0, 1)]


def _at_points(step: Step, known: Sequence) -> jax.Array:
    points = jnp.sinh(jnp.linspace(-8.0, 8.0, 257))
    return _of_entries(_activation(step, known), points)


def _takes_any_shape(eqn: _compat.JaxprEqn) -> bool:
    arrays = any(not isinstance(v, _compat.Literal) for v in eqn.invars)
    return arrays and is_elementwise(eqn) and not _compat.inner_programs(eqn)


def within_range(array: jax.Array | np.ndarray, what: str, /) -> None:
    """Refuses numbers whose variances, and products of these, leave float64.

    Raises:
        NoTheoryError: if the largest of them is too large or too small.
    """
    largest = float(np.max(np.abs(array), initial=0.0))
    if 0 < largest < _SMALLEST or 1 / _SMALLEST < largest < np.inf:
        raise NoTheoryError(
            f"{what} of size {largest:.1e}, whose variance is out of range"
        )


def _is_orthogonal(matrix: np.ndarray) -> bool:
    """Whether random directions of the smaller side all have one gain."""
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    probes = np.random.default_rng(0).standard_normal((_PROBES, short.shape[0]))
    images = np.linalg.norm(probes @ short, axis=1)
    gains = images / np.linalg.norm(probes, axis=1)
    return bool(np.max(gains) > 0 and np.ptp(gains) <= _EQUAL * np.max(gains))


def _norms(rank: int) -> tuple[tuple[str, tuple[int, ...], bool], ...]:
    """Kinds of normalisation, the axes of their statistics, whether they centre."""
    last, others = (rank - 1,), tuple(range(rank - 1))
    return (("layer", last, True), ("rms", last, False), ("batch", others, True))


def _normalised(x: np.ndarray, axes: tuple[int, ...], centred: bool) -> np.ndarray:
    x = x - np.mean(x, axes, keepdims=True) if centred else x
    return x / np.sqrt(np.mean(x**2, axes, keepdims=True))
