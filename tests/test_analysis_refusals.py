"""What cannot be analysed as it was given is taken otherwise, or the way is named."""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from analysis_samples import normal, run

import gradstab as gs
from gradstab.analysis.subject import time_for_examples
from gradstab.network import find_layers
from gradstab.network.adapters import as_target

W = jnp.ones((5, 3))
X = jnp.ones((4, 5))


def _apply(w, x, scale=1.0):
    return scale * (x @ w)


def _noisy(w, key, x):
    return (x + jax.random.normal(key, x.shape)) @ w


def _names(target):
    return find_layers(
        target.apply, target.params, target.inputs, state=target.state
    ).names


@pytest.mark.parametrize("batch", [2, 4])
def test_a_key_of_the_old_style_is_a_key(batch):
    key, x = jax.random.PRNGKey(3), jnp.ones((batch, 5))
    target = as_target(_noisy, (W, key, x))
    network = find_layers(
        target.apply, target.params, target.inputs, state=target.state
    )
    assert network.num_examples == batch
    out = target.apply(target.params, target.state, *target.inputs)
    np.testing.assert_array_equal(out, _noisy(W, jax.random.PRNGKey(3), x))


def test_integers_of_another_dtype_are_no_keys():
    target = as_target(lambda w, i: w[i], (W, jnp.array([1, 2])))
    assert target.inputs[0].dtype == jnp.int32


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_keys_of_the_examples_are_mapped(make):
    keys = jax.random.split(make(0), 4)
    target = as_target(_noisy, (W, keys, X), batched=False)
    out = target.apply(target.params, target.state, *target.inputs)
    expected = [
        _noisy(W, k, x) for k, x in zip(jax.random.split(make(0), 4), X, strict=True)
    ]
    np.testing.assert_allclose(out, jnp.stack(expected), rtol=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        (functools.partial(_apply, W), X),
        (functools.partial(_apply, scale=2.0), W, X),
        (functools.partial(functools.partial(_apply, scale=2.0), W), X),
    ],
)
def test_a_function_partly_applied_is_what_it_was_applied_to(given):
    function, *args = given
    target = as_target(function, tuple(args))
    np.testing.assert_array_equal(jax.tree.leaves(target.params)[0], W)
    out = target.apply(target.params, target.state, *target.inputs)
    np.testing.assert_array_equal(out, function(*args))


def test_the_parameters_of_a_linen_module_do_for_its_variables():
    module = nn.Sequential([nn.Dense(6), nn.Dense(3)])
    variables = module.init(jax.random.key(0), X)
    named = _names(as_target((module, variables["params"]), (X,)))
    assert named == _names(as_target((module, variables), (X,)))


class _Graph(NamedTuple):
    nodes: jax.Array
    senders: jax.Array


def test_the_leaf_without_examples_is_named_with_the_way():
    graph = _Graph(X, jnp.arange(7))
    with pytest.raises(ValueError, match=r"\(7,\) of inputs\[0\]\.senders") as found:
        run(lambda w, g: g.nodes @ w, W, graph)
    assert "lambda params, x: apply(params, x, other)" in str(found.value)


class _Hidden:
    def __call__(self, x):
        return x


class _LikeHF(_Hidden):
    module, params = None, {}


class _LikeKeras(_Hidden):
    def stateless_call(self, *_):
        return None


MODULE = jax.tree_util.Partial(_apply, W)


@pytest.mark.parametrize(
    ("model", "way"),
    [
        (_LikeHF(), r"model\.module, \{\"params\": model\.params\}"),
        (_LikeKeras(), "stateless_call"),
        (jax.vmap(MODULE), "give the module itself, with batched=False"),
        (lambda x: x @ W, "parameters that it closes over become its first argument"),
        (jax.jit(lambda x: x @ W), "analyze\\(apply, params, x\\)"),
    ],
    ids=["HF", "Keras", "vmap", "closure", "jit"],
)
def test_a_callable_that_shows_no_arrays_is_named_with_the_way(model, way):
    with pytest.raises(TypeError, match=way):
        gs.analyze(model, X)


def test_a_model_of_one_example_says_that_it_wants_batched_false():
    def one(w, x):
        return w.T @ x

    with pytest.raises(ValueError, match="give batched=False"):
        run(one, W, X)


def test_time_that_is_taken_for_examples_is_said():
    def step(h, u):
        return jnp.tanh(h @ jnp.eye(3) + u), None

    def time_major(w, x):
        return jax.lax.scan(step, jnp.zeros((x.shape[1], 3)), x @ w)[0]

    def batch_major(w, x):
        return time_major(w, jnp.swapaxes(x, 0, 1))

    x = normal(0, 6, 2, 5)
    bad = find_layers(lambda w, x: time_major(w, x), W, (x,))
    good = find_layers(batch_major, W, (jnp.swapaxes(x, 0, 1),))
    assert "time is taken for examples" in time_for_examples(bad)
    assert time_for_examples(good) == ""


@jax.tree_util.register_pytree_node_class
class _Distribution:
    """Holds what was computed when it was made, as distributions with caches do."""

    def __init__(self, mean):
        self.mean, self.square = mean, mean**2

    def tree_flatten(self):
        return (self.mean,), self

    @classmethod
    def tree_unflatten(cls, made, _):
        return made


def test_an_output_of_functions_is_named():
    with pytest.raises(ValueError, match="let the model return arrays"):
        run(lambda w, x: _Distribution(x @ w), W, X, loss=lambda d: d.square.sum())
