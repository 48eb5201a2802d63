import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.nn import initializers

from gradstab.initializers import chrono_bias
from gradstab.models import LSTM, LSTMState

EPS = float(jnp.finfo(jnp.float32).eps)
BATCH, TIME, FEATURES, HIDDEN = 4, 6, 3, 4
X = jax.random.normal(jax.random.key(0), (BATCH, TIME, FEATURES))


def lstm(depth=1, **options):
    defaults = {
        "kernel_init": initializers.normal(0.5),
        "recurrent_init": initializers.normal(0.5),
        "rngs": nnx.Rngs(params=0, dropout=1),
    }
    return LSTM(FEATURES, 4, hidden=HIDDEN, depth=depth, **(defaults | options))


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def written_out(x, kernel, recurrent_kernel, bias):
    """States of one layer at all times, in float64, from the equations of the paper."""
    w, u, b = (np.asarray(a, np.float64) for a in (kernel, recurrent_kernel, bias))
    h = c = np.zeros((len(x), HIDDEN))
    hs, cs = [], []
    for t in range(x.shape[1]):
        a = np.asarray(x[:, t], np.float64) @ w + h @ u + b
        i, f, g, o = (a[:, k * HIDDEN : (k + 1) * HIDDEN] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        hs.append(h)
        cs.append(c)
    return np.stack(hs, axis=1), np.stack(cs, axis=1)


@pytest.mark.slow
def test_the_trajectory_is_that_of_the_equations():
    depth = 3
    model = lstm(depth, bias_init=initializers.normal(1.0))
    parameters = [(model.input.kernel, model.input.recurrent_kernel, model.input.bias)]
    for i in range(depth - 1):
        blocks = model.blocks
        parameters.append(
            (blocks.kernel[i], blocks.recurrent_kernel[i], blocks.bias[i])
        )
    h = X
    for state, (kernel, recurrent_kernel, bias) in zip(
        model.trajectory(X), parameters, strict=True
    ):
        h, c = written_out(h, kernel[...], recurrent_kernel[...], bias[...])
        # Values up to 3 through TIME steps of a dozen roundings each.
        chex.assert_trees_all_close(state.h, h.astype(np.float32), atol=100 * EPS)
        chex.assert_trees_all_close(state.c, c.astype(np.float32), atol=100 * EPS)


def test_the_states_are_those_of_the_cell_of_flax():
    model = lstm(bias_init=initializers.normal(1.0))
    cell = nnx.LSTMCell(FEATURES, HIDDEN, rngs=nnx.Rngs(1))
    blocks = zip(
        "ifgo",
        *(
            jnp.split(p[...], 4, axis=-1)
            for p in (
                model.input.kernel,
                model.input.recurrent_kernel,
                model.input.bias,
            )
        ),
        strict=True,
    )
    for gate, kernel, recurrent_kernel, bias in blocks:
        getattr(cell, {"f": "if_"}.get(gate, "i" + gate)).kernel[...] = kernel
        getattr(cell, "h" + gate).kernel[...] = recurrent_kernel
        getattr(cell, "h" + gate).bias[...] = bias
    carry = (jnp.zeros((BATCH, HIDDEN)), jnp.zeros((BATCH, HIDDEN)))
    (state,) = model.trajectory(X)
    for t in range(TIME):
        carry, h = cell(carry, X[:, t])
        chex.assert_trees_all_close(
            (state.c[:, t], state.h[:, t]), (carry[0], h), atol=1e-6
        )


@pytest.mark.parametrize("bias", [0.0, 3.0])
def test_with_zero_weights_the_memory_decays_by_the_forget_gate(bias):
    zero = initializers.zeros
    model = lstm(forget_bias=bias, kernel_init=zero, recurrent_init=zero)
    time = 20
    h = jnp.zeros((1, HIDDEN))

    def last_memory(c):
        (state,) = model.trajectory(jnp.zeros((1, time, FEATURES)), (LSTMState(h, c),))
        return state.c[0, -1]

    jacobian = jax.jacobian(last_memory)(h)[:, 0]
    expected = sigmoid(bias) ** time * jnp.eye(HIDDEN)
    # A relative rounding in the gate, and one in each of the products.
    chex.assert_trees_all_close(jacobian, expected, rtol=3 * time * EPS)


def test_every_recurrent_gate_is_orthogonal():
    model = lstm(3, recurrent_init=initializers.orthogonal())
    first, others = model.input.recurrent_kernel, model.blocks.recurrent_kernel
    for kernel in [first[...], *others[...]]:
        for gate in jnp.split(kernel, 4, axis=-1):
            values = jnp.linalg.svd(gate, compute_uv=False)
            chex.assert_trees_all_close(values, jnp.ones(HIDDEN), atol=20 * EPS)


def test_initialisers_see_the_shape_of_one_gate():
    seen = []

    def init(key, shape, dtype):
        seen.append(shape)
        return jnp.zeros(shape, dtype)

    lstm(kernel_init=init, head_init=initializers.ones)
    assert seen == [(FEATURES, HIDDEN)] * 4


def test_the_forget_gates_alone_get_the_forget_bias():
    for given, expected in [({}, 1.0), ({"forget_bias": 2.5}, 2.5)]:
        gates = lstm(**given).input.bias[...].reshape(4, HIDDEN)
        chex.assert_trees_all_equal(gates[1], jnp.full(HIDDEN, expected))
        assert (gates[jnp.array([0, 2, 3])] == 0).all()


def test_a_chrono_bias_sets_input_against_forget_gates():
    bias = lstm(bias_init=chrono_bias(100)).input.bias[...].reshape(4, HIDDEN)
    chex.assert_trees_all_equal(bias[0], -bias[1])
    assert (bias[1] > 0).all()


@pytest.mark.slow
def test_a_sequence_can_be_cut_and_continued_from_its_states():
    model = lstm(3, sequence_output=True)
    first = model.trajectory(X[:, :2])
    initial = jax.tree.map(lambda s: s[:, -1], first)
    continued = model(X[:, 2:], initial)
    chex.assert_trees_all_close(continued, model(X)[:, 2:], atol=20 * EPS)
    assert jnp.abs(model(X[:, 2:]) - continued).max() > 0.01


@pytest.mark.parametrize("depth", [1, 3])
def test_the_logits_are_the_head_of_the_last_output(depth):
    model = lstm(depth)
    every = lstm(depth, sequence_output=True)
    h = model.trajectory(X)[-1].h
    chex.assert_trees_all_close(model(X), model.head(h[:, -1]), atol=20 * EPS)
    chex.assert_trees_all_close(every(X), model.head(h), atol=20 * EPS)


@pytest.mark.slow
def test_dropout_acts_between_layers_and_not_through_time():
    model = lstm(2, dropout=0.5)
    plain = lstm(2)
    first, second = model.trajectory(X)
    chex.assert_trees_all_close(first, plain.trajectory(X)[0], atol=20 * EPS)
    assert jnp.abs(second.h - plain.trajectory(X)[1].h).max() > 0.01
    assert (model(X) != model(X)).any()
    model.eval()
    chex.assert_trees_all_close(model(X), plain(X), atol=20 * EPS)


def test_the_time_loop_carries_the_two_states_and_nothing_else():
    model = lstm()
    jaxpr = jax.make_jaxpr(lambda x: model(x))(X)
    (loop,) = [e for e in jaxpr.eqns if e.primitive.name == "scan"]
    shapes = [variable.aval.shape for variable in loop.outvars]
    assert shapes == 2 * [(BATCH, HIDDEN)] + 2 * [(TIME, BATCH, HIDDEN)]


@pytest.mark.slow
def test_half_precision_is_used_throughout_if_asked():
    model = lstm(2, dtype=jnp.bfloat16)
    used = {a.dtype for a in jax.tree.leaves((model(X), model.trajectory(X)))}
    assert used == {jnp.dtype(jnp.bfloat16)}
    assert model.blocks.kernel.dtype == jnp.float32
    assert lstm(param_dtype=jnp.bfloat16).input.kernel.dtype == jnp.bfloat16


def test_a_wrong_shape_says_what_was_expected():
    with pytest.raises(ValueError, match=r"LSTM .* \(batch, time, 3\), got \(4, 3\)"):
        lstm()(X[:, 0])
    with pytest.raises(ValueError, match=r"initial must hold 2 states"):
        lstm(2)(X, (LSTMState(X[:, 0], X[:, 0]),))


def test_integer_sequences_are_refused():
    with pytest.raises(TypeError, match="LSTM expects floating inputs, got int32"):
        lstm()(jnp.ones((BATCH, TIME, FEATURES), jnp.int32))
