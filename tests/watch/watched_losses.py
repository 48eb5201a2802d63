"""Losses of every structure that a program may have, with their arguments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

WIDTH, EXAMPLES, DEPTH, TIMES = 6, 8, 4, 5


def normal(seed, *shape):
    """Standard normal numbers."""
    return jnp.asarray(
        np.random.default_rng(seed).normal(size=shape), jnp.result_type(float)
    )


def weights(seed, *shape):
    """Normal weights that keep the size of what they multiply."""
    return normal(seed, *shape) / np.sqrt(shape[-2])


def _data():
    return normal(100, EXAMPLES, WIDTH), normal(101, EXAMPLES, 3)


def _layers():
    return {
        "hidden": [
            {"w": weights(i, WIDTH, WIDTH), "b": normal(10 + i, WIDTH) / 10}
            for i in range(DEPTH)
        ],
        "head": {"w": weights(9, WIDTH, 3), "b": jnp.zeros(3)},
    }


def _stacked():
    return {"blocks": weights(0, DEPTH, WIDTH, WIDTH), "head": weights(9, WIDTH, 3)}


def linear(q, x):
    """A product and a bias."""
    made = x @ q["w"]
    return made + jnp.broadcast_to(q["b"], made.shape)


def _mlp(p, x):
    for q in p["hidden"]:
        x = jnp.tanh(linear(q, x))
    return linear(p["head"], x)


def mlp():
    """A chain of layers in a Python loop."""
    return (lambda p, x, y: jnp.mean((_mlp(p, x) - y) ** 2)), (_layers(), *_data())


def classified():
    """Integer labels, and a penalty on all parameters."""

    def loss(p, x, y):
        logs = jax.nn.log_softmax(_mlp(p, x))
        penalty = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(p))
        return -jnp.mean(jnp.take_along_axis(logs, y[:, None], 1)) + 1e-3 * penalty

    return loss, (_layers(), _data()[0], jnp.arange(EXAMPLES) % 3)


def jitted():
    """Compiled parts inside."""
    inner = jax.jit(_mlp)
    return (lambda p, x, y: jnp.mean((inner(p, x) - y) ** 2)), (_layers(), *_data())


def _scanned(p, x, step):
    return jax.lax.scan(lambda h, w: (step(h, w), None), x, p["blocks"])[0] @ p["head"]


def scanned(step=lambda h, w: jnp.tanh(h @ w)):
    """A scan over layers."""
    return (lambda p, x, y: jnp.mean((_scanned(p, x, step) - y) ** 2)), (
        _stacked(),
        *_data(),
    )


def rematerialised():
    """The same, whose body is computed again on the way back."""
    return scanned(jax.checkpoint(lambda h, w: jnp.tanh(h @ w)))


def with_a_policy():
    """The same, but for its products."""
    policy = jax.checkpoint_policies.dots_saveable
    return scanned(jax.checkpoint(lambda h, w: jnp.tanh(h @ w), policy=policy))


def reversed_scan():
    """A scan from the last slice to the first."""

    def loss(p, x, y):
        def step(h, w):
            return jnp.tanh(h @ w), None

        h, _ = jax.lax.scan(step, x, p["blocks"], reverse=True)
        return jnp.mean((h @ p["head"] - y) ** 2)

    return loss, (_stacked(), *_data())


def residual():
    """Skip connections around two products."""

    def loss(p, x, y):
        for q in p:
            x = x + jnp.tanh(x @ q["up"]) @ q["down"]
        return jnp.mean((x - y) ** 2)

    params = [
        {"up": weights(i, WIDTH, 9), "down": weights(20 + i, 9, WIDTH)}
        for i in range(3)
    ]
    return loss, (params, _data()[0], normal(7, EXAMPLES, WIDTH))


def auxiliary():
    """A second loss that grows beside the way."""

    def loss(p, x, y):
        more = 0.0
        for q in p["hidden"]:
            x = jax.nn.relu(linear(q, x))
            more = more + jnp.mean(x**2)
        return jnp.mean((linear(p["head"], x) - y) ** 2) + more / 10

    return loss, (_layers(), *_data())


def two_heads():
    """Two heads on one trunk."""

    def loss(p, x, y):
        h = jnp.tanh(x @ p["trunk"])
        return jnp.mean((h @ p["policy"] - y) ** 2) + jnp.mean((h @ p["value"]) ** 2)

    params = {
        "trunk": weights(0, WIDTH, WIDTH),
        "policy": weights(1, WIDTH, 3),
        "value": weights(2, WIDTH, 1),
    }
    return loss, (params, *_data())


def recurrent():
    """A scan over time."""

    def loss(p, x, y):
        def cell(h, x):
            return jnp.tanh(x @ p["cell"]["wx"] + h @ p["cell"]["wh"]), None

        start = jnp.zeros((EXAMPLES, WIDTH), x.dtype)
        h, _ = jax.lax.scan(cell, start, jnp.swapaxes(x, 0, 1))
        return jnp.mean((h @ p["head"] - y) ** 2)

    cell = {"wx": weights(0, WIDTH, WIDTH), "wh": weights(1, WIDTH, WIDTH)}
    params = {"cell": cell, "head": weights(2, WIDTH, 3)}
    return loss, (params, normal(3, EXAMPLES, TIMES, WIDTH), _data()[1])


def deep_recurrent():
    """Two recurrent layers in one scan over time."""

    def loss(p, x, y):
        def cell(carry, x):
            found = []
            for q, h in zip(p["cells"], carry, strict=True):
                x = jnp.tanh(x @ q["wx"] + h @ q["wh"])
                found.append(x)
            return found, x

        start = [jnp.zeros((EXAMPLES, WIDTH), x.dtype)] * 2
        _, hs = jax.lax.scan(cell, start, jnp.swapaxes(x, 0, 1))
        return jnp.mean((hs[-1] @ p["head"] - y) ** 2)

    cells = [
        {"wx": weights(2 * i, WIDTH, WIDTH), "wh": weights(2 * i + 1, WIDTH, WIDTH)}
        for i in range(2)
    ]
    params = {"cells": cells, "head": weights(9, WIDTH, 3)}
    return loss, (params, normal(3, EXAMPLES, TIMES, WIDTH), _data()[1])


def mapped():
    """A loss of one example, mapped."""

    def one(p, x, y):
        return jnp.sum((_mlp(p, x) - y) ** 2)

    def loss(p, x, y):
        return jnp.mean(jax.vmap(one, in_axes=(None, 0, 0))(p, x, y))

    return loss, (_layers(), *_data())


def with_a_rule():
    """An activation with a derivative of its own."""

    @jax.custom_vjp
    def clipped(x):
        return jnp.clip(x, -1, 1)

    clipped.defvjp(lambda x: (clipped(x), None), lambda _, w: (w,))

    def loss(p, x, y):
        for q in p["hidden"]:
            x = clipped(linear(q, x))
        return jnp.mean((linear(p["head"], x) - y) ** 2)

    return loss, (_layers(), *_data())


def embedded():
    """Tokens, a table, and a head that is the table again."""

    def loss(p, tokens, y):
        h = p["table"][tokens]
        for w in p["hidden"]:
            h = jnp.tanh(h @ w)
        logs = jax.nn.log_softmax(h @ p["table"].T)
        return -jnp.mean(jnp.take_along_axis(logs, y[..., None], -1))

    params = {
        "table": weights(0, 11, WIDTH),
        "hidden": [weights(i, WIDTH, WIDTH) for i in (1, 2)],
    }
    tokens = jnp.arange(EXAMPLES * TIMES).reshape(EXAMPLES, TIMES) % 11
    return loss, (params, tokens, (tokens + 1) % 11)


def frozen():
    """What is not trained before, beside and behind what is."""

    def loss(p, fixed, x, y):
        x = jnp.tanh(linear(fixed["first"], x))
        for w, q in zip(fixed["hidden"], p, strict=True):
            x = jnp.tanh(x @ w + x @ q["down"] @ q["up"])
        return jnp.mean((x @ fixed["head"] - y) ** 2)

    params = [
        {"down": weights(i, WIDTH, 2), "up": weights(20 + i, 2, WIDTH)}
        for i in range(3)
    ]
    fixed = {
        "first": {"w": weights(7, WIDTH, WIDTH), "b": normal(8, WIDTH)},
        "hidden": [weights(30 + i, WIDTH, WIDTH) for i in range(3)],
        "head": weights(9, WIDTH, 3),
    }
    return loss, (params, fixed, *_data())


def used_in_another_order():
    """Inputs that are handed in otherwise than they are used."""

    def loss(p, more, x):
        h = jnp.tanh(x @ p["first"])
        return jnp.mean((h * (more @ p["gate"])) ** 2)

    params = {"first": weights(0, 4, 5), "gate": weights(1, 3, 5)}
    return loss, (params, normal(2, EXAMPLES, 3), normal(3, EXAMPLES, 4))


def accumulated():
    """Micro-batches of a scan, in each of them a scan over layers."""
    inner, (p, x, y) = rematerialised()

    def loss(p, x, y):
        def part(total, given):
            return total + inner(p, *given), None

        parts = x.reshape(4, 2, WIDTH), y.reshape(4, 2, 3)
        return jax.lax.scan(part, jnp.zeros((), x.dtype), parts)[0] / 4

    return loss, (p, x, y)


def accumulated_by_index():
    """Micro-batches that a loop with a counter cuts out."""
    inner, (p, x, y) = mlp()

    def loss(p, x, y):
        def part(i, total):
            cut = [jax.lax.dynamic_slice_in_dim(a, 2 * i, 2) for a in (x, y)]
            return total + inner(p, *cut)

        return jax.lax.fori_loop(0, 4, part, jnp.zeros((), x.dtype)) / 4

    return loss, (p, x, y)


def chunked():
    """A cross entropy whose logits are made a few examples at a time."""

    def loss(p, x, y):
        for q in p["hidden"]:
            x = jnp.tanh(linear(q, x))

        def chunk(given):
            h, label = given
            logs = jax.nn.log_softmax(linear(p["head"], h))
            return jnp.take_along_axis(logs, label[:, None], 1)[:, 0]

        parts = x.reshape(4, 2, WIDTH), y.reshape(4, 2)
        return -jnp.mean(jax.lax.map(jax.checkpoint(chunk), parts))

    return loss, (_layers(), _data()[0], jnp.arange(EXAMPLES) % 3)


def branched():
    """Two layers in one branch, one in the other, between two more."""

    def loss(p, x, y):
        def deep(h):
            return jnp.tanh(linear(p["hidden"][2], jnp.tanh(linear(p["hidden"][1], h))))

        def shallow(h):
            return jnp.sin(linear(p["hidden"][3], h))

        h = jnp.tanh(linear(p["hidden"][0], x))
        h = jax.lax.cond(jnp.sum(y) > -1e9, deep, shallow, h)
        return jnp.mean((linear(p["head"], h) - y) ** 2)

    return loss, (_layers(), *_data())


def switched():
    """One of several layers for each micro-batch."""

    def loss(p, x, y):
        def part(total, given):
            i, x, y = given
            steps = [lambda h, q=q: jnp.tanh(linear(q, h)) for q in p["hidden"][:3]]
            h = jax.lax.switch(i, steps, x)
            return total + jnp.mean((linear(p["head"], h) - y) ** 2), None

        parts = jnp.array([0, 2, 2, 0]), x.reshape(4, 2, WIDTH), y.reshape(4, 2, 3)
        return jax.lax.scan(part, jnp.zeros((), x.dtype), parts)[0]

    params = _layers()
    return loss, ({**params, "hidden": params["hidden"][:3]}, *_data())


def sharded(check=True, devices=1):
    """One program for each device: the loss of a part of the batch, and their mean."""
    inner, args = rematerialised()
    mesh = jax.make_mesh(
        (devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    spec = jax.sharding.PartitionSpec

    def loss(p, x, y):
        def part(p, x, y):
            return jax.lax.pmean(inner(p, x, y), "data")

        return jax.shard_map(
            part,
            mesh=mesh,
            in_specs=(spec(), spec("data"), spec("data")),
            out_specs=spec(),
            check_vma=check,
        )(p, x, y)

    return loss, args


HIDDEN = tuple(f"hidden.{i}" for i in range(DEPTH))
BLOCKS = tuple(f"blocks.{i}" for i in range(DEPTH))
LOSSES = {
    mlp: (*HIDDEN, "head"),
    classified: (*HIDDEN, "head"),
    jitted: (*HIDDEN, "head"),
    scanned: (*BLOCKS, "head"),
    rematerialised: (*BLOCKS, "head"),
    with_a_policy: (*BLOCKS, "head"),
    reversed_scan: (*BLOCKS[::-1], "head"),
    residual: ("0", "1", "2"),
    auxiliary: (*HIDDEN, "head"),
    two_heads: ("trunk", "policy", "value"),
    recurrent: ("cell", "head"),
    deep_recurrent: ("cells.0", "cells.1", "head"),
    mapped: (*HIDDEN, "head"),
    with_a_rule: (*HIDDEN, "head"),
    frozen: ("0", "1", "2"),
    used_in_another_order: ("first+gate",),
    embedded: ("table", "hidden.0", "hidden.1", "table@2"),
    accumulated: (*BLOCKS, "head"),
    accumulated_by_index: (*HIDDEN, "head"),
    chunked: (*HIDDEN, "head"),
    branched: (HIDDEN[0], HIDDEN[3], *HIDDEN[1:3], "head"),
    switched: (*HIDDEN[:3], "head"),
    sharded: (*BLOCKS, "head"),
}


@functools.cache
def plain(make):
    """Value and gradients without watching, compiled as they would be."""
    loss, args = make()
    return jax.jit(jax.value_and_grad(loss))(*args)
