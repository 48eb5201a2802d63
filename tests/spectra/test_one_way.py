"""Layers whose backward rule has no transpose: their Jacobians are known by rows."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from gradstab.network import find_layers, propagate
from gradstab.network.cosines import gradient_cosines
from gradstab.spectra import layer_spectrum
from gradstab.spectra.layer_map import layer_map

pytestmark = pytest.mark.usefixtures("quick_compiler")


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def loss(out):
    return jnp.mean(jnp.square(out))


def iterate(f, z):
    """The limit of f(f(...)), by a loop without a fixed end."""

    def goes_on(carry):
        z, before, count = carry
        return (count < 60) & (jnp.max(jnp.abs(z - before)) > 1e-12)

    start = f(z), z, 0
    return jax.lax.while_loop(goes_on, lambda c: (f(c[0]), c[0], c[2] + 1), start)[0]


@jax.custom_vjp
def fixed_point(w, x):
    """z = tanh(z w + x)."""
    return iterate(lambda z: jnp.tanh(z @ w + x), x)


def _forward(w, x):
    z = fixed_point(w, x)
    return z, (w, x, z)


def _backward(saved, g):
    w, x, z = saved
    pull = jax.vjp(lambda z, w, x: jnp.tanh(z @ w + x), z, w, x)[1]
    return pull(iterate(lambda u: g + pull(u)[0], g))[1:]


fixed_point.defvjp(_forward, _backward)


@jax.custom_vjp
def flow(w, x):
    """Twenty steps of dx/dt = tanh(x w)."""

    def step(carry):
        return carry[0] + 0.05 * jnp.tanh(carry[0] @ w), carry[1] + 1

    return jax.lax.while_loop(lambda c: c[1] < 20, step, (x, 0))[0]


def _flow_forward(w, x):
    def step(carry):
        path, x, count = carry
        path = jax.lax.dynamic_update_index_in_dim(path, x, count, 0)
        return path, x + 0.05 * jnp.tanh(x @ w), count + 1

    start = jnp.zeros((20, *x.shape), x.dtype), x, 0
    path, x, _ = jax.lax.while_loop(lambda c: c[2] < 20, step, start)
    return x, (w, path)


def _flow_backward(saved, g):
    w, path = saved

    def step(carry):
        g, total, count = carry
        pull = jax.vjp(lambda w, x: jnp.tanh(x @ w), w, path[count])[1]
        of_w, of_x = pull(g)
        return g + 0.05 * of_x, total + 0.05 * of_w, count - 1

    start = g, jnp.zeros_like(w), 19
    g, total, _ = jax.lax.while_loop(lambda c: c[2] >= 0, step, start)
    return total, g


flow.defvjp(_flow_forward, _flow_backward)


def called(**options):
    """The hyperbolic tangent whose backward pass is foreign code."""

    @jax.custom_vjp
    def tanh(x):
        return jnp.tanh(x)

    def backward(x, g):
        def product(x, g):
            return np.asarray(g * (1 - np.tanh(x) ** 2), x.dtype)

        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return (jax.pure_callback(product, shape, x, g, **options),)

    tanh.defvjp(lambda x: (tanh(x), x), backward)
    return tanh


@jax.custom_vjp
def bounded(w):
    """Weights that are squashed, by a rule with a loop."""
    return jnp.tanh(w)


def _bounded_backward(w, g):
    def step(carry):
        return carry[0] * (1 - jnp.tanh(w) ** 2), carry[1] + 1

    return (jax.lax.while_loop(lambda c: c[1] < 1, step, (g, 0))[0],)


bounded.defvjp(lambda w: (bounded(w), w), _bounded_backward)


def plain_flow(w, x):
    for _ in range(20):
        x = x + 0.05 * jnp.tanh(x @ w)
    return x


def plain_fixed_point(w, x):
    z = x
    for _ in range(60):
        z = jnp.tanh(z @ w + x)
    return z


def _chain(layer):
    def apply(p, x):
        return layer(p["w"], x @ p["a"]) @ p["b"]

    return apply


def _squash(layer):
    return _chain(lambda w, x: layer(layer(x @ w) @ w))


def _sizes(n_in, width, n_out):
    shapes = {"a": (n_in, width), "w": (width, width), "b": (width, n_out)}
    return {
        name: normal(i, *shape) * 0.3 for i, (name, shape) in enumerate(shapes.items())
    }


def _recurrent(layer):
    def apply(p, x):
        def step(h, u):
            return layer(p["w"], 0.5 * h + u @ p["a"]), None

        start = jnp.zeros((x.shape[0], 3), x.dtype)
        return jax.lax.scan(step, start, x.swapaxes(0, 1))[0] @ p["b"]

    return apply


def _weights(bound):
    return _chain(lambda w, x: jnp.tanh(x @ bound(w)))


# The network, the same without rules, its parameters and inputs.
CASES = {
    "wide to narrow": (_chain(fixed_point), _chain(plain_fixed_point), (6, 3, 2)),
    "narrow to wide": (_chain(fixed_point), _chain(plain_fixed_point), (3, 7, 4)),
    "neural ode": (_chain(flow), _chain(plain_flow), (3, 4, 3)),
    "one call": (_squash(called()), _squash(jnp.tanh), (3, 4, 2)),
    "calls one by one": (
        _squash(called(vmap_method="sequential")),
        _squash(jnp.tanh),
        (3, 4, 2),
    ),
    "weights by a rule": (_weights(bounded), _weights(jnp.tanh), (3, 4, 2)),
    "cell of a recurrence": (_recurrent(fixed_point), _recurrent(plain_fixed_point), 0),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    apply, plain, sizes = CASES[request.param]
    params = _sizes(*(sizes or (2, 3, 2)))
    x = normal(9, 4, params["a"].shape[0]) if sizes else normal(9, 4, 5, 2)
    return apply, plain, params, x


def _sigma(apply, params, x):
    """Singular values of the Jacobian of every example."""
    jacobian = jax.vmap(jax.jacrev(lambda x: apply(params, x[None])[0]))(x)
    jacobian = np.asarray(jacobian).reshape(len(x), -1, x[0].size)
    return np.linalg.svd(jacobian, compute_uv=False)


@pytest.mark.slow
def test_a_report_is_that_of_the_same_network_without_rules(case):
    apply, plain, params, x = case
    report = gs.analyze(apply, params, x, loss=loss, progress=False)
    assert not [note for note in report.notes if "law of growth" not in note]
    sigma = _sigma(plain, params, x)
    assert report.exponents is not None
    found = np.exp(report.exponents * len(report.layers))
    np.testing.assert_allclose(found, sigma[:, : found.shape[1]], rtol=1e-4)
    gradient = jax.grad(lambda p: loss(plain(p, x)))(params)
    norms = {tuple(layer.params): layer.param_gradient_norm for layer in report.layers}
    total = np.sqrt(sum(float(jnp.sum(g**2)) for g in gradient.values()))
    np.testing.assert_allclose(np.hypot.reduce(list(norms.values())), total, rtol=1e-4)
    assert all(layer.jacobian is not None for layer in report.layers)


@pytest.mark.slow
def test_exponents_along_time_are_those_without_rules(case):
    apply, plain, params, x = case
    options = {"theory": False, "progress": False}
    one, other = (gs.analyze(f, params, x, **options) for f in (apply, plain))
    for found, expected in zip(one.recurrences, other.recurrences, strict=True):
        # A loop that ends for all examples at once couples them: one joint state.
        ours, theirs = (
            np.sort(np.ravel(each.finite_time_exponents)) for each in (found, expected)
        )
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.slow
def test_cosines_are_those_without_rules(case):
    apply, plain, params, x = case
    matrices = []
    for function in (apply, plain):
        network = find_layers(function, params, (x,))
        run = propagate(network, params, (), (x,), loss=loss)
        found = gradient_cosines(run)
        matrices.append(found.matrix[[0, -1]])
    chex.assert_trees_all_close(*matrices, atol=1e-3)


@functools.cache
def _implicit():
    params, x = _sizes(3, 7, 4), normal(9, 2, 3)
    network = find_layers(_chain(fixed_point), params, (x,))
    run = propagate(network, params, (), (x,), loss=loss)
    return dataclasses.replace(run, coupled=(False,) * 3).layers


def _spectrum(max_dense=3, top_k: int | None = 2, max_bytes=2**28):
    return layer_spectrum(
        _implicit()[1],
        examples=2,
        max_dense=max_dense,
        top_k=top_k,
        max_bytes=max_bytes,
    )


@pytest.mark.slow
def test_a_jacobian_that_is_too_large_for_all_values_is_multiplied_with_as_it_is():
    found, all_of_them = _spectrum(), _spectrum(max_dense=100, top_k=None)
    assert found.spectrum is not None
    assert all_of_them.spectrum is not None
    assert found.spectrum.method == "golub-kahan"
    values = all_of_them.spectrum.values[:, :2]
    np.testing.assert_allclose(found.spectrum.values, values, rtol=1e-4)


def test_a_jacobian_that_is_too_large_altogether_is_left_out_with_the_reason():
    found = _spectrum(max_bytes=100)
    assert found.spectrum is None
    assert "fixed_point has no JVP and a backward pass without a transpose" in (
        found.note
    )
    assert "7 x 7 entries are too many" in found.note


def test_layers_of_plain_operations_are_not_one_way():
    layers = _implicit()
    maps = [layer_map(layer, examples=2)[0] for layer in layers]
    assert [bool(m and m.one_way) for m in maps] == [False, True, False]
    assert layers[1].name == "w"
