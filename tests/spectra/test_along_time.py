"""Lyapunov exponents of state maps, against products that are known."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.network import find_layers, follow_state, propagate
from gradstab.spectra import layer_recurrences, state_jacobians
from gradstab.spectra.golub_kahan import two_way
from gradstab.spectra.state_jacobians import StateJacobians, StateMaps

pytestmark = pytest.mark.usefixtures("quick_compiler")

EXAMPLES, STEPS, HIDDEN = 3, 5, 3


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def _normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def _scanned(step, start):
    """The last state of a recurrence over the second axis of x."""

    def apply(params, x):
        def body(state, now):
            return step(params, state, now), None

        state = jax.lax.scan(body, start, jnp.swapaxes(x, 0, 1))[0]
        return jnp.concatenate(jax.tree.leaves(state), axis=-1)

    return apply


def _followed(apply, params, x):
    params, x = jax.tree.map(jnp.asarray, (params, x))
    network = find_layers(apply, params, (x,))
    return propagate(network, params, (), (x,), loss=jnp.sum)


def _found(apply, params, x, **options):
    return _recurrence(_followed(apply, params, x), **options)


def _recurrence(run, examples=2, max_dense=1024):
    options = {"examples": examples, "max_dense": max_dense}
    (found,) = layer_recurrences(run.layers[0], **options)
    return found


def _linear(params, h, now):
    return h @ params + now


def _lstm(params, state, now):
    c, h = state
    gates = now @ params["w"] + h @ params["u"] + params["b"][None]
    i, f, o, g = jnp.split(gates, 4, axis=1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return c, jax.nn.sigmoid(o) * jnp.tanh(c)


class Lstm(NamedTuple):
    """An LSTM, its run, and its scan."""

    params: Any
    x: Any
    run: Any
    scan: Any
    path: Any


@pytest.fixture(scope="module")
def lstm():
    params = {
        "w": _normal(0, 2, 4 * HIDDEN),
        "u": _normal(1, HIDDEN, 4 * HIDDEN),
        "b": _normal(2, 4 * HIDDEN),
    }
    x = _normal(3, EXAMPLES, STEPS, 2)
    with jax.enable_x64(True):
        start = (jnp.zeros((EXAMPLES, HIDDEN)),) * 2
        run = _followed(_scanned(_lstm, start), params, x)
        (layer,) = run.layers
        (scan,) = layer.recurrences
        path = follow_state(scan, layer.context, layer.data, layer.gradient)
    return Lstm(params, x, run, scan, path)


def _composed(params, x):
    """d (last state) / d (first state) of each example, by a Python loop."""
    params, x = jax.tree.map(jnp.asarray, (params, x))

    def one(x):
        def run(state):
            parts = state[None, :HIDDEN], state[None, HIDDEN:]
            for t in range(STEPS):
                parts = _lstm(params, parts, x[None, t])
            return jnp.concatenate(parts, axis=1)[0]

        return jax.jacfwd(run)(jnp.zeros(2 * HIDDEN))

    return np.stack([one(x[i]) for i in range(EXAMPLES)])


def test_a_linear_recurrence_has_the_exponents_of_the_power_of_its_weights():
    w = _normal(0, 4, 4) / 2
    x = _normal(1, EXAMPLES, STEPS, 4)
    found = _found(_scanned(_linear, jnp.zeros((EXAMPLES, 4))), w, x)
    power = np.linalg.matrix_power(w, STEPS)
    expected = np.log(np.linalg.svd(power, compute_uv=False)) / STEPS
    np.testing.assert_allclose(found.finite_time_exponents, [expected] * 2, atol=1e-9)
    assert np.all(found.finite_time_errors < 1e-6)


@pytest.mark.slow
def test_exponents_far_apart_are_found_all_though_their_product_underflows():
    gains = np.array([2.0, 1.0, 1e-2, 1e-9])
    x = np.zeros((1, 60, 4))  # (1e-9)^60 is far below the smallest double
    found = _found(_scanned(_linear, jnp.zeros((1, 4))), np.diag(gains), x)
    np.testing.assert_allclose(found.exponents[0], np.log(gains), atol=1e-9)


@pytest.mark.slow
def test_an_lstm_has_the_exponents_of_both_parts_of_its_state_together(lstm):
    found = _recurrence(lstm.run)
    values = np.linalg.svd(_composed(lstm.params, lstm.x), compute_uv=False)
    assert found.state_size == 2 * HIDDEN
    chex.assert_shape(found.finite_time_exponents, (2, 2 * HIDDEN))
    np.testing.assert_allclose(
        found.finite_time_exponents, np.log(values[:2]) / STEPS, atol=1e-7
    )


@pytest.mark.slow
def test_steps_are_multiplied_in_the_order_of_time_also_of_a_reversed_scan():
    """Gains of two steps that do not commute."""
    first, second = np.array([[1.0, 3.0], [0.0, 1.0]]), np.diag([2.0, 0.1])
    gains = np.stack([first, second])

    def model(reverse):
        def apply(params, x):
            def body(h, now):
                number, now = now
                return h @ params[number] + now, None

            xs = (jnp.arange(2), jnp.swapaxes(x, 0, 1))
            return jax.lax.scan(body, jnp.zeros((1, 2)), xs, reverse=reverse)[0]

        return apply

    for reverse, product in ((False, first @ second), (True, second @ first)):
        found = _found(model(reverse), gains, np.zeros((1, 2, 2)), examples=1)
        expected = np.log(np.linalg.svd(product, compute_uv=False)) / 2
        np.testing.assert_allclose(found.finite_time_exponents, [expected], atol=1e-9)


@pytest.mark.slow
def test_all_steps_count_and_not_only_those_that_are_shown():
    gains = np.exp(_normal(0, 100))

    def step(params, h, now):
        return h * now * params

    x = np.broadcast_to(gains[None, :, None], (1, 100, 1))
    found = _found(_scanned(step, jnp.ones((1, 1))), np.ones((1, 1)), x)
    assert len(found.jacobian_steps) == 64
    np.testing.assert_allclose(
        found.finite_time_exponents, [[np.log(gains).mean()]], atol=1e-9
    )


@pytest.mark.slow
def test_jacobians_in_pieces_are_the_same_in_whatever_order_they_are_asked_for(lstm):
    options = {"joint": False, "keep": 2, "size": 2 * HIDDEN}
    whole = StateJacobians(lstm.scan, lstm.path, **options)
    for chunk in (1, 2, STEPS):
        pieces = StateJacobians(lstm.scan, lstm.path, chunk=chunk, **options)
        for step in (4, 0, 3, 2, -1, 1):
            np.testing.assert_allclose(pieces[step], whole[step], rtol=1e-12)
        assert len(list(pieces)) == len(list(reversed(pieces))) == STEPS
        with pytest.raises(IndexError):
            pieces[STEPS]


def test_jacobians_are_held_up_to_a_limit_of_bytes(lstm, monkeypatch):
    each = 2 * (2 * HIDDEN) ** 2 * 8
    monkeypatch.setattr(state_jacobians, "_MOST_BYTES", 3 * each + 1)
    pieces = StateJacobians(lstm.scan, lstm.path, joint=False, keep=2, size=2 * HIDDEN)
    pieces[0]
    assert pieces._held is not None
    assert pieces._held.shape == (3, 2, 2 * HIDDEN, 2 * HIDDEN)


def test_long_sequences_of_large_states_are_followed_for_fewer_examples(
    lstm, monkeypatch
):
    every = _recurrence(lstm.run).exponents
    for work, examples in ((2, 2), (1.9, 1), (0.1, 1)):
        units = int(work * STEPS * (2 * HIDDEN) ** 3)
        monkeypatch.setattr(state_jacobians, "_MOST_WORK", units)
        found = _recurrence(lstm.run).exponents
        np.testing.assert_allclose(found, every[:examples], atol=1e-12)


def test_maps_are_those_of_the_jacobians(lstm):
    size = 2 * HIDDEN
    written = StateJacobians(
        lstm.scan, lstm.path, joint=False, keep=EXAMPLES, size=size
    )
    maps = StateMaps(lstm.scan, lstm.path, joint=False, size=size)
    v = jnp.asarray(_normal(5, EXAMPLES, size))
    for step in (0, STEPS - 1):
        for product, form in (
            (two_way(maps[step])[0], "boi,bi"),
            (two_way(maps[step])[1], "bio,bi"),
        ):
            expected = np.einsum(f"{form}->bo", written[step], v)
            np.testing.assert_allclose(product(v), expected, atol=1e-12)


def test_of_a_large_state_the_leading_exponents_are_found_by_products(
    lstm, monkeypatch
):
    every = _recurrence(lstm.run).finite_time_exponents
    monkeypatch.setattr(state_jacobians, "_MOST_EXPONENTS", 4)
    monkeypatch.setattr(state_jacobians, "_LEADING", 2)
    found = _recurrence(lstm.run, max_dense=4)
    assert found.jacobians == ()
    np.testing.assert_allclose(found.finite_time_exponents, every[:, :2], atol=1e-7)
    monkeypatch.setattr(state_jacobians, "_MOST_ENTRIES", 5)
    assert _recurrence(lstm.run).exponents.shape == (2, 0)


def test_a_cell_with_a_rule_for_the_backward_direction_only_has_exponents():
    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
    w, x = np.diag([1.0, 0.25]), np.zeros((1, 4, 2))

    def step(params, h, now):
        return double(h @ params + now)

    found = _found(_scanned(step, jnp.zeros((1, 2))), w, x)
    expected = [np.log([2.0, 0.5])]
    np.testing.assert_allclose(found.finite_time_exponents, expected, atol=1e-12)


def test_a_cell_that_mixes_the_examples_has_joint_exponents():
    """The mean of a batch is kept, what differs from it halved."""

    def step(params, h, now):
        mean = jnp.mean(h, axis=0, keepdims=True)
        return params * (mean + 0.5 * (h - mean)) + now

    x = np.zeros((EXAMPLES, 4, 1))
    found = _found(_scanned(step, jnp.zeros((EXAMPLES, 1))), np.ones((1, 1)), x)
    assert found.state_size == 1
    expected = [np.log([1.0, 0.5, 0.5])]
    np.testing.assert_allclose(found.finite_time_exponents, expected, atol=1e-12)


def test_a_state_without_an_example_axis_is_followed_as_that_of_the_batch():
    """A running mean over the batch; a clock beside it is no state."""

    def apply(params, x):
        def body(carry, now):
            mean, time = carry
            mean = 0.9 * mean + 0.1 * jnp.mean(now @ params, axis=0)
            return (mean, time + 1.0), None

        start = (jnp.zeros(2), jnp.zeros(()))
        mean, _ = jax.lax.scan(body, start, jnp.swapaxes(x, 0, 1))[0]
        return x[:, -1] * mean[None]

    found = _found(apply, _normal(0, 2, 2), _normal(1, EXAMPLES, 6, 2))
    assert "no example axis" in found.note
    assert found.state_size == 2
    chex.assert_shape(found.gradient_norms, (6, 1))
    np.testing.assert_allclose(found.exponents, np.log([[0.9, 0.9]]), atol=1e-12)
    assert found.backward.factor == pytest.approx(1 / 0.9, rel=1e-9)
    np.testing.assert_allclose(found.jacobians[0].values, [[0.9, 0.9]], rtol=1e-12)


def test_a_sequence_that_is_too_short_for_an_error_says_so(lstm):
    found = _recurrence(lstm.run)
    assert found.note.startswith("5 steps are too few for an error")
    assert np.isnan(found.exponents_error).all()


@pytest.mark.slow
def test_long_sequences_have_lyapunov_exponents_with_an_error_and_no_note():
    """A Jordan block: its product grows like t^2 0.9^t, its exponents are ln 0.9."""
    w = 0.9 * np.eye(3) + np.diag([1.0, 1.0], 1)
    found = _found(_scanned(_linear, jnp.zeros((1, 3))), w, np.zeros((1, 200, 3)))
    assert (np.abs(found.exponents - np.log(0.9)) <= found.exponents_error).all()
    assert (found.exponents_error < 0.03).all()
    assert found.finite_time_exponents[0, 0] > -0.06
    assert found.note == ""
