"""Orthogonal, delta-orthogonal and looks-linear kernels keep lengths."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab import initializers as I

DTYPES = ["float32", "bfloat16", "float16", "float64"]
SHAPES = [(5, 30), (3, 3, 4, 6)]


def gram_error(kernel, scale):
    """The largest entry of Q Q^T / scale^2 - I along the shorter side, in float64."""
    matrix = np.asarray(kernel).astype(np.float64).reshape(-1, kernel.shape[-1])
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return np.abs(matrix @ matrix.T / scale**2 - np.eye(len(matrix))).max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_or_columns_are_orthonormal_up_to_rounding(shape, dtype):
    with jax.enable_x64(dtype == "float64"):
        kernel = I.orthogonal(2.0)(jax.random.key(0), shape, jnp.dtype(dtype))
    assert kernel.dtype == dtype
    wide = np.float64 if dtype == "float64" else np.float32
    # Rounding entries by eps / 2 moves a product of unit vectors by eps at most; a QR
    # of n rows is orthogonal to n eps.
    tolerance = jnp.finfo(dtype).eps + 36 * np.finfo(wide).eps
    assert gram_error(kernel, 2.0) <= tolerance


def test_a_gaussian_matrix_is_not_orthogonal():
    gaussian = I.mean_field(1.0)(jax.random.key(0), (100, 100))
    assert gram_error(gaussian, 1.0) > 0.1


def test_orthogonal_matrices_are_isotropic():
    init = I.orthogonal()
    many = jax.jit(jax.vmap(lambda key: init(key, (3, 3))))(
        jax.random.split(jax.random.key(0), 4000)
    )
    # Entries of a Haar matrix: mean 0, mean square 1/3, so a mean of 4,000 errs by
    # sqrt(1/3/4000); Haar needs the sign correction that plain QR lacks.
    tolerance = 4.5 * np.sqrt(1 / 3 / 4000)
    chex.assert_trees_all_close(
        jnp.mean(many, axis=0), jnp.zeros((3, 3)), atol=tolerance
    )


def test_vectors_have_no_orthogonal_kernel():
    with pytest.raises(ValueError, match="two axes"):
        I.orthogonal()(jax.random.key(0), (3,))


def convolve(image, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        image, kernel, (1, 1), "SAME", dimension_numbers=dimensions
    )


def image_length(init, window, num_layers=20):
    """The length of an image after convolutions of 6 channels; 1 before."""
    key_x, key = jax.random.split(jax.random.key(0))
    keys = jax.random.split(key, num_layers)
    image = jax.random.normal(key_x, (1, 8, 8, 6))
    image = image / jnp.linalg.norm(image)

    def layer(image, key):
        return convolve(image, init(key, (*window, 6, 6))), None

    image, _ = jax.lax.scan(layer, image, keys)
    return float(jnp.linalg.norm(image))


@pytest.mark.parametrize("window", [(3, 3), (2, 4), (1, 1)])
def test_delta_orthogonal_convolutions_keep_the_length_of_an_image(window):
    # Twenty layers that each round to eps, and are orthogonal to 6 eps.
    tolerance = 20 * 7 * np.finfo(np.float32).eps
    assert abs(image_length(I.delta_orthogonal(), window) - 1) < tolerance


def off_centre(key, shape):
    return jnp.roll(I.delta_orthogonal()(key, shape), 1, axis=0)


@pytest.mark.parametrize("mistake", [I.orthogonal(), off_centre, I.lecun_normal()])
def test_other_convolutions_lose_length(mistake):
    assert image_length(mistake, (3, 3)) < 0.9


@pytest.mark.parametrize("shape", [(3, 4, 5), (4, 1, 4, 4), (3, 3, 3, 2, 4)])
def test_the_only_tap_of_a_delta_orthogonal_kernel_is_its_centre(shape):
    dtype = jnp.bfloat16
    kernel = I.delta_orthogonal(0.5)(jax.random.key(0), shape, dtype)
    centre = tuple((size - 1) // 2 for size in shape[:-2])
    assert kernel.dtype == dtype
    assert gram_error(kernel[centre], 0.5) < 4 * jnp.finfo(dtype).eps + 1e-6
    assert not jnp.any(kernel.at[centre].set(0))


def test_delta_orthogonal_says_why_it_cannot_reduce_channels():
    with pytest.raises(ValueError, match="has 8 and 4"):
        I.delta_orthogonal()(jax.random.key(0), (3, 3, 8, 4))
    with pytest.raises(ValueError, match="window"):
        I.delta_orthogonal()(jax.random.key(0), (8, 8))


def crelu(z):
    return jnp.concatenate([jax.nn.relu(z), jax.nn.relu(-z)], axis=-1)


def crelu_network(init, x, width=7, depth=10):
    """Concatenated rectifiers: layer inputs are mirrored, widths may be odd."""

    def layer(x, key):
        return crelu(x) @ init(key, (2 * width, width)), None

    return jax.lax.scan(layer, x, jax.random.split(jax.random.key(1), depth))[0]


def relu_network(first, hidden, last, x, width=14, depth=10):
    """A plain ReLU network of mirrored units."""
    key_first, key_last, key = jax.random.split(jax.random.key(1), 3)

    def layer(x, key):
        return jax.nn.relu(x) @ hidden(key, (width, width)), None

    x = x @ first(key_first, (x.shape[-1], width))
    x, _ = jax.lax.scan(layer, x, jax.random.split(key, depth - 2))
    return jax.nn.relu(x) @ last(key_last, (width, 7))


def is_linear_isometry(network):
    """f(x) + f(-x) = 0, f(x + y) = f(x) + f(y) and ||f(x)|| = ||x||."""
    network = jax.jit(network)
    x, y = jax.random.normal(jax.random.key(0), (2, 1, 7))
    odd = network(x) + network(-x)
    additive = network(x + y) - network(x) - network(y)
    lengths = jnp.linalg.norm(network(x)) - jnp.linalg.norm(x)
    # Ten layers, each of 14 products of size 1, round to 10 * 14 eps = 2e-5.
    errors = (jnp.abs(odd).max(), jnp.abs(additive).max(), jnp.abs(lengths))
    return max(map(float, errors)) < 2e-5


def test_a_looks_linear_crelu_network_of_odd_width_is_a_linear_isometry():
    init = I.looks_linear(outputs=False)
    assert is_linear_isometry(lambda x: crelu_network(init, x))


def test_a_looks_linear_relu_network_is_a_linear_isometry():
    inits = (
        I.looks_linear(inputs=False),
        I.looks_linear(),
        I.looks_linear(outputs=False),
    )
    assert is_linear_isometry(lambda x: relu_network(*inits, x))


def same_sign(key, shape):
    half = I.orthogonal()(key, (shape[0] // 2, shape[1]))
    return jnp.concatenate([half, half])


@pytest.mark.parametrize("mistake", [same_sign, I.orthogonal()])
def test_a_crelu_network_without_mirrored_weights_is_not_linear(mistake):
    assert not is_linear_isometry(lambda x: crelu_network(mistake, x))


@pytest.mark.parametrize(
    ("shape", "sides", "word"),
    [
        ((7, 4), {}, "inputs=False"),
        ((4, 7), {}, "outputs=False"),
        ((7, 7), {"outputs": False}, "even"),
    ],
)
def test_an_odd_mirrored_width_is_an_error_that_says_what_to_do(shape, sides, word):
    with pytest.raises(ValueError, match=word):
        I.looks_linear(**sides)(jax.random.key(0), shape)


def test_looks_linear_mirrors_the_channels_of_a_convolution_in_its_dtype():
    init = I.looks_linear(I.delta_orthogonal())
    kernel = init(jax.random.key(0), (3, 3, 8, 8), jnp.bfloat16)
    chex.assert_type(kernel, jnp.bfloat16)
    chex.assert_trees_all_equal(kernel[..., :4, :], -kernel[..., 4:, :])
    chex.assert_trees_all_equal(kernel[..., :4], -kernel[..., 4:])
