"""Transformers over vectors or tokens."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer, normal, zeros
from jax.typing import DTypeLike

from gradstab.errors import UserTypeError, UserValueError
from gradstab.models.activations import Activation
from gradstab.models.activations import activation as named_activation
from gradstab.models.checks import (
    expect_floating,
    expect_layers,
    expect_positive,
    expect_shape,
)
from gradstab.models.dropout import drop, make_dropout
from gradstab.models.normalization import (
    MakeNorm,
    at_least_float32,
    make_norm,
    normalize,
)
from gradstab.models.stack import scan_stacks, stack


class Attention(nnx.Module):
    """Multi-head self-attention over ``(batch, time, width)``."""

    def __init__(
        self, width: int, *, num_heads: int, causal: bool, rngs: nnx.Rngs, **options
    ):
        def linear():
            return nnx.Linear(width, width, rngs=rngs, **options)

        self.num_heads = num_heads
        self.causal = causal
        self.query = linear()
        self.key = linear()
        self.value = linear()
        self.out = linear()

    def __call__(self, h: jax.Array):
        """What each position gathers from those it attends to, shaped as ``h``."""
        query, key, value = (
            p(h).reshape(*h.shape[:-1], self.num_heads, -1)
            for p in (self.query, self.key, self.value)
        )
        weights = attention_weights(query, key, causal=self.causal)
        attended = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        return self.out(attended.reshape(h.shape))


def attention_weights(query, key, /, *, causal: bool) -> jax.Array:
    r"""The shares :math:`\mathrm{softmax}_k(q \cdot k / \sqrt d)`.

    Written out, not `jax.nn.dot_product_attention`: that one promotes bfloat16
    implicitly, and its cuDNN form has no forward-mode derivative.

    Args:
        query: ``(batch, time, heads, d)``.
        key: of the same shape.
        causal: no share for keys at later times.

    Returns:
        ``(batch, heads, query time, key time)``, a sum of 1 over the last axis.
    """
    logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
    if causal:
        time = logits.shape[-1]
        earlier = jnp.tril(jnp.ones((time, time), bool))
        logits = jnp.where(earlier[None, None], logits, -jnp.inf)
    wide = logits.astype(at_least_float32(logits.dtype))
    return jax.nn.softmax(wide, axis=-1).astype(logits.dtype)


class FeedForward(nnx.Module):
    """Two dense layers with an activation between them, position by position."""

    def __init__(
        self, width: int, hidden: int, *, activation, rngs: nnx.Rngs, **options
    ):
        self.up = nnx.Linear(width, hidden, rngs=rngs, **options)
        self.activation = named_activation(activation)
        self.down = nnx.Linear(hidden, width, rngs=rngs, **options)

    def __call__(self, h: jax.Array):
        """From ``(batch, time, width)`` to the same shape."""
        return self.down(self.activation(self.up(h)))


class TransformerBlock(nnx.Module):
    r"""Attention, then a feed-forward network, each added to its input.

    Pre-norm is :math:`h + s D(F(N(h)))`; post-norm is :math:`N(h + s D(F(h)))`.
    """

    def __init__(
        self,
        width: int,
        *,
        num_heads: int,
        mlp_width: int,
        activation: str | Activation,
        norm: str | MakeNorm | None,
        prenorm: bool,
        causal: bool,
        residual_scale: float,
        dropout: float,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
        **options,
    ):
        options |= {"param_dtype": param_dtype, "rngs": rngs}
        self.prenorm = prenorm
        self.residual_scale = residual_scale
        self.attention = Attention(width, num_heads=num_heads, causal=causal, **options)
        self.attention_norm = make_norm(norm, width, param_dtype=param_dtype, rngs=rngs)
        self.attention_dropout = make_dropout(dropout, rngs=rngs)
        self.mlp = FeedForward(width, mlp_width, activation=activation, **options)
        self.mlp_norm = make_norm(norm, width, param_dtype=param_dtype, rngs=rngs)
        self.mlp_dropout = make_dropout(dropout, rngs=rngs)

    def __call__(self, h: jax.Array):
        """The stream after this block, in the shape that it had before."""
        with jax.named_scope("attention"):
            h = self._residual(
                self.attention, self.attention_norm, self.attention_dropout, h
            )
        with jax.named_scope("mlp"):
            return self._residual(self.mlp, self.mlp_norm, self.mlp_dropout, h)

    def _residual(self, branch, norm, dropout, h: jax.Array):
        if self.prenorm:
            return h + self.residual_scale * drop(dropout, branch(normalize(norm, h)))
        return normalize(norm, h + self.residual_scale * drop(dropout, branch(h)))


class Transformer(nnx.Module):
    r"""A transformer over sequences of vectors or of tokens.

    An embedding plus learnt positions, ``depth`` blocks of attention and a feed-forward
    network, a linear head on the mean over time or on every time. The blocks are one
    stack under `jax.lax.scan`: compile time does not grow with depth.

    Attributes are ``embed``, ``position``, ``blocks`` (with ``attention`` and ``mlp``),
    ``output_norm`` (pre-norm only), ``head``; ``auxiliary`` with ``aux_heads``.

    Args:
        in_features: features of an input vector; with ``tokens`` the vocabulary's size.
        out_features: number of logits.
        width: features of the residual stream.
        depth: number of blocks.
        num_heads: divides ``width``.
        mlp_width: hidden units of the feed-forward networks.
        max_length: longest sequence, for the learnt positions.
        tokens: the inputs are integers ``(batch, time)``, not vectors.
        prenorm: normalise what enters a branch (Xiong et al. 2020), and the last
            block's output; or the sum after each branch (Vaswani et al. 2017).
        causal: a position attends to itself and to earlier ones only.
        sequence_output: logits of every time, not of the mean over time.
        activation: of the feed-forward networks: a name (see `activation`) or a
            function.
        norm: None, a name (see `normalization`) or a function such as ``rms_norm()``.
        residual_scale: factor of every branch.
        dropout: share of the embedding and of every branch's output set to zero in
            training mode.
        kernel_init: of the dense layers.
        embed_init: of the token table and of the positions; by default
            N(0, 0.02^2) (Radford et al. 2019, as released).
        head_init: of the weights of the heads; ``kernel_init`` without it.
        bias_init: of the biases.
        use_bias: whether dense layers, the head included, have a bias.
        aux_heads: indices that get a head of their own: 0 is the embedding, i the i-th
            block's output.
        dtype: of the computation; by default that of inputs and parameters.
        param_dtype: of the parameters.
        rngs: random streams; ``params`` and, with dropout, ``dropout`` are used.

    Raises:
        ValueError: if ``num_heads`` does not divide ``width``; at call time if the
            shape is not as said above or the sequence longer than ``max_length``.
        TypeError: at call time for floating tokens or integer vectors.

    >>> model = Transformer(100, 10, width=32, depth=12, num_heads=4, mlp_width=64,
    ...                     max_length=50, tokens=True, rngs=nnx.Rngs(0),
    ...                     kernel_init=jax.nn.initializers.lecun_normal())
    >>> model(jnp.zeros((3, 20), int)).shape, model.blocks.mlp.up.kernel.shape
    ((3, 10), (12, 32, 64))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        width: int,
        depth: int,
        num_heads: int,
        mlp_width: int,
        max_length: int,
        tokens: bool = False,
        prenorm: bool = True,
        causal: bool = False,
        sequence_output: bool = False,
        activation: str | Activation = "gelu",
        norm: str | MakeNorm | None = "layer",
        residual_scale: float = 1.0,
        dropout: float = 0.0,
        kernel_init: Initializer,
        embed_init: Initializer | None = None,
        head_init: Initializer | None = None,
        bias_init: Initializer = zeros,
        use_bias: bool = True,
        aux_heads: Sequence[int] = (),
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        expect_positive(in_features=in_features, out_features=out_features)
        expect_positive(width=width, depth=depth, num_heads=num_heads)
        expect_positive(mlp_width=mlp_width, max_length=max_length)
        if width % num_heads:
            raise UserValueError(
                f"num_heads={num_heads} does not divide width={width}."
            )
        embed_init = embed_init or normal(0.02)
        dense = {
            "use_bias": use_bias,
            "bias_init": bias_init,
            "dtype": dtype,
            "param_dtype": param_dtype,
        }
        block = functools.partial(
            TransformerBlock,
            width,
            num_heads=num_heads,
            mlp_width=mlp_width,
            activation=activation,
            norm=norm,
            prenorm=prenorm,
            causal=causal,
            residual_scale=residual_scale,
            dropout=dropout,
            kernel_init=kernel_init,
            **dense,
        )

        linear = functools.partial(nnx.Linear, rngs=rngs, **dense)
        head = functools.partial(
            linear, width, out_features, kernel_init=head_init or kernel_init
        )

        self.in_features = in_features
        self.max_length = max_length
        self.tokens = tokens
        self.sequence_output = sequence_output
        self.dtype = dtype
        self.aux_heads = expect_layers(aux_heads, depth + 1, option="aux_heads")
        self.embed = (
            nnx.Embed(
                in_features,
                width,
                embedding_init=embed_init,
                dtype=dtype or param_dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            if tokens
            else linear(in_features, width, kernel_init=kernel_init)
        )
        self.position = nnx.Param(
            embed_init(rngs.params(), (max_length, width), param_dtype)
        )
        self.dropout = make_dropout(dropout, rngs=rngs)
        self.blocks = stack(block, depth, rngs=rngs)
        self.output_norm = make_norm(
            norm if prenorm else None, width, param_dtype=param_dtype, rngs=rngs
        )
        self.head = head()
        self.auxiliary = nnx.List([head() for _ in self.aux_heads])

    def __call__(self, x: jax.Array):
        """Logits ``(batch, out_features)``, or ``(batch, time, out_features)``.

        With ``aux_heads``: ``(logits, (logits of each auxiliary head, ...))``.
        """
        x = self._expected(x)
        with jax.named_scope("embed"):
            h = self.embed(x)
            h = h + self.position[: x.shape[1]].astype(h.dtype)[None]
            h = drop(self.dropout, h)
        with jax.named_scope("blocks"):
            h, kept = scan_stacks([self.blocks], h, keep=self.aux_heads)
        with jax.named_scope("head"):
            logits = self._read(self.head, normalize(self.output_norm, h))
        if not self.aux_heads:
            return logits
        with jax.named_scope("auxiliary"):
            pairs = zip(self.auxiliary, kept, strict=True)
            return logits, tuple(self._read(head, h) for head, h in pairs)

    def _read(self, head, h: jax.Array):
        return head(h if self.sequence_output else h.mean(axis=1))

    def _expected(self, x: jax.Array):
        axes = ("batch", "time") if self.tokens else ("batch", "time", self.in_features)
        x = expect_shape(x, axes, model="Transformer")
        if x.shape[1] > self.max_length:
            raise UserValueError(
                f"Transformer was made for at most {self.max_length} steps "
                f"(max_length), got {x.shape[1]} in an input of shape {x.shape}."
            )
        if not self.tokens:
            return expect_floating(x, model="Transformer", dtype=self.dtype)
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise UserTypeError(
                f"Transformer(tokens=True) expects integers, got {x.dtype}."
            )
        return x
