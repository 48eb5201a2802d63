"""Chains of equal layers share a block; what differs, or is needed elsewhere, does not.

The same network cut into the same layers without rolling is the oracle.
"""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from network_zoo import cube, fresh, squash

from gradstab.network import find_layers, finding, follow_state, layer_slice, propagate
from gradstab.network.rolling import live_equations

pytestmark = pytest.mark.usefixtures("quick_compiler")

DEPTH, WIDTH, EXAMPLES = 4, 3, 2


def _normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def _weights(num=DEPTH):
    return [_normal(i, WIDTH, WIDTH) for i in range(num)]


def _x():
    return _normal(99, EXAMPLES, WIDTH)


def _looped(layer):
    """A loop over the parameters of equal layers."""

    def apply(params, x, *rest):
        for p in params:
            x = layer(p, x, *rest)
        return x

    return apply


def _find(layer, params=None):
    return find_layers(_looped(layer), params or _weights(), (_x(),))


def attention_and_feed_forward():
    def layer(p, x):
        scores = jax.nn.softmax(x @ p["query"] @ x.T)
        x = x + scores @ (x @ p["value"])
        x = x - jnp.mean(x, axis=1, keepdims=True)
        return x + jax.nn.silu(x @ p["up"]) @ p["down"]

    parts = ("query", "value", "up", "down")
    params = [
        {name: _normal(4 * i + j, WIDTH, WIDTH) for j, name in enumerate(parts)}
        for i in range(2)
    ]
    return _looped(layer), params, (_x(),)


def dropout_on_layers_of_normalised_weights():
    """With a mask that all layers share, keys of their own, and rules."""

    def apply(params, x, key):
        mask = jnp.cos(params["mask"])
        keys = jax.random.split(key, 3)
        for p, own in zip(params["blocks"], keys, strict=True):
            w = p["w"] / jnp.linalg.norm(p["w"], axis=0, keepdims=True)
            x = jax.nn.relu(cube(squash((x @ w) * mask[None])) + p["b"][None])
            x = jnp.where(jax.random.bernoulli(own, 0.7, x.shape), x, 0)
        return x

    blocks = [{"w": w, "b": _normal(9 + i, WIDTH)} for i, w in enumerate(_weights(3))]
    params = {"mask": _normal(5, WIDTH), "blocks": blocks}
    return apply, params, (_x(), jax.random.key(3))


NETWORKS = (attention_and_feed_forward, dropout_on_layers_of_normalised_weights)


def _loss(output):
    return jnp.sum(jnp.sin(output))


def _everything(network, params, inputs):
    """Names, signals, gradients, and the values, gradient, Jacobian of each layer."""
    flow = propagate(network, params, (), fresh(inputs), loss=_loss)
    jacobian_of = [jax.jit(jax.jacrev(block, 1)) for block in network.blocks]
    jacobians = [
        jacobian_of[place.block](context, *data)
        for place in network.layers
        for context in [layer_slice(flow.replay.contexts, place)]
        for data in [layer_slice(flow.replay.entering, place)]
    ]
    per_layer = [
        [layer_slice(part, place) for place in network.layers]
        for part in (flow.replay.entering, flow.replay.activations, flow.gradients)
    ]
    return network.names, flow.replay.output, flow.signals, jacobians, per_layer, flow


@pytest.mark.slow
@pytest.mark.parametrize("make", NETWORKS)
def test_a_rolled_network_computes_what_the_unrolled_one_computes(make, monkeypatch):
    apply, params, inputs = make()
    rolled = find_layers(apply, params, inputs)
    monkeypatch.setattr(
        finding, "roll_up", lambda plan, program: (plan, live_equations(program))
    )
    finding.NETWORKS.clear()  # it would be known already
    plain = find_layers(apply, params, inputs)
    period = 2 if make is attention_and_feed_forward else 1
    assert len(rolled.blocks) == period
    assert len(plain.blocks) == len(plain.layers) == len(rolled.layers) > 2
    assert rolled.names == plain.names
    found = _everything(rolled, params, inputs)
    expected = _everything(plain, params, inputs)
    # Up to seven products of three terms in single precision.
    close = {"rtol": 1e-4, "atol": 1e-5}
    chex.assert_trees_all_close(found[1:-1], expected[1:-1], **close)
    slopes = [flow.param_gradients for *_, flow in (found, expected)]
    chex.assert_trees_all_close(*slopes, **close)
    assert all(np.any(g) for g in jax.tree.leaves(slopes[0]))


def test_layers_of_a_loop_keep_their_names_and_parameters():
    apply, params, inputs = attention_and_feed_forward()
    network = find_layers(apply, params, inputs)
    assert len(network.layers) == 4
    for i, place in enumerate(network.layers):
        parts = ("query", "value") if i % 2 == 0 else ("down", "up")
        assert set(place.params) == {f"{i // 2}.{part}" for part in parts}
        assert (place.block, place.index, place.slice) == (i % 2, i // 2, None)
    assert len(set(network.names)) == len(network.names)


def _different_activations(p, x):
    number, w = p
    return (jnp.tanh if number == 2 else jnp.sin)(x @ w)


def _different_constants(p, x):
    number, w = p
    return x @ w + (0.0 if number == 2 else -0.0) * x


def _twice(rule):
    doubled = jax.custom_jvp(lambda x: 2 * x)
    doubled.defjvp(lambda primals, tangents: (2 * primals[0], rule * tangents[0]))
    return doubled


def _different_rules(p, x):
    """The same values, and another derivative in one of them."""
    number, w = p
    return _twice(5 if number == 2 else 2)(x @ w)


def _different_backward_rules(p, x):
    number, w = p
    factor = 5 if number == 2 else 2
    same = jax.custom_vjp(lambda x: x)
    same.defvjp(lambda x: (x, None), lambda _, g: (factor * g,))
    return same(x @ w)


def _different_axes(p, x):
    """One product with the weights transposed: another parameter of one primitive."""
    number, w = p
    axes = ((1,), (1 if number == 2 else 0,))
    return jnp.tanh(jax.lax.dot_general(x, w, (axes, ((), ()))))


def _different_programs_inside(p, x):
    number, w = p
    sign = 1 if number == 2 else -1
    body = jax.checkpoint(lambda _, h: h + sign * jnp.tanh(h))
    return jax.lax.fori_loop(0, 2, body, x @ w)


def _different_order(p, x):
    number, w = p
    y = x @ w
    return y - jnp.tanh(y) if number == 2 else jnp.tanh(y) - y


@pytest.mark.parametrize(
    "layer",
    [
        _different_activations,
        _different_constants,
        _different_rules,
        _different_backward_rules,
        _different_axes,
        _different_programs_inside,
        _different_order,
    ],
)
def test_the_layer_that_computes_something_else_is_a_block_of_its_own(layer):
    def apply(ws, x):
        for numbered in enumerate(ws):
            x = layer(numbered, x)
        return x

    network = find_layers(apply, _weights(5), (_x(),))
    assert [place.block for place in network.layers] == [0, 0, 1, 2, 2]
    assert [place.index for place in network.layers] == [0, 1, None, 0, 1]


def test_layers_of_other_widths_are_other_blocks():
    widths = [3, 3, 3, 4, 4, 4]
    ws = [_normal(i, *p) for i, p in enumerate(itertools.pairwise(widths))]
    network = find_layers(_looped(lambda w, x: jnp.tanh(x @ w)), ws, (_x(),))
    assert [place.block for place in network.layers] == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("rule", [cube, squash, jax.nn.relu, jax.nn.leaky_relu])
def test_equal_rules_of_differentiation_are_equal(rule):
    assert len(_find(lambda w, x: rule(x @ w)).blocks) == 1


def test_a_rule_that_refuses_is_used_where_nothing_is_differentiated():
    @jax.custom_jvp
    def sign(x):
        return jnp.sign(x)

    @sign.defjvp
    def refuse(primals, tangents):
        raise NotImplementedError("no derivative of a sign")

    def layer(w, x):
        return jnp.tanh(x @ w) * sign(jnp.sum(w))

    network = _find(layer)
    assert [place.index for place in network.layers] == [0, 1, 2, 3]
    integers = jax.custom_jvp(lambda n: n + 1)
    integers.defjvp(lambda primals, tangents: (integers(*primals), tangents[0]))

    def counted(w, x):
        return jnp.tanh(x @ w) * integers(jnp.argmax(x, axis=1))[:, None].astype(
            x.dtype
        )

    assert len(_find(counted).blocks) == 1
    assert len(_find(lambda w, x: (x @ w) * sign(x)).blocks) == DEPTH


def test_names_given_to_arrays_do_not_matter():
    def apply(ws, x):
        for i, w in enumerate(ws):
            x = checkpoint_name(jnp.tanh(x @ w), f"h{i}")
        return x

    assert len(find_layers(apply, _weights(), (_x(),)).blocks) == 1


def test_statistics_that_are_dropped_do_not_matter_and_those_returned_do():
    def apply(ws, x):
        means = []
        for w in ws:
            z = x @ w
            means.append(0.9 * jnp.mean(z))
            x = jnp.tanh(z)
        return {"y": x, "means": means}

    dropped = find_layers(lambda ws, x: apply(ws, x)["y"], _weights(), (_x(),))
    assert len(dropped.blocks) == 1
    kept = find_layers(apply, _weights(), (_x(),), output=lambda out: out["y"])
    assert len(kept.blocks) == DEPTH


def test_hidden_states_that_are_returned_are_those_of_the_loop():
    def apply(ws, x):
        states = []
        for w in ws:
            x = jnp.tanh(x @ w)
            states += [x, 2 * x]
        return {"y": x, "states": states}

    network = find_layers(apply, _weights(), (_x(),), output=lambda out: out["y"])
    assert len(network.blocks) == 1
    found = network.replay(_weights(), (), (_x(),)).output
    chex.assert_trees_all_close(found, apply(_weights(), _x()), rtol=1e-5)
    # A gradient from each of them reaches the layer that it leaves.
    gradient = propagate(
        network, _weights(), (), (_x(),), loss=lambda out: 7 * jnp.sum(out["states"][3])
    ).gradients
    assert np.all(np.asarray(layer_slice(gradient, network.layers[1])) == 14)
    assert np.all(np.asarray(layer_slice(gradient, network.layers[2])) == 0)


def test_a_mask_made_inside_a_layer_for_a_later_one_keeps_it_apart():
    def apply(ws, x):
        kept = None
        for number, w in enumerate(ws):
            z = x @ w
            kept = z > 0 if number == 1 else kept
            x = jnp.where(kept, jnp.tanh(z), 0) if number == 3 else jnp.tanh(z)
        return x

    ws = _weights(6)
    network = find_layers(apply, ws, (_x(),))
    assert [place.block for place in network.layers] == [0, 1, 2, 3, 4, 4]
    found = network.replay(ws, (), (_x(),)).output
    chex.assert_trees_all_close(found, apply(ws, _x()), rtol=1e-6)


def test_a_context_that_depends_on_data_within_the_chain_ends_it():
    """The second mask is known only when the fourth layer has been computed."""

    def apply(ws, x):
        mask = x > 0
        for number, w in enumerate(ws):
            x = jnp.where(mask, jnp.tanh(x @ w), 0.5 * x)
            if number == 3:
                mask = mask | (x > 0.1)
        return x

    ws = _weights(7)
    network = find_layers(apply, ws, (_x(),))
    assert [place.block for place in network.layers] == [0, 1, 1, 1, 2, 2, 2]
    found = network.replay(ws, (), (_x(),)).output
    chex.assert_trees_all_close(found, apply(ws, _x()), rtol=1e-5, atol=1e-7)


def test_effects_are_neither_repeated_nor_moved():
    """What is noted of the data would come behind what is noted of all the weights."""
    seen = []

    def note(number):
        seen.append(float(number))

    def apply(ws, x):
        for w in ws:
            jax.debug.callback(note, w[0, 0], ordered=True)
            x = x @ w
            jax.debug.callback(note, x[0, 0], ordered=True)
        return x

    ws = [float(i) * jnp.eye(WIDTH) for i in (2, 3, 5)]
    x = jnp.ones((EXAMPLES, WIDTH))
    find_layers(apply, ws, (x,)).replay(ws, (), (x,))
    jax.effects_barrier()
    assert seen == [2, 2, 3, 6, 5, 30]


def test_a_recurrent_layer_of_a_chain_is_followed_like_one_alone():
    def layer(p, x):
        def step(h, now):
            h = jnp.tanh(now @ p["w"] + h @ p["u"])
            return h, h

        return jax.lax.scan(step, jnp.zeros((EXAMPLES, WIDTH)), x)[1]

    def apply(params, x):
        x = jnp.swapaxes(x, 0, 1)
        for p in params:
            x = layer(p, x)
        return jnp.swapaxes(x, 0, 1)

    params = [{"w": _normal(i, 3, 3), "u": _normal(i + 9, 3, 3)} for i in range(3)]
    x = _normal(20, EXAMPLES, 5, WIDTH)
    network = find_layers(apply, params, (x,))
    middle = network.layers[1]
    (scan,) = network.recurrences[middle.block]
    flow = propagate(network, params, (), (x,), loss=_loss)
    parts = (flow.replay.contexts, flow.replay.entering, flow.gradients)
    path = follow_state(scan, *(layer_slice(part, middle) for part in parts))
    states = layer(params[1], layer(params[0], jnp.swapaxes(x, 0, 1)))
    chex.assert_trees_all_close(path.after[0], states, rtol=1e-5, atol=1e-6)


def test_nothing_is_computed_once_per_layer():
    """The program of a chain only collects the layers' parameters."""

    def products(depth):
        ws = [jnp.eye(WIDTH)] * depth
        network = _find(lambda w, x: jnp.tanh(x @ w), ws)
        traced = jax.make_jaxpr(
            jax.grad(lambda ws: _loss(network.replay(ws, (), (_x(),)).output))
        )(ws)
        return str(traced).count("dot_general"), str(traced).count("tanh")

    assert products(3) == products(30)


@pytest.mark.parametrize("way", ["loop", "scan", "reversed scan"])
def test_contexts_are_the_callers_own_arrays(way):
    """But for those of a reversed scan, which lie in the other order."""

    def apply(ws, x):
        if way == "loop":
            return _looped(lambda w, x: jnp.tanh(x @ w))(ws, x)
        reverse = way == "reversed scan"
        return jax.lax.scan(_scanned, x, ws, reverse=reverse)[0]

    def _scanned(h, w):
        return jnp.tanh(h @ w), None

    ws = _weights() if way == "loop" else jnp.stack(_weights())
    network = find_layers(apply, ws, (_x(),))
    flow = propagate(network, ws, (), (_x(),), loss=_loss)
    (context,) = flow.replay.contexts
    (held,) = context.varying
    if way == "loop":
        assert all(a is b for a, b in zip(held, ws, strict=True))
    else:
        assert (held is ws) == (way == "scan")
    in_order = list(ws)[:: -1 if way == "reversed scan" else 1]
    chex.assert_trees_all_equal(context.stacked().varying, [jnp.stack(in_order)])
    for place, w in zip(network.layers, in_order, strict=True):
        found = layer_slice(flow.replay.contexts, place).varying
        chex.assert_trees_all_equal(found, [w])


def test_a_chain_behind_a_chain_is_another():
    def apply(params, x):
        for w in params["first"]:
            x = jnp.tanh(x @ w)
        for w in params["second"]:
            x = jnp.sin(x @ w)
        return x @ params["head"]

    params = {"first": _weights(3), "second": _weights(2), "head": _normal(1, 3, 2)}
    network = find_layers(apply, params, (_x(),))
    assert [place.block for place in network.layers] == [0, 0, 0, 1, 1, 2]
    assert network.names[-2:] == ("second.1", "head")
    found = network.replay(params, (), (_x(),)).output
    chex.assert_trees_all_close(found, apply(params, _x()), rtol=1e-5)
