"""Forward and backward signals, against networks cut by hand."""

import gc
import weakref

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.network import find_layers, finding, layer_slice, propagate

pytestmark = pytest.mark.usefixtures("quick_compiler")

DEPTH, WIDTH, EXAMPLES = 4, 5, 6


def _unrolled(ws, x):
    for w in ws["blocks"]:
        x = jax.nn.relu(x @ w)
    return x


def _scanned(ws, x):
    return jax.lax.scan(lambda h, w: (jax.nn.relu(h @ w), None), x, ws["blocks"])[0]


def _loss(output):
    return jnp.mean(jnp.sum(jnp.sin(output), axis=1))


@pytest.fixture(scope="module")
def params():
    shape = (DEPTH, WIDTH, WIDTH)
    return {"blocks": jax.random.normal(jax.random.key(0), shape) * WIDTH**-0.5}


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(1), (EXAMPLES, WIDTH))


@pytest.fixture(scope="module", params=[_unrolled, _scanned], ids=["list", "scan"])
def flow(request, params, x):
    if request.param is _unrolled:
        params = {"blocks": list(params["blocks"])}
    network = find_layers(request.param, params, (x,))
    return network, propagate(network, params, (), (x,), loss=_loss)


def _by_hand(params, x):
    """The data that leave each layer, and the gradient there of the hand-cut tail."""
    data, gradients = [x], []
    for w in params["blocks"]:
        data.append(jax.nn.relu(data[-1] @ w))
    for cut in range(1, DEPTH + 1):
        rest = {"blocks": list(params["blocks"][cut:])}
        gradients.append(
            jax.grad(lambda h, rest=rest: _loss(_unrolled(rest, h)))(data[cut])
        )
    return [np.asarray(h) for h in data[1:]], [np.asarray(g) for g in gradients]


@pytest.mark.slow
def test_forward_signals_are_those_of_numpy(flow, params, x):
    data, _ = _by_hand(params, x)
    signals = flow[1].signals
    for found, function in (
        (signals.forward_rms, lambda h: np.sqrt(np.mean(h**2))),
        (signals.forward_mean, np.mean),
        (signals.forward_max, np.max),
        (signals.forward_median, lambda h: np.sort(h[h > 0])[np.sum(h > 0) // 2]),
        (signals.zero_fraction, lambda h: np.mean(h == 0)),
    ):
        expected = np.array([function(h) for h in data])
        chex.assert_trees_all_close(np.asarray(found), expected, rtol=1e-5)


def test_gradients_are_those_of_the_tail_cut_by_hand(flow, params, x):
    network, found = flow
    _, gradients = _by_hand(params, x)
    for place, expected in zip(network.layers, gradients, strict=True):
        gradient = layer_slice(found.gradients, place)
        # Sums of at most five products, four layers deep, in single precision.
        chex.assert_trees_all_close(gradient, expected, rtol=1e-5, atol=1e-7)
    norms = np.array([np.linalg.norm(g, axis=1) for g in gradients])
    chex.assert_trees_all_close(
        np.asarray(found.signals.gradient_norms), norms, rtol=1e-5
    )
    tops = np.array([np.max(np.abs(g)) for g in gradients])
    chex.assert_trees_all_close(np.asarray(found.signals.gradient_max), tops, rtol=1e-5)
    rms = np.array([np.sqrt(np.mean(g**2)) for g in gradients])
    chex.assert_trees_all_close(np.asarray(found.signals.gradient_rms), rms, rtol=1e-5)


def test_parameter_norms_are_those_of_each_layers_own_slice(flow, params, x):
    signals = flow[1].signals
    gradient = jax.grad(lambda p: _loss(_scanned(p, x)))(params)["blocks"]
    expected = np.linalg.norm(np.asarray(gradient).reshape(DEPTH, -1), axis=1)
    found = np.asarray(signals.param_gradient_norm)
    chex.assert_trees_all_close(found, expected, rtol=1e-5)
    weights = np.linalg.norm(np.asarray(params["blocks"]).reshape(DEPTH, -1), axis=1)
    chex.assert_trees_all_close(np.asarray(signals.param_norm), weights, rtol=1e-5)


def test_units_without_a_slope_are_dead_and_entries_with_little_saturated(
    flow, params, x
):
    data, _ = _by_hand(params, x)
    signals = flow[1].signals
    dead = np.array([np.mean(np.all(h == 0, axis=0)) for h in data])
    chex.assert_trees_all_close(np.asarray(signals.dead_fraction), dead, rtol=1e-6)
    zero = np.array([np.mean(h == 0) for h in data])
    chex.assert_trees_all_close(np.asarray(signals.saturated_fraction), zero, rtol=1e-6)


def test_the_loss_is_that_of_the_function(flow, params, x):
    chex.assert_trees_all_close(flow[1].loss, _loss(_scanned(params, x)), rtol=1e-6)


def test_a_mean_over_examples_divides_their_gradients():
    w, x = jnp.eye(3), jnp.ones((4, 3))
    network = find_layers(lambda w, x: x @ w, w, (x,))
    mean = propagate(network, w, (), (x,), loss=lambda out: jnp.mean(out[:, 0]))
    chex.assert_trees_all_close(mean.signals.gradient_norms, jnp.full((1, 4), 0.25))


def test_a_reversed_scan_pairs_each_layer_with_its_own_slice():
    """Weights 2, 3, 5 run from the last to the first; each layer has its own norms."""
    params = {"w": jnp.array([2.0, 3.0, 5.0])[:, None, None] * jnp.eye(2)[None]}
    x = jnp.array([[1.0, 0.0]])

    def apply(params, x):
        return jax.lax.scan(lambda h, w: (h @ w, None), x, params["w"], reverse=True)[0]

    network = find_layers(apply, params, (x,))
    signals = propagate(network, params, (), (x,), loss=jnp.sum).signals
    root = np.sqrt(2)
    chex.assert_trees_all_close(signals.forward_rms * root, np.array([5.0, 15, 30]))
    chex.assert_trees_all_close(
        signals.gradient_norms[:, 0], root * np.array([6.0, 2, 1]), rtol=1e-6
    )
    chex.assert_trees_all_close(signals.param_norm, root * np.array([5.0, 3, 2]))
    # d/dw_l = (product of the other weights) in the row that the data use.
    expected = root * np.array([6.0, 10, 15])
    chex.assert_trees_all_close(signals.param_gradient_norm, expected, rtol=1e-6)


def test_a_gradient_includes_what_shallow_heads_send_back():
    """The data that leave a layer can be an output of the model as well."""
    w1, w2, x = 2 * jnp.eye(2), 3 * jnp.eye(2), jnp.ones((1, 2))

    def apply(ws, x):
        h = x @ ws[0]
        return {"deep": h @ ws[1], "shallow": h}

    network = find_layers(apply, [w1, w2], (x,), output=lambda out: out["deep"])
    found = propagate(
        network,
        [w1, w2],
        (),
        (x,),
        loss=lambda out: jnp.sum(out["deep"]) + 10 * jnp.sum(out["shallow"]),
    )
    gradient = layer_slice(found.gradients, network.layers[0])
    chex.assert_trees_all_close(gradient, jnp.full((1, 2), 13.0))


def test_tied_weights_have_one_gradient_which_all_their_layers_show():
    w, x = 2 * jnp.eye(2), jnp.ones((1, 2))
    network = find_layers(lambda w, x: x @ w @ w, w, (x,))
    found = propagate(network, w, (), (x,), loss=jnp.sum)
    expected = jnp.linalg.norm(jax.grad(lambda w: jnp.sum(x @ w @ w))(w))
    for norm in found.signals.param_gradient_norm:
        chex.assert_trees_all_close(norm, expected, rtol=1e-6)


def test_a_signal_far_below_the_smallest_square_is_measured():
    """Sixty sigmoid layers send back 1e-36 of a gradient: its square is no float32."""
    ws = jnp.stack([jnp.eye(2)] * 60)

    def apply(ws, x):
        return jax.lax.scan(lambda h, w: (jax.nn.sigmoid(h @ w), None), x, ws)[0]

    x = jnp.ones((1, 2))
    network = find_layers(apply, ws, (x,))
    norms = propagate(network, ws, (), (x,), loss=jnp.sum).signals.gradient_norms
    assert norms.dtype == jnp.float32
    # The fixed point of the sigmoid is 0.659, its slope there 0.2247.
    assert 0.2 < float(norms[10, 0] / norms[11, 0]) < 0.25
    assert 0 < float(norms[4, 0]) < 1e-30


def test_without_a_loss_each_example_sends_back_one_unit(params, x):
    network = find_layers(_scanned, params, (x,))
    signals = propagate(network, params, (), (x,)).signals
    last = signals.gradient_norms[-1]
    chex.assert_trees_all_close(last, jnp.ones(EXAMPLES), rtol=1e-6)
    assert np.all(np.isnan(signals.param_gradient_norm))
    other = propagate(network, params, (), (x,), key=jax.random.key(5)).signals
    assert not np.allclose(other.gradient_norms[0], signals.gradient_norms[0])


def test_a_scalar_output_needs_a_loss():
    network = find_layers(lambda w, x: jnp.sum(x @ w), jnp.eye(3), (jnp.ones((2, 3)),))
    with pytest.raises(ValueError, match="give the loss"):
        propagate(network, jnp.eye(3), (), (jnp.ones((2, 3)),))


def test_a_loss_must_be_a_scalar(params, x):
    network = find_layers(_scanned, params, (x,))
    with pytest.raises(ValueError, match=r"scalar, got shape \(6,\)"):
        propagate(network, params, (), (x,), loss=lambda out: jnp.sum(out, axis=1))


def test_integers_among_the_parameters_have_no_gradient():
    def apply(params, x):
        def body(h, block):
            return jnp.tanh(h @ block["w"]) * block["n"].astype(h.dtype), None

        h, _ = jax.lax.scan(body, x, params["blocks"])
        return h * params["scale"]

    blocks = {"w": jnp.stack([jnp.eye(2)] * 2), "n": jnp.array([1, 2])}
    params = {"blocks": blocks, "scale": jnp.array(3)}
    params["scale"] = params["scale"].astype(jnp.float32)
    x = jnp.ones((1, 2))
    network = find_layers(apply, params, (x,))
    found = propagate(network, params, (), (x,), loss=jnp.sum)
    assert np.all(found.signals.param_gradient_norm > 0)
    chex.assert_trees_all_equal(found.param_gradients["blocks"]["n"], jnp.zeros(2, int))


def test_layers_of_different_dtypes_stand_in_one_table():
    def apply(ws, x):
        h = x.astype(jnp.bfloat16) @ ws[0]
        return h.astype(jnp.float32) @ ws[1]

    ws, x = [jnp.eye(2, dtype=jnp.bfloat16), jnp.eye(2)], jnp.ones((3, 2))
    network = find_layers(apply, ws, (x,))
    signals = propagate(network, ws, (), (x,), loss=jnp.sum).signals
    assert signals.forward_rms.dtype == jnp.float32
    chex.assert_trees_all_close(signals.forward_rms, jnp.ones(2))


def test_signals_of_the_whole_survive_dropout_without_using_a_key_twice():
    def apply(w, x, key):
        mask = jax.random.bernoulli(key, 0.5, x.shape)
        return jnp.where(mask, jnp.tanh(x @ w), 0) @ w

    x, w = jnp.ones((2, 3)), jnp.eye(3)
    network = find_layers(apply, w, (x, jax.random.key(0)))
    found = propagate(network, w, (), (x, jax.random.key(0)), loss=jnp.sum)
    assert np.all(np.isfinite(found.signals.gradient_norms))


def test_a_network_goes_when_nobody_holds_it():
    """Compiled programs must not keep a network and its constants for ever."""
    x = jnp.ones((1, 2))
    network = find_layers(lambda w, x: jnp.tanh(x @ w), jnp.eye(2), (x,))
    propagate(network, jnp.eye(2), (), (x,), loss=jnp.sum)
    gone = weakref.ref(network)
    again = find_layers(lambda w, x: jnp.tanh(x @ w), jnp.eye(2), (x,))
    assert again is network  # the last ones are known, and serve other numbers
    del network, again
    finding.NETWORKS.clear()
    gc.collect()
    assert gone() is None


def test_signals_cost_one_program_whatever_the_depth_of_a_scan(x):
    def size(depth):
        ws = {"blocks": jnp.zeros((depth, WIDTH, WIDTH))}
        network = find_layers(_scanned, ws, (x,))
        traced = jax.make_jaxpr(
            jax.value_and_grad(
                lambda taps: _loss(network.replay(ws, (), (x,), taps).output)
            )
        )
        return len(str(traced(network.zero_taps())).splitlines())

    assert size(3) == size(300)
