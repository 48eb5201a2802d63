"""How signals change along a network and along time."""

import math

import numpy as np
from scipy import special

from gradstab._text import printable
from gradstab.records._record import record, reduced, short, static
from gradstab.records.spectrum import Estimate, Spectrum

# Half of the central 95 % of a normal variable, in standard deviations.
NORMAL_95 = 1.959964


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
            layer to the last. Along time, where it underflows, it goes on by an
            exponential law, and the note of the `Recurrence` says so.
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

    def __repr__(self) -> str:
        parts = [
            f"{len(self.state_rms)} steps",
            f"state of {self.state_size}",
            f"gradient {self.backward.law} by {short(self.backward.change)}",
        ]
        if np.size(self.exponents):
            largest = reduced(lambda x: x[..., 0].max(), self.exponents)
            parts.append(f"largest Lyapunov exponent {largest}")
        return f"<Recurrence {printable(self.name)}: {', '.join(parts)}>"

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
