"""The nouns of gradstab: frozen records of arrays, each a pytree.

Arrays come first, with their shapes beside them; names and other static facts last, as
tuples in depth order.
"""

import dataclasses
import math
import typing

import jax
import numpy as np
from scipy import special

# Half of the central 95 % of a normal variable, in standard deviations.
NORMAL_95 = 1.959964


def static(**options):
    """A field of a record that is not an array."""
    return dataclasses.field(metadata={"static": True}, **options)


@typing.dataclass_transform(frozen_default=True, field_specifiers=(static,))
def record(cls):
    """A frozen dataclass that is a pytree; fields made by `static` are not leaves."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)
    return jax.tree_util.register_dataclass(
        cls,
        data_fields=[f.name for f in fields if not f.metadata.get("static")],
        meta_fields=[f.name for f in fields if f.metadata.get("static")],
    )


@record
class Signals:
    """What flows forward and backward through every layer, in depth order.

    A complex entry counts as two real ones everywhere: in means, fractions and norms.

    Attributes:
        forward_rms: (layers,) root mean square of the data that leave the layer.
        forward_mean: (layers,) their mean.
        zero_fraction: (layers,) fraction of them that are exactly zero.
        saturated_fraction: (layers,) fraction of the entries of the layer's
            activations whose slope is at most 5 % of the greatest slope; NaN without
            activations.
        dead_fraction: (layers,) fraction of their units whose slope is exactly zero
            for all examples; NaN without activations.
        gradient_norms: (layers, examples) Euclidean norm of d loss / d (data that
            leave the layer), per example. NaN where examples are not on the leading
            axis.
        gradient_rms: (layers,) root mean square of the same gradient over all entries.
        forward_max: (layers,) largest magnitude among the data that leave the layer.
        forward_median: (layers,) median magnitude of those that are not zero; of a
            sample of them in large layers.
        gradient_max: (layers,) the same of the gradient.
        gradient_median: (layers,) the same of the gradient.
        param_norm: (layers,) norm of the layer's parameters.
        param_gradient_norm: (layers,) norm of d loss / d (the layer's parameters); NaN
            without a loss.
        disconnected: (layers,) whether no path leads from the layer to the loss: the
            program has none, or the gradient is exactly zero although that of the next
            layer is not.
        names: the layers.
    """

    forward_rms: jax.Array
    forward_mean: jax.Array
    zero_fraction: jax.Array
    saturated_fraction: jax.Array
    dead_fraction: jax.Array
    gradient_norms: jax.Array
    gradient_rms: jax.Array
    forward_max: jax.Array
    forward_median: jax.Array
    gradient_max: jax.Array
    gradient_median: jax.Array
    param_norm: jax.Array
    param_gradient_norm: jax.Array
    disconnected: jax.Array
    names: tuple[str, ...] = static()


@record
class Estimate:
    """A number per example, and how far it may be off.

    Attributes:
        value: (examples,) the number, or an unbiased estimate of it.
        error: (examples,) the standard error if it comes from random probes, the
            greatest error there can be if it does not.
        low: (examples,) lower end of the 95 % interval; it is not symmetric about the
            value if that comes from random probes.
        high: (examples,) upper end.
    """

    value: np.ndarray
    error: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def within(cls, value, bound, /) -> "Estimate":
        """A number that is off by no more than the bound."""
        value, bound = np.asarray(value), np.asarray(bound)
        return cls(value, bound, value - bound, value + bound)

    def times(self, factor, /) -> "Estimate":
        """The estimate of a positive multiple of the number."""
        ends = (self.value, self.error, self.low, self.high)
        return Estimate(*(np.asarray(end * factor) for end in ends))

    @property
    def mean(self) -> float:
        """The mean over the examples."""
        return float(np.mean(self.value))


@record
class Spectrum:
    """Singular values of a Jacobian, per example, or of the joint one of a batch.

    Attributes:
        values: (examples, k) in descending order; (1, k) if the examples are coupled.
            All of them, or the largest.
        errors: (examples, k) a singular value lies within this distance of the value:
            rounding, and the residual where values were found by products.
        frobenius_square: the sum of the squares of all singular values.
        shape: (outputs, inputs) of the Jacobian, in real numbers: a complex entry is
            two of them, and a singular value of a complex matrix is there twice.
        coupled: whether the layer mixes examples, so that the Jacobian is of the whole
            batch.
        relative_square: the sum of the squares over the square of the largest value,
            which is within range where the sum is not.
        method: how the values were computed: 'svd', 'gram' (eigenvalues of the Gram
            matrix in float64) or 'golub-kahan' (with random probes for the sum).
    """

    values: np.ndarray
    errors: np.ndarray
    frobenius_square: Estimate
    shape: tuple[int, int] = static()
    coupled: bool = static(default=False)
    method: str = static(default="svd")
    relative_square: Estimate | None = None

    @property
    def largest(self) -> Estimate:
        """The largest singular value: the greatest gain of any direction."""
        return Estimate.within(self.values[:, 0], self.errors[:, 0])

    @property
    def mean_square(self) -> Estimate:
        r"""The squared gain of a random direction, :math:`\|J\|_F^2 / n_{in}`."""
        return self.frobenius_square.times(1 / self.shape[1])

    @property
    def stable_rank(self) -> Estimate:
        r"""The stable rank :math:`\|J\|_F^2 / \sigma_1^2`; 0 for a zero Jacobian.

        Its interval holds the error of the largest value as well.
        """
        largest, bound = self.values[:, 0], self.errors[:, 0]
        safe = np.where(largest == 0, 1, largest)
        square = self.relative_square
        if square is None:
            square = self.frobenius_square.times(1 / np.square(safe))
        bound = bound / safe
        near = np.where(bound < 1, 1 - bound, 1)
        high = np.where(bound < 1, square.high / np.square(near), np.inf)
        high = np.where(np.isnan(largest), np.nan, high)
        low = square.low / np.square(1 + bound)
        return Estimate(square.value, square.error, low, high)


@record
class Growth:
    r"""The law by which the logarithm of a norm changes along a network.

    ======================  ========================  ===========================
    law                     norm at layer l           rate
    ======================  ========================  ===========================
    ``constant``            a                         0
    ``power``               a l^rate                  per unit of ln l
    ``exp-sqrt``            a exp(rate sqrt l)        per sqrt(layer)
    ``exponential``         a exp(rate l)             per layer
    ``unknown``             one of several            drift per layer
    ======================  ========================  ===========================

    Layers are counted from the input in both directions, so a gradient that shrinks on
    its way back to the input has a positive rate.

    An exponential or a constant may begin with a transient, whose steps die out like
    exp(-l / settling); a power and an exponential of the root count their layers from
    ``-offset``: ``a (l + offset)^rate``.

    Attributes:
        rate: scalar, natural logarithm of a norm. Of an unknown law the mean drift per
            layer, NaN with fewer than three layers.
        error: scalar, its standard error: half of the 95 % interval over 1.96, with
            few layers too. Of a constant the drift per layer that is excluded at 95 %,
            over 1.96.
        change: scalar, the factor by which the measured norm changes from the first
            layer to the last.
        offset: scalar, layers.
        settling: scalar, layers; 0 without a transient.
        law: which law.
        layers: the layers that were fitted, in depth order.
        depth: how many they are.
        compatible: the laws that are not excluded.
    """

    rate: float
    error: float
    change: float
    offset: float = 0.0
    settling: float = 0.0
    law: str = static(kw_only=True)
    layers: tuple[str, ...] = static(default=())
    depth: int = static(default=0)
    compatible: tuple[str, ...] = static(default=())

    @property
    def factor(self) -> float:
        """``exp(rate)``: per layer if the law is exponential."""
        return math.exp(self.rate)

    @property
    def depth_scale(self) -> float:
        """Layers over which an exponential changes e-fold; infinite for other laws."""
        if self.law != "exponential" or self.rate == 0:
            return math.inf
        return 1 / abs(self.rate)

    @property
    def bound(self) -> float:
        """The factor per layer within which the norm drifts, up or down, at 95 %.

        Of a constant the bound that was asked for; of an exponential or an unknown law
        the farther end of the interval of its rate. NaN for other laws.
        """
        if self.law in ("power", "exp-sqrt"):
            return math.nan
        return math.exp(abs(self.rate) + NORMAL_95 * self.error)


@record
class Range:
    """Where a signal leaves the range of a dtype.

    Attributes:
        depth: layers (or time steps) from where the signal starts, the input or the
            loss, to the first one out of range; infinite if it never gets there.
        earliest, latest: between these depths a run in that dtype leaves its range in
            95 % of cases; NaN in reports of an older gradstab.
        dtype: name of the dtype.
        direction: 'forward' or 'backward'.
        end: 'overflow' if the largest entry is above the largest number, 'underflow' if
            half of the entries that are not zero are rounded to zero; empty if the
            depth is infinite.
        layer: the first layer out of range; empty if none of the network is.
        extrapolated: whether the depth is beyond the network, by its law of growth.
    """

    depth: float
    dtype: str = static()
    direction: str = static()
    end: str = static()
    layer: str = static()
    extrapolated: bool = static(default=False)
    earliest: float = math.nan
    latest: float = math.nan


@record
class Recurrence:
    """The signals along the time axis of a recurrent layer.

    Attributes:
        state_rms: (steps,) root mean square of the state after each step.
        gradient_norms: (steps, examples) norm of d loss / d state after each step.
        jacobians: singular values of d state / d (state before), one spectrum for each
            of ``jacobian_steps``.
        forward: growth of the state per step.
        backward: growth of its gradient per step.
        exponents: (examples, k) Lyapunov exponents of the state map, in descending
            order, of the first examples: means over the second half of the steps of the
            logarithms by which directions grow. All if a state has at most 256 entries,
            the leading 16 up to 65536, none above.
        exponents_error: (examples, k) half of their 95 % interval, by means over blocks
            of steps and by the drift between them; NaN for fewer than 64 steps.
        name: the layer.
        state_size: real numbers in one example's state, all parts of it together; a
            complex one is two.
        jacobian_steps: the steps whose Jacobians were computed.
        note: what is not as usual.
        ranges: where the state and its gradient leave the range of narrower dtypes;
            depths are time steps.
        finite_time_exponents: (examples, k) ln(singular value of the product of all
            state Jacobians) / steps, in descending order. The largest is above the
            Lyapunov exponent at first, and the same in the limit of many steps.
        finite_time_errors: (examples, k) how far they may be off.
        state_max: (steps,) largest magnitude among the entries of the state; None, as
            the next three, in reports of an older gradstab.
        state_median: (steps,) median magnitude of those that are not zero.
        gradient_max: (steps,) the same of the gradient.
        gradient_median: (steps,) the same of the gradient.
        dtype: the dtype in which they were computed.
    """

    state_rms: np.ndarray
    gradient_norms: np.ndarray
    jacobians: tuple[Spectrum, ...]
    forward: Growth
    backward: Growth
    exponents: np.ndarray
    exponents_error: np.ndarray
    name: str = static()
    state_size: int = static()
    jacobian_steps: tuple[int, ...] = static()
    note: str = static(default="")
    ranges: tuple[Range, ...] = ()
    finite_time_exponents: np.ndarray | None = None
    finite_time_errors: np.ndarray | None = None

    state_max: np.ndarray | None = None
    state_median: np.ndarray | None = None
    gradient_max: np.ndarray | None = None
    gradient_median: np.ndarray | None = None
    dtype: str = static(default="float64")

    @property
    def mean_exponents(self) -> Estimate:
        """Lyapunov exponents of orbits on one attractor: (k,) means over the examples.

        The error is half of the 95 % interval: the larger one of what the errors of the
        examples say and what the distance between examples says.
        """
        values = np.asarray(self.exponents)
        num = len(values)
        mean = np.mean(values, axis=0)
        error = np.sqrt(np.sum(np.square(self.exponents_error), axis=0)) / num
        if num > 1:
            finite = np.where(np.isfinite(values), values, 0)
            spread = np.std(finite, axis=0, ddof=1) / math.sqrt(num)
            error = np.fmax(error, special.stdtrit(num - 1, 0.975) * spread)
        return Estimate.within(mean, error)


@record
class Prediction:
    r"""What theory says of every layer, beside what was measured, in depth order.

    A number is NaN where there is no theory; the note says why.

    Attributes:
        sigma_w: (layers,) mean-field scale of the weights: the root of fan-in times
            their variance. Of several products in one layer, that of the first.
        sigma_b: (layers,) standard deviation of the biases.
        forward_rms: (layers,) root mean square of the data that leave the layer, from
            the length of the data that entered the network.
        forward_error: (layers,) standard error of the measured one.
        forward_z: (layers,) how many of them the logarithm of the measured one is above
            theory.
        gradient_factor: (layers,) norm of the gradient that enters the layer over that
            at its output.
        measured_gradient_factor: (layers,) the same, measured; over examples its root
            mean square.
        gradient_error: (layers,) standard error of its logarithm.
        gradient_z: (layers,) how many of them the logarithm is above theory.
        chi: (layers,) mean squared singular value of the layer's Jacobian,
            :math:`\|J\|_F^2 / n_{in}`.
        names: the layers.
        activations: the functions that were found, by the names of their primitives.
        orthogonal: whether the weights have equal singular values.
        notes: why there is no theory; what to know about it if there is.
    """

    sigma_w: np.ndarray
    sigma_b: np.ndarray
    forward_rms: np.ndarray
    forward_error: np.ndarray
    forward_z: np.ndarray
    gradient_factor: np.ndarray
    measured_gradient_factor: np.ndarray
    gradient_error: np.ndarray
    gradient_z: np.ndarray
    chi: np.ndarray
    names: tuple[str, ...] = static()
    activations: tuple[str, ...] = static()
    orthogonal: tuple[bool, ...] = static()
    notes: tuple[str, ...] = static()


@record
class Layer:
    """One layer of a report.

    Attributes:
        forward_rms, forward_mean, zero_fraction, saturated_fraction, dead_fraction:
            scalars, see `Signals`.
        gradient_norm: (examples,) see `Signals.gradient_norms`.
        gradient_rms, param_norm, param_gradient_norm: scalars, see `Signals`.
        forward_max, forward_median, gradient_max, gradient_median: scalars, see
            `Signals`; NaN in reports of an older gradstab.
        jacobian: singular values of the layer's Jacobian; None if it was not computed.
        name: dotted path of the parameters that the layer owns.
        in_shape: shape of one example's data that enter; None for integers.
        out_shape: shape of one example's data that leave.
        params: dotted paths of the parameter leaves that it uses.
        num_params: how many real numbers the parameters are that it owns; a complex
            entry is two.
        coupled: whether it mixes examples; None in an analysis without Jacobians, which
            does not look.
        disconnected: whether no path leads from it to the loss, see `Signals`.
        note: why a number is missing, or why the layer is no smaller.
        alignment: (examples,) of the leading output direction of the layer before with
            the leading input direction of this one, from 0 to 1; None if one of them is
            not known.
        gradient_cosines: (examples, examples) cosines of the angles between the
            examples' gradients of the layer's parameters; None without a loss.
    """

    forward_rms: float
    forward_mean: float
    zero_fraction: float
    saturated_fraction: float
    dead_fraction: float
    gradient_norm: np.ndarray
    gradient_rms: float
    param_norm: float
    param_gradient_norm: float
    jacobian: Spectrum | None
    name: str = static()
    in_shape: tuple[int, ...] | None = static()
    out_shape: tuple[int, ...] = static()
    params: tuple[str, ...] = static()
    num_params: int = static()
    coupled: bool | None = static(default=None)
    disconnected: bool = static(default=False)
    note: str = static(default="")
    alignment: np.ndarray | None = None
    gradient_cosines: np.ndarray | None = None
    forward_max: float = math.nan
    forward_median: float = math.nan
    gradient_max: float = math.nan
    gradient_median: float = math.nan
