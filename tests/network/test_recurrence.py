"""States along time: gradients and Jacobians against unrolled recurrences."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.network import find_layers, follow_state, layer_slice, propagate

pytestmark = pytest.mark.usefixtures("quick_compiler")

STEPS, HIDDEN, FEATURES, EXAMPLES = 4, 3, 2, 2


def _normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def _lstm_step(params, state, x):
    c, h = state
    gates = jnp.split(x @ params["w"] + h @ params["u"] + params["b"][None], 4, axis=1)
    i, f, o = map(jax.nn.sigmoid, gates[:3])
    c = f * c + i * jnp.tanh(gates[3])
    return c, o * jnp.tanh(c)


@pytest.fixture(scope="module")
def params():
    return {
        "w": _normal(0, FEATURES, 4 * HIDDEN),
        "u": _normal(1, HIDDEN, 4 * HIDDEN),
        "b": _normal(2, 4 * HIDDEN),
        "read": _normal(3, HIDDEN, 1),
    }


@pytest.fixture(scope="module")
def x():
    return _normal(4, EXAMPLES, STEPS, FEATURES)


def _zeros():
    return (jnp.zeros((EXAMPLES, HIDDEN)),) * 2


def _lstm(reverse=False):
    """An LSTM that reads its state out inside the body of the scan."""

    def apply(params, x):
        def body(state, now):
            state = _lstm_step(params, state, now)
            return state, jnp.sin(state[1]) @ params["read"]

        xs = jnp.swapaxes(x, 0, 1)
        _, ys = jax.lax.scan(body, _zeros(), xs, reverse=reverse)
        return jnp.swapaxes(ys, 0, 1)

    return apply


def _unrolled(params, x, taps, order):
    """The same by a Python loop; a tap reaches what follows from its part alone."""
    state, outputs = _zeros(), []
    for t in order:
        state = _lstm_step(params, state, x[:, t])
        state = tuple(part + tap[t] for part, tap in zip(state, taps, strict=True))
        outputs.append(jnp.sin(state[1]) @ params["read"])
    return sum(jnp.sum(jnp.square(y)) for y in outputs)


def _loss(output):
    return jnp.sum(jnp.square(output))


def _trajectory(apply, params, x, loss=_loss):
    network = find_layers(apply, params, (x,))
    flow = propagate(network, params, (), (x,), loss=loss)
    (scan,) = network.recurrences[0]
    place = network.layers[0]
    parts = (flow.replay.contexts, flow.replay.entering, flow.gradients)
    run = jax.jit(lambda *arguments: follow_state(scan, *arguments))
    return scan, run(*(layer_slice(part, place) for part in parts))


@pytest.fixture(scope="module", params=[False, True], ids=["forward", "reversed"])
def lstm(request, params, x):
    order = range(STEPS)[:: -1 if request.param else 1]
    return *_trajectory(_lstm(request.param), params, x), list(order)


@pytest.mark.slow
def test_gradients_at_states_are_those_of_the_unrolled_network(lstm, params, x):
    _, path, order = lstm
    taps = (jnp.zeros((STEPS, EXAMPLES, HIDDEN)),) * 2
    expected = jax.grad(lambda taps: _unrolled(params, x, taps, order))(taps)
    for found, wanted in zip(path.gradients, expected, strict=True):
        # The trajectory is in order of time, whichever way the scan runs.
        chex.assert_trees_all_close(
            found, wanted[np.array(order)], rtol=1e-4, atol=1e-6
        )


def test_states_are_in_order_of_time(lstm, params, x):
    _, path, order = lstm
    state = _zeros()
    for step, t in enumerate(order):
        before = tuple(part[step] for part in path.before)
        chex.assert_trees_all_close(before, state, rtol=1e-6, atol=1e-7)
        state = _lstm_step(params, state, x[:, t])
        after = tuple(part[step] for part in path.after)
        chex.assert_trees_all_close(after, state, rtol=1e-6, atol=1e-7)


def test_a_step_maps_the_state_before_to_the_state_after(lstm):
    scan, path, _ = lstm
    for step in range(STEPS):
        before = tuple(part[step] for part in path.before)
        after = tuple(part[step] for part in path.after)
        found = scan.step(path.operands(step), before)
        chex.assert_trees_all_close(found, after, rtol=1e-6, atol=1e-7)


def test_the_jacobian_of_a_step_is_that_of_the_cell(lstm, params, x):
    scan, path, order = lstm
    before = tuple(part[1] for part in path.before)
    found = jax.jacfwd(lambda s: scan.step(path.operands(1), s))(before)
    now = x[:, order[1]]
    expected = jax.jacfwd(lambda s: _lstm_step(params, s, now))(before)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


def test_an_lstm_without_weights_forgets_by_its_forget_gate_alone(x):
    """d c_T / d c_t is the product of the forget gates, each sigmoid(b_f)."""
    zeros = {
        "w": jnp.zeros((FEATURES, 4 * HIDDEN)),
        "u": jnp.zeros((HIDDEN, 4 * HIDDEN)),
    }
    bias = jnp.zeros(4 * HIDDEN).at[HIDDEN : 2 * HIDDEN].set(1.0)

    def apply(params, x):
        def body(state, now):
            state = _lstm_step(params, state, now)
            return state, state[0]

        # The start is not zero, so that there is a cell to keep.
        start = (jnp.ones((EXAMPLES, HIDDEN)), jnp.zeros((EXAMPLES, HIDDEN)))
        return jax.lax.scan(body, start, jnp.swapaxes(x, 0, 1))[1][-1]

    _, path = _trajectory(apply, zeros | {"b": bias}, x, loss=jnp.sum)
    forget = 1 / (1 + np.exp(-1.0))
    expected = (forget ** np.arange(STEPS - 1, -1, -1)).astype(np.float32)
    chex.assert_trees_all_close(path.gradients[0][:, 0, 0], expected, rtol=1e-6)
    chex.assert_trees_all_close(path.gradients[1], jnp.zeros_like(path.gradients[1]))


def test_parts_of_a_state_that_are_one_variable_have_a_gradient_each():
    """A body that returns the new state twice: each use sends its own part back."""
    w, x = 2 * jnp.eye(2), jnp.ones((1, 3, 2))

    def apply(w, x):
        def body(state, now):
            a, b = state
            new = a @ w + 10 * b + now
            return (new, new), new

        zeros = jnp.zeros((1, 2))
        return jax.lax.scan(body, (zeros, zeros), jnp.swapaxes(x, 0, 1))[1][-1]

    _, path = _trajectory(apply, w, x, loss=jnp.sum)
    # new_{t+1} = 2 a + 10 b, and a = b = new_t: each step multiplies by 12.
    chex.assert_trees_all_close(path.gradients[0][:, 0, 0], jnp.array([24.0, 2, 1]))
    chex.assert_trees_all_close(path.gradients[1][:, 0, 0], jnp.array([120.0, 10, 0]))


def test_a_part_that_hands_the_state_before_on_does_not_reach_this_steps_output():
    w, x = 2 * jnp.eye(2), jnp.ones((1, 3, 2))

    def apply(w, x):
        def body(state, now):
            h, last = state
            return (h @ w + last + now, h), h  # the output is of the state before

        zeros = jnp.zeros((1, 2))
        return jax.lax.scan(body, (zeros, zeros), jnp.swapaxes(x, 0, 1))[1][-1]

    _, path = _trajectory(apply, w, x, loss=jnp.sum)
    # y_3 = h_2: d/dh_1 = 2 through h_2 = 2 h_1 + last_1; last_2 reaches no output.
    chex.assert_trees_all_close(path.gradients[0][:, 0, 0], jnp.array([2.0, 1, 0]))
    chex.assert_trees_all_close(path.gradients[1][:, 0, 0], jnp.array([1.0, 0, 0]))


@pytest.mark.slow
def test_dropout_inside_a_recurrence_uses_no_key_twice(x):
    w = 0.5 * jnp.eye(FEATURES)

    def apply(w, x, key):
        keys = jax.random.split(key, STEPS)

        def body(h, slices):
            now, key = slices
            mask = jax.random.bernoulli(key, 0.5, h.shape)
            h = jnp.where(mask, jnp.tanh(h @ w + now), 0)
            return h, h

        zeros = jnp.zeros((EXAMPLES, FEATURES))
        states = jax.lax.scan(body, zeros, (jnp.swapaxes(x, 0, 1), keys))[1]
        return jnp.tanh(states[-1])  # its slope is looked at: the block runs again

    network = find_layers(apply, w, (x, jax.random.key(1)))
    flow = propagate(network, w, (), (x, jax.random.key(1)), loss=jnp.sum)
    (scan,) = network.recurrences[0]
    parts = (flow.replay.contexts, flow.replay.entering, flow.gradients)
    path = follow_state(scan, *(part[0] for part in parts))
    assert np.all(np.isfinite(path.gradients[0]))


def test_both_directions_of_a_bidirectional_layer_are_found(params, x):
    def apply(params, x):
        ys = [_lstm(reverse)(params, x) for reverse in (False, True)]
        return jnp.concatenate(ys, axis=2)

    network = find_layers(apply, params, (x,))
    assert [len(scans) for scans in network.recurrences] == [2]
    assert [scan.parts.reverse for scan in network.recurrences[0]] == [False, True]


def test_a_recurrence_over_tokens_is_found():
    """Integers enter at every step, and the body itself looks their rows up."""

    def apply(params, ids):
        def body(h, token):
            h = jnp.tanh(params["table"][token] + h @ params["u"])
            return h, None

        return jax.lax.scan(body, jnp.zeros((2, 3)), ids.T)[0]

    params = {"table": _normal(0, 5, 3), "u": _normal(1, 3, 3)}
    network = find_layers(apply, params, (jnp.array([[0, 1, 2], [3, 4, 0]]),))
    assert [len(scans) for scans in network.recurrences] == [1]


def test_a_scan_over_layers_is_no_recurrence():
    def apply(ws, x):
        return jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, ws)[0]

    network = find_layers(apply, jnp.zeros((3, 2, 2)), (jnp.ones((1, 2)),))
    assert network.recurrences == ((),)


def test_what_has_no_examples_is_no_part_of_the_state():
    def apply(w, x):
        def body(carry, now):
            h, time = carry
            return (jnp.tanh(h @ w + now) / (1 + time), time + 0.1), None

        start = (jnp.zeros((EXAMPLES, FEATURES)), jnp.zeros(()))
        return jax.lax.scan(body, start, jnp.swapaxes(x, 0, 1))[0][0]

    x = _normal(4, EXAMPLES, STEPS, FEATURES)
    scan, path = _trajectory(apply, jnp.eye(FEATURES), x, loss=jnp.sum)
    assert scan.state == (0,)
    chex.assert_shape(path.after[0], (STEPS, EXAMPLES, FEATURES))
