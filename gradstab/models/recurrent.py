"""What the LSTM and the plain recurrent network share: time, depth and the head.

A cell is a subclass of `RecurrentLayer` with a ``step``. Its inputs are projected for
all times at once, and the time loop is one `jax.lax.scan` that carries the state and
nothing else.
"""

import abc
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from gradstab.errors import UserValueError
from gradstab.models.checks import expect_floating, expect_positive, expect_shape
from gradstab.models.dropout import drop, make_dropout
from gradstab.models.stack import scan_blocks, stack


class RecurrentLayer(nnx.Module):
    """One recurrent layer over ``(batch, time, features)``; see its subclasses."""

    num_gates: ClassVar[int] = 1

    def __init__(
        self,
        in_features: int,
        hidden: int,
        *,
        kernel_init: Initializer,
        recurrent_init: Initializer,
        bias_init: Initializer,
        dropout: float,
        dtype: DTypeLike | None,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        fused = self.num_gates * hidden
        self.hidden = hidden
        self.dtype = dtype
        self.kernel = nnx.Param(
            kernel_init(rngs.params(), (in_features, fused), param_dtype)
        )
        self.recurrent_kernel = nnx.Param(
            recurrent_init(rngs.params(), (hidden, fused), param_dtype)
        )
        self.bias = nnx.Param(bias_init(rngs.params(), (fused,), param_dtype))
        self.dropout = make_dropout(dropout, rngs=rngs)

    @abc.abstractmethod
    def step(self, state: Any, projected, recurrent_kernel) -> Any:
        """The next state, from the last one and the projected input of this time."""

    @abc.abstractmethod
    def zero_state(self, batch: int, dtype: DTypeLike | None) -> Any:
        """The state before the first step."""

    @abc.abstractmethod
    def output(self, state: Any) -> jax.Array:
        """The part of a state that the next layer sees."""

    def run(self, x: jax.Array, initial) -> tuple[jax.Array, Any]:
        """Output and states at every time, each with axes (batch, time, hidden)."""
        kernel, recurrent_kernel, bias = (
            p[...] if self.dtype is None else p[...].astype(self.dtype)
            for p in (self.kernel, self.recurrent_kernel, self.bias)
        )
        projected = jnp.dot(x, kernel) + bias[None, None]
        if initial is None:
            initial = self.zero_state(x.shape[0], projected.dtype)

        def body(state: Any, now):
            state = self.step(state, now, recurrent_kernel)
            return state, state

        _, states = jax.lax.scan(body, initial, jnp.swapaxes(projected, 0, 1))
        states = jax.tree.map(lambda s: jnp.swapaxes(s, 0, 1), states)
        return drop(self.dropout, self.output(states)), states


class RecurrentModel(nnx.Module):
    """Layers of one recurrent cell and a linear head; see `LSTM` and `RNN`.

    Attributes are ``input`` (the first layer), ``blocks`` (the stack of all others;
    None at depth 1) and ``head``.

    Args:
        layer: the class of the layers.
        in_features: features of the input at one time.
        out_features: number of logits.
        hidden: units of every layer.
        depth: number of layers.
        head_init: of the weights of the head.
        sequence_output: logits of every step, not of the last one.
        dtype: of the computation.
        param_dtype: of the parameters.
        rngs: random streams.
        **options: of every layer.
    """

    def __init__(
        self,
        layer: Callable[..., RecurrentLayer],
        in_features: int,
        out_features: int,
        *,
        hidden: int,
        depth: int,
        head_init: Initializer,
        sequence_output: bool,
        dtype: DTypeLike | None,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
        **options,
    ):
        expect_positive(in_features=in_features, out_features=out_features)
        expect_positive(hidden=hidden, depth=depth)
        dtypes = {"dtype": dtype, "param_dtype": param_dtype}
        make_layer = functools.partial(layer, hidden=hidden, **dtypes, **options)
        self.in_features = in_features
        self.depth = depth
        self.sequence_output = sequence_output
        self.dtype = dtype
        self.input = make_layer(in_features, rngs=rngs)
        self.blocks = (
            stack(functools.partial(make_layer, hidden), depth - 1, rngs=rngs)
            if depth > 1
            else None
        )
        self.head = nnx.Linear(
            hidden,
            out_features,
            kernel_init=head_init,
            **dtypes,
            rngs=rngs,
        )

    def __call__(self, x: jax.Array, initial: tuple | None = None) -> jax.Array:
        """Logits of the last step, or with ``sequence_output`` of every step.

        Args:
            x: ``(batch, time, in_features)``.
            initial: the layers' states before the first step, a tuple as `trajectory`
                returns it but each ``(batch, hidden)``; zeros without it.

        Returns:
            ``(batch, out_features)`` or ``(batch, time, out_features)``.
        """
        h, _ = self._run(x, initial, keep=False)
        with jax.named_scope("head"):
            return self.head(h if self.sequence_output else h[:, -1])

    def trajectory(self, x: jax.Array, initial: tuple | None = None) -> tuple:
        """The states of every layer at every time: a tuple with an entry per layer.

        Every array is ``(batch, time, hidden)``. The states at the last time,
        ``jax.tree.map(lambda s: s[:, -1], states)``, are the ``initial`` of what
        follows. Unlike the logits, a tuple with an entry per layer costs compile time
        per layer.
        """
        _, (first, others) = self._run(x, initial, keep=True)
        return first, *(_take(others, i) for i in range(self.depth - 1))

    def _run(self, x: jax.Array, initial, *, keep: bool) -> tuple[jax.Array, Any]:
        name = type(self).__name__
        x = expect_shape(x, ("batch", "time", self.in_features), model=name)
        x = expect_floating(x, model=name, dtype=self.dtype)
        if initial is None:
            first, others = None, None
        else:
            first, others = self._checked(initial, x.shape[0])
        with jax.named_scope("input"):
            h, states = self.input.run(x, first)
        if self.blocks is None:
            return h, (states, None)

        def step(layer, h: jax.Array, initial):
            h, states = layer.run(h, initial)
            return h, states if keep else None

        with jax.named_scope("blocks"):
            h, more = scan_blocks(self.blocks, h, others, step=step)
        return h, (states, more)

    def _checked(self, initial, batch: int):
        wanted = self.input.zero_state(batch, jnp.float32)
        got = [_shapes(state) for state in initial]
        if got != [_shapes(wanted)] * self.depth:
            raise UserValueError(
                f"initial must hold {self.depth} states like {_shapes(wanted)}, "
                f"one per layer; got {got}."
            )
        first, *others = initial
        stacked = jax.tree.map(lambda *s: jnp.stack(s), *others) if others else None
        return first, stacked


def _take(tree: Any, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _shapes(tree: Any):
    return jax.tree.map(jnp.shape, tree)
