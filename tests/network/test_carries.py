"""Stacks of layers through which several arrays flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from gradstab.network import find_layers, layer_slice

pytestmark = pytest.mark.usefixtures("quick_compiler")


def _x(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


STACK, X = _x(5, 3, 3) / 2, _x(4, 3, seed=1)
NAMES = tuple(f"params.{i}" for i in range(5))


def _flow_and_log_det(stack, x):
    def block(carry, w):
        h, log_det = carry
        u = jnp.tanh(h @ w)
        return (h + u, log_det + jnp.sum(u, axis=1)), None

    start = x, jnp.zeros(x.shape[0], x.dtype)
    (h, log_det), _ = jax.lax.scan(block, start, stack)
    return log_det - 0.5 * jnp.sum(jnp.square(h), axis=1)


def _check(apply, params, inputs, names):
    """The layers, and that the product of their Jacobians is that of the model."""
    network = find_layers(apply, params, inputs)
    assert network.names == names
    numbers = tuple(range(1, 1 + len(inputs)))

    @jax.jit
    def both(params, *inputs):
        replay = network.replay(params, (), inputs)
        rows = jnp.eye(int(np.prod(network.layers[-1].out_shape)))
        for place in reversed(network.layers):
            block = network.blocks[place.block]
            context = layer_slice(replay.contexts, place)
            data = layer_slice(replay.entering, place)
            _, pull = jax.vjp(lambda *d, b=block, c=context: b(c, *d), *data)
            shaped = rows.reshape(-1, *place.out_shape)
            parts = jax.vmap(pull)(shaped)
            rows = jnp.concatenate([p.reshape(len(shaped), -1) for p in parts], 1)
        parts = jax.jacrev(apply, numbers)(params, *inputs)
        whole = [part.reshape(len(rows), -1) for part in parts]
        return rows, jnp.concatenate(whole, 1)

    product, jacobian = both(params, *inputs)
    np.testing.assert_allclose(product, jacobian, atol=2e-5)
    return network


def test_a_flow_that_carries_its_log_determinant():
    network = _check(_flow_and_log_det, STACK, (X,), NAMES)
    assert [place.out_shape for place in network.layers] == [(4, 4)] * 4 + [(4,)]
    owned = [(place.sliced_params, place.slice) for place in network.layers]
    assert owned == [(("",), i) for i in range(5)]


@pytest.mark.slow
def test_the_report_of_a_flow_has_its_layers():
    report = gs.analyze(
        _flow_and_log_det, STACK, X, loss=lambda out: -jnp.mean(out), progress=False
    )
    assert [layer.name for layer in report.layers] == list(NAMES)
    assert [layer.num_params for layer in report.layers] == [9] * 5
    slopes = jax.grad(lambda s: -jnp.mean(_flow_and_log_det(s, X)))(STACK)
    norms = [layer.param_gradient_norm for layer in report.layers]
    np.testing.assert_allclose(norms, np.linalg.norm(slopes, axis=(1, 2)), rtol=1e-4)


def test_an_auxiliary_loss_that_the_output_does_not_need_is_no_data():
    def apply(stack, x):
        def block(carry, w):
            h, penalty = carry
            u = jnp.tanh(h @ w)
            return (h + u, penalty + jnp.mean(jnp.square(u))), None

        return jax.lax.scan(block, (x, jnp.zeros((), x.dtype)), stack)[0][0]

    network = _check(apply, STACK, (X,), NAMES)
    assert {place.out_shape for place in network.layers} == {(4, 3)}


def test_an_encoder_that_every_scanned_layer_reads():
    def apply(params, x):
        encoded = jnp.tanh(x @ params["encoder"])

        def block(h, w):
            return h + jnp.tanh((h + encoded) @ w), None

        return jax.lax.scan(block, x[:, ::-1], params["decoder"])[0] @ params["head"]

    params = {"encoder": _x(3, 3), "decoder": STACK[:2], "head": _x(3, 2)}
    _check(apply, params, (X,), ("encoder", "decoder.0", "decoder.1", "head"))


def test_a_skip_around_a_reversed_stack():
    def apply(stack, x):
        h, _ = jax.lax.scan(
            lambda h, w: (jnp.tanh(h @ w["w"] + w["b"][None]), None),
            x,
            stack,
            reverse=True,
        )
        return x + h

    stack = {"w": STACK[:3], "b": _x(3, 3)}
    network = _check(apply, stack, (X,), ("w.2", "w.1", "w.0"))
    assert [place.slice for place in network.layers] == [2, 1, 0]
    assert {place.sliced_params for place in network.layers} == {("b", "w")}


def test_tied_weights_that_read_the_input_at_every_step():
    def apply(params, x):
        def step(_, z):
            return jnp.tanh(z @ params["w"] + x)

        return jax.lax.fori_loop(0, 3, step, jnp.zeros_like(x)) @ params["head"]

    params = {"w": STACK[0], "head": _x(3, 2)}
    _check(apply, params, (X,), ("w.0", "w.1", "w.2", "head"))


def test_two_streams_beside_a_counter():
    def apply(params, x):
        def block(carry, p):
            one, other, count = carry
            one = one + jnp.tanh(other @ p["a"]) * (1 + count)
            other = other + jnp.tanh(one @ p["b"])
            return (one, other, count + 1), None

        start = x, x[:, ::-1], jnp.zeros((), x.dtype)
        (one, other, _), _ = jax.lax.scan(block, start, params)
        return one * other

    params = {"a": STACK[:2], "b": STACK[2:4]}
    _check(apply, params, (X,), ("a+b.0", "a+b.1"))


def test_a_sum_over_experts_is_one_layer():
    """Its products do not follow from each other."""

    def apply(params, x):
        def expert(total, w):
            return total + jnp.tanh(x @ w), None

        start = jnp.zeros_like(x)
        return jax.lax.scan(expert, start, params["experts"])[0] @ params["head"]

    _check(apply, {"experts": STACK, "head": _x(3, 2)}, (X,), ("experts", "head"))


def test_a_recurrence_over_time_is_one_layer():
    def apply(params, x, xs):
        def step(carry, u):
            h, c = carry
            h = jnp.tanh(h @ params["w"] + u + c)
            return (h, c + h), None

        steps = jnp.swapaxes(xs, 0, 1)
        return jax.lax.scan(step, (x, x), steps)[0][1] @ params["head"]

    params = {"w": STACK[0], "head": _x(3, 2)}
    network = find_layers(apply, params, (X, _x(4, 6, 3)))
    assert network.names == ("w", "head")
    assert len(network.recurrences[0]) == 1
