"""What is summed up in a row can be had apart, and jumps are named by it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from watched_losses import EXAMPLES, TIMES, accumulated, normal, recurrent

import gradstab as gs
from gradstab.watch import taps
from gradstab.watch.differentiating import _watching
from gradstab.watch.measures import Level

BACKWARD = [taps.by_tokens]
if hasattr(jax.custom_vjp, "defvjp_with_logs"):
    BACKWARD.append(taps.by_logs)


def _watched(loss, backward, per):
    return jax.jit(_watching(loss, 0, False, Level.LIGHT, None, None, backward, per))


@pytest.mark.parametrize("backward", BACKWARD, ids=lambda b: b.__name__)
def test_iterations_and_examples_are_those_of_each_state(backward):
    loss, (p, x, y) = recurrent()
    (_, stats), _ = _watched(loss, backward, ("iteration", "example"))(p, x, y)
    detail = stats.details["cell"]
    assert detail.axes == ("iteration", "example")
    assert stats.details["head"].axes == ("example",)

    def unrolled(zeros):
        h, found = jnp.zeros((EXAMPLES, x.shape[-1])), []
        for t in range(TIMES):
            cell = p["cell"]
            h = jnp.tanh(x[:, t] @ cell["wx"] + h @ cell["wh"]) + zeros[t]
            found.append(h)
        return jnp.mean((h @ p["head"] - y) ** 2), jnp.stack(found)

    zeros = jnp.zeros((TIMES, EXAMPLES, x.shape[-1]))
    slopes, states = jax.jit(jax.grad(unrolled, has_aux=True))(zeros)
    for way, arrays in enumerate((states, slopes)):
        true = np.sqrt(np.mean(np.square(arrays), axis=-1))
        np.testing.assert_allclose(detail.rms[..., way], true, rtol=1e-5)
    whole = np.sqrt(np.mean(np.square(detail.rms), axis=(0, 1)))
    np.testing.assert_allclose(stats.forward_rms[0], whole[0], rtol=1e-5)
    assert not detail.nonfinite.any()


def test_without_asking_nothing_is_apart():
    loss, args = accumulated()
    (_, stats), _ = jax.eval_shape(gs.value_and_grad(loss), *args)
    assert stats.details is None
    (_, stats), _ = jax.eval_shape(gs.value_and_grad(loss, per="iteration"), *args)
    assert stats.details["blocks.2"].rms.shape == (4, 2)


def test_an_example_that_is_not_finite_is_named():
    loss, (p, x, y) = accumulated()
    step = jax.jit(gs.value_and_grad(loss, per=("iteration", "example")))
    (_, stats), _ = step(p, x.at[5].set(jnp.nan), y)
    found = stats.nonfinite()
    # The sixth example is the second one of the third micro-batch.
    assert (found.layer, found.step, found.example) == ("blocks.0", 2, 1)
    assert str(found).endswith("'blocks.0' (forward) at iteration 2, example 1")


def test_a_history_takes_statistics_with_parts(tmp_path):
    loss, args = recurrent()
    (_, stats), _ = gs.value_and_grad(loss, per="iteration")(*args)
    history = gs.History(tmp_path)
    history.append(0, stats)
    assert "details" not in history.columns
    assert history["forward_rms"].shape == (1, 3)


def test_slices_behind_a_cast_belong_to_their_layers():
    def loss(p, x):
        blocks = p["blocks"].astype(jnp.float16)
        h, _ = jax.lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, blocks)
        return jnp.mean(h.astype(jnp.float32) ** 2)

    params = {"blocks": normal(0, 3, 6, 6)}
    (_, stats), grads = gs.value_and_grad(loss)(
        params, normal(1, 8, 6).astype("float16")
    )
    norms = [np.linalg.norm(g) for g in grads["blocks"]]
    np.testing.assert_allclose(stats.gradient_norm[:3], norms, rtol=1e-5)


def test_what_cannot_be_apart_is_refused():
    with pytest.raises(ValueError, match="'iteration', 'device'"):
        gs.value_and_grad(lambda w: w, per="layer")


# Jumps


@functools.cache
def _run():
    def loss(p, x):
        for w in p:
            x = jnp.sin(x @ w)
        return jnp.mean(x**2)

    step = jax.jit(gs.value_and_grad(loss))
    params = [normal(i, 6, 6) / 3 for i in range(3)]
    earlier = [step(params, normal(10 + i, 32, 6))[0][1] for i in range(20)]
    reference = jax.tree.map(lambda *x: jnp.stack(x), *earlier)
    return step, params, reference


def test_a_step_like_those_before_has_no_jump():
    step, params, reference = _run()
    for seed in range(50, 60):
        assert step(params, normal(seed, 32, 6))[0][1].spike(reference) is None


@pytest.mark.parametrize(("size", "jumps"), [(3.5, False), (4.6, True)])
def test_a_jump_is_said_beyond_its_threshold_only(size, jumps):
    step, params, reference = _run()
    (_, stats), _ = step(params, normal(50, 32, 6))
    backward = stats.backward_rms.at[:2].multiply(size)
    found = dataclasses.replace(stats, backward_rms=backward).spike(reference)
    # What spoils the gradient of two layers is the third.
    assert (found and found[:2]) == (("2", "backward") if jumps else None)


def test_a_reference_of_one_step_is_refused():
    _, _, reference = _run()
    one = jax.tree.map(lambda x: x[0], reference)
    with pytest.raises(ValueError, match="several earlier"):
        one.spike(one)
