"""Models whose analysis is expensive, as their makers write them (Flax linen)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


class Block(nn.Module):
    """A pre-norm transformer block, causal, as in Flax's lm1b example."""

    heads: int
    mlp_dim: int

    @nn.compact
    def __call__(self, x):
        """From ``(examples, tokens, width)`` to the same."""
        mask = nn.make_causal_mask(x[:, :, 0])
        y = nn.MultiHeadDotProductAttention(self.heads)(nn.LayerNorm()(x), mask=mask)
        x = x + y
        y = nn.relu(nn.Dense(self.mlp_dim)(nn.LayerNorm()(x)))
        return x + nn.Dense(x.shape[-1])(y)


class Transformer(nn.Module):
    """A language model of tokens."""

    depth: int
    width: int
    heads: int
    vocabulary: int

    @nn.compact
    def __call__(self, tokens):
        """From ``(examples, tokens)`` to logits."""
        x = nn.Embed(self.vocabulary, self.width)(tokens)
        shape = (1, tokens.shape[1], self.width)
        x = x + self.param("positions", nn.initializers.normal(0.02), shape)
        for _ in range(self.depth):
            x = Block(self.heads, 4 * self.width)(x)
        return nn.Dense(self.vocabulary)(nn.LayerNorm()(x))


class Bottleneck(nn.Module):
    """A bottleneck block of a residual network."""

    filters: int
    strides: tuple[int, int]

    @nn.compact
    def __call__(self, x):
        """From ``(examples, height, width, channels)`` to four times the filters."""
        conv = functools.partial(nn.Conv, use_bias=False)
        norm = functools.partial(nn.BatchNorm, use_running_average=True)
        y = nn.relu(norm()(conv(self.filters, (1, 1))(x)))
        y = nn.relu(norm()(conv(self.filters, (3, 3), self.strides)(y)))
        y = norm(scale_init=nn.initializers.zeros)(conv(4 * self.filters, (1, 1))(y))
        if x.shape != y.shape:
            x = norm()(conv(4 * self.filters, (1, 1), self.strides)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet-50 with stages (3, 4, 6, 3), in evaluation mode."""

    stages: tuple[int, ...] = (3, 4, 6, 3)
    filters: int = 64
    num_classes: int = 1000

    @nn.compact
    def __call__(self, x):
        """From ``(examples, height, width, 3)`` to logits."""
        x = nn.Conv(self.filters, (7, 7), (2, 2), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, num_blocks in enumerate(self.stages):
            for number in range(num_blocks):
                strides = (2, 2) if stage and not number else (1, 1)
                x = Bottleneck(self.filters * 2**stage, strides)(x)
        return nn.Dense(self.num_classes)(jnp.mean(x, (1, 2)))


class Recurrent(nn.Module):
    """A stack of LSTMs along time, and a head on the last step."""

    depth: int
    width: int
    num_outputs: int

    @nn.compact
    def __call__(self, x):
        """From ``(examples, steps, features)`` to outputs."""
        for _ in range(self.depth):
            x = jnp.asarray(nn.RNN(nn.OptimizedLSTMCell(self.width))(x))
        return nn.Dense(self.num_outputs)(x[:, -1])


def transformer(*, batch=32, depth=24, width=512, tokens=128, vocabulary=30000):
    """``((module, variables), x, loss)`` of a language model."""
    key_x, key_y, key = jax.random.split(jax.random.key(0), 3)
    x = jax.random.randint(key_x, (batch, tokens), 0, vocabulary)
    y = jax.random.randint(key_y, (batch, tokens), 0, vocabulary)
    return _made(Transformer(depth, width, max(1, width // 64), vocabulary), x, y, key)


def resnet(*, batch=32, size=64, stages=(3, 4, 6, 3), filters=64, num_classes=1000):
    """``((module, variables), x, loss)`` of a residual network of images."""
    key_x, key_y, key = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(key_x, (batch, size, size, 3))
    y = jax.random.randint(key_y, (batch,), 0, num_classes)
    return _made(ResNet(stages, filters, num_classes), x, y, key)


def lstm(*, batch=32, depth=2, width=128, steps=500, num_outputs=10):
    """``((module, variables), x, loss)`` of a recurrent network."""
    key_x, key_y, key = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(key_x, (batch, steps, 16))
    y = jax.random.randint(key_y, (batch,), 0, num_outputs)
    return _made(Recurrent(depth, width, num_outputs), x, y, key)


def _made(module, x, y, key):
    variables = jax.jit(module.init)(key, x[:1])

    def loss(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return (module, variables), x, loss
