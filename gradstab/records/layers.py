"""The signals of the layers, the layers of a report, and theory beside them."""

import math

import jax
import numpy as np

from gradstab._text import printable
from gradstab.records._record import record, reduced, short, static
from gradstab.records.spectrum import Spectrum


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
        missing: sentences that begin with the names of the fields in which a number is
            NaN, and say why; empty in reports of an older gradstab.
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
    missing: tuple[str, ...] = static(default=())
    alignment: np.ndarray | None = None
    gradient_cosines: np.ndarray | None = None
    forward_max: float = math.nan
    forward_median: float = math.nan
    gradient_max: float = math.nan
    gradient_median: float = math.nan

    def __repr__(self) -> str:
        parts = [
            f"{_shape(self.in_shape)} -> {_shape(self.out_shape)}",
            f"{self.num_params} parameters",
            f"forward rms {short(self.forward_rms)}",
            f"gradient {reduced(np.median, self.gradient_norm)}",
        ]
        if self.jacobian is not None:
            largest = reduced(lambda x: x[..., 0].mean(), self.jacobian.values)
            parts.append(f"largest singular value {largest}")
        return f"<Layer {printable(self.name)}: {', '.join(parts)}>"


def _shape(shape):
    return "integers" if shape is None else "x".join(map(str, shape)) or "scalar"
