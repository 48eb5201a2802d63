import chex
import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from jax.nn import initializers

from gradstab.initializers import identity_rnn
from gradstab.models import RNN

EPS = float(jnp.finfo(jnp.float32).eps)
X = jax.random.normal(jax.random.key(0), (4, 6, 3))


def rnn(depth=1, **options):
    defaults = {
        "kernel_init": initializers.normal(0.5),
        "recurrent_init": initializers.normal(0.5),
        "rngs": nnx.Rngs(params=0, dropout=1),
    }
    return RNN(3, 4, hidden=4, depth=depth, **(defaults | options))


@pytest.mark.parametrize(("name", "phi"), [("tanh", jnp.tanh), ("relu", jax.nn.relu)])
def test_the_states_are_those_of_the_formula(name, phi):
    model = rnn(activation=name, bias_init=initializers.normal(1.0))
    layer = model.input
    h = jnp.zeros((4, 4))
    (states,) = model.trajectory(X)
    for t in range(6):
        h = phi(
            X[:, t] @ layer.kernel[...]
            + h @ layer.recurrent_kernel[...]
            + layer.bias[...][None]
        )
        chex.assert_trees_all_close(states[:, t], h, atol=100 * EPS)


def test_the_activation_is_tanh_unless_another_is_chosen():
    chex.assert_trees_all_equal(rnn()(X), rnn(activation="tanh")(X))
    assert (rnn()(X) != rnn(activation="relu")(X)).any()


def test_an_identity_network_keeps_its_state_for_ever():
    model = rnn(activation="relu", recurrent_init=identity_rnn(1.0))
    start = jnp.abs(X[:, 0, :1]) * jnp.ones((1, 4))
    (states,) = model.trajectory(jnp.zeros((4, 100, 3)), (start,))
    chex.assert_trees_all_equal(states[:, -1], start)


def test_linear_state_jacobians_are_powers_of_the_recurrent_weights():
    model = rnn(activation="identity", recurrent_init=identity_rnn(0.9))

    def last(h):
        return model.trajectory(jnp.zeros((1, 10, 3)), (h,))[0][0, -1]

    jacobian = jax.jacobian(last)(jnp.zeros((1, 4)))[:, 0]
    chex.assert_trees_all_close(jacobian, 0.9**10 * jnp.eye(4), rtol=20 * EPS)


def test_deep_layers_read_the_states_of_the_layer_below():
    model = rnn(3)
    states = model.trajectory(X)
    assert len(states) == 3
    blocks = model.blocks
    for i in range(2):
        below, h = states[i], jnp.zeros((4, 4))
        for t in range(6):
            h = jnp.tanh(
                below[:, t] @ blocks.kernel[i] + h @ blocks.recurrent_kernel[i]
            )
        chex.assert_trees_all_close(states[i + 1][:, -1], h, atol=100 * EPS)


def test_the_time_loop_carries_the_state_and_nothing_else():
    model = rnn()
    jaxpr = jax.make_jaxpr(lambda x: model(x))(X)
    (loop,) = [e for e in jaxpr.eqns if e.primitive.name == "scan"]
    shapes = [variable.aval.shape for variable in loop.outvars]
    assert shapes == [(4, 4), (6, 4, 4)]


def test_a_wrong_shape_says_what_was_expected():
    with pytest.raises(ValueError, match=r"RNN .* \(batch, time, 3\), got \(4, 6, 2\)"):
        rnn()(X[..., :2])
