"""Records of what a clipper did."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gradstab import clipping

GRADS = [[3.0, 4.0], [0.3, 0.4], [np.nan, 1.0], [6.0, 8.0], [0.0, 0.0]]
FINITE = [grads for grads in GRADS if np.all(np.isfinite(grads))]


def record(tx, gradients):
    tx = clipping.recorded(tx)
    state, states = tx.init(jnp.zeros(2)), []
    for grads in gradients:
        _, state = tx.update(jnp.array(grads), state)
        states.append(state)
    return states


def test_the_record_of_five_steps_is_known_on_paper():
    states = record(clipping.clip_by_global_norm(1.0), GRADS)
    chex.assert_trees_all_equal([int(s.step) for s in states], [1, 2, 3, 4, 5])
    pre = [float(s.pre_norm) for s in states]
    post = [float(s.post_norm) for s in states]
    np.testing.assert_allclose(pre, [5, 0.5, np.nan, 10, 0], rtol=1e-6)
    np.testing.assert_allclose(post, [1, 0.5, np.nan, 1, 0], rtol=1e-6)
    assert [bool(s.clipped) for s in states] == [True, False, False, True, False]
    assert int(states[-1].clip_count) == 2
    assert int(states[-1].nonfinite_count) == 1
    np.testing.assert_allclose(clipping.clip_fraction(states[-1]), 2 / 5)


def test_the_change_of_direction_is_known_on_paper():
    rescaled = record(clipping.clip_by_global_norm(1.0), GRADS)
    cosines = [float(s.clip_cosine) for s in rescaled]
    np.testing.assert_allclose(cosines, [1, 1, 1, 1, 1], rtol=1e-6)
    # (3, 4) becomes (3, 3), (6, 8) too; the angle from the diagonal is that of both.
    turned = record(clipping.clip_by_value(3.0), [[3.0, 4.0], [6.0, 8.0], [1.0, 2.0]])
    cosines = [float(s.clip_cosine) for s in turned]
    expected = 7 / (5 * 2**0.5)
    np.testing.assert_allclose(cosines, [expected, expected, 1], rtol=1e-6)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_change_of_direction_is_right_where_squares_are_out_of_range(size):
    [state] = record(clipping.clip_by_value(3 * size), [[3 * size, 4 * size]])
    np.testing.assert_allclose(state.clip_cosine, 7 / (5 * 2**0.5), rtol=1e-6)


def test_there_is_no_direction_where_nothing_is_left():
    [state] = record(clipping.clip_by_global_norm(0.0), [[3.0, 4.0]])
    assert np.isnan(state.clip_cosine)


def test_one_clipped_entry_of_many_counts_though_the_norm_hardly_moves():
    grads = np.full(2, 1e4)
    [state] = record(clipping.clip_by_value(9.999e3), [grads])
    np.testing.assert_allclose(state.post_norm, state.pre_norm, rtol=2e-4)
    assert bool(state.clipped)


IDLE = {
    "rescaling by one": optax.scale(1.0),
    "optax below its bound": optax.clip_by_block_rms(100.0),
    "nothing": optax.identity(),
}


@pytest.mark.parametrize("tx", IDLE.values(), ids=IDLE.keys())
def test_a_transformation_that_changes_no_entry_is_not_counted(tx):
    assert int(record(tx, FINITE)[-1].clip_count) == 0


def test_finite_gradients_whose_norm_overflows_are_not_counted_as_nonfinite():
    [state] = record(clipping.clip_by_global_norm(1.0), [[3e38, 3e38]])
    assert np.isinf(state.pre_norm)
    np.testing.assert_allclose(state.post_norm, 1.0, rtol=1e-6)
    assert int(state.nonfinite_count) == 0
    assert bool(state.clipped)


def test_infinite_and_missing_numbers_are_told_apart():
    states = record(optax.identity(), [[np.inf, 1.0], [np.nan, np.inf]])
    assert np.isinf(states[0].pre_norm)
    assert np.isnan(states[1].pre_norm)
    assert int(states[1].nonfinite_count) == 2


def test_wrapping_changes_no_update():
    wrapped = optax.chain(
        clipping.recorded(clipping.clip_by_global_norm(1.0)), optax.sgd(0.1)
    )
    bare = optax.chain(clipping.clip_by_global_norm(1.0), optax.sgd(0.1))
    updates = [
        tx.update(jnp.array(GRADS[0]), tx.init(jnp.zeros(2)))[0]
        for tx in (wrapped, bare)
    ]
    chex.assert_trees_all_equal(*updates)


def deep():
    return optax.inject_hyperparams(
        lambda learning_rate: clipping.skip_nonfinite(
            optax.chain(
                clipping.recorded(clipping.clip_by_global_norm(1.0)),
                optax.sgd(learning_rate),
            )
        )
    )(learning_rate=0.1)


def test_the_record_is_found_however_deep():
    tx = deep()
    state = tx.init(jnp.zeros(2))
    assert float(clipping.clip_fraction(state)) == 0
    _, state = tx.update(jnp.array([3.0, 4.0]), state, jnp.zeros(2))
    assert float(clipping.clip_fraction(state)) == 1
    np.testing.assert_allclose(optax.tree.get(state, "pre_norm"), 5.0, rtol=1e-6)


def test_the_record_is_found_in_an_nnx_optimizer():
    model = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    tx = optax.chain(
        clipping.recorded(clipping.clip_by_layer_norm(1.0)), optax.sgd(1.0)
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    state = nnx.state(model, nnx.Param)
    for grads in (jax.tree.map(jnp.ones_like, state), optax.tree.zeros_like(state)):
        optimizer.update(model, grads)
    assert float(clipping.clip_fraction(optimizer.opt_state)) == 0.5


def test_a_state_without_exactly_one_record_is_an_error():
    one = clipping.recorded(optax.identity())
    for tx, num in ((optax.sgd(0.1), 0), (optax.chain(one, one), 2)):
        with pytest.raises(ValueError, match=f"found {num}.*recorded"):
            clipping.clip_fraction(tx.init(jnp.zeros(2)))
    _, second = optax.chain(one, one).init(jnp.zeros(2))
    assert float(clipping.clip_fraction(second)) == 0
