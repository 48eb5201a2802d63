"""Fully connected networks."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer, zeros
from jax.typing import DTypeLike

from gradstab.errors import UserValueError
from gradstab.models.activations import Activation
from gradstab.models.activations import activation as named_activation
from gradstab.models.checks import (
    expect_examples,
    expect_floating,
    expect_layers,
    expect_positive,
)
from gradstab.models.dropout import drop, make_dropout
from gradstab.models.normalization import MakeNorm, make_norm, normalize
from gradstab.models.stack import scan_stacks, stack


class DenseBlock(nnx.Module):
    """Dense layer, norm, activation, dropout; with ``skip``, added to the input."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str | Activation,
        norm: str | MakeNorm | None,
        kernel_init: Initializer,
        bias_init: Initializer,
        use_bias: bool,
        dropout: float,
        skip: bool,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.dense = nnx.Linear(
            in_features,
            out_features,
            use_bias=use_bias,
            kernel_init=kernel_init,
            bias_init=bias_init,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.norm = make_norm(norm, out_features, param_dtype=param_dtype, rngs=rngs)
        self.activation = named_activation(activation)
        self.dropout = make_dropout(dropout, rngs=rngs)
        self.skip = skip

    def __call__(self, h: jax.Array):
        """From ``(batch, in_features)`` to ``(batch, out_features)``."""
        branch = self.activation(normalize(self.norm, self.dense(h)))
        branch = drop(self.dropout, branch)
        return h + branch if self.skip else branch


class MLP(nnx.Module):
    r"""A multi-layer perceptron of any depth.

    Layer :math:`l` computes :math:`h_l = D(\phi(N(h_{l-1} W_l + b_l)))` with the
    activation :math:`\phi`, a normalisation :math:`N` and dropout :math:`D`; a linear
    head makes the logits. Consecutive layers of equal width are one stack under
    `jax.lax.scan`, so a thousand of them compile as fast as ten.

    Attributes are ``input`` (the first layer), ``blocks`` (the stack of all others if
    they have one shape, else an `nnx.List` with a stack for each run of equal shapes),
    ``run_lengths`` (the number of layers in each stack), ``head``, and ``head_norm``
    and ``auxiliary`` if asked for.

    Args:
        in_features: entries of an example; examples with more axes are flattened.
        out_features: number of logits.
        widths: of the hidden layers, at least one; ``(100,) * 20`` is twenty of 100.
        activation: a name (see `activation`) or an elementwise function.
        norm: None, a name (see `normalization`) or a function such as
            ``batch_norm(momentum=0.9)``, before every activation.
        norm_output: normalise the logits too.
        kernel_init: of the weights ``(fan_in, fan_out)``.
        bias_init: of the biases.
        head_init: of the weights of the heads; ``kernel_init`` without it.
        use_bias: whether dense layers, the head included, have a bias.
        dropout: share of activations set to zero in training mode.
        skip: add a layer's input to its output where they have one width, from the
            second layer on.
        aux_heads: indices of hidden layers, from 0, that get a linear head of their own
            (deep supervision: Lee et al. 2015, Deeply-Supervised Nets).
        dtype: of the computation; by default that of inputs and parameters.
        param_dtype: of the parameters.
        rngs: random streams; ``params`` and, with dropout, ``dropout`` are used.

    Raises:
        ValueError: at call time if an example does not have ``in_features`` entries.
        TypeError: at call time if the input is not floating.

    >>> model = MLP(64, 10, widths=(32,) * 1000, activation="tanh",
    ...             kernel_init=jax.nn.initializers.orthogonal(), rngs=nnx.Rngs(0))
    >>> model(jnp.ones((5, 8, 8))).shape, model.blocks.dense.kernel.shape
    ((5, 10), (999, 32, 32))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        widths: Sequence[int],
        activation: str | Activation,
        kernel_init: Initializer,
        bias_init: Initializer = zeros,
        head_init: Initializer | None = None,
        norm: str | MakeNorm | None = None,
        norm_output: bool = False,
        use_bias: bool = True,
        dropout: float = 0.0,
        skip: bool = False,
        aux_heads: Sequence[int] = (),
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        if not widths:
            raise UserValueError(
                "widths is empty: an MLP needs at least one hidden layer."
            )
        if norm_output and norm is None:
            raise UserValueError("norm_output=True needs a norm, and norm is None.")
        expect_positive(in_features=in_features, out_features=out_features)
        for width in widths:
            expect_positive(width=width)

        dense = {
            "use_bias": use_bias,
            "bias_init": bias_init,
            "dtype": dtype,
            "param_dtype": param_dtype,
        }
        block = functools.partial(
            DenseBlock,
            activation=activation,
            norm=norm,
            kernel_init=kernel_init,
            dropout=dropout,
            **dense,
        )
        head = functools.partial(
            nnx.Linear,
            out_features=out_features,
            kernel_init=head_init or kernel_init,
            rngs=rngs,
            **dense,
        )

        def run(fan_in, fan_out, num):
            layer = functools.partial(
                block, fan_in, fan_out, skip=skip and fan_in == fan_out
            )
            return stack(layer, num, rngs=rngs)

        self.in_features = in_features
        self.dtype = dtype
        self.aux_heads = expect_layers(aux_heads, len(widths), option="aux_heads")
        self.input = block(in_features, widths[0], skip=False, rngs=rngs)
        shapes_and_lengths = _runs(widths)
        self.run_lengths = tuple(num for _, num in shapes_and_lengths)
        runs = [run(*shape, num) for shape, num in shapes_and_lengths]
        self.blocks = runs[0] if len(runs) == 1 else nnx.List(runs)
        self.head = head(widths[-1])
        self.head_norm = make_norm(
            norm if norm_output else None,
            out_features,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.auxiliary = nnx.List([head(widths[i]) for i in self.aux_heads])

    def __call__(self, x: jax.Array):
        """Logits ``(batch, out_features)`` of a batch of examples.

        With ``aux_heads``: ``(logits, (logits of each auxiliary head, ...))``.
        """
        x = expect_examples(x, self.in_features, model="MLP")
        x = expect_floating(x, model="MLP", dtype=self.dtype)
        with jax.named_scope("input"):
            h = self.input(x)
        with jax.named_scope("blocks"):
            runs = self.blocks if isinstance(self.blocks, nnx.List) else [self.blocks]
            h, kept = scan_stacks(runs, h, keep=self.aux_heads)
        with jax.named_scope("head"):
            logits = normalize(self.head_norm, self.head(h))
        if not self.aux_heads:
            return logits
        with jax.named_scope("auxiliary"):
            pairs = zip(self.auxiliary, kept, strict=True)
            return logits, tuple(head(h) for head, h in pairs)


def _runs(widths: Sequence[int]) -> list[tuple[tuple[int, int], int]]:
    """The layers after the first as runs of one shape: ((in, out), how many).

    >>> _runs((300, 50, 50, 50, 10))
    [((300, 50), 1), ((50, 50), 2), ((50, 10), 1)]
    """
    shapes = itertools.pairwise(widths)
    return [(shape, len(list(run))) for shape, run in itertools.groupby(shapes)]
