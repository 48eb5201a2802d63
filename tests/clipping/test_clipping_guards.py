"""Skipping of non-finite and huge gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradstab import clipping

GOOD = jnp.array([1.0, -2.0])
BAD = [jnp.array([1.0, jnp.nan]), jnp.array([-jnp.inf, 1.0])]
MOMENTUM = optax.sgd(0.1, momentum=0.9)
HUGE = [jnp.array([60.0, 80.0]), jnp.array([3e38, 3e38])]


def run(tx, gradients):
    state, updates = tx.init(jnp.zeros(2)), []
    for grads in gradients:
        update, state = jax.jit(tx.update)(grads, state)
        updates.append(update)
    return updates, state


@pytest.mark.parametrize("guard", ["nonfinite", "large"])
def test_skipped_steps_are_as_if_they_had_not_been(guard):
    inner = MOMENTUM
    tx = {
        "nonfinite": clipping.skip_nonfinite(inner),
        "large": clipping.skip_large(inner, 50.0),
    }[guard]
    bad = BAD + (HUGE if guard == "large" else [])
    updates, state = run(tx, [GOOD, *bad, GOOD])
    expected, expected_state = run(inner, [GOOD, GOOD])
    chex.assert_trees_all_equal(state.inner, expected_state)
    chex.assert_trees_all_equal([updates[0], updates[-1]], expected)
    chex.assert_trees_all_equal(updates[1:-1], [jnp.zeros(2)] * len(bad))
    assert int(state.skip_count) == len(bad)
    assert not bool(state.skipped)


def test_a_guard_before_the_optimiser_in_a_chain_would_pollute_it():
    zeroed = optax.chain(optax.zero_nans(), MOMENTUM)
    updates, _ = run(zeroed, [GOOD, jnp.full(2, jnp.nan)])
    assert np.all(np.abs(updates[1]) > 0.01)  # moves along the old momentum
    updates, _ = run(clipping.skip_nonfinite(MOMENTUM), [GOOD, BAD[0]])
    np.testing.assert_array_equal(updates[1], 0.0)


def test_huge_gradients_pass_the_guard_against_nonfinite_ones():
    _, state = run(clipping.skip_nonfinite(optax.sgd(1.0)), HUGE)
    assert int(state.skip_count) == 0


@pytest.mark.parametrize("max_norm", [100.0, np.inf])
def test_the_bound_itself_is_accepted(max_norm):
    updates, _ = run(clipping.skip_large(optax.sgd(1.0), max_norm), [HUGE[0], BAD[1]])
    np.testing.assert_array_equal(updates[0], -HUGE[0])
    np.testing.assert_array_equal(updates[1], 0.0)


def test_float16_gradients_are_not_skipped_because_their_squares_overflow():
    tx = clipping.skip_large(optax.identity(), 2000.0)
    grads = jnp.full(2, 1000.0, jnp.float16)
    updates, _ = tx.update(grads, tx.init(grads))
    np.testing.assert_array_equal(updates, grads)


def test_a_guard_gives_up_after_the_bad_gradients_allowed_in_a_row():
    tx = clipping.skip_nonfinite(optax.sgd(1.0), max_consecutive=2)
    gradients = [BAD[0], BAD[0], GOOD, BAD[0], BAD[0], BAD[0]]
    updates, state = run(tx, gradients)
    finite = [bool(jnp.all(jnp.isfinite(update))) for update in updates]
    assert finite == [True] * 5 + [False]
    assert int(state.skip_count) == 4
    assert int(state.consecutive) == 3


def test_what_is_inside_may_change_the_dtype_and_need_parameters():
    cast = optax.stateless(
        lambda updates, params: optax.tree.cast(updates, jnp.float16)
    )
    tx = clipping.skip_nonfinite(optax.chain(optax.add_decayed_weights(1.0), cast))
    for grads in (GOOD, BAD[0]):
        updates, _ = tx.update(grads, tx.init(GOOD), GOOD)
        chex.assert_type(updates, jnp.float16)


def test_extra_arguments_reach_what_is_inside():
    def update(updates, state, params=None, *, value, **extra_args):
        return jax.tree.map(lambda g: g * value, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda params: (), update)
    tx = clipping.recorded(clipping.skip_nonfinite(inner))
    updates, _ = tx.update(GOOD, tx.init(GOOD), value=3.0)
    np.testing.assert_array_equal(updates, 3 * GOOD)
