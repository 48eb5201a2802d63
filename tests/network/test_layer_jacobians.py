"""Layers tile the way from input to output: the chain rule holds for what was found."""

import chex
import jax
import jax.numpy as jnp
import pytest
from network_zoo import NETWORKS, fresh

from gradstab.network import find_layers, layer_slice

pytestmark = pytest.mark.cases


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    with jax.enable_x64(True):
        yield NETWORKS[request.param]()


@pytest.fixture(scope="module")
def network(case):
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        return find_layers(
            case.apply, case.params, case.inputs, state=case.state, output=case.output
        )


@pytest.fixture(scope="module")
def found(case, network):
    """What the layers say: output, gradient of a loss, product of the Jacobians."""

    def replay(params, inputs):
        return network.replay(params, case.state, inputs).output

    def everything(params, inputs):
        output, gradient = _output_and_gradient(replay, params, inputs)
        return output, gradient, _chain(network, case, params, inputs)

    return _compiled(everything, case)


@pytest.fixture(scope="module")
def expected(case):
    """What JAX says of the function itself."""

    def apply(params, inputs):
        return case.apply(params, case.state, *inputs)

    def everything(params, inputs):
        output, gradient = _output_and_gradient(apply, params, inputs)
        return output, gradient, _jacobian(case, params, inputs)

    return _compiled(everything, case)


def _compiled(function, case):
    # Small programs that run once: compile them fast, not well.
    options = {"xla_backend_optimization_level": 0}
    program = jax.jit(function, compiler_options=options)
    with jax.enable_x64(True):
        return program(case.params, fresh(case.inputs))


def _output_and_gradient(apply, params, inputs):
    """The gradient of a loss that uses everything, heads on shallow layers included."""

    def loss(params):
        output = apply(params, inputs)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(output)), output

    gradient, output = jax.grad(loss, has_aux=True)(params)
    return output, gradient


def _joint(jacobians, size):
    """Jacobians with respect to several arrays as one matrix."""
    return jnp.concatenate([j.reshape(size, -1) for j in jacobians], axis=1)


def _chain(network, case, params, inputs):
    """The product of the layers' Jacobians, each of the whole batch."""
    replay = network.replay(params, case.state, fresh(inputs))
    product = None
    for place in network.layers:
        block = network.blocks[place.block]
        if not block.in_vars:
            continue
        context = layer_slice(replay.contexts, place)
        data = layer_slice(replay.entering, place)
        wanted = tuple(range(1, 1 + len(data)))
        found = jax.jacrev(block, argnums=wanted)(context, *data)
        found = _joint(found, layer_slice(replay.activations, place).size)
        product = found if product is None else found @ product
    return product


def _jacobian(case, params, inputs):
    """The Jacobian from all floating inputs to the differentiated output."""
    inputs = fresh(inputs)
    floating = [
        i for i, x in enumerate(inputs) if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    if not floating:
        return None

    def output(*values):
        filled = list(inputs)
        for i, value in zip(floating, values, strict=True):
            filled[i] = value
        result = case.apply(params, case.state, *filled)
        result = result if case.output is None else case.output(result)
        return result.ravel()

    values = [inputs[i] for i in floating]
    found = jax.jacrev(output, argnums=tuple(range(len(values))))(*values)
    return _joint(found, found[0].shape[0])


def test_the_names_say_which_parameters_each_layer_owns(case, network):
    assert network.names == case.names


def test_the_product_of_the_layers_jacobians_is_that_of_the_network(found, expected):
    if expected[2] is None:
        pytest.skip("its inputs are integers: the chain starts at the embedding")
    # Products of at most seven matrices of order 1 in double precision.
    chex.assert_trees_all_close(found[2], expected[2], rtol=1e-11, atol=1e-11)
    assert float(jnp.max(jnp.abs(expected[2]))) > 1e-6


def test_replaying_a_network_computes_what_the_function_computes(found, expected):
    chex.assert_trees_all_close(found[0], expected[0], rtol=1e-14, atol=1e-14)


def test_parameter_gradients_are_those_of_jax(found, expected):
    chex.assert_trees_all_close(found[1], expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_behind_an_embedding_the_chain_is_that_of_the_embedded_tokens():
    with jax.enable_x64(True):
        case = NETWORKS["embedding_of_integers"]()
        network = find_layers(case.apply, case.params, case.inputs, state=())
        params, (ids,) = case.params, case.inputs

        def tail(h):
            h = jnp.where((ids > 0)[..., None], jnp.tanh(h @ params["hidden"]), 0)
            return (jnp.mean(h, axis=1) @ params["head"]).ravel()

        h = params["table"][ids] + params["positions"][None]
        expected = jax.jit(jax.jacfwd(tail))(h).reshape(4, -1)
        found = jax.jit(lambda p: _chain(network, case, p, case.inputs))(params)
    chex.assert_trees_all_close(found, expected, rtol=1e-11, atol=1e-11)
