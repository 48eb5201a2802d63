"""Stencils say where a Jacobian can differ from zero, and say no less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.network import find_layers, find_stencil
from gradstab.program.reads import Reach
from gradstab.spectra.colouring import find_colouring


def conv(x, w, strides=(1, 1), padding="SAME", **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=numbers, **options
    )


def pool(x, operation=jax.lax.max, start=-jnp.inf):
    return jax.lax.reduce_window(
        x, start, operation, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
    )


def group_norm(x):
    parts = x.reshape(*x.shape[:3], 2, x.shape[3] // 2)
    mean = jnp.mean(parts, axis=(1, 2, 4), keepdims=True)
    return (parts / (1 + mean**2)).reshape(x.shape)


def layer_norm(x):
    return x - jnp.mean(x, axis=-1, keepdims=True)


BODIES = {
    "convolution": conv,
    "stride two": lambda x, w: jnp.tanh(conv(x, w, (2, 1))),
    "dilated": lambda x, w: conv(x, w, rhs_dilation=(2, 1)),
    "padded by hand": lambda x, w: conv(x, w, padding=((2, 0), (1, 3))),
    "pooled": lambda x, w: pool(jax.nn.relu(conv(x, w))),
    "summed": lambda x, w: pool(conv(x, w), jax.lax.add, 0.0),
    "residual": lambda x, w: x + jax.nn.gelu(conv(jax.nn.relu(conv(x, w)), w)),
    "layer norm": lambda x, w: layer_norm(conv(x, w)) * x,
    "cut and shifted": lambda x, w: jnp.pad(
        conv(x, w)[:, 1:, ::2], ((0, 0), (2, 0), (0, 1), (0, 0))
    ),
    "transposed axes": lambda x, w: jnp.transpose(conv(x, w), (0, 2, 1, 3)),
    "both orders": lambda x, w: jnp.concatenate([conv(x, w), x], axis=-1),
    "pointwise": lambda x, w: jnp.einsum("nhwc,cd->nhwd", x, w[0, 0]),
    "flattened": lambda x, w: conv(x, w).reshape(x.shape[0], x.shape[1], -1),
    "depthwise": lambda x, w: conv(x, w[:, :, :1].repeat(2, 3), feature_group_count=4),
    "mirrored": lambda x, w: conv(x, w) + x[:, ::-1],
    "group norm": lambda x, w: group_norm(conv(x, w)),
    "transposed convolution": lambda x, w: conv(
        x, w, padding=((1, 1), (1, 1)), lhs_dilation=(2, 2)
    ),
    "mean over places": lambda x, w: conv(x, w).mean(axis=(1, 2)),
}
FULL = {"group norm", "transposed convolution", "mean over places"}


def block_of(body):
    w = jax.random.normal(jax.random.key(0), (3, 3, 4, 4))
    x = jax.random.normal(jax.random.key(1), (1, 7, 6, 4))
    (block,) = find_layers(lambda w, x: body(x, w), w, (x,)).blocks
    function = lambda x: body(x, w)  # noqa: E731
    return block, function, x


@pytest.mark.parametrize("name", BODIES)
def test_no_jacobian_reaches_beyond_the_stencil(name):
    block, function, x = block_of(BODIES[name])
    found = find_colouring(block)
    assert (found is None) == (name in FULL)
    if found is None:
        return
    jacobian = jax.jacfwd(function)(x)
    jacobian = np.asarray(jacobian).reshape(-1, x.size)
    same = found.colours[:, None] == np.arange(found.num)
    images = (jacobian @ same)[None]
    np.testing.assert_allclose(found.spread(images)[0], jacobian, rtol=1e-5, atol=1e-6)
    assert found.num < x.size


def test_windows_of_layers_in_a_row_add_up():
    block, *_ = block_of(BODIES["residual"])
    assert find_stencil(block).reaches[1] == Reach(axis=1, stride=1, low=-2, high=2)
    block, *_ = block_of(lambda x, w: pool(conv(x, w, (2, 2), "VALID")))
    # Two neighbours at a distance of two, and a window of three around each.
    assert find_stencil(block).reaches[1] == Reach(axis=1, stride=4, low=0, high=4)


def test_a_window_counts_its_colours():
    block, *_ = block_of(conv)
    assert find_colouring(block).num == 3 * 3 * 4


def test_a_stencil_that_is_too_narrow_is_noticed():
    block, function, x = block_of(conv)
    found = find_colouring(block)
    axes = [r and r._replace(high=min(r.high, 0)) for r in found.stencil.reaches]
    narrow = found._replace(stencil=found.stencil._replace(reaches=tuple(axes)))
    jacobian = np.asarray(jax.jacfwd(function)(x)).reshape(-1, x.size)
    images = (jacobian @ (found.colours[:, None] == np.arange(found.num)))[None]
    assert np.max(np.abs(narrow.spread(images)[0] - jacobian)) > 0.1
