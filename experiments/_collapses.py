"""Small networks in training: runs that go well, and five ways to come to grief.

Four kinds of networks learn the digits, each by Adam and by SGD with momentum. All runs
of one kind of network are one program, with what differs between them as its inputs.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstab as gs

FAULTS = (
    "learning rate too high",
    "initial scale too large",
    "poisoned batch",
    "low-precision attention",
    "growing head",
)
HEALTHY = "healthy"
KINDS = "mlp", "residual", "lstm", "transformer"
# Rates at which both train well; healthy runs have these and less.
RATES = {"adam": 2e-3, "sgd": 5e-2}
ROWS = 8  # of an image: time steps, or tokens


class Plan(NamedTuple):
    """What makes a run, each ``(runs,)``.

    Attributes:
        seed: of weights, batches and labels.
        adam: whether Adam makes the steps; else SGD with momentum.
        rate: the largest learning rate.
        warm_up: steps in which the rate rises to it.
        decay: the share of the rate that is lost by the end, along a cosine.
        noise: share of labels that are drawn anew in every step.
        scale: of the initial weights, 1 for what is usual.
        poisoned: the step whose batch is poisoned; -1 for none.
        strength: by what its inputs are multiplied.
        growth: by which part the head grows in every step.
        begin: the step from which on it does.
    """

    seed: Any
    adam: Any
    rate: Any
    warm_up: Any
    decay: Any
    noise: Any
    scale: Any
    poisoned: Any
    strength: Any
    growth: Any
    begin: Any


def draw_plan(rng, fault: str, optimizer: str, steps: int, /) -> Plan:
    """A run with the variety of good practice, and perhaps a fault.

    Args:
        rng: a NumPy generator.
        fault: one of `FAULTS`, or `HEALTHY`.
        optimizer: one of `RATES`.
        steps: of the run.
    """
    plan = Plan(
        seed=int(rng.integers(2**31)),
        adam=optimizer == "adam",
        rate=RATES[optimizer] * math.exp(rng.uniform(math.log(0.2), 0)),
        warm_up=int(rng.choice([1, 20, 100])),
        decay=float(rng.choice([0, 0.9])),
        noise=rng.uniform(0, 0.2),
        scale=1.0,
        poisoned=-1,
        strength=1.0,
        growth=0.0,
        begin=steps,
    )
    begin = int(rng.integers(steps // 4, steps // 2))
    match fault:
        case "learning rate too high":
            # By so much too high is where a warm-up over half the run ends.
            rate = RATES[optimizer] * math.exp(rng.uniform(math.log(10), math.log(300)))
            return plan._replace(rate=rate, warm_up=steps // 2, decay=0.0)
        case "initial scale too large":
            return plan._replace(scale=math.exp(rng.uniform(math.log(2), math.log(8))))
        case "poisoned batch":
            strength = math.exp(rng.uniform(math.log(10), math.log(1000)))
            return plan._replace(poisoned=begin, strength=strength, decay=0.0)
        case "growing head":
            return plan._replace(begin=begin, growth=rng.uniform(0.01, 0.1))
        case "low-precision attention":
            rate = RATES[optimizer] * math.exp(rng.uniform(0, math.log(10)))
            return plan._replace(rate=rate)
    return plan


def onset(plan: Plan, /) -> np.ndarray:
    """The step from which on something is wrong with a run, ``(runs,)``."""
    late = np.where(plan.growth > 0, plan.begin, 0)
    return np.where(plan.poisoned >= 0, plan.poisoned, late)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a program is of.

    Attributes:
        kind: of `KINDS`.
        low_precision: whether attention takes exponentials in float16, and does not
            subtract the largest logit.
        width: of the layers.
        steps: of a run.
        clock: every how many steps the Jacobians of layers are measured.
        batch_size: examples of a step.
    """

    kind: str
    low_precision: bool = False
    width: int = 16
    steps: int = 400
    clock: int = 20
    batch_size: int = 32


def train(setting: Setting, plan: Plan, /) -> dict[str, Any]:
    """Train all runs of a plan.

    Returns:
        Of every step ``stats`` (`gradstab.Statistics`) and ``clean``, the loss on
        examples that nothing was done to, ``(runs, steps, ...)``; of every so manieth
        ``largest``, the largest singular values of the Jacobians of the layers, and
        ``alignment`` of neighbours, NaN in the steps between.
    """
    data = gs.data.load("digits")
    x, y = jnp.asarray(data.x_train), jnp.asarray(data.y_train)
    x = x.reshape(len(x), ROWS, -1)
    clean = x[: 2 * setting.batch_size], y[: 2 * setting.batch_size]
    arrays = Plan(*(jnp.asarray(a) for a in plan))
    run = jax.jit(jax.vmap(functools.partial(_run, setting, (x, y), clean)))
    return jax.device_get(run(arrays))


def _run(setting, data, clean, plan):
    key_w, key = jax.random.split(jax.random.key(plan.seed))
    layers = chain(setting)
    params = initialise(layers, key_w, plan.scale)
    adam, sgd = optax.scale_by_adam(), optax.trace(0.9)
    loss = functools.partial(_loss, layers)
    watched = gs.value_and_grad(loss)

    def step(carry, number):
        params, state, slow = carry
        late = number >= plan.begin
        head = params["head"] * jnp.where(late, 1 + plan.growth, 1.0)
        params = params | {"head": head}
        slow = jax.lax.cond(
            number % setting.clock == 0,
            lambda: spectra(layers, params, clean[0][:2]),
            lambda: jax.tree.map(lambda a: jnp.full_like(a, jnp.nan), slow),
        )
        batch = _batch(setting, plan, data, jax.random.fold_in(key, number), number)
        (_, stats), grads = watched(params, *batch)
        moves = adam.update(grads, state[0]), sgd.update(grads, state[1])
        (a, b), state = zip(*moves, strict=True)
        rate = _rate(setting, plan, number)
        updates = jax.tree.map(lambda a, b: -rate * jnp.where(plan.adam, a, b), a, b)
        stats = stats.with_updates(updates, params)
        found = {"stats": stats, "clean": loss(params, *clean)}
        found |= dict(zip(("largest", "alignment"), slow, strict=True))
        return (optax.apply_updates(params, updates), state, slow), found

    slow = jnp.full(len(layers), jnp.nan), jnp.full(len(layers) - 1, jnp.nan)
    carry = params, (adam.init(params), sgd.init(params)), slow
    return jax.lax.scan(step, carry, jnp.arange(setting.steps))[1]


def _rate(setting, plan, number):
    rising = jnp.minimum((number + 1) / plan.warm_up, 1)
    done = number / setting.steps
    return plan.rate * rising * (1 - plan.decay * (1 - jnp.cos(jnp.pi * done)) / 2)


def _batch(setting, plan, data, key, number):
    """Examples and their labels, some of which are any; perhaps poisoned."""
    x, y = data
    keys, shape = jax.random.split(key, 3), (setting.batch_size,)
    rows = jax.random.randint(keys[0], shape, 0, len(y))
    drawn = jax.random.randint(keys[1], shape, 0, 10)
    poisoned = number == plan.poisoned
    noise = jnp.where(poisoned, 1.0, plan.noise)
    labels = jnp.where(jax.random.bernoulli(keys[2], noise, shape), drawn, y[rows])
    return x[rows] * jnp.where(poisoned, plan.strength, 1.0), labels


def _loss(layers, params, x, y):
    logits = jax.vmap(lambda one: forward(layers, params, one))(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


# Networks: layers one after the other, each of one example


class Layer(NamedTuple):
    """A layer.

    Attributes:
        name: of its parameters.
        shapes: of its weights, ``(n_in, n_out)`` each.
        apply: takes these and what comes from the layer before.
    """

    name: str
    shapes: tuple
    apply: Callable


def initialise(layers, key, scale):
    """Weights of variance ``scale``^2 / fan-in: of a layer one array, or several."""
    params = {}
    for layer, own in zip(layers, jax.random.split(key, len(layers)), strict=True):
        keys = jax.random.split(own, len(layer.shapes))
        weights = [
            scale * jax.random.normal(k, shape) / shape[0] ** 0.5
            for k, shape in zip(keys, layer.shapes, strict=True)
        ]
        params[layer.name] = weights[0] if len(weights) == 1 else weights
    return params


def forward(layers, params, x):
    """The logits of one example."""
    for layer in layers:
        x = layer.apply(params[layer.name], x)
    return x


def chain(setting: Setting, /) -> tuple[Layer, ...]:
    """The layers of a network, each a function of one example."""
    width, columns = setting.width, ROWS
    square = width, width
    match setting.kind:
        case "mlp":
            hidden = [Layer(f"layer{i}", (square,), _relu) for i in range(1, 5)]
            first = Layer("layer0", ((ROWS * columns, width),), _relu)
            return first, *hidden, Layer("head", ((width, 10),), _linear)
        case "residual":
            first = Layer("embed", ((ROWS * columns, width),), _linear)
            blocks = [Layer(f"block{i}", (square, square), _block) for i in range(4)]
            return first, *blocks, Layer("head", ((width, 10),), _normed_head)
        case "lstm":
            gates = [
                Layer(f"lstm{i}", ((n, 4 * width), (width, 4 * width)), _lstm)
                for i, n in enumerate((columns, width))
            ]
            return *gates, Layer("head", ((width, 10),), _last_head)
        case "transformer":
            first = Layer("embed", ((columns, width), (ROWS, width)), _embed)
            attend = functools.partial(_attention, setting.low_precision)
            blocks = []
            for i in range(2):
                blocks += [
                    Layer(f"attention{i}", (square,) * 4, attend),
                    Layer(f"mlp{i}", ((width, 2 * width), (2 * width, width)), _block),
                ]
            return first, *blocks, Layer("head", ((width, 10),), _mean_head)
    raise ValueError(setting.kind)


def _relu(w, h):
    return jax.nn.relu(2**0.5 * h.reshape(-1) @ w)


def _linear(w, h):
    return h.reshape(-1) @ w


def _block(w, h):
    return h + jax.nn.relu(_normalised(h) @ w[0]) @ w[1] / 2


def _normed_head(w, h):
    return _normalised(h) @ w


def _last_head(w, h):
    return h[-1] @ w


def _mean_head(w, h):
    return _normalised(h.mean(axis=0)) @ w


def _embed(w, h):
    return h @ w[0] + w[1] * ROWS**0.5 / 4


def _lstm(w, h):
    def step(carry, x):
        state, cell = carry
        gates = jnp.split(x @ w[0] + state @ w[1], 4)
        keep, write, read = map(jax.nn.sigmoid, gates[:3])
        cell = keep * cell + write * jnp.tanh(gates[3])
        state = read * jnp.tanh(cell)
        return (state, cell), state

    zero = jnp.zeros(w[1].shape[0])
    return jax.lax.scan(step, (zero, zero), h)[1]


def _attention(low_precision, w, h):
    x = _normalised(h)
    query, key, value = (x @ w[i] for i in range(3))
    logits = query @ key.T / key.shape[-1] ** 0.5
    if low_precision:
        powers = jnp.exp(logits.astype(jnp.float16))
        shares = powers / jnp.sum(powers, axis=-1, keepdims=True)
        shares = shares.astype(jnp.float32)
    else:
        shares = jax.nn.softmax(logits)
    return h + shares @ value @ w[3]


def _normalised(h):
    return h / jnp.sqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-6)


def spectra(layers, params, x):
    """Largest singular values of the layers' Jacobians, and alignment of neighbours.

    The alignment is that of the leading output direction of a layer with the leading
    input direction of the next, as in `gradstab.spectra.alignment`; both are means over
    the examples. By fifty iterations of the power method: where two singular values are
    close, the size is right and the direction lies between both.

    Args:
        layers: of the network.
        params: of them.
        x: examples, ``(examples, ...)``.

    Returns:
        ``(layers,)`` and ``(layers - 1,)``.
    """

    def of_one(h):
        largest, aligned, before = [], [], None
        for layer in layers:
            apply = functools.partial(layer.apply, params[layer.name])
            jacobian = jax.jacrev(apply)(h)
            h = apply(h)
            u, size, v = _leading(jacobian.reshape(h.size, -1))
            if before is not None:
                aligned.append(jnp.abs(before @ v))
            largest.append(size)
            before = u
        return jnp.stack(largest), jnp.stack(aligned)

    return jax.tree.map(lambda a: a.mean(axis=0), jax.vmap(of_one)(x))


def _leading(matrix, iterations=50):
    """The leading singular triple, by the power method."""

    def step(v, _):
        w = matrix.T @ (matrix @ v)
        return w / jnp.maximum(jnp.linalg.norm(w), 1e-30), None

    v = jax.random.normal(jax.random.key(0), matrix.shape[1:])
    v = jax.lax.scan(step, v / jnp.linalg.norm(v), length=iterations)[0]
    u = matrix @ v
    size = jnp.linalg.norm(u)
    return u / jnp.maximum(size, 1e-30), size, v
