"""A complex number counts as two real ones, in every number of a report."""

import itertools
import math

import chex
import complex_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from complex_models import EIGENVALUES, as_complex, complex_normal, normal

import gradstab as gs
from gradstab import _tree
from gradstab.network import find_layers, propagate
from gradstab.network.activations import find_activations
from gradstab.network.cosines import gradient_cosines
from gradstab.spectra import jacobian_map
from gradstab.spectra.coupling import mixes_examples
from gradstab.spectra.dense import dense_jacobian, dense_spectrum
from gradstab.spectra.exponents import exponents

IDENTITY = np.eye(3, dtype=np.complex64)
PRECISIONS = {"float64": 1e-9, "own": 2e-4}
# Of the other models one precision is as good as both.
BOTH = (
    complex_models.lru,
    complex_models.fourier_operator,
    complex_models.complex_inputs,
)
CASES = [
    (make, precision)
    for make in complex_models.MODELS
    for precision in PRECISIONS
    if precision == "float64" or make in BOTH
]


def loss(out):
    """The mean squared distance from one."""
    return jnp.mean(jnp.square(jnp.abs(out - 1)))


def _analyze(model, **options):
    return gs.analyze(
        *(model.apply, model.params, model.x),
        boundaries=model.boundaries,
        progress=False,
        **options,
    )


@pytest.fixture(
    scope="module", params=CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}"
)
def case(request):
    make, precision = request.param
    return make(), precision


@pytest.fixture(scope="module")
def model(case):
    return case[0]


@pytest.fixture(scope="module")
def rtol(case):
    return PRECISIONS[case[1]]


@pytest.fixture(scope="module")
def report(case):
    model, precision = case
    with jax.numpy_dtype_promotion("strict"):
        return _analyze(model, loss=loss, precision=precision)


@pytest.fixture(scope="module")
def expected(model):
    """What JAX says of the model: gradient, and Jacobian of real by real numbers."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        params, x = jax.tree.map(_widened, (model.params, model.x))
        gradient = jax.jit(jax.grad(lambda p: loss(model.apply(p, x))))(params)

        def of_reals(numbers):
            one = _tree.from_real(numbers, x[:1])
            return _tree.real_view(model.apply(params, one)).reshape(-1)

        numbers = _tree.real_view(x).reshape(len(x), -1)
        return gradient, np.asarray(jax.jit(jax.vmap(jax.jacrev(of_reals)))(numbers))


def _widened(leaf):
    return leaf.astype(_tree.widest(leaf.dtype, jnp.float64))


@pytest.mark.slow
def test_layers_are_found_as_they_would_be_of_real_numbers(model, report):
    assert tuple(layer.name for layer in report.layers) == model.names


@pytest.mark.slow
def test_exponents_are_those_of_the_jacobian_of_real_numbers(report, expected, rtol):
    sigma = np.linalg.svd(expected[1], compute_uv=False)
    found = np.exp(report.exponents * len(report.layers))
    k = found.shape[1]
    scale = sigma[:, :1]
    np.testing.assert_allclose(found / scale, sigma[:, :k] / scale, atol=rtol)


@pytest.mark.slow
def test_norms_of_parameters_and_gradients_are_those_of_jax(
    model, report, expected, rtol
):
    with jax.enable_x64(True):
        params = jax.tree.map(_widened, model.params)
        sizes = [_tree.safe_norm(tree) for tree in (params, expected[0])]
    columns = [
        [layer.param_norm for layer in report.layers],
        [layer.param_gradient_norm for layer in report.layers],
    ]
    # No model here uses one parameter in two layers.
    found = [math.hypot(*column) for column in columns]
    np.testing.assert_allclose(found, np.asarray(sizes), rtol=rtol)


@pytest.mark.slow
def test_jacobians_have_the_shapes_of_real_numbers_and_multiply_to_the_models(
    report, expected
):
    shapes = [layer.jacobian.shape for layer in report.layers]
    assert all(a[0] == b[1] for a, b in itertools.pairwise(shapes))
    assert (shapes[-1][0], shapes[0][1]) == expected[1].shape[1:]
    largest = np.prod([layer.jacobian.values[:, 0] for layer in report.layers], axis=0)
    sigma = np.linalg.svd(expected[1], compute_uv=False)
    assert np.all(sigma[:, 0] <= largest * (1 + 1e-4))


@pytest.mark.slow
def test_a_parameter_counts_once_for_each_of_its_real_numbers(model, report):
    total = sum(_tree.real_size(leaf) for leaf in jax.tree.leaves(model.params))
    assert sum(layer.num_params for layer in report.layers) == total


@pytest.mark.slow
def test_theory_says_that_it_does_not_know_complex_numbers(report):
    notes = report.theory.notes if report.theory else report.notes
    assert any("complex numbers" in note for note in notes)


@pytest.mark.slow
@pytest.mark.parametrize("with_loss", [True, False])
def test_the_numbers_of_a_linear_recurrent_unit(with_loss):
    """Its eigenvalues are known, and so are its exponents along time."""
    model = complex_models.lru()
    report = _analyze(model, loss=loss if with_loss else None, theory=False)
    (recurrence,) = report.recurrences
    known = np.repeat(np.log(np.abs(EIGENVALUES)), 2)
    # The steps share their eigenvectors, so that those of the product are exact.
    found = recurrence.finite_time_exponents[0]
    np.testing.assert_allclose(found, known, atol=1e-6)
    assert recurrence.state_size == 6


@pytest.mark.slow
def test_layers_that_only_turn_complex_numbers_keep_them():
    report = _analyze(complex_models.unitary(), theory=False)
    # The first makes complex numbers of real ones, the last takes their real parts.
    for layer in report.layers[1:-1]:
        assert layer.jacobian is not None
        np.testing.assert_allclose(layer.jacobian.values, 1, atol=1e-6)
    rms = [layer.forward_rms for layer in report.layers[:-1]]
    np.testing.assert_allclose(rms, rms[0], rtol=1e-6)


@pytest.mark.slow
def test_a_complex_output_without_a_loss_gets_one_unit_cotangent_for_each_example():
    report = _analyze(complex_models.complex_inputs(), theory=False)
    np.testing.assert_allclose(report.layers[-1].gradient_norm, 1, rtol=1e-6)


def _pairs(matrix):
    """A complex matrix as the real one that acts on pairs, as rows do: x @ matrix."""
    blocks = np.array([[matrix.real, matrix.imag], [-matrix.imag, matrix.real]])
    return np.moveaxis(blocks, (0, 1), (1, 3)).reshape(np.multiply(matrix.shape, 2))


@pytest.mark.slow
def test_an_ensemble_of_complex_networks_agrees_with_one_of_real_pairs():
    w = np.asarray(complex_normal(0, 3, 2, 3, 3))  # initialisations, layers, in, out
    pairs = jnp.asarray(np.array([[_pairs(m) for m in row] for row in w]), jnp.float32)
    z = complex_normal(7, 4, 3)

    def apply(p, x):
        for w in p:
            x = x @ w
        return x

    def run(weights, x):
        params = list(weights.swapaxes(0, 1))
        options = {"ensemble": True, "loss": loss_of_parts, "progress": False}
        return gs.analyze(apply, params, x, theory=False, **options)

    def loss_of_parts(out):
        return jnp.sum(jnp.square(_tree.real_view(out)))

    one = run(jnp.asarray(w), z)
    other = run(pairs, _tree.real_view(z).reshape(4, 6))
    assert one.ensemble is not None
    assert other.ensemble is not None
    for name in ("forward_rms", "gradient_norm"):
        found, expected = (getattr(r.ensemble, name).values for r in (one, other))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    # One random cotangent each, over different numbers: alike, not equal.
    ratio = one.ensemble.mean_square.values / other.ensemble.mean_square.values
    assert np.all((ratio > 0.3) & (ratio < 3))


# One function of few entries at a time: quick.


def _layer(apply, params, x, **options):
    network = find_layers(apply, params, (x,))
    return propagate(network, params, (), (x,), **options)


@pytest.mark.slow
def test_a_complex_matrix_has_each_singular_value_twice():
    w, z = complex_normal(0, 3, 4), complex_normal(1, 2, 3)
    linear = jacobian_map(lambda z: z @ w, (z,), coupled=False)
    found = dense_spectrum(np.asarray(dense_jacobian(linear)))
    once = np.linalg.svd(np.asarray(w), compute_uv=False)
    np.testing.assert_allclose(found.values[0], np.repeat(once, 2), rtol=1e-5)
    chex.assert_trees_all_close(
        linear.rmatvec(jnp.ones((2, 8))),
        jnp.einsum("bij,bi->bj", dense_jacobian(linear), jnp.ones((2, 8))),
        rtol=1e-5,
    )


def test_complex_matrices_given_to_the_spectra_are_real_ones_of_twice_the_size():
    w = np.asarray(complex_normal(0, 1, 3, 3))
    once = np.linalg.svd(w[0], compute_uv=False)
    found = dense_spectrum(w)
    assert found.shape == (6, 6)
    np.testing.assert_allclose(found.values[0], np.repeat(once, 2), rtol=1e-5)
    turned = w * np.exp(1j)
    np.testing.assert_allclose(
        exponents([turned]).values[0], np.log(np.repeat(once, 2)), rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "weights",
    [
        lambda p: p["w"],
        lambda p: jnp.conj(p["w"]) * p["s"].astype(jnp.complex64),
        lambda p: p["v"].astype(jnp.complex64),
    ],
    ids=["as they are", "computed", "real"],
)
def test_cosines_are_those_of_real_and_imaginary_parts(weights):
    p = {"w": complex_normal(0, 3, 2), "s": normal(1), "v": normal(1, 3, 2)}
    x = complex_normal(2, 4, 3)

    def apply(p, x):
        return x @ weights(p)

    def gradient(x):
        found = jax.grad(lambda p: loss(apply(p, x[None])))(p)
        return jnp.concatenate([_tree.real_view(g).reshape(-1) for g in found.values()])

    rows = np.asarray(jax.vmap(gradient)(x))
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    run = _layer(apply, p, x, loss=loss)
    found = gradient_cosines(run).matrix[0]
    np.testing.assert_allclose(found, rows @ rows.T, atol=1e-5)


def test_signals_are_over_real_and_imaginary_parts():
    x = normal(0, 5, 3)
    run = _layer(lambda w, x: as_complex(x) @ w, IDENTITY, x)
    numbers = np.stack([np.asarray(x), np.zeros_like(x)])
    found = run.signals
    np.testing.assert_allclose(found.forward_rms[0], np.sqrt(np.mean(numbers**2)), 1e-6)
    np.testing.assert_allclose(found.forward_mean[0], np.mean(numbers), rtol=1e-5)
    assert found.zero_fraction[0] == 0.5
    np.testing.assert_allclose(found.gradient_norms[0], 1, rtol=1e-6)


def _saturation(activation, z):
    w = jnp.eye(z.shape[1]).astype(z.dtype)
    run = _layer(lambda w, z: activation(z @ w), w, z, loss=loss)
    signals = run.signals
    return float(signals.saturated_fraction[0]), float(signals.dead_fraction[0])


@pytest.mark.slow
def test_a_relu_of_both_parts_is_dead_where_a_part_is_negative():
    z = jax.lax.complex(jnp.array([[1.0, -1.0, -1.0]]), jnp.array([[1.0, 1.0, -1.0]]))
    relu = jax.nn.relu
    found = _saturation(lambda z: jax.lax.complex(relu(z.real), relu(z.imag)), z)
    assert found == (0.5, 0.5)


@pytest.mark.slow
def test_an_entry_that_is_squashed_by_its_size_is_saturated_far_out():
    z = jnp.array([[0.1 + 0.1j, 1000j, -1000.0]])
    found = _saturation(lambda z: z / (1 + jnp.abs(z)).astype(z.dtype), z)
    assert found == (pytest.approx(2 / 3), 0)


@pytest.mark.parametrize("function", [jnp.tanh, jnp.sin, jnp.exp])
def test_an_analytic_function_of_complex_numbers_has_no_greatest_slope(function):
    def apply(w, z):
        return function(z @ w)

    network = find_layers(apply, IDENTITY, (complex_normal(0, 1, 3),))
    assert not find_activations(network.blocks[0])


def test_taking_parts_is_no_activation():
    def apply(w, z):
        z = z @ w
        return jax.lax.complex(z.imag, z.real).conj()

    network = find_layers(apply, IDENTITY, (complex_normal(0, 2, 3),))
    assert not find_activations(network.blocks[0])


def test_a_change_of_the_imaginary_part_alone_shows_that_examples_are_mixed():
    def mixed(z):
        return z.real + jnp.mean(z.imag, axis=0, keepdims=True)

    assert mixes_examples(mixed, (complex_normal(0, 4, 3),))
    assert not mixes_examples(lambda z: z * z.conj(), (complex_normal(0, 4, 3),))


def test_a_loss_that_is_no_real_number_is_refused_with_a_way_out():
    model = complex_models.split_relu()
    with pytest.raises(ValueError, match="real number, got complex64"):
        _layer(model.apply, model.params, model.x, loss=jnp.sum)


def test_parts_of_mixed_kinds_pass_a_boundary_as_real_numbers():
    model = complex_models.two_streams()
    network = find_layers(
        model.apply, model.params, (model.x,), boundaries=model.boundaries
    )
    # Three complex and three real numbers of each example.
    assert network.layers[0].out_shape == (3, 9)
    found = network.replay(model.params, (), (model.x,)).output
    chex.assert_trees_all_close(found, model.apply(model.params, model.x), rtol=1e-5)
