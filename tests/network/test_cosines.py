"""Angles between the gradients of examples, against gradients of single examples."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.network import NetworkRun, cosines, find_layers, propagate
from gradstab.network.cosines import gradient_cosines
from gradstab.network.examples import example_blocks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compiler")]

EXAMPLES, WIDTH = 4, 3

# Products of a few matrices of order one in single precision.
NEAR = {"rtol": 0, "atol": 2e-5}


def _normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def _loss(output):
    return jnp.mean(jnp.sum(jnp.square(jnp.sin(output)), axis=-1))


def _biased(x, layer):
    return jnp.tanh(x @ layer["w"] + layer["b"][None])


def _unrolled(params, x):
    for layer in params["hidden"]:
        x = _biased(x, layer)
    return x @ params["head"]


def _scanned(params, x):
    return jax.lax.scan(lambda h, layer: (_biased(h, layer), None), x, params)[0]


def _reversed(params, x):
    def body(h, layer):
        return _biased(h, layer), None

    return jax.lax.scan(body, x, params, reverse=True)[0]


def _normalised(params, x):
    """Weight normalisation, a layer after the other."""

    def body(h, layer):
        length = jnp.sqrt(jnp.sum(jnp.square(layer["v"]), axis=0, keepdims=True))
        return jnp.tanh(h @ (layer["g"][None] * layer["v"] / length)), None

    return jax.lax.scan(body, x, params)[0]


def _one_scale(params, x):
    """All layers share a scale beside weights of their own."""
    for w in params["w"]:
        x = jnp.tanh(x @ (params["scale"] * w))
    return x


def _twice(params, x):
    """One layer that uses its weights twice, the second time transposed."""
    return jnp.tanh(x @ params["w"]) @ params["w"].T + x


def _halved(params, x):
    """Weights are rounded to another dtype on their way."""
    return jnp.tanh(x @ params["w"].astype(jnp.bfloat16).astype(jnp.float32))


@jax.custom_vjp
def _doubled(w):
    return 2 * w


_doubled.defvjp(lambda w: (2 * w, None), lambda _, g: (2 * g,))


def _with_rule(params, x):
    return jnp.tanh(x @ _doubled(params["w"]) * params["g"][None])


def _convolved(params, x):
    x = jax.lax.conv(x, params["k"], (1, 1), "SAME")
    return jnp.tanh(x).reshape(len(x), -1) @ params["w"]


def _embedded(params, ids):
    return jnp.tanh(params["table"][ids]) @ params["w"]


def _layers(num, **shapes):
    keys = enumerate(sorted(shapes))
    return {name: _normal(i, num, *shapes[name]) for i, name in keys}


SQUARE, COLUMN = (WIDTH, WIDTH), (WIDTH,)

MODELS = {
    "unrolled": (
        _unrolled,
        {
            "hidden": [{"w": _normal(i, *SQUARE), "b": _normal(9, 3)} for i in (1, 2)],
            "head": _normal(3, WIDTH, 2),
        },
        lambda g: [*map(_leaves, g["hidden"]), [g["head"]]],
    ),
    "scan": (_scanned, _layers(3, w=SQUARE, b=COLUMN), lambda g: _slices(g, 3)),
    "reversed scan": (
        _reversed,
        _layers(3, w=SQUARE, b=COLUMN),
        lambda g: _slices(g, 3)[::-1],
    ),
    "weight norm": (
        _normalised,
        _layers(3, v=SQUARE, g=COLUMN),
        lambda g: _slices(g, 3),
    ),
    "used twice": (_twice, {"w": _normal(1, *SQUARE)}, lambda g: [_leaves(g)]),
    "cast": (_halved, {"w": _normal(1, *SQUARE)}, lambda g: [_leaves(g)]),
    "a rule between": (
        _with_rule,
        {"w": _normal(1, *SQUARE), "g": _normal(2, *COLUMN)},
        lambda g: [_leaves(g)],
    ),
    "convolution": (
        _convolved,
        {"k": _normal(1, 2, 2, 3, 3), "w": _normal(2, 32, 2)},
        lambda g: [[g["k"]], [g["w"]]],
    ),
    "embedding": (
        _embedded,
        {"table": _normal(1, 5, 2), "w": _normal(2, 2, 2)},
        lambda g: [[g["table"]], [g["w"]]],
    ),
}


def _leaves(tree):
    return jax.tree.leaves(tree)


def _slices(tree, num):
    """Per layer the gradients of its slices; examples lead, then layers."""
    return [[leaf[:, i] for leaf in _leaves(tree)] for i in range(num)]


def _inputs(name):
    if name == "embedding":
        return jnp.array([[0, 1], [1, 2], [0, 0], [4, 3]])
    shape = (2, 4, 4) if name == "convolution" else (WIDTH,)
    return _normal(7, EXAMPLES, *shape)


def _cosines_of(parts):
    """The cosines of gradients given as arrays with examples leading, in float64."""
    flat = [np.asarray(part, np.float64).reshape(len(part), -1) for part in parts]
    rows = np.concatenate(flat, axis=1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def _run(network, params, inputs, loss):
    """What `propagate` returns, without the signals: they take long to compile."""

    def total(taps):
        replay = network.replay(params, (), inputs, taps)
        return loss(replay.output), replay

    passes = jax.jit(jax.grad(total, has_aux=True))
    gradients, replay = passes(network.zero_taps())
    arrays = params, (), inputs
    return NetworkRun(network, arrays, None, replay, gradients, None, None)


def _found(apply, params, x, loss=_loss, **options):
    network = find_layers(apply, params, (x,))
    run = _run(network, params, (x,), loss)
    return gradient_cosines(run, **options)


@pytest.mark.parametrize("name", MODELS)
def test_cosines_are_those_of_the_gradients_of_single_examples(name):
    apply, params, by_layer = MODELS[name]
    x = _inputs(name)
    found = _found(apply, params, x)

    def one(example):
        return jax.grad(lambda p: _loss(apply(p, example[None])))(params)

    expected = np.stack([_cosines_of(g) for g in by_layer(jax.jit(jax.vmap(one))(x))])
    # Rounding the gradient of a weight to eight bits changes a cosine by as much.
    near = {"rtol": 0, "atol": 2e-2} if name == "cast" else NEAR
    np.testing.assert_allclose(found.matrix, expected, **near)


@pytest.mark.parametrize("name", ["weight norm", "convolution"])
def test_functions_of_one_example_give_the_same(name, monkeypatch):
    apply, params, _ = MODELS[name]
    x = _inputs(name)
    network = find_layers(apply, params, (x,))
    run = _run(network, params, (x,), _loss)
    whole = gradient_cosines(run)
    pairs = example_blocks(network, find_layers(apply, params, (x[:1],)))
    examples = tuple(pairs[place.block] for place in network.layers)
    assert None not in examples
    # The layer as a whole must not be looked at now.
    monkeypatch.delattr(cosines, "_of_batch")
    single = gradient_cosines(dataclasses.replace(run, examples=examples))
    chex.assert_trees_all_close(single.matrix, whole.matrix, **NEAR)


def test_it_takes_what_propagate_finds():
    apply, params, _ = MODELS["unrolled"]
    x = _inputs("unrolled")
    network = find_layers(apply, params, (x,))
    run = propagate(network, params, (), (x,), loss=_loss)
    found = gradient_cosines(run)
    chex.assert_trees_all_close(found, _found(apply, params, x), **NEAR)


def test_masks_that_differ_between_examples_are_taken_from_the_batch():
    def apply(params, x, key):
        kept = jax.random.bernoulli(key, 0.5, x.shape)
        return jnp.where(kept, jnp.tanh(x @ params["w"]), 0) @ params["w"].T

    params, x, key = {"w": _normal(1, *SQUARE)}, _inputs("scan"), jax.random.key(5)
    inputs = (x, jax.random.clone(key))
    network = find_layers(apply, params, inputs)
    run = _run(network, params, inputs, _loss)
    found = gradient_cosines(run)
    masks = jax.random.bernoulli(key, 0.5, x.shape)

    def one(example, mask):
        def of(first, second):
            h = jnp.where(mask[None], jnp.tanh(example[None] @ first), 0)
            return _loss(h @ second.T)

        return jax.grad(of, argnums=(0, 1))(params["w"], params["w"])

    first, second = jax.vmap(one)(x, masks)
    expected = np.stack([_cosines_of([first]), _cosines_of([second])])
    np.testing.assert_allclose(found.matrix, expected, **NEAR)


def test_a_scale_that_all_layers_share_counts_in_each_of_them():
    ws, x = [_normal(1, *SQUARE), _normal(2, *SQUARE)], _inputs("scan")
    params = {"w": ws, "scale": jnp.float32(1.5)}
    found = _found(_one_scale, params, x)

    def one(example):
        def of(ws, scales):
            h = example[None]
            for w, scale in zip(ws, scales, strict=True):
                h = jnp.tanh(h @ (scale * w))
            return _loss(h)

        return jax.grad(of, argnums=(0, 1))(ws, [params["scale"]] * 2)

    of_ws, of_scales = jax.vmap(one)(x)
    pairs = zip(of_ws, of_scales, strict=True)
    expected = np.stack([_cosines_of(pair) for pair in pairs])
    np.testing.assert_allclose(found.matrix, expected, **NEAR)


def test_a_linear_layer_with_a_bias_is_known_on_paper():
    r"""With the loss sum(x W + b): gradients (x_i, 1), the bias a row of ones."""
    x = jnp.array([[1.0, 2.0], [-1.0, 0.5], [3.0, -1.0]])
    params = {"w": jnp.eye(2), "b": jnp.zeros(2)}
    found = _found(lambda p, x: x @ p["w"] + p["b"][None], params, x, loss=jnp.sum)
    rows = np.column_stack([x, np.ones(3)])
    expected = _cosines_of([rows])
    np.testing.assert_allclose(found.matrix[0], expected, **NEAR)
    pairs = expected[np.triu_indices(3, k=1)]
    np.testing.assert_allclose(found.mean[0], pairs.mean(), **NEAR)
    np.testing.assert_allclose(found.lowest[0], pairs.min(), **NEAR)
    np.testing.assert_allclose(found.highest[0], pairs.max(), **NEAR)
    without = _cosines_of([x])
    assert np.max(np.abs(expected - without)) > 0.3


def test_equal_examples_have_equal_gradients():
    x = jnp.ones((3, 1)) * _normal(7, 1, WIDTH)
    apply, params, _ = MODELS["scan"]
    found = _found(apply, params, x)
    np.testing.assert_allclose(found.matrix, 1, atol=1e-6)
    np.testing.assert_allclose(found.mean, 1, atol=1e-6)


def test_the_length_of_a_gradient_does_not_matter():
    """Not even below the range of single precision: its squares, then the gradient."""
    x, w = 1e-3 * _inputs("scan"), _normal(1, *SQUARE)
    found = [
        _found(lambda w, x: x @ w, w, x, loss=lambda out, c=c: c * jnp.sum(out))
        for c in (1.0, 1e-25, 1e-37)
    ]
    np.testing.assert_allclose(found[0].matrix[0], _cosines_of([x]), **NEAR)
    chex.assert_trees_all_close(found[1].matrix, found[0].matrix, **NEAR)
    chex.assert_trees_all_close(found[2].matrix, found[0].matrix, **NEAR)


def test_an_example_without_a_gradient_is_left_out():
    x = jnp.array([[1.0, 2.0], [0.0, 0.0], [2.0, 1.0]])
    found = _found(lambda w, x: x @ w, jnp.eye(2), x, loss=jnp.sum)
    assert np.isnan(found.matrix[0, 1]).all()
    np.testing.assert_allclose(found.mean[0], 0.8, **NEAR)
    none = _found(lambda w, x: x @ w, jnp.eye(2), jnp.zeros((3, 2)), loss=jnp.sum)
    assert np.isnan(none.mean[0])


def test_the_first_examples_are_compared():
    x, w = _inputs("scan"), _normal(1, *SQUARE)
    whole = _found(lambda w, x: x @ w, w, x, loss=jnp.sum)
    few = _found(lambda w, x: x @ w, w, x, loss=jnp.sum, examples=2)
    chex.assert_trees_all_close(few.matrix, whole.matrix[:, :2, :2], **NEAR)
    one = _found(lambda w, x: x @ w, w, x, loss=jnp.sum, examples=1)
    assert np.isnan(one.mean).all()


def test_parameters_that_enter_as_they_are_need_no_way_back():
    """What is known to be a rearrangement is not pulled back: the shortcut is taken."""
    for name, moved in {"scan": True, "cast": True, "weight norm": False}.items():
        apply, params, _ = MODELS[name]
        network = find_layers(apply, params, (_inputs(name),))
        leaves, tree = jax.tree.flatten((params, (), (_inputs(name),)))
        num_params = len(jax.tree.leaves(params))
        weights = cosines._find_weights(network, leaves, tree, num_params)
        assert [w.moved for w in weights] == [moved], name
