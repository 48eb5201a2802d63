"""The layer where numbers stop being finite."""

import jax
import jax.numpy as jnp
import pytest

from gradstab.network import locate_nonfinite

pytestmark = pytest.mark.usefixtures("quick_compiler")

DEPTH, WIDTH = 5, 3


def _weights():
    return jax.random.normal(jax.random.key(0), (DEPTH, WIDTH, WIDTH))


def _unrolled(layer):
    def apply(ws, x):
        for i in range(DEPTH):
            x = layer(x, ws[i], i)
        return x

    return apply, list(_weights())


def _scanned(layer):
    def apply(ws, x):
        numbers = jnp.arange(DEPTH)
        return jax.lax.scan(lambda h, s: (layer(h, *s), None), x, (ws, numbers))[0]

    return apply, _weights()


NETWORKS = pytest.mark.parametrize(
    ("make", "name"), [(_unrolled, "3"), (_scanned, "w.3")], ids=["list", "scan"]
)
X = jnp.ones((2, WIDTH))


def _locate(make, layer, plant=None):
    apply, ws = make(layer)
    if plant is not None:
        ws = plant(ws)
    wrapped = {"w": ws} if make is _scanned else ws
    inner = (lambda p, x: apply(p["w"], x)) if make is _scanned else apply
    return locate_nonfinite(inner, wrapped, (X,), jnp.mean)


@pytest.mark.slow
@NETWORKS
def test_finite_networks_are_clean(make, name):
    assert _locate(make, lambda h, w, i: jnp.tanh(h @ w)) is None


@pytest.mark.parametrize(
    ("make", "name", "value"), [(_unrolled, "3", jnp.inf), (_scanned, "w.3", jnp.nan)]
)
def test_a_bad_parameter_is_named(make, name, value):
    def plant(ws):
        if make is _scanned:
            return ws.at[3, 0, 1].set(value)
        return [w.at[0, 1].set(value) if i == 3 else w for i, w in enumerate(ws)]

    found = _locate(make, lambda h, w, i: jnp.tanh(h @ w), plant)
    assert found == (name, "parameters")


@NETWORKS
def test_an_overflow_on_the_way_forward_is_named(make, name):
    def layer(h, w, i):
        return jnp.tanh(h @ w) * jnp.where(i == 3, jnp.inf, 1.0)

    assert _locate(make, layer) == (name, "forward")


@NETWORKS
def test_a_derivative_of_infinity_times_zero_is_named(make, name):
    """The root of zero is finite; its slope times a gradient of zero is not."""

    def layer(h, w, i):
        z = h @ w
        root = jnp.sqrt(jnp.where(i == 3, 0.0, 1.0) * jnp.square(z))
        return jnp.tanh(z) + 0 * root

    assert _locate(make, layer) == (name, "backward")


def test_a_bad_derivative_ahead_of_a_layers_product_is_that_layers():
    def apply(ws, x):
        for i, w in enumerate(ws):
            skipped = jnp.sqrt(0 * jnp.square(x)) if i == 2 else x
            x = x + jnp.tanh(skipped @ w)
        return x

    assert locate_nonfinite(apply, list(_weights()), (X,), jnp.mean) == (
        "2",
        "backward",
    )


@pytest.mark.slow
def test_a_bad_derivative_between_tied_layers_is_found_by_the_data():
    def apply(params, x):
        for i in range(4):
            z = x @ params["w"]
            x = x + jnp.tanh(z) + (jnp.sqrt(0 * jnp.square(x)) if i == 1 else 0)
        return x

    w = _weights()[0]
    found = locate_nonfinite(apply, {"w": w}, (X,), jnp.mean)
    assert found == ("w@2", "backward")


def test_a_loss_that_is_not_finite_is_named():
    apply, ws = _unrolled(lambda h, w, i: jnp.tanh(h @ w))
    found = locate_nonfinite(apply, ws, (X,), lambda out: jnp.log(jnp.sum(0 * out)))
    assert found == ("loss", "forward")


def test_a_loss_whose_gradient_is_not_finite_is_named():
    apply, ws = _unrolled(lambda h, w, i: jnp.tanh(h @ w))
    found = locate_nonfinite(apply, ws, (X,), lambda out: jnp.sqrt(jnp.sum(0 * out)))
    assert found == ("loss", "backward")


@pytest.mark.slow
def test_infinity_inside_a_layer_that_it_leaves_finite_is_no_finding():
    def apply(ws, x):
        for w in ws:
            x = jnp.tanh(x @ w + jnp.where(jnp.isinf(x), 0, 0))
        return 1 / jnp.exp(x + 0 * jnp.square(x))

    assert locate_nonfinite(apply, list(_weights()), (X,), jnp.mean) is None
