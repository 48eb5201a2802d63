"""Layers that hold many are parted by themselves, and names are read easily."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.network import find_layers
from gradstab.network.naming import summary
from gradstab.network.reasons import expression

pytestmark = pytest.mark.usefixtures("quick_compiler")


def _x(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _names(apply, params, *inputs, **options):
    return find_layers(apply, params, inputs, **options).names


def _blocks(*parts):
    return [{p: _x(3, 3, seed=i) for i, p in enumerate(parts)} for _ in range(3)]


def _two_streams(params, x, y):
    for p in params:
        x = x + jnp.tanh(y @ p["one"])
        y = y * jax.nn.sigmoid(x @ p["other"])
    return x * y


def test_two_streams_are_parted_where_two_arrays_pass():
    x, y = _x(2, 3), _x(2, 3, seed=1)
    network = find_layers(_two_streams, _blocks("one", "other"), (x, y))
    assert network.names == ("0", "1", "2")
    assert {place.out_shape for place in network.layers[:-1]} == {(2, 6)}
    assert network.notes[0].startswith("several arrays (skips, streams, sums) leave")


def test_an_empty_tuple_of_boundaries_parts_nothing():
    params = _blocks("one", "other")
    network = find_layers(_two_streams, params, (_x(2, 3), _x(2, 3)), boundaries=())
    assert len(network.layers) == 1
    assert network.notes == ()
    assert 'boundaries=r"\\d+"' in network.layers[0].note


def test_branches_beside_each_other_are_one_layer():
    """No product of one of them follows from a product of another."""

    def apply(params, x):
        return jnp.concatenate([jnp.tanh(x @ w) for w in params["list"]], axis=1)

    params = {"list": [_x(3, 3, seed=i) for i in range(4)]}
    assert _names(apply, params, _x(2, 3)) == ("list",)


def test_an_attention_whose_context_ends_with_it_is_one_layer():
    def attention(p, x, context):
        q, k, v = x @ p["q"], context @ p["k"], context @ p["v"]
        return jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2), axis=-1) @ v @ p["out"]

    def apply(params, x, context):
        for p in params["decoder"]:
            x = x + attention(p["own"], x, x)
            x = x + attention(p["cross"], x, context)
        return x

    def weights(seed):
        return {
            n: _x(3, 3, seed=seed + i) for i, n in enumerate(("q", "k", "v", "out"))
        }

    params = {"decoder": [{"own": weights(i), "cross": weights(i + 4)} for i in (0, 8)]}
    parts = [f"decoder.{i}.{part}" for i in range(2) for part in ("own", "cross")]
    assert _names(apply, params, _x(2, 4, 3), _x(2, 4, 3)) == tuple(parts)


def test_where_examples_do_not_lead_nothing_is_packed():
    def apply(params, x, y):
        return _two_streams(params, x.T @ x, y.T @ y)

    params = _blocks("one", "other")
    network = find_layers(apply, params, (_x(2, 3), _x(2, 3)))
    assert len(network.layers) == 1
    assert "boundaries=" in network.layers[0].note


def test_cells_that_feed_back_into_each_other_are_one_layer():
    def apply(params, x):
        def step(state, u):
            one, other = state
            one = jnp.tanh(other @ params["down"] + u @ params["input"])
            return (one, jnp.tanh(one @ params["up"])), one

        zero = jnp.zeros((x.shape[0], 3), x.dtype)
        return jax.lax.scan(step, (zero, zero), jnp.swapaxes(x, 0, 1))[1][-1]

    params = {n: _x(3, 3, seed=i) for i, n in enumerate(("down", "input", "up"))}
    network = find_layers(apply, params, (_x(2, 4, 3),))
    assert network.names == ("down+input+up",)
    assert "inside a scan that cannot be entered" in network.layers[0].note


def test_parameters_of_a_list_are_named_by_the_scopes_that_use_them():
    def dense(w, b, x):
        return jnp.tanh(x @ w + b[None])

    def apply(ws, x):
        with jax.named_scope("net"):
            with jax.named_scope("dense"):
                x = dense(*ws[:2], x)
            with jax.named_scope("dense_1"):
                x = jax.jit(dense)(*ws[2:4], x)
            return x @ ws[4]

    ws = [_x(3, 3), _x(3), _x(3, 3), _x(3), _x(3, 2)]
    network = find_layers(apply, ws, (_x(2, 3),))
    assert network.names == ("net.dense", "net.dense_1", "net.4")
    assert network.layers[1].params == ("2", "3")


@pytest.mark.parametrize("spec", ["bi,io->bo", "...i,io->...o", "bi, io", "bi,oi->bo"])
def test_an_einsum_is_no_module(spec):
    def apply(ws, x):
        x = jnp.tanh(jnp.einsum(spec, x, ws[0]))
        with jax.named_scope("net"):
            return jnp.einsum(spec, x, ws[1])

    network = find_layers(apply, [_x(3, 3), _x(3, 3, seed=1)], (_x(2, 3),))
    assert network.names == ("0", "net")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([f"net.{i}.w" for i in range(6)], "net (6)"),
        (["down.0", "down.1", "mid"], "down (2), mid"),
        (["a", "b", "c", "d", "e", "f"], "a, b, c and 3 more"),
    ],
)
def test_many_names_are_said_in_few_words(names, words):
    assert summary(names) == words


def test_an_expression_that_would_be_long_names_the_module():
    modules = [f"net.{'x' * 30}{c}.kernel" for c in "abcd"]
    assert expression(modules) == r"net\.[^.]+"
