"""The plain recurrent network that gated ones are measured against."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer, zeros
from jax.typing import DTypeLike

from gradstab.models.activations import Activation
from gradstab.models.activations import activation as named_activation
from gradstab.models.recurrent import RecurrentLayer, RecurrentModel


class RNNLayer(RecurrentLayer):
    """One layer: ``kernel (in, h)``, ``recurrent_kernel (h, h)``, ``bias (h,)``."""

    def __init__(self, in_features, hidden, *, activation, **options):
        super().__init__(in_features, hidden, **options)
        self.activation = named_activation(activation)

    def step(self, state: Any, projected, recurrent_kernel):  # noqa: D102 (see the base)
        return self.activation(projected + jnp.dot(state, recurrent_kernel))

    def zero_state(self, batch: int, dtype: DTypeLike | None):  # noqa: D102 (see the base)
        return jnp.zeros((batch, self.hidden), dtype)

    def output(self, state: Any):  # noqa: D102 (see the base)
        return state


class RNN(RecurrentModel):
    r"""A plain recurrent network, :math:`h_t = \phi(x_t W + h_{t-1} U + b)`.

    With relu and an identity ``recurrent_init`` it is the IRNN of Le et al. (2015).
    Layers after the first are one stack under `jax.lax.scan`.

    Args:
        in_features: features of the input at one time.
        out_features: number of logits.
        hidden: units of every layer.
        depth: number of layers.
        activation: a name (see `activation`) or an elementwise function.
        kernel_init: of the input weights ``(in_features, hidden)``.
        recurrent_init: of the recurrent weights ``(hidden, hidden)``.
        bias_init: of the bias.
        head_init: of the weights of the head; ``kernel_init`` without it.
        sequence_output: logits of every step, not of the last one.
        dropout: share of each layer's outputs set to zero in training mode, on their
            way up and not through time.
        dtype: of the computation; by default that of inputs and parameters.
        param_dtype: of the parameters.
        rngs: random streams; ``params`` and, with dropout, ``dropout`` are used.

    Raises:
        ValueError: at call time if the input is not ``(batch, time, in_features)``.
        TypeError: at call time if the input is not floating.

    References:
        Elman (1990), Finding Structure in Time.

    >>> from jax.nn import initializers as init
    >>> model = RNN(3, 10, hidden=16, kernel_init=init.lecun_normal(),
    ...             recurrent_init=init.orthogonal(), rngs=nnx.Rngs(0))
    >>> x = jnp.ones((4, 20, 3))
    >>> model(x).shape, model.trajectory(x)[0].shape
    ((4, 10), (4, 20, 16))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        hidden: int,
        depth: int = 1,
        activation: str | Activation = "tanh",
        kernel_init: Initializer,
        recurrent_init: Initializer,
        bias_init: Initializer = zeros,
        head_init: Initializer | None = None,
        sequence_output: bool = False,
        dropout: float = 0.0,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            RNNLayer,
            in_features,
            out_features,
            hidden=hidden,
            depth=depth,
            activation=activation,
            kernel_init=kernel_init,
            recurrent_init=recurrent_init,
            bias_init=bias_init,
            head_init=head_init or kernel_init,
            sequence_output=sequence_output,
            dropout=dropout,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
