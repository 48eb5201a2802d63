"""No number of a layer is missing without a reason beside it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from gradstab.records import Spectrum

WIDTH = 8


def _weights(scale=1.0, num=3):
    keys = jax.random.split(jax.random.key(0), num)
    return [scale * jax.random.normal(k, (WIDTH, WIDTH)) / WIDTH**0.5 for k in keys]


def _linear(weights, x):
    for w in weights:
        x = x @ w
    return x


def _relu(weights, x):
    for w in weights[:-1]:
        x = jax.nn.relu(x @ w)
    return x @ weights[-1]


def _root(weights, x):
    return jnp.sqrt(_linear(weights[:-1], x)) @ weights[-1]


def _by_rule(weights, x):
    @jax.custom_vjp
    def clipped(x):
        return jnp.sin(x) + jnp.roll(x, 1, -1)

    clipped.defvjp(lambda x: (clipped(x), None), lambda _, g: (g,))
    return clipped(_linear(weights[:1], x)) @ weights[1]


def _shifted(params, x):
    for w, b in params:
        x = jax.nn.relu(x @ w + b)
    return x


def _scanned(weights, x):
    def step(h, u):
        return jnp.tanh(h @ weights[0] + u @ weights[1]), None

    h = jnp.zeros((x.shape[0], WIDTH))
    steps = jnp.broadcast_to(x[None], (5, *x.shape))
    return jax.lax.scan(step, h, steps)[0] @ weights[2]


def _embedded(weights, tokens):
    return _relu(weights[1:], weights[0][tokens])


X = np.asarray(jax.random.normal(jax.random.key(1), (4, WIDTH)))
CASES = {
    "linear": (_linear, _weights(), X),
    "relu": (_relu, _weights(), X),
    "dead": (_relu, _weights(0.0), X),
    "infinite": (_linear, _weights(1e200), X),
    "not a number": (_root, _weights(), X),
    "a rule": (_by_rule, _weights(), X),
    "along time": (_scanned, _weights(), X),
    "integers": (_embedded, _weights(), np.arange(4) % WIDTH),
}


def _lost(layer):
    """The fields of a layer with a NaN."""
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name)
        if field.metadata.get("static") or value is None:
            continue
        values = value.values if isinstance(value, Spectrum) else value
        if np.isnan(values).any():
            yield field.name


@pytest.mark.slow
@pytest.mark.parametrize("loss", [None, jnp.mean], ids=["no loss", "loss"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_nan_of_a_layer_has_a_sentence_that_names_it(case, loss, tmp_path):
    report = gs.analyze(*case, loss=loss, theory=False, progress=False)
    for layer in report.layers:
        named = [n for line in layer.missing for n in line.split(": ")[0].split(", ")]
        assert sorted(named) == sorted(_lost(layer))
        assert all(len(line.split(": ")[1]) > 10 for line in layer.missing)
    path = tmp_path / "report.json"
    report.save(path)
    again = gs.load(path)
    assert [x.missing for x in again.layers] == [x.missing for x in report.layers]


@pytest.mark.slow
def test_the_reason_is_the_right_one():
    report = gs.analyze(_relu, _weights(), X, theory=False, progress=False)
    first, *_, last = (dict(_sentences(layer)) for layer in report.layers)
    assert last["saturated_fraction, dead_fraction"] == "it has no activation"
    assert first == {"param_gradient_norm": "there is no loss"}
    report = gs.analyze(_root, _weights(), X, theory=False, progress=False)
    (reasons,) = {tuple(_sentences(layer)) for layer in report.layers[-1:]}
    assert any("not finite" in why for _, why in reasons)


def _sentences(layer):
    return [tuple(line.split(": ", 1)) for line in layer.missing]


@pytest.mark.slow
@pytest.mark.parametrize("loss", [None, jnp.mean], ids=["no loss", "loss"])
@pytest.mark.parametrize("case", ["nothing in", "dead", "dead inside", "no weights"])
def test_layers_through_which_nothing_comes_raise_no_warning(case, loss):
    # Of NumPy: pytest makes errors of them, as users' suites do.
    x = 0 * X if case == "nothing in" else X
    params = [[w, 0.0] for w in _weights(num=5)]
    for layer in {"dead": range(5), "dead inside": [2]}.get(case, ()):
        params[layer][1] = -1e3
    if case == "no weights":
        params[2][0] *= 0
    report = gs.analyze(_shifted, params, x, loss=loss, progress=False)
    assert report.verdict in ("broken", "unknown")
