"""Networks whose numbers are known on paper, through the whole analysis."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradstab as gs

WIDTH, DEPTH = 8, 20


def as_list(scale, x):
    """Twenty matrices in a Python loop."""

    def apply(params, x):
        for w in params:
            x = x @ w
        return x

    return gs.analyze(apply, [scale * jnp.eye(WIDTH)] * DEPTH, x, theory=False)


def as_scan(scale, x):
    """The same under a scan."""

    def apply(params, x):
        return jax.lax.scan(lambda h, w: (h @ w, None), x, params["blocks"])[0]

    stack = jnp.tile(scale * jnp.eye(WIDTH), (DEPTH, 1, 1))
    return gs.analyze(apply, {"blocks": stack}, x, theory=False)


def as_mlp(scale, x):
    """The same as an MLP without activation, whose head is the last matrix."""
    model = gs.models.MLP(
        WIDTH,
        WIDTH,
        widths=(WIDTH,) * (DEPTH - 1),
        activation="identity",
        kernel_init=lambda key, shape, dtype=jnp.float32, **_: (
            scale * jnp.eye(*shape, dtype=dtype)
        ),
        rngs=nnx.Rngs(0),
    )
    return gs.analyze(model, x, theory=False)


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), (4, WIDTH))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("analyze", "scale"),
    [
        *((form, scale) for form in (as_list, as_scan, as_mlp) for scale in (1.5, 0.5)),
        (as_scan, 0.9),
        (as_scan, 1.2),
    ],
)
def test_a_linear_network_grows_by_its_weights(analyze, scale, x):
    report = analyze(scale, x)
    forward, backward = report.growth.forward, report.growth.backward
    assert len(report.layers) == DEPTH
    assert forward.law == backward.law == "exponential"
    # float32 weights of 0.9 and 1.2 are off by half a rounding error, 6e-8.
    np.testing.assert_allclose(forward.factor, scale, rtol=1e-6)
    np.testing.assert_allclose(1 / backward.factor, scale, rtol=1e-6)
    np.testing.assert_allclose(forward.factor**DEPTH, scale**DEPTH, rtol=1e-5)
    assert report.verdict == ("exploding" if scale > 1 else "vanishing")
    for layer in report.layers:
        np.testing.assert_allclose(layer.jacobian.values, scale, rtol=1e-6)


def test_twenty_layers_reproduce_the_textbook_factors(x):
    factors = [as_scan(s, x).growth.forward.factor ** DEPTH for s in (0.9, 1.2)]
    np.testing.assert_allclose(factors, [0.1216, 38.34], rtol=5e-4)


@pytest.mark.slow
def test_sigmoid_layers_stay_within_a_quarter_of_their_weights():
    # 0 < sigmoid' <= 1/4, so |J| <= |W| / 4 <= 1/4, and ten layers 0.25^10 = 9.5e-7.
    keys = jax.random.split(jax.random.key(1), 11)
    weights = [jax.random.normal(key, (16, 16)) for key in keys[:10]]
    weights = [w / np.linalg.norm(w, 2) for w in weights]

    def apply(params, x):
        for w in params:
            x = jax.nn.sigmoid(x @ w)
        return x

    x = jax.random.normal(keys[10], (8, 16))
    report = gs.analyze(apply, weights, x, theory=False)
    largest = [layer.jacobian.largest.value for layer in report.layers]
    assert len(largest) == 10
    assert np.max(largest) <= 0.25
    assert np.max(np.prod(largest, axis=0)) <= 0.25**10
    whole = jax.vmap(jax.jacfwd(lambda x: apply(weights, x[None])[0]))(x)
    assert np.linalg.norm(whole, 2, axis=(1, 2)).max() <= 9.6e-7


@pytest.mark.slow
@pytest.mark.parametrize(("stddev", "variance"), [(0.1, 1), (0.5, 25), (0.01, 0.01)])
def test_a_layer_of_fan_in_100_scales_the_variance_by_100_times_its_own(
    stddev, variance
):
    key_w, key_x = jax.random.split(jax.random.key(2))
    w = gs.initializers.normal(stddev)(key_w, (100, 400))
    x = jax.random.normal(key_x, (200, 100))
    report = gs.analyze(lambda w, x: x @ w, w, x, examples=1, theory=False)
    # The mean square over 400 units and 200 examples: given x, the units are
    # independent with relative variance 2, and the examples share the weights.
    error = np.sqrt(2 / 400 + 2 / 200)
    measured = report.layers[0].forward_rms ** 2
    assert abs(measured / variance - 1) < 4 * error
    assert abs(measured / variance - 1) > 1e-9  # measured, not looked up


@pytest.mark.slow
def test_identity_weights_are_stable_and_a_leaky_factor_is_not(x):
    assert as_scan(1.0, x).verdict == "stable"
    assert as_scan(0.94, x).verdict == "vanishing"  # e-fold in 16 of 20 layers
    report = as_scan(0.97, x)  # e-fold in 33 layers: 0.56 is left after twenty
    assert report.growth.backward.law == "exponential"
    assert report.verdict == "critical"


@pytest.mark.slow
def test_a_critical_tanh_network_is_critical_and_not_vanishing():
    # sigma_w = 1, no bias: the norm falls like a power of depth (Schoenholz 2017).
    model = gs.models.MLP(
        100,
        10,
        widths=(100,) * 100,
        activation="tanh",
        kernel_init=gs.initializers.orthogonal(),
        rngs=nnx.Rngs(0),
    )
    x = jax.random.normal(jax.random.key(3), (16, 100))
    report = gs.analyze(model, x, examples=1, theory=False)
    assert report.growth.forward.law == "power"
    assert report.verdict == "critical"
    # q_l ~ 1 / (2 l), so the rms falls like l^-1/2; the first layers are transient.
    assert -0.6 < report.growth.forward.rate < -0.35


@pytest.mark.slow
def test_batch_normalisation_is_stable_in_evaluation_and_explodes_in_training():
    # Yang et al. (2019): pi / (pi - 1) per layer in the squared norm as the batch
    # grows; 1.52195 at a batch of 32, the norm 1.2337.
    model = gs.models.MLP(
        256,
        256,
        widths=(256,) * 20,
        activation="relu",
        norm="batch",
        kernel_init=gs.initializers.he_normal(),
        rngs=nnx.Rngs(0),
    )
    x = jax.random.normal(jax.random.key(4), (32, 256))
    options = {"layers": (), "theory": False}
    model.train()
    training = gs.analyze(model, x, **options)
    model.eval()
    evaluation = gs.analyze(model, x, layers=())
    assert training.verdict == "exploding"
    # The law holds on average over weights; at width 256 the rate of one network has a
    # standard error of 0.007.
    np.testing.assert_allclose(1 / training.growth.backward.factor, 1.2337, rtol=0.02)
    assert evaluation.verdict in ("stable", "critical")
    # Couplings are looked for only where Jacobians are wanted, and never guessed.
    assert all(layer.coupled is None for layer in training.layers)


def test_a_network_that_no_gradient_enters_is_broken():
    def apply(params, x):
        h = jnp.tanh(x @ params["first"])
        return jax.lax.stop_gradient(h) @ params["last"]

    params = {"first": jnp.eye(4), "last": jnp.ones((4, 1))}
    report = gs.analyze(apply, params, jnp.ones((2, 4)), loss=jnp.sum, theory=False)
    assert report.verdict == "broken"
    assert any("first" in reason for reason in report.reasons)


def test_an_analysis_leaves_the_global_precision_as_it_was(x):
    as_list(1.0, x)
    assert not jax.config.jax_enable_x64
    chex.assert_type(jnp.ones(2), jnp.float32)
