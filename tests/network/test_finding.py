"""Equal programs are one network; programs that differ in anything are not."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from gradstab.network import find_layers, finding, propagate
from gradstab.program import canonical

KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {"a": jax.random.normal(KEYS[0], (3, 3)), "b": jnp.eye(3)}
X = jax.random.normal(KEYS[1], (4, 3))


@jax.custom_jvp
def rule(x):
    return jnp.tanh(x)


@rule.defjvp
def _(primals, tangents):
    return rule(*primals), tangents[0]


def other_rule(slope):
    @jax.custom_jvp
    def made(x):
        return jnp.tanh(x)

    @made.defjvp
    def _(primals, tangents):
        return made(*primals), slope * tangents[0]

    return made


def model(act=jnp.tanh, scale=1.0, mask=None, name="h", scope="block", order="ab"):
    def apply(params, x):
        for key in order:
            with jax.named_scope(scope):
                x = checkpoint_name(act(x @ params[key]) * scale, name)
        return x if mask is None else x * mask[None]

    return apply


def found(params=PARAMS, x=X, boundaries=None, **options):
    return find_layers(model(**options), params, (x,), boundaries=boundaries)


DIFFERENT = {
    "an activation": {"act": jnp.sin},
    "a number": {"scale": 2.0},
    "a constant": {"mask": jnp.arange(3.0)},
    "a name": {"name": "other"},
    "a scope": {"scope": "other"},
    "the order of parameters": {"order": "ba"},
    "the boundaries": {"boundaries": "a"},
    "the number of examples": {"x": X[:2]},
    "the dtype": {
        "x": X.astype(jnp.float16),
        "params": {"a": jnp.eye(3, dtype="f2"), "b": jnp.eye(3, dtype="f2")},
    },
    "the names of parameters": {
        "params": {"a": PARAMS["a"], "b": PARAMS["b"], "c": jnp.ones(2)}
    },
    "a rule": {"act": rule},
}


@pytest.mark.parametrize("options", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_what_differs_in_anything_is_another_network(options):
    assert found(**options) is not found()


def test_constants_and_rules_count_by_what_they_are():
    assert found(mask=jnp.arange(3.0)) is found(mask=jnp.arange(3.0))
    assert found(mask=jnp.arange(3.0)) is not found(mask=jnp.arange(3.0) + 1)
    assert found(act=other_rule(2.0)) is found(act=other_rule(2.0))
    assert found(act=other_rule(2.0)) is not found(act=other_rule(3.0))


def test_long_constants_count_by_their_digest():
    def apply(params, x, table):
        return jnp.tanh(x @ params) @ table

    first = np.zeros((3, 2000))
    second = first.copy()
    second[1, 1000] = 1.0
    networks = [
        find_layers(lambda p, x, t=table: apply(p, x, t), jnp.eye(3), (X,))
        for table in (first, first.copy(), second)
    ]
    assert networks[0] is networks[1]
    assert networks[0] is not networks[2]


def test_what_holds_large_arrays_is_not_remembered():
    table = np.zeros((3, 2**21))

    def apply(params, x):
        return jnp.tanh(x @ params) @ table

    before = len(finding.NETWORKS)
    networks = [find_layers(apply, jnp.eye(3), (X,)) for _ in range(2)]
    assert networks[0] is not networks[1]
    assert len(finding.NETWORKS) == before


def test_a_network_serves_other_numbers_bit_for_bit():
    inputs = jax.random.normal(KEYS[2], (4, 3))
    params = {"a": jax.random.normal(KEYS[3], (3, 3)), "b": PARAMS["b"] * 2}

    def run(labels):
        network = found(params, inputs)
        run = propagate(
            network,
            params,
            (),
            (inputs,),
            loss=lambda out: jnp.sum((out - labels) ** 2),
        )
        return run.signals, run.replay, run.gradients, run.param_gradients, run.loss

    propagate(found(), PARAMS, (), (X,), loss=jnp.sum)
    run(X)
    warm = run(inputs)
    finding.NETWORKS.clear()
    chex.assert_trees_all_equal(warm, run(inputs))


def test_a_loss_that_differs_is_another_program():
    network = found()
    values = [
        float(propagate(network, PARAMS, (), (X,), loss=loss).loss)
        for loss in (jnp.sum, lambda out: 2 * jnp.sum(out), jnp.sum)
    ]
    assert values[1] == 2 * values[0]
    assert values[2] == values[0]


def test_only_the_last_networks_are_held():
    for number in range(20):
        found(scale=float(number))
    assert len(finding.NETWORKS) == 16


def test_a_function_inside_may_hold_arrays_too():
    table = np.zeros((3, 2**21))
    inner = jax.jit(lambda x: x @ table)
    program = jax.make_jaxpr(lambda x: inner(x) + 1)(jnp.ones(3))
    assert canonical.key_of(program) is None
    assert canonical.key_of(program, constants=False) is None
    outside = jax.make_jaxpr(lambda x: x @ table)(jnp.ones(3))
    assert canonical.key_of(outside, constants=False) is not None
