r"""What theory knows of the entries between two steps of a layer.

A law holds, for every entry of the data, its mean and mean square over random weights,
and its variance if it is Gaussian. Each step maps a law to the next and yields beside
it the matrix :math:`E J_{ji}^2`: it transports the mean squares of tangents, its
transpose those of gradients.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat
from gradstab.theory.averages import averaged
from gradstab.theory.gaussian_rule import value_and_slope
from gradstab.theory.quadrature import expectations


class NoTheoryError(Exception):
    """Says why a layer has no theory."""


@dataclasses.dataclass(frozen=True)
class Law:
    """What is known of the entries of some data.

    Attributes:
        mean: mean of every entry, of the data's shape (or a scalar).
        square: mean square of every entry, of the data's shape.
        variance: variance of every entry if they are Gaussian of one mean, else None.
        sample: the data themselves, if they are given and not random.
        batch: the number of examples that were normalised together, else None.
    """

    mean: np.ndarray | float
    square: np.ndarray
    variance: np.ndarray | None = None
    sample: jax.Array | np.ndarray | None = None
    batch: int | None = None

    def scaled(self, factor: float, /) -> "Law":
        """The law of data whose squares are larger by a factor."""
        root = math.sqrt(factor)
        return Law(
            mean=self.mean * root,
            square=self.square * factor,
            variance=None if self.variance is None else self.variance * factor,
            sample=None if self.sample is None else np.asarray(self.sample) * root,
            batch=self.batch,
        )


class Weights(NamedTuple):
    """What theory needs of the weights of a product.

    Attributes:
        variance: of their entries; of orthogonal ones the mean square.
        fan_in: entries that a unit sums over.
        orthogonal: whether all their singular values are equal.
    """

    variance: float
    fan_in: int
    orthogonal: bool

    @property
    def sigma(self) -> float:
        """The mean-field scale."""
        return math.sqrt(self.variance * self.fan_in)


class Transport(NamedTuple):
    r"""The matrix :math:`E J_{ji}^2` of a step.

    Attributes:
        forward: its product with an array like the data that enter.
        backward: that of its transpose with an array like the data that leave.
    """

    forward: Callable[[np.ndarray], np.ndarray]
    backward: Callable[[np.ndarray], np.ndarray]


class Shift(NamedTuple):
    """Statistics of the numbers s and t in y = s x + t.

    Attributes:
        gain: mean of s.
        gain_square: mean of s^2.
        even: whether s is the same for all entries.
        mean: mean of t.
        variance: variance of t.
    """

    gain: float
    gain_square: float
    even: bool
    mean: float
    variance: float


def given(data: jax.Array | np.ndarray, /) -> Law:
    """The law of data that are given."""
    values = np.asarray(data, np.float64)
    return Law(mean=values, square=values**2, sample=data)


def through_weights(
    law: Law, eqn: _compat.JaxprEqn, position: int, weights: Weights, /
) -> tuple[Law, Transport]:
    r"""A product: :math:`q = \sigma_w^2 E x^2`, summed over the window of a unit."""
    matrix = _plain(eqn, position, weights) or _windowed(eqn, position, weights)
    q = np.asarray(matrix.forward(law.square))
    return Law(mean=0.0, square=q, variance=q), matrix


def _plain(eqn: _compat.JaxprEqn, position: int, weights: Weights) -> Transport | None:
    """Sums over some axes; None for convolutions and stacks of matrices."""
    axes = _compat.contracted_axes(eqn)
    if axes is None:
        return None
    axes = tuple(axes[position])
    units = len(_compat.shape_of(eqn.outvars[0]))
    shape = _compat.shape_of(eqn.invars[position])
    units -= len(shape) - len(axes)
    kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    out = _compat.shape_of(eqn.outvars[0])
    padding = (1,) * units
    alike = (*kept, *padding) if position == 0 else (*padding, *kept)
    ends = range(len(kept), len(out)) if position == 0 else range(units)

    def forward(t: np.ndarray) -> np.ndarray:
        sums = weights.variance * np.sum(t, axis=axes)
        return np.broadcast_to(sums.reshape(alike), out)

    def backward(t: np.ndarray) -> np.ndarray:
        sums = weights.variance * np.sum(t, axis=tuple(ends))
        return np.broadcast_to(np.expand_dims(sums, axes), shape)

    return Transport(forward, backward)


def _windowed(eqn: _compat.JaxprEqn, position: int, weights: Weights) -> Transport:
    """Any product: that with weights which are all equal to the root mean square."""
    shape = list(_compat.shape_of(eqn.invars[1 - position]))
    units, _ = _compat.unit_axes(eqn, position)
    for axis in units:  # one of them is enough
        shape[axis] = 1
    spread = jnp.full(shape, weights.variance)
    in_shape = _compat.shape_of(eqn.invars[position])
    out_shape = _compat.shape_of(eqn.outvars[0])

    def forward(t: jax.Array) -> jax.Array:
        pair = (t, spread) if position == 0 else (spread, t)
        return jnp.broadcast_to(_compat.product(eqn, *pair), out_shape)

    def backward(t: np.ndarray) -> np.ndarray:
        like = jax.ShapeDtypeStruct(in_shape, spread.dtype)
        return np.asarray(jax.linear_transpose(forward, like)(jnp.asarray(t))[0])

    return Transport(lambda t: np.asarray(forward(jnp.asarray(t))), backward)


def scaling(factors: np.ndarray | float, /) -> Transport:
    """Entries that are multiplied one by one."""
    return Transport(lambda t: factors * t, lambda t: factors * t)


def through_shift(
    law: Law, shift: Shift, f: Callable[..., Any], /
) -> tuple[Law, Transport]:
    """Known numbers: biases are random numbers of their mean and variance."""
    transport = scaling(shift.gain_square)
    if law.sample is not None:
        return given(f(law.sample)), transport
    mean = shift.gain * law.mean + shift.mean
    offset = shift.variance + shift.mean**2
    cross = 2 * shift.gain * shift.mean * law.mean
    square = shift.gain_square * law.square + cross + offset
    variance = None
    if law.variance is not None and shift.even:
        variance = shift.gain_square * law.variance + shift.variance
    moved = not shift.even or shift.gain != 1 or offset > 0
    if law.batch is not None and moved:
        raise NoTheoryError("batch normalisation with a scale or a shift of its own")
    return Law(mean, square, variance, batch=law.batch), transport


def through_activation(law: Law, f: Callable[..., Any], /) -> tuple[Law, Transport]:
    r"""An activation: :math:`E \phi^2`, and :math:`E \phi'^2` for tangents."""
    if law.sample is not None:
        try:
            value, slope = expectations(f).compiled(value_and_slope)(law.sample)
        except ValueError:
            value, slope = value_and_slope(f, law.sample)
        squares = np.asarray(slope, np.float64) ** 2
        return given(value), scaling(squares)
    if law.variance is None:
        raise NoTheoryError("an activation of data that are not Gaussian")
    if not np.all(np.isfinite(law.variance)):
        raise NoTheoryError("lengths that are not finite")
    try:
        mean, square, slopes = averaged(expectations(f), law.variance, law.mean)
    except ValueError as error:
        raise NoTheoryError(str(error)) from error
    return Law(mean, square), scaling(slopes)


def through_norm(law: Law, norm, f: Callable[..., Any], /) -> tuple[Law, Transport]:
    """Layer and RMS normalisation: in wide layers a division by a known number."""
    centre = law.mean if norm.kind == "layer" else 0.0
    # A sample's own mean over the units; the same number for all units otherwise.
    level = np.mean(np.broadcast_to(centre, law.square.shape), -1, keepdims=True)
    size = np.mean(law.square, -1, keepdims=True) - level**2 + norm.eps
    if np.any(size <= 0):
        raise NoTheoryError("normalisation of data that are all equal")
    # The mean, and the direction of the data themselves, get no gradient.
    lost = (2 if norm.kind == "layer" else 1) / law.square.shape[-1]
    transport = scaling(norm.gain_square / size * max(1 - lost, 0.0))
    if law.sample is not None:
        return given(f(law.sample)), transport
    kept = 2 * level * law.mean - level**2
    square = norm.gain_square * (law.square - kept) / size
    mean = math.sqrt(norm.gain_square) * (law.mean - level) / np.sqrt(size)
    variance = None
    if law.variance is not None and norm.even and np.ptp(mean) == 0:
        mean, variance = float(np.mean(mean)), norm.gain_square * law.variance / size
    return Law(mean, square, variance), transport


def through_sum(first: Law, second: Law, /) -> Law:
    """Two branches of which one has weights that the other has not."""
    if first.sample is not None and second.sample is not None:
        raise NoTheoryError("a sum of branches without weights")
    square = first.square + second.square + 2 * first.mean * second.mean
    mean = first.mean + second.mean
    if first.variance is None or second.variance is None:
        return Law(mean, square)
    return Law(mean, square, first.variance + second.variance)
