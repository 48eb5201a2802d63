"""Theory beside the measurement, on networks whose theory is known on paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.network import find_layers, propagate
from gradstab.theory import (
    batch_norm_gain,
    batch_norm_square,
    predict,
    relu_log_law,
    residual,
)

WIDTH = 24

# A polynomial in the logarithm of the length, and quadrature to 1e-12.
EXACT = 1e-8


pytestmark = pytest.mark.usefixtures("quick_compiler")


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def weights(seed, num, *, width=WIDTH, sigma_w=1.5):
    return list(sigma_w * normal(seed, num, width, width) / np.sqrt(width))


def predicted(apply, params, x, *, redraws=0, dtype=jnp.float64, loss=None):
    """The prediction, and the signals, in float64."""
    with jax.enable_x64(dtype == jnp.float64):
        params, x = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, x))
        network = find_layers(apply, params, (x,))
        run = propagate(network, params, (), (x,), loss=loss)
        return predict(run, redraws=redraws), run.signals


def chain(activation):
    """Dense layers without biases."""

    def apply(params, x):
        for w in params:
            x = activation(x @ w)
        return x

    return apply


def mean_over_gaussian(f, q):
    """The trapezoidal rule, apart from the library: exact for analytic functions."""
    z = np.arange(-10, 10, 0.02)
    x = np.sqrt(q)[..., None] * z
    return f(x) @ (0.02 * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))


CASES = {
    "tanh": (jnp.tanh, np.tanh, lambda x: np.cosh(x) ** -2.0),
    "one that no table lists": (
        lambda x: jnp.sin(x) + 0.3 * x,
        lambda x: np.sin(x) + 0.3 * x,
        lambda x: np.cos(x) + 0.3,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("activation", "f", "slope"), CASES.values(), ids=CASES)
def test_every_layer_follows_the_recursion_from_its_own_input(activation, f, slope):
    # Examples of different lengths: the mean of the recursions is not that of the mean.
    x = normal(0, 3, WIDTH) * np.array([[0.2], [1.0], [3.0]])
    params = weights(1, 3)
    found, _ = predicted(chain(activation), params, x)
    p = np.mean(x**2, axis=1)
    for number, w in enumerate(params):
        q = WIDTH * np.var(w) * p
        p = mean_over_gaussian(lambda x: f(x) ** 2, q)
        chi = WIDTH * np.var(w) * mean_over_gaussian(lambda x: slope(x) ** 2, q)
        np.testing.assert_allclose(found.sigma_w[number], np.sqrt(WIDTH) * np.std(w))
        np.testing.assert_allclose(
            found.forward_rms[number] ** 2, np.mean(p), rtol=EXACT
        )
        np.testing.assert_allclose(
            found.gradient_factor[number] ** 2, np.mean(chi), rtol=EXACT
        )
        np.testing.assert_allclose(found.chi[number], np.mean(chi), rtol=EXACT)


@pytest.mark.slow
def test_the_measured_factor_is_the_ratio_of_the_gradient_norms():
    found, signals = predicted(chain(jnp.tanh), weights(2, 3), normal(3, 4, WIDTH))
    norms = np.asarray(signals.gradient_norms)
    ratios = np.sqrt(np.mean((norms[:-1] / norms[1:]) ** 2, axis=1))
    np.testing.assert_allclose(found.measured_gradient_factor[1:], ratios, rtol=1e-12)


@pytest.mark.slow
def test_layers_of_a_scan_are_told_apart():
    def scanned(params, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, params)[0]

    params, x = weights(4, 3), normal(5, 2, WIDTH)
    params[1] = params[1] / 2
    loop, _ = predicted(chain(jnp.tanh), params, x, redraws=4)
    scan, _ = predicted(scanned, np.stack(params), x, redraws=4)
    assert abs(loop.sigma_w[1] / loop.sigma_w[0] - 0.5) < 0.1
    for name in ("sigma_w", "forward_rms", "gradient_factor", "forward_z"):
        np.testing.assert_allclose(getattr(loop, name), getattr(scan, name), rtol=1e-9)


def test_an_activation_may_come_before_the_product():
    def apply(params, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h) @ w, None), x, params)[0]

    params, x = weights(6, 2), normal(7, 2, WIDTH)
    found, _ = predicted(apply, np.stack(params), x)
    variances = [WIDTH * np.var(w) for w in params]
    # The data are given, not Gaussian: their own squares count in the first layer.
    q = variances[0] * np.mean(np.tanh(x) ** 2, axis=1)
    np.testing.assert_allclose(found.forward_rms[0] ** 2, np.mean(q), rtol=EXACT)
    q = variances[1] * mean_over_gaussian(lambda x: np.tanh(x) ** 2, q)
    np.testing.assert_allclose(found.forward_rms[1] ** 2, np.mean(q), rtol=EXACT)


def test_biases_count_with_their_mean_and_variance():
    def apply(params, x):
        return jnp.tanh(x @ params["w"] + params["b"][None])

    x, b = normal(8, 1, WIDTH), 0.5 + 0.3 * normal(9, WIDTH)
    w = weights(10, 1)[0]
    found, _ = predicted(apply, {"w": w, "b": b}, x)
    np.testing.assert_allclose(found.sigma_b, np.std(b))
    q = np.atleast_1d(WIDTH * np.var(w) * np.mean(x**2) + np.var(b))
    square = mean_over_gaussian(lambda x: np.tanh(x + np.mean(b)) ** 2, q)
    np.testing.assert_allclose(found.forward_rms**2, square, rtol=EXACT)


def test_orthogonal_weights_are_known_by_their_singular_values():
    turned = np.linalg.qr(normal(11, WIDTH, WIDTH))[0]
    params = [0.9 * turned, 0.9 * turned[:, :6], weights(12, 1)[0][:6]]
    found, signals = predicted(chain(lambda z: z), params, normal(13, 4, WIDTH))
    assert found.orthogonal == (True, True, False)
    np.testing.assert_allclose(found.sigma_w[:2], 0.9, rtol=1e-12)
    np.testing.assert_allclose(found.forward_rms[0], signals.forward_rms[0], rtol=1e-12)
    # Of 24 directions six are left.
    np.testing.assert_allclose(found.chi[:2], [0.81, 0.81 * 6 / 24], rtol=1e-12)


def ones_convolved(p):
    """The mean of a map over windows of three by three with zeros around it."""
    padded = np.pad(p, 1)
    rows = np.sum([padded[i : i + len(p)] for i in range(3)], axis=0)
    return np.sum([rows[:, i : i + p.shape[1]] for i in range(3)], axis=0) / 9


@pytest.mark.slow
def test_a_convolution_loses_signal_at_its_borders():
    def apply(params, x):
        for kernel in params:
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x)
        return x

    x = normal(14, 1, 5, 4, 6)
    params = [normal(15, 3, 3, 6, 8) / 5, normal(16, 3, 3, 8, 8) / 6]
    found, _ = predicted(apply, params, x)
    p = np.mean(x[0] ** 2, axis=2)
    for number, kernel in enumerate(params):
        fan_in = np.prod(kernel.shape[:3])
        p = fan_in * np.var(kernel) * ones_convolved(p) / 2
        np.testing.assert_allclose(found.sigma_w[number] ** 2, fan_in * np.var(kernel))
        rms = found.forward_rms[number]
        np.testing.assert_allclose(rms**2, np.mean(p), rtol=EXACT)
    # Of the nine terms of an entry at the border some fall outside.
    inside = np.sum(ones_convolved(np.ones((5, 4)))) / 20
    chi = 6 * 9 * np.var(params[0]) * inside / 2 * 8 / 6
    np.testing.assert_allclose(found.chi[0], chi, rtol=EXACT)


@pytest.mark.slow
def test_identity_connections_add_squares():
    def apply(params, x):
        for w, v in params:
            x = x + jax.nn.relu(x @ w) @ v
        return x

    pairs = [(normal(17, WIDTH, 40) / 5, normal(18, 40, WIDTH) / 7) for _ in range(2)]
    x = normal(19, 3, WIDTH)
    found, _ = predicted(apply, pairs, x)
    w, v = (np.var(m) for m in pairs[0])
    gain = 1 + WIDTH * w * 40 * v / 2
    lengths = np.mean(x**2) * gain ** np.arange(1, 3)
    np.testing.assert_allclose(found.forward_rms**2, lengths, rtol=EXACT)
    np.testing.assert_allclose(found.gradient_factor**2, gain, rtol=EXACT)
    assert found.notes[0].startswith("2 products")


@pytest.mark.slow
def test_a_stream_gathers_the_mean_of_its_branches():
    def apply(params, x):
        for w in params:
            x = x + jax.nn.softplus(x @ w)
        return x

    matrix = weights(20, 1, sigma_w=0.8)[0]
    x = normal(21, 1, WIDTH)
    x = (x - x.mean()) / x.std()
    found, _ = predicted(apply, [matrix] * 3, x)
    blocks = residual(jax.nn.softplus, 3, np.sqrt(WIDTH) * np.std(matrix))
    np.testing.assert_allclose(found.forward_rms**2, blocks.lengths[1:], rtol=EXACT)
    np.testing.assert_allclose(found.gradient_factor**2, blocks.gains, rtol=EXACT)


def layer_norm(h):
    centred = h - jnp.mean(h, axis=1, keepdims=True)
    return centred / jnp.sqrt(jnp.mean(centred**2, axis=1, keepdims=True) + 1e-6)


def rms_norm(h):
    return h / jnp.sqrt(jnp.mean(h**2, axis=1, keepdims=True) + 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "lost"), [(layer_norm, 2), (rms_norm, 1)])
def test_layer_normalisation_divides_by_the_length(norm, lost):
    def apply(params, x):
        for w in params:
            x = jax.nn.relu(norm(x @ w))
        return x

    params, x = weights(22, 2), 30 * normal(23, 2, WIDTH)
    found, _ = predicted(apply, params, x)
    np.testing.assert_allclose(found.forward_rms**2, 0.5, rtol=1e-5)
    # Half of the slopes are one, the layer before is of mean square a half, and the
    # directions of the mean and of the data themselves are lost.
    gain = 1 - lost / WIDTH
    np.testing.assert_allclose(found.gradient_factor[1] ** 2, gain, rtol=1e-5)


@pytest.mark.slow
def test_batch_normalisation_has_the_gain_of_its_theory():
    def apply(params, x):
        for w in params:
            h = x @ w
            centred = h - jnp.mean(h, axis=0, keepdims=True)
            variance = jnp.mean(centred**2, axis=0, keepdims=True)
            x = jax.nn.relu(centred / jnp.sqrt(variance + 1e-6))
        return x

    found, _ = predicted(apply, weights(24, 3), normal(25, 8, WIDTH), redraws=3)
    np.testing.assert_allclose(found.forward_rms**2, 0.5, rtol=1e-9)
    gain = batch_norm_gain(jax.nn.relu, 8)
    np.testing.assert_allclose(found.gradient_factor[1:] ** 2, gain, rtol=1e-9)
    assert np.isnan(found.gradient_factor[0])  # known for deep layers only
    assert np.all(np.isfinite(found.gradient_z[1:]))


def test_the_mean_square_of_a_normalised_batch_is_between_its_limits():
    # B = 4: y / 2 is uniform on a sphere in three dimensions, and its entries too.
    width = np.sqrt(3)
    uniform = lambda f: np.mean(f(np.linspace(-width, width, 200001)))  # noqa: E731
    found = batch_norm_square(jnp.tanh, 4)
    np.testing.assert_allclose(found, uniform(lambda y: np.tanh(y) ** 2), rtol=1e-5)
    wide = mean_over_gaussian(lambda x: np.tanh(x) ** 2, np.ones(1))[0]
    np.testing.assert_allclose(batch_norm_square(jnp.tanh), wide, rtol=1e-10)
    assert abs(batch_norm_square(jnp.tanh, 1000) / wide - 1) < 1e-3


@pytest.mark.slow
def test_dropout_multiplies_squares_by_one_over_what_is_kept():
    keep = np.arange(2 * WIDTH).reshape(2, WIDTH) % 4 > 0

    def apply(params, x):
        h = jax.nn.relu(x @ params[0])
        return jnp.where(jnp.asarray(keep), h / 0.75, 0) @ params[1]

    params, x = weights(26, 2), normal(27, 2, WIDTH)
    found, _ = predicted(apply, params, x)
    square = WIDTH * np.var(params[0]) * np.mean(x**2) / 2 / 0.75
    np.testing.assert_allclose(found.forward_rms[0] ** 2, square, rtol=EXACT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "sigma_w"),
    [(jnp.tanh, 1.5), pytest.param(jax.nn.relu, 2**0.5, marks=pytest.mark.slow)],
)
def test_z_has_the_spread_that_it_claims(activation, sigma_w):
    # Of 16 redraws z follows Student's law with 15 degrees of freedom, of spread 1.07;
    # here are 48 of each kind, those of neighbouring layers not independent.
    rows, network = [], None
    with jax.enable_x64(True):
        for seed in range(12):
            drawn = weights(100 + seed, 4, width=48, sigma_w=sigma_w)
            params = [jnp.asarray(w) for w in drawn]
            x = jnp.asarray(normal(200 + seed, 4, 48))
            network = network or find_layers(chain(activation), params, (x,))
            found = predict(propagate(network, params, (), (x,)))
            rows.append(np.stack([found.forward_z, found.gradient_z]))
    spread = np.std(rows, axis=(0, 2))
    assert np.all(spread > 0.65)
    assert np.all(spread < 1.6)
    assert np.all(np.abs(np.mean(rows, axis=(0, 2))) < 0.7)


@pytest.mark.slow
def test_weights_that_know_their_input_are_far_from_theory():
    x = normal(28, 1, WIDTH)
    w = weights(29, 1)[0]
    aligned = 0.2 * w + x.T / WIDTH * np.ones((1, WIDTH))
    plain, _ = predicted(chain(jnp.tanh), [w], x, redraws=16)
    found, _ = predicted(chain(jnp.tanh), [aligned], x, redraws=16)
    assert abs(plain.forward_z[0]) < 4
    assert found.forward_z[0] > 6


@pytest.mark.slow
def test_errors_fall_with_the_root_of_the_width():
    errors = []
    for width in (24, 24 * 16):
        params = weights(30, 1, width=width)
        found, _ = predicted(chain(jnp.tanh), params, normal(31, 2, width), redraws=48)
        errors.append([found.forward_error[0], found.gradient_error[0]])
    # Each is known to one part in sqrt(2 * 48) = 10.
    np.testing.assert_allclose(np.divide(*errors), 4.0, rtol=4 / np.sqrt(48))


def test_orthogonal_weights_err_less():
    turned = 1.5 * np.linalg.qr(normal(32, 64, 64))[0]
    x = normal(33, 1, 64)
    gaussian, _ = predicted(chain(jnp.tanh), weights(34, 1, width=64), x, redraws=32)
    found, _ = predicted(chain(jnp.tanh), [turned], x, redraws=32)
    # The length of the pre-activations does not fluctuate, that of the gradient hardly.
    assert found.forward_error[0] < 0.7 * gaussian.forward_error[0]
    assert found.gradient_error[0] < 0.7 * gaussian.gradient_error[0]


@pytest.mark.slow
def test_layers_without_a_theory_say_why_and_the_next_start_from_the_measurement():
    def apply(params, x):
        first, a, b, c = params
        x = jnp.tanh(x @ first)
        x = jnp.max((x @ a).reshape(x.shape[0], -1, 2), axis=2)
        x = jnp.tanh(x @ b) * jax.nn.sigmoid(x @ b)
        return jax.nn.relu(x @ c)

    sizes = ((WIDTH, WIDTH), (WIDTH, 16), (8, 8), (8, 8))
    params = [normal(35 + i, *size) / 4 for i, size in enumerate(sizes)]
    found, signals = predicted(apply, params, normal(39, 6, WIDTH), redraws=3)
    assert found.notes[0] == ""
    assert found.notes[1] == "no theory: pooling (reduce_max)"
    assert found.notes[2].startswith("no theory: streams of data")
    assert np.all(np.isnan(found.forward_rms[1:3]))
    assert np.all(np.isnan(found.gradient_factor[1:3]))
    square = 8 * np.var(params[3]) * float(signals.forward_rms[2]) ** 2 / 2
    np.testing.assert_allclose(found.forward_rms[3] ** 2, square, rtol=EXACT)


def test_branches_with_the_same_weights_are_not_independent():
    def apply(w, x):
        h = x @ w
        return jnp.tanh(h)[:, ::-1] + h

    found, _ = predicted(apply, weights(54, 1)[0], normal(55, 2, WIDTH))
    assert found.notes == ("no theory: branches with the same weights are added",)


def test_chance_adds_up_from_layer_to_layer():
    # The squared length of a relu network without biases is a product of independent
    # factors, one per layer, of which the law is known.
    width, depth = 48, 4
    params = weights(56, depth, width=width, sigma_w=2**0.5)
    x = normal(57, 1, width)
    found, _ = predicted(chain(jax.nn.relu), params, x, redraws=64)
    variance = np.arange(1, depth + 1) * relu_log_law(width).variance
    errors = found.forward_error / found.forward_rms
    # A spread of 64 is known to one part in sqrt(128).
    np.testing.assert_allclose(errors, np.sqrt(variance) / 2, rtol=4 / np.sqrt(128))


@pytest.mark.slow
def test_an_example_of_zeros_has_the_length_of_the_biases():
    def apply(params, x):
        for w in params:
            x = jnp.tanh(x @ w)
        return x

    x = normal(58, 2, WIDTH) * np.array([[0.0], [1.0]])
    params = weights(59, 2)
    both, _ = predicted(apply, params, x)
    one, _ = predicted(apply, params, x[1:])
    np.testing.assert_allclose(both.forward_rms**2, one.forward_rms**2 / 2, rtol=EXACT)


def test_sums_of_given_data_are_no_gaussians():
    found, _ = predicted(
        lambda w, x: jnp.tanh(x + x @ w), weights(40, 1)[0], normal(41, 2, WIDTH)
    )
    assert found.notes == ("no theory: an activation of data that are not Gaussian",)


@pytest.mark.slow
def test_slopes_that_differ_from_unit_to_unit_are_no_activation():
    def apply(params, x):
        h = x @ params["w"]
        return jnp.where(h > 0, h, params["a"][None] * h)

    w, x = weights(42, 1)[0], normal(43, 2, WIDTH)
    same, _ = predicted(apply, {"w": w, "a": np.full(WIDTH, 0.5)}, x)
    square = WIDTH * np.var(w) * np.mean(x**2) * (1 + 0.25) / 2
    np.testing.assert_allclose(same.forward_rms**2, square, rtol=EXACT)
    other, _ = predicted(apply, {"w": w, "a": np.linspace(0, 1, WIDTH)}, x)
    assert "differs from unit to unit" in other.notes[0]


@pytest.mark.slow
def test_a_network_that_is_silent_or_not_finite_raises_nothing():
    w, x = weights(44, 2), normal(45, 2, WIDTH)
    silent, _ = predicted(chain(jnp.tanh), [0 * w[0], w[1]], x, redraws=2)
    assert np.all(silent.forward_rms == 0)
    broken, _ = predicted(chain(jnp.tanh), [np.nan * w[0], w[1]], x, redraws=2)
    assert np.all(np.isnan(broken.forward_z))


@pytest.mark.slow
def test_an_embedding_has_no_theory_and_the_layer_after_it_has():
    def apply(params, tokens):
        return jnp.tanh(params["embedding"][tokens] @ params["w"])

    params = {"embedding": normal(46, 5, WIDTH), "w": weights(47, 1)[0]}
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    tokens = jnp.arange(4)
    network = find_layers(apply, params, (tokens,))
    run = propagate(network, params, (), (tokens,))
    found = predict(run, redraws=2)
    assert found.notes[0] == "no theory: its input is integers"
    assert np.isfinite(found.forward_z[-1])


def test_without_redraws_there_is_theory_but_no_error():
    params, x = weights(48, 2), normal(49, 2, WIDTH)
    found, _ = predicted(chain(jnp.tanh), params, x)
    assert np.all(np.isfinite(found.forward_rms))
    assert np.all(np.isnan(found.forward_error))
    assert np.all(np.isnan(found.gradient_z))
    with pytest.raises(ValueError, match="a spread needs two"):
        predicted(chain(jnp.tanh), params, x, redraws=1)


@pytest.mark.slow
def test_the_same_key_gives_the_same_errors():
    params, x = weights(50, 2), normal(51, 2, WIDTH)
    first, _ = predicted(chain(jnp.tanh), params, x, redraws=4)
    second, _ = predicted(chain(jnp.tanh), params, x, redraws=4)
    np.testing.assert_array_equal(first.forward_error, second.forward_error)
    assert first.activations == ("tanh", "tanh")


@pytest.mark.slow
def test_half_precision_is_compared_within_its_rounding():
    params, x = weights(52, 2), normal(53, 2, WIDTH)
    found, _ = predicted(chain(jnp.tanh), params, x, redraws=8, dtype=jnp.bfloat16)
    assert np.all(np.abs(found.forward_z) < 5)
    assert np.all(np.abs(found.gradient_z) < 5)


@pytest.mark.slow
@pytest.mark.parametrize("centred", [True, False], ids=["layer", "rms"])
def test_a_normalisation_behind_a_narrow_trunk_is_known(centred):
    """It computes in float32, and what enters and leaves has eight bits."""

    def norm(x):
        wide = x.astype(jnp.float32)
        if centred:
            wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        return (wide * jax.lax.rsqrt(square + 1e-6)).astype(jnp.bfloat16)

    def apply(ws, x):
        for w in ws:
            x = jax.nn.relu(norm(x) @ w)
        return x

    ws = [jnp.asarray(normal(i, 96, 96) / 96**0.5, jnp.bfloat16) for i in range(3)]
    x = jnp.asarray(normal(9, 8, 96), jnp.bfloat16)
    network = find_layers(apply, ws, (x,))
    found = predict(propagate(network, ws, (), (x,)), key=jax.random.key(0))
    assert not any("normalisation" in note for note in found.notes)
    assert np.isfinite(found.gradient_factor[1:]).all()


def test_weights_that_are_drawn_one_after_the_other_give_the_same_errors(monkeypatch):
    params, x = weights(0, 3), normal(1, 4, WIDTH)
    together, _ = predicted(chain(jnp.tanh), params, x, redraws=4)
    monkeypatch.setattr("gradstab.theory.redraws._MOST_BYTES", 0)
    apart, _ = predicted(chain(jnp.tanh), params, x, redraws=4)
    assert np.all(together.gradient_error > 0)
    np.testing.assert_allclose(apart.gradient_error, together.gradient_error, 1e-9)
    np.testing.assert_allclose(apart.forward_error, together.forward_error, 1e-9)
