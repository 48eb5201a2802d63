"""Initialisers that choose a variance from the shape: LeCun, Glorot, He, mean field.

A kernel of shape ``(*window, in, out)`` has ``fan_in = prod(window) * in`` and
``fan_out = prod(window) * out``. A stack of kernels ``(layers, in, out)`` looks like a
window of ``layers`` entries, and gets 1 / layers of its variance, unless
``batch_axis=(0,)`` is given; or map the initialiser over one key per layer.

The names that `jax.nn.initializers` also has give the same float32 arrays as there.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers
from jax.nn.initializers import Initializer

from gradstab.errors import UserValueError
from gradstab.initializers.protocol import sampled_wide

MODES = ("fan_in", "fan_out", "fan_avg", "fan_geo_avg")
DISTRIBUTIONS = ("normal", "truncated_normal", "uniform")
RELU_GAIN = math.sqrt(2)


def variance_scaling(scale: float, mode, distribution, **axes) -> Initializer:
    r"""Zero mean and variance ``scale / fan``.

    Truncated normals are cut at two standard deviations and scaled up again by
    1 / 0.8796, so that their variance is the stated one and none is beyond 2.27
    standard deviations of it. Narrow dtypes are sampled in float32
    (`protocol.sampled_wide`).

    Args:
        scale: the variance times the fan.
        mode: the fan: ``"fan_in"``, ``"fan_out"``, their arithmetic mean
            ``"fan_avg"`` or their geometric mean ``"fan_geo_avg"``.
        distribution: ``"normal"``, ``"truncated_normal"`` or ``"uniform"``.
        **axes: ``in_axis=-2``, ``out_axis=-1``, ``batch_axis=()``. Other axes are the
            window of a convolution.

    Raises:
        ValueError: for an unknown mode or distribution, or a negative scale.

    >>> init = variance_scaling(2.0, "fan_in", "normal", batch_axis=(0,))
    >>> round(float(100 * init(jax.random.key(0), (3, 100, 100)).var()), 1)
    2.0
    """
    _require("mode", mode, MODES)
    _require("distribution", distribution, DISTRIBUTIONS)
    if scale < 0:
        raise UserValueError(f"a variance is not negative; the scale given is {scale}")
    return sampled_wide(
        initializers.variance_scaling(scale, mode, distribution, **axes)
    )


def lecun_normal(*, gain: float = 1.0, truncated: bool = True, **axes) -> Initializer:
    """Normal with variance ``gain^2 / fan_in``: keeps the variance of linear layers.

    Args:
        gain: see `gain`.
        truncated: cut at two standard deviations, as JAX and Keras do; else Gaussian.
        **axes: see `variance_scaling`.

    References:
        LeCun, Bottou, Orr and Müller (1998), Efficient BackProp, equation 16.

    >>> lecun_normal()(jax.random.key(0), (784, 100)).shape
    (784, 100)
    """
    return variance_scaling(gain**2, "fan_in", _normal(truncated), **axes)


def lecun_uniform(*, gain: float = 1.0, **axes) -> Initializer:
    """Uniform with variance ``gain^2 / fan_in``; otherwise as `lecun_normal`."""
    return variance_scaling(gain**2, "fan_in", "uniform", **axes)


def glorot_normal(*, gain: float = 1.0, truncated: bool = True, **axes) -> Initializer:
    r"""Normal with variance ``gain^2 * 2 / (fan_in + fan_out)``.

    The compromise between keeping the forward variance, :math:`\mathrm{fan_{in}}
    \mathrm{Var}\,w = 1`, and the backward one, :math:`\mathrm{fan_{out}}
    \mathrm{Var}\,w = 1`: one over the *mean* of the fans. Some tutorials print
    1 / (fan_in + fan_out), half of it, which loses a factor sqrt(2) per layer.

    Args:
        gain: see `gain`.
        truncated: cut at two standard deviations, as JAX and Keras do; else Gaussian.
        **axes: see `variance_scaling`.

    References:
        Glorot and Bengio (2010), Understanding the difficulty of training deep
        feedforward neural networks, equations 10 to 12; 16 is the uniform one.

    >>> w = glorot_normal()(jax.random.key(0), (300, 100))
    >>> round(float(400 * w.var()), 1)
    2.0
    """
    return variance_scaling(gain**2, "fan_avg", _normal(truncated), **axes)


def glorot_uniform(*, gain: float = 1.0, **axes) -> Initializer:
    """Uniform on ``+-gain * sqrt(6 / (fan_in + fan_out))``; else as `glorot_normal`."""
    return variance_scaling(gain**2, "fan_avg", "uniform", **axes)


def he_normal(
    *, gain: float = RELU_GAIN, truncated: bool = True, **axes
) -> Initializer:
    """Normal with variance ``gain^2 / fan_in``, by default the ``2 / fan_in`` of ReLU.

    Args:
        gain: `gain` computes that of another activation.
        truncated: cut at two standard deviations, as JAX and Keras do; False gives the
            Gaussian of the paper.
        **axes: see `variance_scaling`.

    References:
        He, Zhang, Ren and Sun (2015), Delving deep into rectifiers, equation 10;
        15 for rectifiers with a slope.

    >>> w = he_normal(truncated=False)(jax.random.key(0), (3, 3, 64, 128))
    >>> round(float(9 * 64 * w.var()), 1)
    2.0
    """
    return variance_scaling(gain**2, "fan_in", _normal(truncated), **axes)


def he_uniform(*, gain: float = RELU_GAIN, **axes) -> Initializer:
    """Uniform on ``+-gain * sqrt(3 / fan_in)``; otherwise as `he_normal`."""
    return variance_scaling(gain**2, "fan_in", "uniform", **axes)


xavier_normal, xavier_uniform = glorot_normal, glorot_uniform
kaiming_normal, kaiming_uniform = he_normal, he_uniform


def scaled_for(
    activation: Callable[..., Any],
    /,
    distribution: str = "normal",
    *,
    slope: float | None = None,
) -> Initializer:
    """Variance ``gain(activation)^2 / fan_in``: unit variance stays unit variance.

    Args:
        activation: an elementwise function, applied to the input of the layer.
        distribution: ``"normal"``, ``"truncated_normal"`` or ``"uniform"``.
        slope: see `gain`.

    >>> w = scaled_for(jax.nn.relu)(jax.random.key(0), (100, 1000))
    >>> round(float(100 * w.var()), 1)
    2.0
    """
    return variance_scaling(gain(activation, slope=slope) ** 2, "fan_in", distribution)


def mean_field(sigma_w: float, /, **axes) -> Initializer:
    r"""Weights of mean-field theory, :math:`N(0, \sigma_w^2 / \mathrm{fan_{in}})`.

    The Gaussian is not truncated: the theory's finite-width corrections depend on its
    fourth moment.

    Args:
        sigma_w: not the standard deviation of a weight, but of a pre-activation per
            root mean square of the layer's input.
        **axes: see `variance_scaling`.

    References:
        Poole et al. (2016), Exponential expressivity in deep neural networks through
        transient chaos, equation 1.

    >>> w = mean_field(1.5)(jax.random.key(0), (400, 400))
    >>> round(float(20 * w.std()), 2)
    1.5
    """
    return variance_scaling(sigma_w**2, "fan_in", "normal", **axes)


def mean_field_bias(sigma_b: float, /) -> Initializer:
    r"""Biases of mean-field theory, :math:`N(0, \sigma_b^2)`; see `mean_field`.

    >>> mean_field_bias(0.0)(jax.random.key(0), (2,))
    Array([0., 0.], dtype=float32)
    """
    return normal(sigma_b)


def normal(stddev: float, /) -> Initializer:
    """Gaussian with the same standard deviation for every shape.

    >>> round(float(normal(0.01)(jax.random.key(0), (300, 300)).std()), 3)
    0.01
    """
    return sampled_wide(initializers.normal(stddev))


def gain(activation: Callable[..., Any], /, *, slope: float | None = None) -> float:
    r"""How large weights undo an activation: their deviation times sqrt(fan_in).

    .. math:: g = 1 / \sqrt{E\,\phi(z)^2}, \qquad z \sim N(0, 1),

    so that inputs :math:`\phi(z)` of unit-variance :math:`z` and weights of variance
    :math:`g^2 / \mathrm{fan_{in}}` give pre-activations of unit variance again. This
    is the forward condition of He et al., for any activation. PyTorch's
    ``calculate_gain`` has the same numbers for ReLU and its leaky form, but tabulates
    rules of thumb elsewhere: 5/3 for tanh (here 1.5925), 1 for sigmoid (1.8462),
    3/4 for SELU (1). The gain does not make *gradients* keep their norm: that needs
    :math:`\sigma_w^2 E\,\phi'(z)^2 = 1`, which holds too for ReLU and its leaky form.

    The integral is a Gauss-Legendre rule on unit panels of [-12, 12], since kinks lie
    at integers as a rule (Gauss-Hermite converges slowly past them). The activation is
    evaluated in the default floating dtype, when this function is called, also under
    `jax.jit`.

    Args:
        activation: an elementwise function of real arrays.
        slope: if given, passed as its second argument: the negative slope of
            `jax.nn.leaky_relu`, alpha of `jax.nn.elu`.

    Raises:
        ValueError: if the function is not elementwise, or its mean square under the
            standard normal is zero or not finite.

    References:
        He, Zhang, Ren and Sun (2015), Delving deep into rectifiers, section 2.2.

    >>> round(gain(jax.nn.relu) ** 2, 6), round(gain(jax.nn.selu), 6)
    (2.0, 1.0)
    >>> round(gain(jax.nn.leaky_relu, slope=0.2) ** 2 * (1 + 0.2**2), 6)
    2.0
    """

    def phi(z):
        return activation(z) if slope is None else activation(z, slope)

    nodes, weights = _gaussian_rule()
    mean_square = float(weights @ np.square(_at_each(phi, nodes)))
    if not (math.isfinite(mean_square) and mean_square > 0):
        raise UserValueError(
            f"the mean square of {_name(activation)} under N(0, 1) is {mean_square}; a "
            "gain needs it positive and finite"
        )
    return 1 / math.sqrt(mean_square)


def _at_each(phi, nodes):
    """The values of an elementwise function, as float64 NumPy numbers."""
    with jax.ensure_compile_time_eval():
        try:
            # One scalar at a time: softmax has the right shape but is not elementwise.
            values = jax.vmap(phi)(jnp.asarray(nodes))
        except (TypeError, ValueError) as error:
            raise UserValueError(
                "the gain is defined for elementwise activations; this function does "
                f"not take a scalar: {error}"
            ) from error
        if values.shape != nodes.shape:
            raise UserValueError(
                "the gain is defined for elementwise activations; this function maps a "
                f"scalar to shape {values.shape[1:]}"
            )
        return np.asarray(values, np.float64)


def _gaussian_rule():
    """Nodes and weights of expectations under N(0, 1)."""
    # 16 nodes a panel integrate smooth activations to 1e-15; beyond 12 lies 4e-33.
    edges = np.arange(-12, 12)
    x, w = np.polynomial.legendre.leggauss(16)
    nodes = (edges[:, None] + (x + 1) / 2).ravel()
    weights = np.tile(w / 2, len(edges)) * np.exp(-(nodes**2) / 2)
    return nodes, weights / math.sqrt(2 * math.pi)


def _normal(truncated):
    return "truncated_normal" if truncated else "normal"


def _require(what, name: str, known):
    if name not in known:
        raise UserValueError(
            f"unknown {what} {name!r}; the known ones: {', '.join(known)}"
        )


def _name(activation):
    return getattr(activation, "__name__", repr(activation))
