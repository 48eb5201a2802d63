"""The long short-term memory, with every gate initialised by itself."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from gradstab.errors import UserValueError
from gradstab.initializers import forget_bias as forget_bias_init
from gradstab.initializers import per_gate
from gradstab.models.recurrent import RecurrentLayer, RecurrentModel


class LSTMState(NamedTuple):
    """What an LSTM layer carries from one time to the next."""

    h: jax.Array
    """The output."""

    c: jax.Array
    """The memory cell."""


class LSTMLayer(RecurrentLayer):
    """One layer: ``kernel (in, 4h)``, ``recurrent_kernel (h, 4h)``, ``bias (4h,)``."""

    num_gates = 4

    def step(self, state: Any, projected, recurrent_kernel):  # noqa: D102 (see the base)
        gates = projected + jnp.dot(state.h, recurrent_kernel)
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        c = jax.nn.sigmoid(f) * state.c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return LSTMState(h=jax.nn.sigmoid(o) * jnp.tanh(c), c=c)

    def zero_state(self, batch: int, dtype: DTypeLike | None):  # noqa: D102 (see the base)
        zeros = jnp.zeros((batch, self.hidden), dtype)
        return LSTMState(h=zeros, c=zeros)

    def output(self, state: Any):  # noqa: D102 (see the base)
        return state.h


class LSTM(RecurrentModel):
    r"""A long short-term memory of any depth.

    .. math::
        i, f, g, o &= \sigma(a_i), \sigma(a_f), \tanh(a_g), \sigma(a_o)
        \quad\text{of}\quad
            a = x_t W + h_{t-1} U + b \\
        c_t &= f c_{t-1} + i g, \qquad h_t = o \tanh c_t

    The four gates lie side by side in this order in ``kernel``, ``recurrent_kernel``
    and ``bias``, but each is initialised by itself: an orthogonal ``recurrent_init``
    makes four orthogonal matrices, and a fan is that of one gate
    (`nnx.OptimizedLSTMCell` initialises the fused matrix). Layers after the first are
    one stack under `jax.lax.scan`.

    Args:
        in_features: features of the input at one time.
        out_features: number of logits.
        hidden: units of every layer.
        depth: number of layers.
        forget_bias: starting bias of the forget gates, other biases being 0; 1 if
            neither this nor ``bias_init`` is given (Jozefowicz et al. 2015, section 6).
        kernel_init: of the input weights of a gate, ``(in_features, hidden)``.
        recurrent_init: of the recurrent weights of a gate, ``(hidden, hidden)``.
        bias_init: of the whole bias ``(4 hidden,)``, such as a chrono initialiser.
        head_init: of the weights of the head; ``kernel_init`` without it.
        sequence_output: logits of every step, not of the last one.
        dropout: share of each layer's outputs set to zero in training mode, on their
            way up and not through time (Zaremba et al. 2014).
        dtype: of the computation; by default that of inputs and parameters.
        param_dtype: of the parameters.
        rngs: random streams; ``params`` and, with dropout, ``dropout`` are used.

    Raises:
        ValueError: if both ``forget_bias`` and ``bias_init`` are given; at call time if
            the input is not ``(batch, time, in_features)``.
        TypeError: at call time if the input is not floating.

    References:
        Hochreiter and Schmidhuber (1997); Gers et al. (2000) for the forget gate.

    >>> init = jax.nn.initializers
    >>> model = LSTM(3, 10, hidden=16, depth=2, kernel_init=init.lecun_normal(),
    ...              recurrent_init=init.orthogonal(), rngs=nnx.Rngs(0))
    >>> x = jnp.ones((4, 20, 3))
    >>> model(x).shape, model.trajectory(x)[1].c.shape
    ((4, 10), (4, 20, 16))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: int,
        depth: int = 1,
        forget_bias: float | None = None,
        kernel_init: Initializer,
        recurrent_init: Initializer,
        bias_init: Initializer | None = None,
        head_init: Initializer | None = None,
        sequence_output: bool = False,
        dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if forget_bias is not None and bias_init is not None:
            raise UserValueError(
                "give forget_bias or bias_init, not both: bias_init sets every gate."
            )
        if bias_init is None:
            bias_init = forget_bias_init(1.0 if forget_bias is None else forget_bias)

        super().__init__(
            LSTMLayer,
            in_features,
            out_features,
            hidden=hidden,
            depth=depth,
            kernel_init=per_gate(kernel_init, LSTMLayer.num_gates),
            recurrent_init=per_gate(recurrent_init, LSTMLayer.num_gates),
            bias_init=bias_init,
            head_init=head_init or kernel_init,
            sequence_output=sequence_output,
            dropout=dropout,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
