"""Initialisers of recurrent networks: identity, gate by gate, and gates' time scales.

Gates are blocks of the last axis of a fused kernel or bias, in the order of a string of
one letter each: i(nput), f(orget), g (the candidate), o(utput), the order of Flax.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from gradstab.errors import UserValueError
from gradstab.initializers.protocol import default_dtype, placed, sampled_wide


def identity_rnn(scale: float = 1.0, /) -> Initializer:
    """The identity matrix times ``scale``: a recurrent ReLU network that remembers.

    A kernel that is not square gets the leading rows and columns of the identity:
    surplus inputs are dropped, surplus outputs start at zero.

    Args:
        scale: 1 in the paper; 0.01 there where the task needs little memory.

    Raises:
        ValueError: if the shape has not two axes.

    References:
        Le, Jaitly and Hinton (2015), A simple way to initialize recurrent networks of
        rectified linear units.

    >>> identity_rnn(0.5)(jax.random.key(0), (2, 2))
    Array([[0.5, 0. ],
           [0. , 0.5]], dtype=float32)
    """

    def init(
        key: jax.Array,
        shape: Sequence[int],
        dtype: DTypeLike | None = None,
        out_sharding=None,
    ):
        del key
        if len(shape) != 2:
            raise UserValueError(
                f"an identity matrix has two axes; the shape is {shape}"
            )
        dtype = default_dtype(dtype)
        matrix = jnp.asarray(scale, dtype) * jnp.eye(*shape, dtype=dtype)
        return placed(matrix, out_sharding)

    return init


def per_gate(base: Initializer, num_gates: int = 4, /) -> Initializer:
    """Initialise each gate's block of a fused kernel by itself.

    A fused kernel ``(in, num_gates * units)`` initialised as one has blocks that are
    not orthogonal and, for Glorot, a fan_out that is ``num_gates`` times too large
    (a standard deviation 1.58 times too small for four gates of square blocks).

    Args:
        base: the initialiser of one block.
        num_gates: the number of blocks on the last axis.

    Raises:
        ValueError: if the last axis is not a multiple of ``num_gates``.

    >>> init = per_gate(jax.nn.initializers.orthogonal(), 4)
    >>> blocks = jnp.split(init(jax.random.key(0), (8, 32)), 4, axis=-1)
    >>> all(bool(jnp.allclose(w @ w.T, jnp.eye(8), atol=1e-5)) for w in blocks)
    True
    """

    def init(
        key: jax.Array,
        shape: Sequence[int],
        dtype: DTypeLike | None = None,
        out_sharding=None,
    ):
        block = (*shape[:-1], _units(shape, num_gates))
        dtype = default_dtype(dtype)
        kernels = [base(k, block, dtype) for k in jax.random.split(key, num_gates)]
        return placed(jnp.concatenate(kernels, axis=-1), out_sharding)

    return init


def forget_bias(value: float = 1.0, /, *, gates: str = "ifgo") -> Initializer:
    r"""The bias ``value`` at the forget gate and zero at the others.

    With zero weights the cell state decays by :math:`\sigma(value)` per step: 0.5 for
    0, 0.73 for 1, 0.95 for 3.

    Args:
        value: 1 in the references.
        gates: the order of the gates.

    Raises:
        ValueError: if no gate is ``f``, or the last axis is not a multiple of the
            number of gates.

    References:
        Gers, Schmidhuber and Cummins (2000), Learning to forget; Jozefowicz, Zaremba
        and Sutskever (2015), An empirical exploration of recurrent network
        architectures.

    >>> forget_bias(1.0)(jax.random.key(0), (8,))
    Array([0., 0., 1., 1., 0., 0., 0., 0.], dtype=float32)
    """
    _require_forget(gates)

    def init(
        key: jax.Array,
        shape: Sequence[int],
        dtype: DTypeLike | None = None,
        out_sharding=None,
    ):
        del key
        block = (*shape[:-1], _units(shape, len(gates)))
        values = {"f": jnp.full(block, value, default_dtype(dtype))}
        return placed(_joined(values, gates), out_sharding)

    return init


def chrono_bias(max_time: float, /, *, gates: str = "ifgo") -> Initializer:
    r"""Forget gates whose time scales spread over 2 to ``max_time`` steps.

    .. math:: b_f = \ln u, \quad b_i = -b_f, \quad u \sim U(1, T - 1),

    one draw per unit; the other gates get zero. A unit with zero weights keeps
    :math:`\sigma(b_f)^T = (1 + 1/u)^{-T}` of its state over :math:`T` steps, a mean
    over units that tends to :math:`\int_0^1 e^{-1/v} dv = 0.1485` for long :math:`T`.

    Args:
        max_time: :math:`T`, the number of steps that the task spans; above 2.
        gates: the order of the gates; without an ``i`` (coupled gates) only the forget
            gate is set.

    Raises:
        ValueError: if ``max_time <= 2``, no gate is ``f``, or the last axis is not a
            multiple of the number of gates.

    References:
        Tallec and Ollivier (2018), Can recurrent neural networks warp time?,
        section 2, equation 16.

    >>> bias = chrono_bias(100)(jax.random.key(0), (4000,))
    >>> round(float(jnp.mean(jnp.exp(bias[1000:2000]))) / 50, 1)
    1.0
    """
    _require_forget(gates)
    if max_time <= 2:
        raise UserValueError(
            f"the time scales lie between 2 steps and max_time, given as {max_time}; "
            "give the number of steps that the task spans"
        )

    def init(key: jax.Array, shape: Sequence[int], dtype: DTypeLike):
        block = (*shape[:-1], _units(shape, len(gates)))
        times = jax.random.uniform(key, block, dtype, minval=1, maxval=max_time - 1)
        bias = jnp.log(times)
        return _joined({"f": bias, "i": -bias}, gates)

    return sampled_wide(init)


def _require_forget(gates):
    if "f" not in gates or len(set(gates)) != len(gates):
        raise UserValueError(
            f"gates {gates!r} names the blocks of the bias in order, one letter each "
            "and f for the forget gate, as in 'ifgo'"
        )


def _units(shape: Sequence[int], num_gates):
    if shape[-1] % num_gates:
        raise UserValueError(
            f"the last axis holds {num_gates} gates of equal size; the shape "
            f"{tuple(shape)} cannot be split so"
        )
    return shape[-1] // num_gates


def _joined(values, gates):
    zero = jnp.zeros_like(values["f"])
    return jnp.concatenate([values.get(gate, zero) for gate in gates], axis=-1)
