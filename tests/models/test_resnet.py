import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.nn import initializers

from gradstab.initializers import identity_rnn
from gradstab.models import ResNet, scan_blocks

pytestmark = pytest.mark.slow  # a program for every option

EPS = float(jnp.finfo(jnp.float32).eps)
X = jax.random.normal(jax.random.key(0), (5, 4))
IMAGES = jax.random.normal(jax.random.key(1), (2, 3, 3, 4))


def resnet(**options):
    defaults = {
        "width": 4,
        "depth": 2,
        "activation": "relu",
        "kernel_init": initializers.normal(0.5),
        "rngs": nnx.Rngs(params=0, dropout=1),
    }
    return ResNet(4, 4, **(defaults | options))


@pytest.mark.parametrize(
    ("options", "h"),
    [
        ({"residual_scale": 0.0}, X),
        ({"skip_init": True}, X),
        ({"last_init": initializers.zeros}, X),
        ({"skip_init": True, "norm": "batch", "kernel_size": 3}, IMAGES),
    ],
    ids=["scale 0", "SkipInit", "zero last layer", "convolutional SkipInit"],
)
def test_a_branch_that_is_off_leaves_the_identity(options, h):
    blocks = resnet(**options).blocks
    chex.assert_trees_all_equal(scan_blocks(blocks, h)[0], h)
    assert (scan_blocks(resnet().blocks, X)[0] != X).any()


def test_post_activation_applies_the_activation_to_the_stream():
    model = resnet(residual_scale=0.0, preactivation=False)
    chex.assert_trees_all_equal(scan_blocks(model.blocks, X)[0], jnp.maximum(X, 0))


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_linear_blocks_multiply_by_one_plus_the_residual_scale(scale):
    model = resnet(
        depth=6,
        activation="identity",
        kernel_init=identity_rnn(1.0),
        residual_scale=scale,
    )
    # Two roundings per block, and those of the power.
    chex.assert_trees_all_close(model(X), (1 + scale) ** 6 * X, rtol=15 * EPS)


@pytest.mark.parametrize("preactivation", [True, False])
def test_the_network_is_its_formula(preactivation):
    model = resnet(depth=1, preactivation=preactivation, residual_scale=0.5)

    def relu(h):
        return jnp.maximum(h, 0)

    first, last = model.blocks.first.kernel[0], model.blocks.last.kernel[0]
    h = X @ model.stem.kernel[...]
    if preactivation:
        h = h + 0.5 * (relu(relu(h) @ first) @ last)
        h = relu(h)
    else:
        h = relu(h)
        h = relu(h + 0.5 * (relu(h @ first) @ last))
    expected = h @ model.head.kernel[...]
    chex.assert_trees_all_close(model(X), expected, atol=50 * EPS)


@pytest.mark.parametrize("preactivation", [True, False])
def test_on_images_of_one_pixel_a_convolution_is_a_dense_layer(preactivation):
    options = {"norm": "batch", "preactivation": preactivation}
    dense = resnet(**options)
    convolutional = resnet(kernel_size=1, **options)
    graphdef, state = nnx.split(convolutional)
    state = jax.tree.map(
        lambda new, old: new.reshape(old.shape), nnx.state(dense), state
    )
    convolutional = nnx.merge(graphdef, state)
    got = convolutional(X[:, None, None])
    chex.assert_trees_all_close(got, dense(X), atol=100 * EPS)


def test_images_of_any_size_are_averaged_over_their_positions():
    model = resnet(kernel_size=1)
    model.eval()
    chex.assert_trees_all_close(
        model(jnp.tile(IMAGES, (1, 2, 2, 1))), model(IMAGES), atol=100 * EPS
    )


def test_the_learnt_scalar_of_skip_init_gets_a_gradient_at_once():
    graphdef, params = nnx.split(resnet(skip_init=True))
    grads = jax.grad(lambda p: jnp.square(nnx.merge(graphdef, p, copy=True)(X)).sum())(
        params
    )
    assert grads["blocks"]["alpha"].shape == (2,)
    assert (grads["blocks"]["alpha"][...] != 0).all()
    assert (grads["blocks"]["last"]["kernel"][...] == 0).all()


def test_auxiliary_heads_read_the_stem_and_the_blocks():
    model = resnet(kernel_size=1, aux_heads=(0, 2))
    _, (at_stem, at_last) = model(IMAGES)
    h = model.stem(IMAGES)
    expected = model.auxiliary[0](h.mean(axis=(1, 2)))
    chex.assert_trees_all_close(at_stem, expected, atol=50 * EPS)
    h, _ = scan_blocks(model.blocks, h)
    expected = model.auxiliary[1](h.mean(axis=(1, 2)))
    chex.assert_trees_all_close(at_last, expected, atol=50 * EPS)


def test_dropout_is_inside_the_branch():
    model = resnet(dropout=0.5)
    assert (model(X) != model(X)).any()
    model.eval()
    chex.assert_trees_all_close(model(X), resnet()(X), atol=50 * EPS)
    off = resnet(dropout=0.5, residual_scale=0.0)
    chex.assert_trees_all_equal(scan_blocks(off.blocks, X)[0], X)


def test_a_convolutional_network_refuses_vectors_and_other_channels():
    model = resnet(kernel_size=3)
    for shape in [(5, 4), (5, 3, 3, 1)]:
        with pytest.raises(
            ValueError, match=r"\(batch, height, width, 4\), got .*" + str(shape[-1])
        ):
            model(jnp.ones(shape))


def test_a_dense_network_names_the_features_that_it_expects():
    with pytest.raises(
        ValueError, match=r"ResNet expects .* 4 features .*got \(5, 3\)"
    ):
        resnet()(jnp.ones((5, 3)))


def test_the_depth_must_be_positive():
    with pytest.raises(ValueError, match="depth must be a positive integer, got 0"):
        resnet(depth=0)
