"""Losses and metrics against cases known on paper."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstab.training import (
    accuracy,
    cross_entropy,
    mean_squared_error,
    with_auxiliary,
)

EPS = float(jnp.finfo(jnp.float32).eps)


@pytest.mark.parametrize("shape", [(5,), (2, 7)])
@pytest.mark.parametrize("classes", [2, 10])
def test_uninformed_logits_cost_the_logarithm_of_the_classes(shape, classes):
    loss = cross_entropy(jnp.ones((*shape, classes)), jnp.zeros(shape, jnp.int32))
    np.testing.assert_allclose(loss, np.log(classes), rtol=2 * EPS)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_the_gradient_of_cross_entropy_is_softmax_minus_one_hot(dtype):
    logits = jnp.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], dtype)
    y = jnp.array([2, 0])
    grad = jax.grad(cross_entropy)(logits, y)
    expected = (jax.nn.softmax(logits.astype(jnp.float32)) - jax.nn.one_hot(y, 3)) / 2
    assert cross_entropy(logits, y).dtype == jnp.float32
    # Rounded once, to the dtype of the logits.
    chex.assert_trees_all_close(
        grad.astype(jnp.float32), expected, atol=float(jnp.finfo(dtype).eps)
    )


def test_a_large_logit_overflows_nothing():
    logits = jnp.array([[1e4, 0.0]], jnp.float32)
    assert float(cross_entropy(logits, jnp.array([1]))) == 1e4


def test_auxiliary_heads_add_their_weighted_losses_and_only_in_training():
    y = jnp.array([1.0, 2.0])
    main, first, second = y + 1, y + 2, y + 3
    loss = with_auxiliary(mean_squared_error, weight=0.3)
    np.testing.assert_allclose(
        loss((main, (first, second)), y), 1 + 0.3 * (4 + 9), rtol=4 * EPS
    )
    assert float(loss(main, y)) == 1.0
    assert float(accuracy((jnp.eye(2), (jnp.zeros((2, 2)),)), jnp.array([0, 1]))) == 1


@pytest.mark.parametrize("metric", [cross_entropy, accuracy])
def test_labels_of_the_wrong_kind_are_refused(metric):
    with pytest.raises(TypeError, match="labels have dtype float32"):
        metric(jnp.zeros((3, 2)), jnp.zeros(3))
    with pytest.raises(ValueError, match=r"labels \(3, 1\).*expected .*\(3,\)"):
        metric(jnp.zeros((3, 2)), jnp.zeros((3, 1), jnp.int32))


def test_targets_are_not_broadcast():
    with pytest.raises(ValueError, match=r"\(3, 1\) and targets \(3,\)"):
        mean_squared_error(jnp.zeros((3, 1)), jnp.zeros(3))
