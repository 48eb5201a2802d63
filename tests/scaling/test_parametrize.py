"""Roles of parameters, and what parametrisations do with them."""

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx

import gradstab as gs
from gradstab.models import MLP

LECUN = jax.nn.initializers.lecun_normal()


def mlp(width, key):
    return MLP(
        3,
        2,
        widths=(width,) * 3,
        activation="tanh",
        kernel_init=LECUN,
        rngs=nnx.Rngs(params=key),
    )


@pytest.fixture(scope="module")
def scaled():
    return gs.parametrize(mlp, base_width=16, inputs=jnp.ones((4, 3)))


def test_the_program_says_what_each_parameter_of_an_mlp_is(scaled):
    assert {one.name: str(one.role) for one in scaled.roles} == {
        "input.dense.kernel": "input",
        "input.dense.bias": "vector",
        "blocks.dense.kernel": "hidden",
        "blocks.dense.bias": "vector",
        "head.kernel": "output",
        "head.bias": "fixed",
    }


def test_nothing_is_scaled_at_the_base_width(scaled):
    key = jax.random.key(0)
    made, plain = scaled.make(16, key), mlp(16, key)
    for own, other in zip(
        jax.tree.leaves(nnx.state(made)), jax.tree.leaves(nnx.state(plain)), strict=True
    ):
        assert jnp.array_equal(own, other)


def test_updates_at_four_times_the_width_have_the_factors_of_the_table(scaled):
    params = nnx.state(mlp(64, jax.random.key(0)), nnx.Param)
    optimizer = optax.chain(optax.sgd(1.0), scaled.transform)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(ones, optimizer.init(params), params)
    assert float(updates["head"]["kernel"][...][0, 0]) == -1 / 4
    assert float(updates["blocks"]["dense"]["kernel"][...].ravel()[0]) == -1 / 4
    assert float(updates["input"]["dense"]["kernel"][...][0, 0]) == -1
