"""The first place that is not finite is named: layer, iteration, direction."""

import functools

import jax
import jax.numpy as jnp
import pytest
from watched_losses import normal

import gradstab as gs

DEPTH, WIDTH, TIMES = 5, 4, 6


@functools.cache
def _plant(part, value):
    """An identity that spoils one entry of the data, or of the gradient, on demand."""

    @jax.custom_vjp
    def spoiled(h, on):
        return jnp.where(on & (part == "forward"), h.at[0, 0].set(value), h)

    def backward(on, w):
        return jnp.where(on & (part == "backward"), w.at[0, 0].set(value), w), None

    spoiled.defvjp(lambda h, on: (spoiled(h, on), on), backward)
    return spoiled


def _listed(plant):
    def loss(p, x, where):
        for i, w in enumerate(p["blocks"]):
            x = plant(jnp.tanh(x @ w), where == i)
        return jnp.mean(plant(x @ p["head"], where == DEPTH) ** 2)

    return loss, {"blocks": list(_weights()), "head": normal(9, WIDTH, 2)}


def _scanned(plant, remat=False):
    def loss(p, x, where):
        def step(h, given):
            w, i = given
            return plant(jnp.tanh(h @ w), where == i), None

        body = jax.checkpoint(step) if remat else step
        h, _ = jax.lax.scan(body, x, (p["blocks"], jnp.arange(DEPTH)))
        return jnp.mean(plant(h @ p["head"], where == DEPTH) ** 2)

    return loss, {"blocks": _weights(), "head": normal(9, WIDTH, 2)}


def _weights():
    return normal(0, DEPTH, WIDTH, WIDTH) / 2


KINDS = {
    "list": _listed,
    "scan": _scanned,
    "remat": functools.partial(_scanned, remat=True),
}
# What is done to what leaves the last product, without a parameter, is the loss.
NAMES = [*(f"blocks.{i}" for i in range(DEPTH)), "loss"]


@functools.cache
def _step(kind, part, value):
    loss, params = KINDS[kind](_plant(part, value))
    return jax.jit(gs.value_and_grad(loss)), params


@pytest.mark.parametrize("where", range(DEPTH + 1))
@pytest.mark.parametrize("value", [jnp.nan, -jnp.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("part", ["forward", "backward"])
@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.cases) for k in KINDS]
)
def test_a_plant_is_named(kind, part, value, where):
    step, params = _step(kind, part, value)
    (_, stats), _ = step(params, normal(3, 3, WIDTH), where)
    found = stats.nonfinite()
    assert (found.layer, found.part, found.step) == (NAMES[where], part, None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_step_has_no_such_place(kind):
    step, params = _step(kind, "forward", jnp.nan)
    (_, stats), _ = step(params, normal(3, 3, WIDTH), -1)
    assert stats.nonfinite() is None


@functools.cache
def _recurrent(part):
    plant = _plant(part, jnp.nan)

    def loss(p, x, time, layer):
        def cell(carry, given):
            x, t = given
            found = []
            for i, (q, h) in enumerate(zip(p["cells"], carry, strict=True)):
                h = plant(h, (t == time) & (layer == i))
                x = jnp.tanh(x @ q["wx"] + h @ q["wh"])
                found.append(x)
            return found, x

        start = [jnp.zeros((3, WIDTH), x.dtype)] * 3
        _, hs = jax.lax.scan(cell, start, (x, jnp.arange(TIMES)))
        return jnp.mean((hs[-1] @ p["head"]) ** 2)

    cells = [
        {"wx": normal(i, WIDTH, WIDTH), "wh": normal(9 + i, WIDTH, WIDTH)}
        for i in range(3)
    ]
    params = {"cells": cells, "head": normal(30, WIDTH, 2)}
    return jax.jit(gs.value_and_grad(loss)), params


@pytest.mark.parametrize("time", range(1, TIMES))
@pytest.mark.parametrize("layer", [0, 1])
def test_the_step_of_a_loop_over_time_is_named(layer, time):
    step, params = _recurrent("forward")
    (_, stats), _ = step(params, normal(3, TIMES, 3, WIDTH), time, layer)
    found = stats.nonfinite()
    assert found[:3] == (f"cells.{layer}", "forward", time)
    assert str(found).endswith(f"'cells.{layer}' (forward) at iteration {time}")


@pytest.mark.parametrize("time", range(1, TIMES))
@pytest.mark.parametrize("layer", [0, 1])
def test_the_step_back_in_a_loop_over_time_is_named(layer, time):
    """The state before the plant is the last whose gradient is not finite."""
    step, params = _recurrent("backward")
    (_, stats), _ = step(params, normal(3, TIMES, 3, WIDTH), time, layer)
    assert stats.nonfinite()[:3] == (f"cells.{layer}", "backward", time - 1)


def test_a_loss_that_is_not_finite_is_no_layers_fault():
    def loss(w, x):
        return jnp.mean(x @ w) / 0

    (_, stats), _ = gs.value_and_grad(loss)(jnp.eye(WIDTH), normal(0, 3, WIDTH))
    assert stats.nonfinite()[:3] == ("loss", "forward", None)


def test_parameters_come_first():
    loss, params = KINDS["scan"](_plant("forward", jnp.nan))
    params = {**params, "blocks": params["blocks"].at[2, 0, 0].set(jnp.nan)}
    full = jax.jit(gs.value_and_grad(loss, level="full"))
    (_, stats), _ = full(params, normal(3, 3, WIDTH), -1)
    assert stats.nonfinite()[:3] == ("blocks.2", "parameters", None)


def test_of_several_steps_one_must_be_taken():
    step, params = _step("scan", "forward", jnp.nan)
    x = normal(3, 3, WIDTH)
    several = jax.lax.map(lambda i: step(params, x, i)[0][1], jnp.arange(2))
    with pytest.raises(ValueError, match="take one"):
        several.nonfinite()
    one = jax.tree.map(lambda leaf: leaf[1], several)
    assert one.nonfinite().layer == "blocks.1"
