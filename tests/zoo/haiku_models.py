"""Haiku: its own modules and networks, transformed into functions."""

import haiku as hk
import jax
import jax.numpy as jnp
from entries import filled, handed, normal, shelf, tokens

HAIKU, holds = shelf("haiku")


def _function(forward, *inputs):
    """``apply(params, *inputs)`` and its parameters."""
    net = hk.without_apply_rng(hk.transform(forward))
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    return handed(net.apply, filled(shapes), *inputs)


def _function_with_state(forward, *inputs):
    """The same for modules with running statistics, whose updates are dropped."""
    net = hk.without_apply_rng(hk.transform_with_state(forward))
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    params, state = filled(shapes)

    def apply(params, *inputs):
        return net.apply(params, state, *inputs)[0]

    return handed(apply, params, *inputs)


@holds("mlp/~/linear_0", "mlp/~/linear_1", "mlp/~/linear_2")
def mlp():
    return _function(lambda x: hk.nets.MLP([5, 6, 2])(x), normal(1, 3, 4))


@holds(
    "res_net/~/initial_conv",
    "res_net/~/block_group_0",
    "res_net/~/block_group_1",
    "res_net/~/block_group_2",
    "res_net/~/block_group_3",
    "res_net/~/logits",
    slow=True,
    couples=True,
)
def resnet():
    def forward(x):
        net = hk.nets.ResNet(
            (1, 1, 1, 1),
            2,
            channels_per_group=(4, 4, 8, 8),
            bottleneck=False,
            strides=(1, 2, 1, 1),
        )
        return net(x, is_training=True)

    return _function_with_state(forward, normal(1, 3, 8, 8, 1))


@holds("lstm", "linear")
def lstm():
    def forward(x):
        core = hk.LSTM(3)
        out, _ = hk.dynamic_unroll(
            core, x, core.initial_state(x.shape[0]), time_major=False
        )
        return hk.Linear(2)(out[:, -1])

    return _function(forward, normal(1, 3, 4, 2))


@holds("gru", "gru_1", "linear")
def two_recurrent_layers():
    def forward(x):
        x = jnp.swapaxes(x, 0, 1)
        for _ in range(2):
            core = hk.GRU(3)
            x, _ = hk.dynamic_unroll(core, x, core.initial_state(x.shape[1]))
        return hk.Linear(2)(x[-1])

    return _function(forward, normal(1, 3, 4, 2))


@holds("gru", "gru_1", "linear")
def deep_recurrent_core():
    def forward(x):
        core = hk.DeepRNN([hk.GRU(3), hk.GRU(3)])
        out, _ = hk.dynamic_unroll(
            core, x, core.initial_state(x.shape[0]), time_major=False
        )
        return hk.Linear(2)(out[:, -1])

    return _function(forward, normal(1, 3, 4, 2))


@holds(
    "embed",
    "multi_head_attention",
    "mlp",
    "multi_head_attention_1",
    "mlp_1",
    "linear",
    table="embed",
)
def transformer():
    def forward(ids):
        x = hk.Embed(5, 4)(ids)
        for _ in range(2):
            h = hk.LayerNorm(-1, True, True)(x)
            init = hk.initializers.VarianceScaling(1.0)
            x = x + hk.MultiHeadAttention(2, 2, w_init=init)(h, h, h)
            h = hk.LayerNorm(-1, True, True)(x)
            x = x + hk.nets.MLP([6, 4], activation=jax.nn.gelu)(h)
        return hk.Linear(2)(jnp.mean(x, axis=1))

    return _function(forward, tokens(5, 3, 4))


@holds("conv2_d", "conv2_d_1", "linear", couples=True)
def batch_norm_in_training():
    def forward(x):
        for channels in (3, 4):
            x = hk.Conv2D(channels, 3, with_bias=False)(x)
            x = jax.nn.silu(hk.BatchNorm(True, True, 0.9)(x, is_training=True))
        return hk.Linear(2)(jnp.mean(x, axis=(1, 2)))

    return _function_with_state(forward, normal(1, 3, 4, 4, 1))


@holds("stack.0", "stack.1", "stack.2", "linear")
def layer_stack():
    def forward(x):
        def block(x):
            return x + hk.Linear(4, name="down")(
                jax.nn.gelu(hk.Linear(6, name="up")(x))
            )

        x = hk.experimental.layer_stack(3, name="stack")(block)(x)
        return hk.Linear(2)(x)

    return _function(forward, normal(1, 3, 4))


@holds(
    "separable_depthwise_conv2_d/~/depthwise_conv2_d",
    "separable_depthwise_conv2_d/~/depthwise_conv2_d_1",
    "separable_depthwise_conv2_d_1/~/depthwise_conv2_d",
    "separable_depthwise_conv2_d_1/~/depthwise_conv2_d_1",
    "linear",
)
def separable_convolutions():
    def forward(x):
        for channels in (2, 3):
            x = jnp.tanh(hk.SeparableDepthwiseConv2D(channels, 3)(x))
        return hk.Linear(2)(jnp.mean(x, axis=(1, 2)))

    return _function(forward, normal(1, 3, 4, 4, 1))


@holds(
    "encoder/~/linear_0",
    "encoder/~/linear_1",
    "decoder/~/linear_0",
    "decoder/~/linear_1",
)
def autoencoder():
    def forward(x):
        code = hk.nets.MLP([5, 2], name="encoder")(x)
        return hk.nets.MLP([5, 4], name="decoder")(jnp.tanh(code))

    return _function(forward, normal(1, 3, 4))
