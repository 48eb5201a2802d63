"""A law on its way through the steps of one layer."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gradstab import _compat
from gradstab.program import primitives
from gradstab.program.walk import evaluate
from gradstab.theory import laws, structure
from gradstab.theory.batch_norm import batch_norm_gain, batch_norm_square
from gradstab.theory.laws import Law, NoTheoryError, Transport
from gradstab.theory.reading import Reader
from gradstab.theory.redraws import draws_of
from gradstab.theory.structure import describe, every_step

T = TypeVar("T")


class End(NamedTuple):
    """What theory says at the end of a layer.

    Attributes:
        law: of the data that leave.
        log_square: logarithm of their mean square.
        log_gain: logarithm of the norm of the gradient that enters over that at the
            output; over examples the root mean square of that ratio.
        chi: mean squared singular value of the layer's Jacobian.
    """

    law: Law
    log_square: float
    log_gain: float
    chi: float


class Walk:
    """The theory of one layer; what was read on the way stays in its attributes.

    Args:
        reader: the layer's values.
        steps: its steps.

    Attributes:
        activation: names of its activations.
        couples: whether it normalises over the batch.
    """

    def __init__(self, reader: Reader, steps: Sequence[structure.Step], /) -> None:
        self.reader, self.steps = reader, steps
        self.couples, self._batch_gain = False, None
        every = list(every_step(steps))
        self._products = [s for s in every if isinstance(s, structure.Product)]
        names = [describe(s) for s in every if isinstance(s, structure.Elementwise)]
        self.activation = ", ".join(names)
        # Normalisations that follow one another share what they are read as.
        self._readings = {}

    @property
    def weights(self) -> list:
        """What was read of the weights of each product."""
        return [self._read(step, self.reader.weights) for step in self._products]

    @property
    def note(self) -> str:
        """What to know of a layer that has a theory."""
        if len(self._products) > 1:
            scales = ", ".join(f"{weights.sigma:.3g}" for weights in self.weights)
            return f"{len(self._products)} products, sigma_w {scales}"
        return "gradient gain of deep layers" if self.couples else ""

    @property
    def sigma_b(self) -> float:
        """Standard deviation of all shifts that follow a product."""
        shifts = [self._read(step, self.reader.shift) for step in self._shifts()]
        return math.sqrt(sum(shift.variance for shift in shifts))

    def draws(self) -> tuple:
        """The parameters that are random in theory."""
        pairs = zip(self._products, self.weights, strict=True)
        biases = [
            atom
            for step in self._shifts()
            if primitives.is_named(step.eqns[-1], "add", "add_any", "sub")
            for atom in structure.leaves(step.eqns, step.root)
        ]
        weights = [(step.weight, read.orthogonal) for step, read in pairs]
        return draws_of(self.reader, weights, biases)

    def end(self, law: Law, cotangent: jax.Array, joint: bool, /) -> End:
        """Theory at the end of the layer, for a law of the data that enter.

        Args:
            law: of the data that enter.
            cotangent: measured gradient at the output; it says how the gradient is
                spread over positions and examples.
            joint: whether the gradient's norm is of all examples together.
        """
        deep = law.batch is not None
        out, transport = self._through(self.steps, law)
        with np.errstate(divide="ignore"):
            square = float(np.log(np.mean(out.square)))
        if self._batch_gain is not None:
            gain = self._batch_gain if deep else math.nan
            shrinkage = cotangent.size / law.square.size
            return End(out, square, math.log(gain) / 2, gain * shrinkage)
        weight = _shares(cotangent, joint)
        images = transport.forward(np.ones(law.square.shape))
        with np.errstate(divide="ignore"):
            squares = _total(transport.backward(weight), joint)
            present = _total(weight, joint)
            # Examples without a gradient say nothing.
            squares = np.reshape(squares, -1)[np.reshape(present, -1) > 0]
            mean = np.mean(squares) if squares.size else np.nan
            log_gain = float(np.log(mean)) / 2
        chi = float(np.sum(images)) / law.square.size
        return End(out, square, log_gain, chi)

    def _through(
        self, steps: Sequence[structure.Step], law: Law
    ) -> tuple[Law, Transport]:
        transports = []
        for step in steps:
            law, transport = self._after(step, law)
            transports.append(transport)
        return law, _composed(transports)

    def _after(self, step: structure.Step, law: Law) -> tuple[Law, Transport]:
        """The law of the data that leave a step, and how it transports squares."""
        match step:
            case structure.Reshape():
                return self._reshape(step, law)
            case structure.Product():
                return self._product(step, law)
            case structure.Affine():
                return self._affine(step, law)
            case structure.Elementwise():
                return self._elementwise(step, law)
            case structure.Norm():
                return self._norm(step, law)
            case structure.Sum():
                return self._sum(step, law)
            case structure.Unknown():
                raise NoTheoryError(step.reason)
            case _:
                raise AssertionError(f"no law for a {type(step).__name__}")

    def _reshape(self, step: structure.Reshape, law: Law) -> tuple[Law, Transport]:
        where = np.arange(law.square.size).reshape(law.square.shape)
        where = np.asarray(evaluate(step.eqns[-1], [jnp.asarray(where)])[0])
        shape = law.square.shape

        def back(t: np.ndarray) -> np.ndarray:
            return np.reshape(np.reshape(t, -1)[np.argsort(where, axis=None)], shape)

        def moved(x) -> np.ndarray:
            return np.reshape(x, -1)[where]

        if law.sample is not None:
            return laws.given(jnp.reshape(law.sample, -1)[where]), Transport(
                moved, back
            )
        spread = None if law.variance is None else moved(law.variance)
        mean = law.mean if spread is not None else np.broadcast_to(law.mean, shape)
        mean = mean if np.ndim(mean) == 0 else moved(mean)
        out = Law(mean, moved(law.square), spread, batch=law.batch)
        return out, Transport(moved, back)

    def _product(self, step: structure.Product, law: Law) -> tuple[Law, Transport]:
        weights = self._read(step, self.reader.weights)
        return laws.through_weights(law, step.eqn, step.position, weights)

    def _affine(self, step: structure.Affine, law: Law) -> tuple[Law, Transport]:
        shift = self._read(step, self.reader.shift)
        return laws.through_shift(law, shift, self._image(step))

    def _elementwise(
        self, step: structure.Elementwise, law: Law
    ) -> tuple[Law, Transport]:
        f = self._read(step, self.reader.activation)
        if law.batch is None:
            return laws.through_activation(law, f)
        try:
            self._batch_gain, level = _batch_norm(f, law.batch)
        except ValueError as error:
            raise NoTheoryError(str(error)) from error
        square = np.full(law.square.shape, level)
        return Law(math.nan, square, batch=law.batch), laws.scaling(1.0)

    def _norm(self, step: structure.Norm, law: Law) -> tuple[Law, Transport]:
        norm = self._read(step, self.reader.norm)
        if norm.kind != "batch":
            return laws.through_norm(law, norm, self._image(step))
        batch, *rest = law.square.shape
        before = self.steps[: self.steps.index(step)] if step in self.steps else ()
        kinds = [type(s) for s in before if not isinstance(s, structure.Affine)]
        if kinds != [structure.Product] or len(rest) != 1 or batch < 4:
            raise NoTheoryError(
                "batch normalisation other than of a product, of four examples or more"
            )
        if abs(norm.gain_square - 1) > 1e-4 or not norm.even:
            raise NoTheoryError("batch normalisation with scales of its own")
        self.couples, self._batch_gain = True, (batch - 2) / (batch - 3)
        ones = np.ones(law.square.shape)
        return Law(0.0, ones, ones, batch=batch), laws.scaling(1.0)

    def _image(self, step: structure.Step) -> Callable[..., np.ndarray]:
        return functools.partial(self.reader.image, step)

    def _sum(self, step: structure.Sum, law: Law) -> tuple[Law, Transport]:
        first, second = step.branches
        (left, one), (right, other) = (self._through(b, law) for b in step.branches)
        if _weights_of(first) == _weights_of(second):
            raise NoTheoryError("branches with the same weights are added")
        transport = Transport(
            lambda t: one.forward(t) + other.forward(t),
            lambda t: one.backward(t) + other.backward(t),
        )
        return laws.through_sum(left, right), transport

    def _read(self, step: structure.Step, read: Callable[..., T]) -> T:
        if step not in self._readings:
            self._readings[step] = read(step)
        return self._readings[step]

    def _shifts(self) -> list[structure.Affine]:
        """The steps that add known numbers to the result of a product."""
        return [s for s in every_step(self.steps) if isinstance(s, structure.Affine)]


@functools.lru_cache(maxsize=32)
def _batch_norm(activation: Callable[..., Any], batch: float) -> tuple[float, float]:
    """Gain and mean square of a batch-normalised layer: seconds, so remembered."""
    return batch_norm_gain(activation, batch), batch_norm_square(activation, batch)


def _weights_of(steps: Sequence[structure.Step]) -> set[_compat.Var]:
    every = every_step(steps)
    return {s.weight for s in every if isinstance(s, structure.Product)}


def _composed(transports: Sequence[Transport]) -> Transport:
    """One step after the other."""
    return Transport(
        lambda t: functools.reduce(lambda x, step: step.forward(x), transports, t),
        lambda t: functools.reduce(
            lambda x, step: step.backward(x), reversed(transports), t
        ),
    )


def _total(array: np.ndarray, joint: bool) -> np.ndarray:
    """The sum over all entries, or over those of each example."""
    return np.sum(array, axis=None if joint else tuple(range(1, array.ndim)))


def _shares(cotangent: jax.Array, joint: bool) -> np.ndarray:
    """How the squared gradient is spread, of sum one for each example or for all."""
    g = np.asarray(cotangent, np.float64)
    rows = g.reshape(1 if joint else len(g), -1)
    largest = np.max(np.abs(rows), axis=1, keepdims=True, initial=0.0)
    squares = np.square(rows / np.where(largest > 0, largest, 1.0))
    total = np.sum(squares, axis=1, keepdims=True)
    return (squares / np.where(total > 0, total, 1.0)).reshape(g.shape)
