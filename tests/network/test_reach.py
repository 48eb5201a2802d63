"""Layers from which no path leads to the loss, and those that only seem so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.network import find_layers, propagate
from gradstab.network.norms import parameter_norms

pytestmark = pytest.mark.usefixtures("quick_compiler")


def _weights(num):
    shape = (3, 3)
    return [jax.random.normal(jax.random.key(i), shape) for i in range(num)]


def _disconnected(apply, ws, *, loss=jnp.sum, x=None, **more):
    x = jnp.linspace(-1, 1, 6).reshape(2, 3) if x is None else x
    network = find_layers(apply, ws, (x,), **more)
    return np.asarray(propagate(network, ws, (), (x,), loss=loss).signals.disconnected)


@pytest.mark.parametrize("loss", [jnp.sum, None])
def test_layers_before_a_stopped_gradient_are_disconnected(loss):
    """That whose output is stopped is one of them: its parameters do not learn."""

    def apply(ws, x):
        for number, w in enumerate(ws):
            x = jnp.tanh(x @ w)
            if number == 1:
                x = jax.lax.stop_gradient(x)
        return x

    found = _disconnected(apply, _weights(4), loss=loss)
    assert found.tolist() == [True, True, False, False]


def test_a_stopped_gradient_inside_a_scan_disconnects_all_layers_but_the_last():
    def apply(ws, x):
        def body(h, w):
            return jnp.tanh(jax.lax.stop_gradient(h) @ w), None

        return jax.lax.scan(body, x, ws)[0]

    found = _disconnected(apply, jnp.stack(_weights(3)))
    assert found.tolist() == [True, True, False]


def test_a_loss_that_ignores_the_output_disconnects_every_layer():
    def apply(ws, x):
        return jnp.sin(x @ ws[0]) @ ws[1]

    found = _disconnected(apply, _weights(2), loss=lambda y: 0.0 * jnp.round(y).sum())
    assert found.tolist() == [True, True]


def test_a_loss_at_its_minimum_disconnects_nothing():
    def apply(ws, x):
        return jnp.sin(x @ ws[0]) @ ws[1]

    ws = [jnp.zeros((3, 3))] * 2
    found = _disconnected(apply, ws, loss=lambda y: jnp.sum(y**2))
    assert found.tolist() == [False, False]


def test_dead_units_disconnect_what_lies_before_them():
    def apply(params, x):
        for w, b in params:
            x = jax.nn.relu(x @ w + b)
        return x

    alive, dead = jnp.ones((1, 3)), jnp.full((1, 3), -1e3)
    biases = (alive, alive, dead, alive)
    params = [(0.1 * w, b) for w, b in zip(_weights(4), biases, strict=True)]
    # The data that leave the dead layer still reach the loss: their gradient is not 0.
    assert _disconnected(apply, params).tolist() == [True, True, False, False]


@pytest.mark.slow
def test_underflow_is_no_disconnection():
    def apply(ws, x):
        for w in ws:
            x = 1e-9 * (x @ w)
        return x

    ws = [jnp.eye(3)] * 8
    network = find_layers(apply, ws, (jnp.ones((2, 3)),))
    signals = propagate(network, ws, (), (jnp.ones((2, 3)),), loss=jnp.sum).signals
    assert float(signals.gradient_rms[0]) == 0
    assert not np.any(signals.disconnected)


def test_what_reaches_the_loss_by_an_earlier_head_is_connected():
    def apply(ws, x):
        first = x @ ws[0]
        middle = jnp.sin(first @ ws[1])
        deep = jax.lax.stop_gradient(middle) @ ws[2]
        return {"deep": deep, "early": first}

    found = _disconnected(
        apply,
        _weights(3),
        loss=lambda out: jnp.sum(out["deep"]) + jnp.sum(out["early"]),
        output=lambda out: out["deep"],
    )
    assert found.tolist() == [False, True, False]


def test_a_gradient_that_is_not_finite_is_no_disconnection():
    def apply(ws, x):
        return jnp.log(0 * (x @ ws[0])) @ ws[1]

    assert _disconnected(apply, _weights(2)).tolist() == [False, False]


@pytest.mark.slow
def test_norms_of_parameters_are_those_of_numpy_whatever_their_shapes():
    def apply(params, x):
        for p in params["loop"]:
            x = jnp.tanh(x @ p["w"] + p["b"][None])

        def body(h, p):
            return jnp.tanh(h @ p["w"]) * params["scale"], None

        return jax.lax.scan(body, x, params["scan"])[0]

    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    params = {
        "loop": [{"w": draw(3, 3), "b": draw(3)} for _ in range(2)],
        "scan": {"w": draw(2, 3, 3)},
        "scale": draw(),
    }
    network = find_layers(apply, params, (jnp.ones((2, 3)),))
    found = parameter_norms(network, jax.tree.leaves(params))
    rows = [[p["w"], p["b"]] for p in params["loop"]]
    rows += [[w, params["scale"]] for w in params["scan"]["w"]]
    expected = [np.sqrt(sum(np.sum(np.square(a)) for a in row)) for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
