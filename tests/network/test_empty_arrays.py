"""Arrays without entries carry parameters, too: parallel scans make them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from gradstab import _tree
from gradstab.network import find_layers, propagate
from gradstab.network.cosines import gradient_cosines

pytestmark = pytest.mark.usefixtures("quick_compiler")


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def loss(out):
    return jnp.mean(jnp.square(out))


def _combined(one, other):
    return one[0] * other[0], one[1] * other[0] + other[1]


def linear_recurrence(p, x):
    """h_t = a h_{t-1} + B u_t by a parallel scan; y = C h."""

    def one(u):
        a = jnp.repeat(jax.nn.sigmoid(p["a"])[None], u.shape[0], axis=0)
        return jax.lax.associative_scan(_combined, (a, u @ p["B"]))[1] @ p["C"]

    return jax.vmap(one)(x) @ p["out"]


def minimal_gru(p, x):
    """h_t = (1 - z_t) h_{t-1} + z_t c_t by a parallel scan."""

    def one(u):
        z = jax.nn.sigmoid(u @ p["B"])
        return jax.lax.associative_scan(_combined, (1 - z, z * (u @ p["B2"])))[1]

    return jax.vmap(one)(x) @ p["out3"]


def complex_recurrence(p, x):
    """The same with a complex state."""

    def one(u):
        lam = jnp.exp(jax.lax.complex(-jnp.exp(p["a"]), p["a2"]))
        drive = u @ p["B"]
        pairs = jnp.broadcast_to(lam, drive.shape), jax.lax.complex(drive, drive)
        return jax.lax.associative_scan(_combined, pairs)[1].real @ p["C"]

    return jax.vmap(one)(x) @ p["out"]


def sums_from_the_end(p, x):
    return jax.lax.associative_scan(jnp.add, x @ p["B"], axis=1, reverse=True) @ p["C"]


def empty_slice(p, x):
    y = x @ p["B"]
    return jnp.concatenate([y, y[..., :0] * p["a"][:0]], -1) @ p["C"]


def empty_leaf(p, x):
    return jnp.concatenate([x @ p["B"], x @ p["none"]], -1) @ p["C"]


def empty_branch(p, x):
    y = jnp.tanh(x @ p["B"])
    return y + (y @ p["none3"]) @ p["nothing"]


PARAMS = {
    **{"a": normal(0, 3), "a2": normal(7, 3), "B": normal(1, 2, 3)},
    **{"B2": normal(2, 2, 3), "C": normal(3, 3, 4), "out": normal(4, 4, 2)},
    **{"out3": normal(5, 3, 2), "none": jnp.zeros((2, 0))},
    **{"none3": jnp.zeros((3, 0)), "nothing": jnp.zeros((0, 3))},
}
USES = {
    linear_recurrence: ("a", "B", "C", "out"),
    minimal_gru: ("B", "B2", "out3"),
    complex_recurrence: ("a", "a2", "B", "C", "out"),
    sums_from_the_end: ("B", "C"),
    empty_slice: ("a", "B", "C"),
    empty_leaf: ("B", "C", "none"),
    empty_branch: ("B", "none3", "nothing"),
}
# Odd and even lengths leave different remainders in the scan.
LENGTHS = {linear_recurrence: 8, minimal_gru: 5, complex_recurrence: 7}


@pytest.fixture(scope="module", params=USES, ids=lambda f: f.__name__)
def model(request):
    apply = request.param
    params = {name: PARAMS[name] for name in USES[apply]}
    shape = (4, LENGTHS[apply], 2) if apply in LENGTHS else (4, 2)
    shape = (4, 6, 2) if apply is sums_from_the_end else shape

    def with_broadcast(p, x):
        with jax.numpy_rank_promotion("allow"):
            return apply(p, x)

    return with_broadcast, params, normal(6, *shape)


@pytest.mark.slow
def test_a_report_agrees_with_jax(model):
    apply, params, x = model
    report = gs.analyze(apply, params, x, loss=loss, theory=False, progress=False)
    gradient = jax.grad(lambda p: loss(apply(p, x)))(params)
    found = np.sqrt(sum(layer.param_gradient_norm**2 for layer in report.layers))
    np.testing.assert_allclose(found, _tree.safe_norm(gradient), rtol=1e-5)
    jacobian = jax.vmap(jax.jacrev(lambda x: apply(params, x[None])[0]))(x)
    sigma = np.linalg.svd(
        np.asarray(jacobian).reshape(4, -1, x[0].size), compute_uv=False
    )
    assert report.exponents is not None
    found = np.exp(report.exponents * len(report.layers))
    sigma = sigma[:, : found.shape[1]]
    np.testing.assert_allclose(found / sigma[:, :1], sigma / sigma[:, :1], atol=1e-5)


@pytest.mark.slow
def test_cosines_are_those_of_the_gradients_of_single_examples(model):
    apply, params, x = model
    network = find_layers(apply, params, (x,))
    run = propagate(network, params, (), (x,), loss=loss)
    found = gradient_cosines(run).matrix
    rows = jax.vmap(jax.grad(lambda p, x: loss(apply(p, x[None]))), (None, 0))(
        params, x
    )
    for place, matrix in zip(network.layers, found, strict=True):
        own = [rows[name].reshape(4, -1) for name in place.params]
        own = np.concatenate([np.asarray(part) for part in own], axis=1)
        if own.shape[1] == 0:  # there is no angle between vectors without entries
            assert np.isnan(matrix).all()
            continue
        own = own / np.linalg.norm(own, axis=1, keepdims=True)
        np.testing.assert_allclose(matrix, own @ own.T, atol=1e-4)


def test_a_parameter_without_entries_has_no_cosines_of_its_own():
    params = {"w": jnp.ones((2, 0)), "v": jnp.ones((0, 3)), "b": jnp.ones(3)}

    def apply(p, x):
        return (x @ p["w"]) @ p["v"] + p["b"][None] * x[:, :1]

    x = normal(0, 3, 2)
    network = find_layers(apply, params, (x,))
    run = propagate(network, params, (), (x,), loss=loss)
    (matrix,) = gradient_cosines(run).matrix
    np.testing.assert_allclose(np.abs(matrix), 1, rtol=1e-5)


def test_the_norm_of_no_entries_is_zero():
    assert _tree.safe_norm([jnp.zeros((0, 3))]) == 0
    assert _tree.safe_norm([jnp.zeros((2, 0))], axes=1).tolist() == [0, 0]
    assert np.isnan(_tree.safe_norm([jnp.zeros((0,)), jnp.array([jnp.nan])]))
