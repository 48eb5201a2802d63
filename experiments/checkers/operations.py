"""The operations of the corpus, right and plain: automatic differentiation is truth."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.checkers import points
from experiments.checkers.cases import DTYPES, WIDE


class Operation(NamedTuple):
    """A function, where it is checked, and the dtypes in which it exists."""

    f: Callable
    point: Callable[[str], tuple]
    dtypes: tuple[str, ...] = DTYPES


def normalised(x, eps=1e-5, axis=-1):
    """Mean 0 and variance 1 along an axis."""
    centred = x - jnp.mean(x, axis=axis, keepdims=True)
    variance = jnp.mean(centred**2, axis=axis, keepdims=True)
    return centred * jax.lax.rsqrt(variance + eps)


def layer_norm(x, gain, bias):
    """Over the last axis, of any rank."""
    return normalised(x) * gain + bias


def batch_norm(x, gain, bias):
    """Over the rows, in training mode."""
    return normalised(x, axis=0) * gain + bias


def rms_norm(x, gain, eps=1e-5):
    """Over the last axis, without a mean."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + eps) * gain


def group_norm(x, gain, bias):
    """Two groups of the columns; the last of an odd number belongs to neither."""
    half = x.shape[-1] // 2
    groups = [normalised(x[:, :half]), normalised(x[:, half : 2 * half])]
    return jnp.concatenate([*groups, x[:, 2 * half :]], axis=1) * gain + bias


def norm(x, eps=0.0):
    """The length of every row."""
    return jnp.sqrt(jnp.sum(x**2, axis=-1) + eps)


def cosine(x, y):
    """The cosine of the angle between the rows of two matrices."""
    return jnp.sum(x * y, axis=-1) / (norm(x) * norm(y))


def weight_norm(v, gain):
    """Rows of a given length."""
    return gain[:, None] * v / norm(v)[:, None]


def share(x):
    """What part of its row every entry is."""
    return x / jnp.sum(x, axis=-1, keepdims=True)


def cross_entropy(logits, labels):
    """Of every row."""
    picked = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def soft_cross_entropy(logits, weights):
    """Of every row, with weights that need not sum to one."""
    return -jnp.sum(weights * jax.nn.log_softmax(logits, axis=-1), axis=-1)


def negative_log_likelihood(log_probabilities, labels):
    """Of every row; the input is documented as log probabilities."""
    return -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]


def binary_cross_entropy(p, y):
    """Of every entry; the input is documented as a probability."""
    return -(y * jnp.log(p) + (1 - y) * jnp.log1p(-p))


def mean_squared_error(prediction, target):
    """Over everything."""
    return jnp.mean((prediction - target) ** 2)


def squared_errors(prediction, target):
    """Of every row."""
    return jnp.sum((prediction - target) ** 2, axis=-1)


def huber(x):
    """Quadratic within one, linear beyond."""
    return jnp.where(jnp.abs(x) < 1, 0.5 * x**2, jnp.abs(x) - 0.5)


def log1mexp(x):
    """log(1 - exp(x)) of negative numbers."""
    return jnp.log(-jnp.expm1(x))


def dense(x, kernel, bias):
    """A matrix product and a bias."""
    return x @ kernel + bias


def tanh_layer(x, kernel, bias):
    """A layer of a network."""
    return jnp.tanh(x @ kernel + bias)


def bilinear(x, a, y):
    """X' A y for every row."""
    return jnp.sum((x @ a) * y, axis=-1)


def scores(q, k):
    """Scaled products of queries and keys."""
    return q @ k.T / q.shape[-1] ** 0.5


def attention(q, k, v):
    """Softmax attention."""
    return jax.nn.softmax(scores(q, k), axis=-1) @ v


def causal_attention(q, k, v):
    """Attention to what came before."""
    seen = jnp.tril(jnp.ones((q.shape[0], k.shape[0]), bool))
    kept = jnp.where(seen, scores(q, k), -1e9)
    return jax.nn.softmax(kept, axis=-1) @ v


def capped_attention(q, k, v):
    """Attention whose scores are capped smoothly at two."""
    return jax.nn.softmax(2 * jnp.tanh(scores(q, k) / 2), axis=-1) @ v


def rope(x):
    """Rotates pairs of entries by angles that grow with the row."""
    half = x.shape[1] // 2
    row = jnp.arange(1, x.shape[0] + 1, dtype=x.dtype)[:, None]
    angle = row / (1 + jnp.arange(half, dtype=x.dtype)[None])
    a, b, rest = x[:, :half], x[:, half : 2 * half], x[:, 2 * half :]
    turned = a * jnp.cos(angle) - b * jnp.sin(angle)
    other = a * jnp.sin(angle) + b * jnp.cos(angle)
    return jnp.concatenate([turned, other, rest], axis=1)


def gru(h, x, kernel):
    """One step of a gated recurrent unit; the three kernels lie side by side."""
    n = h.shape[1]
    both = jnp.concatenate([h, x], axis=1) @ kernel
    update, reset = jax.nn.sigmoid(both[:, :n]), jax.nn.sigmoid(both[:, n : 2 * n])
    return (1 - update) * h + update * jnp.tanh(both[:, 2 * n :] + reset * h)


def gather(table, ids):
    """Rows of a table."""
    return table[ids]


def segment_sum(x, ids):
    """Sums of the rows of equal id; ids out of bounds are dropped."""
    return jax.ops.segment_sum(x, ids, num_segments=x.shape[0])


def embedding_layer(table, ids):
    """Rows of a table, squashed."""
    return jnp.tanh(table[ids])


def dropout(x):
    """Half of the entries, doubled; the key is fixed."""
    kept = jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)
    return jnp.where(kept, 2 * x, 0)


def correlate(x, kernel):
    """A two-dimensional convolution of one image with zeros beyond the border."""
    return _convolve(x, kernel, (1, 1))


def dilated(x, kernel):
    """The same, every second row and every third column of the kernel's field."""
    return _convolve(x, kernel, (2, 3))


def _convolve(x, kernel, dilation):
    out = jax.lax.conv_general_dilated(
        x[None, None], kernel[None, None], (1, 1), "SAME", rhs_dilation=dilation
    )
    return out[0, 0]


def pooled_mean(x, window=(1, 3)):
    """Sums over windows, with zeros beyond the border."""
    return jax.lax.reduce_window(
        x, np.zeros((), x.dtype), jax.lax.add, window, (1, 1), "SAME"
    )


def pooled_max(x, window=(2, 2)):
    """The largest of every window."""
    least = np.array(-np.inf, x.dtype)
    return jax.lax.reduce_window(x, least, jax.lax.max, window, (1, 1), "VALID")


def symmetric(a):
    """The symmetric part."""
    return (a + a.T) / 2


def cholesky(a):
    """The lower factor of the symmetric part."""
    return jnp.linalg.cholesky(symmetric(a), symmetrize_input=False)


def triangular_solve(a, b):
    """Solves with the lower triangle of a; what is above is not read."""
    return jax.scipy.linalg.solve_triangular(jnp.tril(a), b, lower=True)


def log_determinant(a):
    """Of the symmetric part."""
    return jnp.linalg.slogdet(symmetric(a))[1]


def _gru_point(shape):
    m, n = points.ROWS[shape]
    sizes = [(m, n), (m, n), (2 * n, 3 * n)]
    return points.normals(lambda _: sizes, shape)


def _bilinear_point(shape):
    m, n = points.ROWS[shape]
    return points.normals(lambda _: [(m, n), (n, n), (m, n)], shape)


def _image_point(shape):
    return points.normals(lambda s: [points.IMAGE[s], (3, 3)], shape)


def _one_image(shape):
    return points.normals(lambda s: [points.IMAGE[s]], shape)


def _weight_point(shape):
    return points.normals(lambda s: [points.ROWS[s], points.ROWS[s][:1]], shape)


OPERATIONS = {
    "square": Operation(jnp.square, points.vector),
    "tanh": Operation(jnp.tanh, points.vector),
    "sin": Operation(jnp.sin, points.vector),
    "exp": Operation(jnp.exp, points.vector),
    "sigmoid": Operation(lambda x: jax.nn.sigmoid(x), points.vector),
    "gelu": Operation(lambda x: jax.nn.gelu(x, approximate=False), points.vector),
    "silu": Operation(lambda x: jax.nn.silu(x), points.vector),
    "softplus": Operation(lambda x: jax.nn.softplus(x), points.vector),
    "huber": Operation(huber, points.vector),
    "log1mexp": Operation(log1mexp, points.negative_vector),
    "product": Operation(lambda x, y: x * y, points.vectors),
    "cumsum": Operation(jnp.cumsum, points.vector),
    "softmax": Operation(lambda x: jax.nn.softmax(x, axis=-1), points.rows),
    "log softmax": Operation(lambda x: jax.nn.log_softmax(x, axis=-1), points.rows),
    "logsumexp": Operation(lambda x: jax.nn.logsumexp(x, axis=-1), points.rows),
    "layer norm": Operation(layer_norm, points.rows_scale_shift),
    "batch norm": Operation(batch_norm, points.rows_scale_shift),
    "group norm": Operation(group_norm, points.rows_scale_shift),
    "rms norm": Operation(rms_norm, points.rows_and_scale),
    "norm": Operation(norm, points.rows),
    "cosine": Operation(cosine, points.two_rows),
    "weight norm": Operation(weight_norm, _weight_point),
    "share": Operation(share, points.positive),
    "cross entropy": Operation(cross_entropy, points.labelled),
    "soft cross entropy": Operation(soft_cross_entropy, points.targets),
    "likelihood": Operation(negative_log_likelihood, points.labelled),
    "binary cross entropy": Operation(binary_cross_entropy, points.probabilities),
    "mean squared error": Operation(mean_squared_error, points.two_rows),
    "squared errors": Operation(squared_errors, points.two_rows),
    "dense": Operation(dense, points.dense),
    "tanh layer": Operation(tanh_layer, points.dense),
    "square dense": Operation(lambda x, a: x @ a, points.square_dense),
    "bilinear": Operation(bilinear, _bilinear_point),
    "attention": Operation(attention, points.sequence),
    "causal attention": Operation(causal_attention, points.sequence),
    "capped attention": Operation(capped_attention, points.sequence),
    "rope": Operation(rope, points.rows),
    "gru": Operation(gru, _gru_point),
    "gather": Operation(gather, points.repeated_ids),
    "embedding": Operation(embedding_layer, points.repeated_ids),
    "segment sum": Operation(segment_sum, points.repeated_ids_of_rows),
    "dropout": Operation(dropout, points.vector),
    "convolution": Operation(correlate, _image_point),
    "dilated convolution": Operation(dilated, _image_point),
    "pooled mean": Operation(pooled_mean, _one_image),
    "pooled max": Operation(pooled_max, _one_image),
    "sort": Operation(jnp.sort, points.vector),
    "cholesky": Operation(cholesky, points.positive_definite, WIDE),
    "triangular solve": Operation(triangular_solve, points.system, WIDE),
    "solve": Operation(jnp.linalg.solve, points.system, WIDE),
    "log determinant": Operation(log_determinant, points.positive_definite, WIDE),
}
