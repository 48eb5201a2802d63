"""The protocol that every initialiser keeps, and their names on the command line."""

import chex
import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx
from jax.sharding import AxisType, PartitionSpec

from gradstab import initializers as I

pytestmark = pytest.mark.cases

ALIASES = {"xavier_normal", "xavier_uniform", "kaiming_normal", "kaiming_uniform"}
NAMES = sorted(set(I.NAMES) - ALIASES)
# One name for each way of making an array.
KINDS = ["chrono_bias", "forget_bias", "he_normal", "identity", "looks_linear"]
NEEDS_A_NUMBER = {"chrono_bias", "constant", "mean_field", "normal"}
TAKES_NO_NUMBER = {"ones", "zeros", *(n for n in I.NAMES if n.startswith("scaled_"))}
SHAPE = {"delta_orthogonal": (3, 3, 4, 8)}


def build(name):
    spec = f"{name}:3" if name in NEEDS_A_NUMBER else name
    return I.named(spec, jax.nn.relu)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_name_gives_an_array_of_the_shape_and_dtype_asked_for(name):
    shape, init = SHAPE.get(name, (4, 8)), build(name)
    array = jax.jit(lambda seed: init(jax.random.key(seed), shape, jnp.bfloat16))(0)
    chex.assert_shape(array, shape)
    chex.assert_type(array, jnp.bfloat16)
    chex.assert_tree_all_finite(array)


@pytest.mark.parametrize("name", KINDS)
def test_initialisers_map_over_keys(name):
    shape, init = SHAPE.get(name, (4, 8)), build(name)
    seeds = jnp.arange(2)
    stacked = jax.jit(jax.vmap(lambda seed: init(jax.random.key(seed), shape)))(seeds)
    single = jax.jit(lambda seed: init(jax.random.key(seed), shape))(1)
    # Compiled code rounds some intermediate results of size 10 or less otherwise.
    chex.assert_trees_all_close(stacked[1], single, atol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_initialisers_take_the_sharding_of_a_framework(name):
    mesh = jax.make_mesh((1,), ("x",), axis_types=(AxisType.Explicit,))
    shape, init = SHAPE.get(name, (4, 8)), build(name)
    spec = PartitionSpec(*[None] * (len(shape) - 1), "x")
    with jax.set_mesh(mesh):
        array = init(jax.random.key(0), shape, jnp.float32, out_sharding=spec)
    assert array.sharding.spec == spec
    chex.assert_trees_all_close(array, init(jax.random.key(0), shape), atol=1e-6)


@pytest.mark.slow
def test_flax_layers_take_them():
    layer = nnx.Linear(4, 8, kernel_init=build("orthogonal"), rngs=nnx.Rngs(0))
    chex.assert_trees_all_close(layer.kernel @ layer.kernel.T, jnp.eye(4), atol=1e-6)
    cell = nnx.OptimizedLSTMCell(
        4,
        5,
        recurrent_kernel_init=I.per_gate(I.orthogonal()),
        bias_init=I.forget_bias(1.0),
        rngs=nnx.Rngs(0),
    )
    block = cell.dense_h.kernel[:, 5:10]
    chex.assert_trees_all_close(block @ block.T, jnp.eye(5), atol=1e-6)
    assert float(jnp.sum(cell.dense_h.bias[...])) == 5.0
    dense = linen.Dense(8, kernel_init=I.named("mean_field:2"), param_dtype=jnp.float16)
    params = dense.init(jax.random.key(0), jnp.ones((1, 4), jnp.float16))
    assert params["params"]["kernel"].dtype == jnp.float16


EQUAL = {
    "he_normal:3": I.he_normal(gain=3.0),
    "kaiming_uniform": I.he_uniform(),
    "xavier_uniform": I.glorot_uniform(),
    "lecun_normal": I.lecun_normal(),
    "mean_field:1.5": I.mean_field(1.5),
    "normal:0.01": I.normal(0.01),
    "identity:0.5": I.identity_rnn(0.5),
    "orthogonal:2e0": I.orthogonal(2.0),
    "looks_linear:2": I.looks_linear(I.orthogonal(2.0)),
    "chrono_bias:100": I.chrono_bias(100),
    "forget_bias": I.forget_bias(1.0),
    "scaled_uniform": I.scaled_for(jnp.tanh, "uniform"),
    "constant:0.5": jax.nn.initializers.constant(0.5),
}


@pytest.mark.parametrize("spec", EQUAL)
def test_a_name_stands_for_its_builder(spec):
    named = I.named(spec, jnp.tanh)(jax.random.key(0), (4, 8))
    chex.assert_trees_all_equal(named, EQUAL[spec](jax.random.key(0), (4, 8)))


def test_the_activation_changes_only_the_names_that_say_so():
    def weights(name, activation):
        return I.named(name, activation)(jax.random.key(0), (4, 8))

    he = [weights("he_normal", phi) for phi in (jnp.tanh, jax.nn.relu)]
    chex.assert_trees_all_equal(*he)
    scaled = [weights("scaled_normal", phi) for phi in (jnp.tanh, jax.nn.relu)]
    ratio = I.gain(jnp.tanh) / I.gain(jax.nn.relu)
    chex.assert_trees_all_close(scaled[0], ratio * scaled[1], rtol=1e-6)


@pytest.mark.parametrize("spec", ["he", "he-normal", "", ":1", "He_normal:2"])
def test_an_unknown_name_lists_the_known_ones(spec):
    with pytest.raises(KeyError, match=r"delta_orthogonal.*xavier_uniform"):
        I.named(spec)


@pytest.mark.parametrize("name", sorted(NEEDS_A_NUMBER))
def test_a_missing_number_is_an_error(name):
    with pytest.raises(ValueError, match=f"{name}:1.5"):
        I.named(name)


@pytest.mark.parametrize("name", sorted(TAKES_NO_NUMBER))
def test_a_number_too_many_is_an_error(name):
    with pytest.raises(ValueError, match="takes no number"):
        I.named(f"{name}:1", jnp.tanh)


@pytest.mark.parametrize("spec", ["normal:", "normal:a", "he_normal:1:2"])
def test_a_number_that_is_none_is_an_error(spec):
    with pytest.raises(ValueError, match="no number"):
        I.named(spec)


def test_a_scaled_name_without_an_activation_is_an_error():
    with pytest.raises(ValueError, match="activation"):
        I.named("scaled_normal")
