"""Initialisers that keep lengths: orthogonal, delta-orthogonal, looks-linear."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.nn import initializers
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from gradstab.errors import UserValueError
from gradstab.initializers.protocol import default_dtype, placed, sampled_wide


def orthogonal(scale: float = 1.0, /) -> Initializer:
    r"""A uniformly distributed orthogonal matrix (or part of one), times ``scale``.

    Orthogonal is the kernel seen as a matrix :math:`W` of shape
    ``(prod(shape[:-1]), shape[-1])``: :math:`W W^T = s^2 I` if it is wide, so that
    :math:`x \mapsto x W` keeps all lengths up to :math:`s`; :math:`W^T W = s^2 I` if it
    is tall, and the map keeps the lengths in a subspace. A *convolution* with such a
    kernel keeps no lengths: use `delta_orthogonal`. A fused kernel of several gates is
    orthogonal as a whole only: use `per_gate`.

    Any real or complex dtype; JAX's own refuses bfloat16 and float16. One QR
    factorisation, in float32 at least.

    Raises:
        ValueError: if the shape has fewer than two axes.

    References:
        Saxe, McClelland and Ganguli (2014), Exact solutions to the nonlinear dynamics
        of learning in deep linear neural networks.

    >>> import jax
    >>> w = orthogonal(2.0)(jax.random.key(0), (3, 5))
    >>> bool(jnp.allclose(w @ w.T, 4 * jnp.eye(3), atol=1e-5))
    True
    """

    def init(key: jax.Array, shape: Sequence[int], dtype: DTypeLike):
        if len(shape) < 2:
            raise UserValueError(
                f"an orthogonal kernel has two axes or more; the shape given is {shape}"
            )
        return initializers.orthogonal(scale)(key, shape, dtype)

    return sampled_wide(init)


def delta_orthogonal(scale: float = 1.0, /) -> Initializer:
    r"""A convolution that is an orthogonal matrix at each pixel, times ``scale``.

    The kernel ``(*window, in, out)`` is zero but for its centre tap, the entry
    ``(size - 1) // 2`` of each window axis, which is `orthogonal`. With stride 1 and
    ``"SAME"`` padding (or a circular one) the convolution keeps the length of every
    image up to ``scale``. Windows have one to three axes.

    Raises:
        ValueError: if ``in > out``, where no convolution keeps all lengths, or if the
            shape has not three, four or five axes.

    References:
        Xiao et al. (2018), Dynamical isometry and a mean field theory of CNNs,
        section 3.2, algorithm 1.

    >>> import jax
    >>> kernel = delta_orthogonal()(jax.random.key(0), (3, 3, 4, 8))
    >>> int((kernel != 0).any(axis=(-2, -1)).sum())
    1
    """

    def init(
        key: jax.Array,
        shape: Sequence[int],
        dtype: DTypeLike | None = None,
        out_sharding=None,
    ):
        if len(shape) not in (3, 4, 5):
            raise UserValueError(
                "a delta-orthogonal kernel has the shape (*window, in, out) with one "
                f"to three window axes; the shape given is {shape}"
            )
        *window, fan_in, fan_out = shape
        if fan_in > fan_out:
            raise UserValueError(
                "a convolution keeps all lengths only if it has no more input than "
                f"output channels; the shape {shape} has {fan_in} and {fan_out}. Use "
                "he_normal for this layer"
            )
        tap = orthogonal(scale)(key, (fan_in, fan_out), dtype)
        centre = tuple((size - 1) // 2 for size in window)
        kernel = jnp.zeros(tuple(shape), tap.dtype).at[centre].set(tap)
        return placed(kernel, out_sharding)

    return init


def looks_linear(
    base=None, /, *, inputs: bool = True, outputs: bool = True
) -> Initializer:
    r"""Mirrored weights, with which a network of rectifiers is linear at first.

    A mirrored signal holds :math:`(\rho(z), \rho(-z))` in its two halves, and
    :math:`W \rho(z) - W \rho(-z) = W z`. In the convention ``x @ kernel`` the kernels

    .. math:: \begin{pmatrix} W & -W \\ -W & W \end{pmatrix}, \quad
        \begin{pmatrix} W \\ -W \end{pmatrix}, \quad
        \begin{pmatrix} W & -W \end{pmatrix}

    are those of a hidden layer of a ReLU network (mirrored in and out), of any layer
    after a concatenated ReLU and the last of a ReLU network (``outputs=False``), and of
    the first of a ReLU network (``inputs=False``). The whole network is then the
    product of its :math:`W`, and keeps lengths if these do.

    Args:
        base: initialiser of :math:`W`; `orthogonal()` unless given.
        inputs: whether the input of the layer is mirrored.
        outputs: whether its output shall be. Convolutions mirror channels.

    Raises:
        ValueError: if a mirrored axis has an odd size.

    References:
        Balduzzi et al. (2017), The shattered gradients problem, section 4 (the CReLU
        form, ``outputs=False``).

    >>> import jax
    >>> init = looks_linear(jax.nn.initializers.ones)
    >>> init(jax.random.key(0), (2, 4))
    Array([[ 1.,  1., -1., -1.],
           [-1., -1.,  1.,  1.]], dtype=float32)
    """
    base = orthogonal() if base is None else base

    def init(
        key: jax.Array,
        shape: Sequence[int],
        dtype: DTypeLike | None = None,
        out_sharding=None,
    ):
        *window, fan_in, fan_out = shape
        fan_in = _half(fan_in, "input", shape) if inputs else fan_in
        fan_out = _half(fan_out, "output", shape) if outputs else fan_out
        kernel = base(key, (*window, fan_in, fan_out), default_dtype(dtype))
        if inputs:
            kernel = jnp.concatenate([kernel, -kernel], axis=-2)
        if outputs:
            kernel = jnp.concatenate([kernel, -kernel], axis=-1)
        return placed(kernel, out_sharding)

    return init


def _half(size, side, shape: Sequence[int]):
    if size % 2:
        raise UserValueError(
            f"a mirrored {side} pairs unit i with unit i + size / 2, so its size is "
            f"even; the shape {tuple(shape)} has {size}. Use an even width, or pass "
            f"{side}s=False for a layer whose {side} is not mirrored"
        )
    return size // 2
