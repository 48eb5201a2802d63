"""Norms that pass through a chain are recorded, and nothing is changed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gradstab import clipping

PARAMS = {
    "blocks": {"kernel": jnp.array([[[3.0], [4.0]], [[6.0], [8.0]]])},
    "head": jnp.array([2.0, 0.0]),
}


def passed(updates, params=PARAMS, **options):
    tx = clipping.record_norms(**options)
    return tx.update(updates, tx.init(PARAMS), params)


def test_norms_and_ratios_are_known_on_paper():
    updates = jax.tree.map(lambda x: x / 10, PARAMS)
    same, state = passed(updates)
    norms, ratios = clipping.update_norms(state), clipping.update_ratios(state)
    assert same is updates
    assert list(norms) == ["blocks.kernel", "head"]
    np.testing.assert_allclose(norms["blocks.kernel"], 0.1 * 125**0.5, rtol=1e-6)
    np.testing.assert_allclose(list(ratios.values()), 0.1, rtol=1e-6)


def test_each_layer_of_a_stack_has_its_own_norm():
    _, state = passed(PARAMS, stacked="blocks")
    norms = clipping.update_norms(state)
    np.testing.assert_allclose(norms["blocks.kernel"], [5, 10], rtol=1e-6)
    assert norms["head"].shape == ()


def test_norms_beyond_the_range_of_squares_are_right():
    for size in (1e-30, 1e30):
        _, state = passed(jax.tree.map(lambda x, s=size: x * s, PARAMS))
        np.testing.assert_allclose(
            clipping.update_norms(state)["head"], 2 * size, rtol=1e-6
        )


def test_a_parameter_that_is_not_finite_is_seen_at_its_name():
    bad = PARAMS | {"head": jnp.array([jnp.nan, 0.0])}
    _, state = passed(bad)
    norms = clipping.update_norms(state)
    assert np.isnan(norms["head"])
    assert np.isfinite(norms["blocks.kernel"])


def test_without_parameters_there_are_no_ratios():
    _, state = passed(PARAMS, None)
    assert np.isnan(clipping.update_ratios(state)["head"])
    np.testing.assert_allclose(clipping.update_norms(state)["head"], 2)


def test_the_state_rides_in_a_scan_and_in_any_chain():
    tx = optax.chain(optax.sgd(0.1), clipping.record_norms(stacked="blocks"))

    def body(state, _):
        _, state = tx.update(PARAMS, state, PARAMS)
        return state, clipping.update_ratios(state)["blocks.kernel"]

    _, ratios = jax.lax.scan(body, tx.init(PARAMS), None, length=3)
    np.testing.assert_allclose(ratios, np.full((3, 2), 0.1), rtol=1e-6)


def test_an_optimizer_of_nnx_holds_it():
    model = nnx.Linear(2, 1, use_bias=False, rngs=nnx.Rngs(0))
    tx = optax.chain(optax.sgd(0.1), clipping.record_norms())
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    before = model.kernel[...]
    optimizer.update(model, nnx.grad(lambda m: jnp.sum(m(jnp.ones((3, 2)))))(model))
    norms = clipping.update_norms(optimizer.opt_state)
    step = jnp.linalg.norm(model.kernel[...] - before)
    assert list(norms) == ["kernel"]
    np.testing.assert_allclose(norms["kernel"], step, rtol=1e-5)


def test_a_state_without_a_record_or_with_two_is_refused():
    tx = clipping.record_norms()
    for chain in (optax.sgd(0.1), optax.chain(tx, optax.sgd(0.1), tx)):
        with pytest.raises(ValueError, match="expected one record_norms"):
            clipping.update_norms(chain.init(PARAMS))


def test_stacked_must_match():
    with pytest.raises(ValueError, match="matches no parameter"):
        clipping.record_norms(stacked="layers").init(PARAMS)
