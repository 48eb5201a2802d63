"""Residual networks, dense and convolutional."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer, zeros
from jax.typing import DTypeLike

from gradstab.models.activations import Activation
from gradstab.models.activations import activation as named_activation
from gradstab.models.checks import (
    expect_examples,
    expect_floating,
    expect_layers,
    expect_positive,
    expect_shape,
)
from gradstab.models.dropout import drop, make_dropout
from gradstab.models.normalization import MakeNorm, make_norm, normalize
from gradstab.models.stack import scan_stacks, stack


class ResidualBlock(nnx.Module):
    r"""Two layers whose result is added to their input.

    Pre-activation (He et al. 2016, Identity Mappings): :math:`h + s\,\alpha B(h)` with
    :math:`B` = norm, activation, layer, norm, activation, dropout, layer.
    Post-activation (He et al. 2015): :math:`\phi(h + s\,\alpha B(h))` with :math:`B` =
    layer, norm, activation, dropout, layer, norm. The learnt scalar :math:`\alpha`
    starts at 0 and exists only with ``skip_init`` (De and Smith 2020).
    """

    def __init__(
        self,
        width: int,
        *,
        kernel_size: int | None,
        activation: str | Activation,
        norm: str | MakeNorm | None,
        preactivation: bool,
        residual_scale: float,
        skip_init: bool,
        kernel_init: Initializer,
        last_init: Initializer | None,
        bias_init: Initializer,
        use_bias: bool,
        dropout: float,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        def layer(init):
            return dense_or_conv(
                width,
                width,
                kernel_size=kernel_size,
                use_bias=use_bias,
                kernel_init=init,
                bias_init=bias_init,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )

        self.activation = named_activation(activation)
        self.preactivation = preactivation
        self.residual_scale = residual_scale
        self.first_norm = make_norm(norm, width, param_dtype=param_dtype, rngs=rngs)
        self.first = layer(kernel_init)
        self.last_norm = make_norm(norm, width, param_dtype=param_dtype, rngs=rngs)
        self.dropout = make_dropout(dropout, rngs=rngs)
        self.last = layer(last_init or kernel_init)
        self.alpha = nnx.Param(jnp.zeros((), param_dtype)) if skip_init else None

    def __call__(self, h: jax.Array):
        """The stream after this block, in the shape that it had before."""
        if self.preactivation:
            return h + self._scaled(self._preactivated_branch(h))
        return self.activation(h + self._scaled(self._postactivated_branch(h)))

    def _preactivated_branch(self, h: jax.Array):
        h = self.first(self.activation(normalize(self.first_norm, h)))
        h = self.activation(normalize(self.last_norm, h))
        return self.last(drop(self.dropout, h))

    def _postactivated_branch(self, h: jax.Array):
        h = self.activation(normalize(self.first_norm, self.first(h)))
        return normalize(self.last_norm, self.last(drop(self.dropout, h)))

    def _scaled(self, branch):
        branch = self.residual_scale * branch
        if self.alpha is None:
            return branch
        return self.alpha[...].astype(branch.dtype) * branch


class ResNet(nnx.Module):
    r"""A residual network of equal blocks: a stem, ``depth`` blocks, a linear head.

    Without ``kernel_size`` the layers are dense and examples are flattened; with it
    they are convolutions over images ``(batch, height, width, channels)`` with "same"
    padding, averaged over all positions before the head. The blocks are one stack under
    `jax.lax.scan`: compile time does not grow with depth.

    Attributes are ``stem``, ``blocks``, ``head``; ``stem_norm`` (post-activation) or
    ``output_norm`` (pre-activation) with a norm; ``auxiliary`` with ``aux_heads``.

    Args:
        in_features: entries of an example, or channels of an image.
        out_features: number of logits.
        width: features, or channels, of the residual stream.
        depth: number of blocks, two layers each.
        kernel_size: None for dense layers, else the side of the square kernels.
        activation: a name (see `activation`) or an elementwise function.
        preactivation: normalise and activate before a layer, and the stream stays
            linear; or after it, the stream included.
        residual_scale: factor of every branch; ``depth**-0.5`` keeps the stream's
            variance bounded.
        skip_init: give every branch a learnt factor that starts at 0.
        kernel_init: of the weights.
        last_init: of each branch's last layer; zeros make every block the identity at
            the start, as in Fixup (Zhang et al. 2019). ``kernel_init`` without it.
        head_init: of the weights of the heads; ``kernel_init`` without it.
        bias_init: of the biases.
        use_bias: whether layers, the head included, have a bias.
        norm: None, a name (see `normalization`) or a function such as
            ``group_norm(num_groups=8)``.
        dropout: share of a branch's hidden activations set to zero in training mode.
        aux_heads: indices that get a head of their own: 0 is the stem's output, i that
            of the i-th block.
        dtype: of the computation; by default that of inputs and parameters.
        param_dtype: of the parameters.
        rngs: random streams; ``params`` and, with dropout, ``dropout`` are used.

    Raises:
        ValueError: at call time if the input's shape is not as said above.
        TypeError: at call time if the input is not floating.

    >>> model = ResNet(1, 10, width=8, depth=50, kernel_size=3, activation="relu",
    ...                kernel_init=jax.nn.initializers.he_normal(), rngs=nnx.Rngs(0))
    >>> model(jnp.ones((2, 14, 14, 1))).shape, model.blocks.first.kernel.shape
    ((2, 10), (50, 3, 3, 8, 8))
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        width: int,
        depth: int,
        kernel_size: int | None = None,
        activation: str | Activation,
        preactivation: bool = True,
        residual_scale: float = 1.0,
        skip_init: bool = False,
        kernel_init: Initializer,
        last_init: Initializer | None = None,
        head_init: Initializer | None = None,
        bias_init: Initializer = zeros,
        use_bias: bool = True,
        norm: str | MakeNorm | None = None,
        dropout: float = 0.0,
        aux_heads: Sequence[int] = (),
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        expect_positive(in_features=in_features, out_features=out_features)
        expect_positive(width=width, depth=depth)
        layer = {
            "use_bias": use_bias,
            "bias_init": bias_init,
            "dtype": dtype,
            "param_dtype": param_dtype,
        }
        block = functools.partial(
            ResidualBlock,
            width,
            kernel_size=kernel_size,
            activation=activation,
            norm=norm,
            preactivation=preactivation,
            residual_scale=residual_scale,
            skip_init=skip_init,
            kernel_init=kernel_init,
            last_init=last_init,
            dropout=dropout,
            **layer,
        )
        head = functools.partial(
            nnx.Linear,
            width,
            out_features,
            kernel_init=head_init or kernel_init,
            rngs=rngs,
            **layer,
        )

        self.in_features = in_features
        self.kernel_size = kernel_size
        self.dtype = dtype
        self.activation = named_activation(activation)
        self.preactivation = preactivation
        self.aux_heads = expect_layers(aux_heads, depth + 1, option="aux_heads")
        self.stem = dense_or_conv(
            in_features,
            width,
            kernel_size=kernel_size,
            kernel_init=kernel_init,
            rngs=rngs,
            **layer,
        )
        self.blocks = stack(block, depth, rngs=rngs)
        outer_norm = make_norm(norm, width, param_dtype=param_dtype, rngs=rngs)
        self.stem_norm = None if preactivation else outer_norm
        self.output_norm = outer_norm if preactivation else None
        self.head = head()
        self.auxiliary = nnx.List([head() for _ in self.aux_heads])

    def __call__(self, x: jax.Array):
        """Logits ``(batch, out_features)`` of a batch of examples or images.

        With ``aux_heads``: ``(logits, (logits of each auxiliary head, ...))``.
        """
        x = expect_floating(self._expected(x), model="ResNet", dtype=self.dtype)
        with jax.named_scope("stem"):
            h = self.stem(x)
            if not self.preactivation:
                h = self.activation(normalize(self.stem_norm, h))
        with jax.named_scope("blocks"):
            h, kept = scan_stacks([self.blocks], h, keep=self.aux_heads)
        with jax.named_scope("head"):
            if self.preactivation:
                h = self.activation(normalize(self.output_norm, h))
            logits = self.head(_pool(h))
        if not self.aux_heads:
            return logits
        with jax.named_scope("auxiliary"):
            pairs = zip(self.auxiliary, kept, strict=True)
            return logits, tuple(head(_pool(h)) for head, h in pairs)

    def _expected(self, x: jax.Array):
        if self.kernel_size is None:
            return expect_examples(x, self.in_features, model="ResNet")
        image = ("batch", "height", "width", self.in_features)
        return expect_shape(x, image, model="a convolutional ResNet")


def dense_or_conv(
    in_features: int, out_features: int, /, *, kernel_size: int | None, **options
) -> nnx.Linear | nnx.Conv:
    """A dense layer, or a "same" convolution with a square kernel of that side."""
    if kernel_size is None:
        return nnx.Linear(in_features, out_features, **options)
    return nnx.Conv(in_features, out_features, (kernel_size, kernel_size), **options)


def _pool(h: jax.Array):
    return h if h.ndim == 2 else h.mean(axis=(1, 2))
