"""Hard correct functions: none is accused, and none passes without having been seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import normal

from gradstab.gradcheck import Verdict, check


def layer_norm(x, gain, bias):
    return _normalised(x)[0] * gain[None] + bias[None]


def _normalised(x):
    centred = x - jnp.mean(x, axis=1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.mean(centred**2, axis=1, keepdims=True) + 1e-5)
    return centred * inverse, inverse


def _layer_norm_vjp(res, w):
    unit, inverse, gain = res
    g = w * gain[None]
    g -= jnp.mean(g, axis=1, keepdims=True)
    g -= unit * jnp.mean(g * unit, axis=1, keepdims=True)
    return inverse * g, jnp.sum(w * unit, axis=0), jnp.sum(w, axis=0)


layer_norm_by_hand = jax.custom_vjp(layer_norm)
layer_norm_by_hand.defvjp(
    lambda x, gain, bias: (layer_norm(x, gain, bias), (*_normalised(x), gain)),
    _layer_norm_vjp,
)


def attention(bias):
    x, q, k, v = normal(4, 6, 8), normal(5, 8, 8), normal(6, 8, 8), normal(7, 8, 8)
    return jax.nn.softmax((x @ q) @ (x @ k / 3 + bias[None]).T / 3) @ (x @ v)


X = normal(0, 32)
TIES = np.where(np.arange(32) % 4 == 0, np.float32(0), X)

# Each is right, and fails or defeats a checker with fixed steps or tolerances.
HARD = {
    "relu at its kink": (jax.nn.relu, np.zeros(8, np.float32)),
    "relu with ties": (jax.nn.relu, TIES),
    "sum of relu with ties": (lambda x: jnp.sum(jax.nn.relu(x)), TIES),
    "abs at zero": (jnp.abs, 0.0),
    "abs near zero": (jnp.abs, np.float32([1.0, 1e-12, -1e-6])),
    "max of equals": (jnp.max, np.float32([1.0, 1.0, 0.5])),
    "clip at its border": (lambda x: jnp.clip(x, -1, 1), np.float32([-1, 1, 0.5, 2])),
    "sort": (jnp.sort, X),
    "offset": (lambda x: 1e6 + jnp.sin(x), X),
    "cancelled offset": (lambda x: (x + 1e6) - 1e6, X),
    "large argument": (jnp.sin, X * 1e4),
    "small value": (lambda x: 1e-6 * jnp.sum(x**2), X),
    "large value": (lambda x: 1e6 * jnp.tanh(x), X),
    "small argument": (lambda x: jnp.tanh(1e6 * x), 1e-6 * X),
    "log near zero": (jnp.log, np.float32([1e-6, 1.0, 2.0])),
    "logsumexp": (jax.nn.logsumexp, 100 * X),
    "oscillation": (lambda x: jnp.sin(100 * x), X),
    "layer norm by hand": (layer_norm_by_hand, X.reshape(4, 8), X[:8], X[8:16]),
    "floor": (jnp.floor, 3 * X),
    "stairs of one per cent": (lambda x: jnp.round(100 * x), X),
    "constant": (lambda x: jnp.ones(3), X),
    "flat to first order": (jnp.cos, np.zeros(3, np.float32)),
    "attention's key bias": (attention, np.zeros(8, np.float32)),
    "median of equals": (jnp.median, np.ones(5, np.float32)),
    "masked log": (lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1)), 0), X),
    "sums to one": (lambda x: jnp.sum(jax.nn.softmax(x)), X),
    "fewer digits": (lambda x: jax.lax.reduce_precision(jnp.sin(x), 8, 7) * x, X),
    "float32 relu": (lambda x: jax.nn.relu(x.astype(jnp.float32)), X),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", HARD.values(), ids=HARD.keys())
def test_a_hard_correct_function_passes(case):
    f, *args = case
    result = check(f, *args, transformations=False)
    assert result.verdict is Verdict.PASS, str(result)
    assert result.resolution <= result.rtol


BLIND = {
    "saturated": (jax.nn.sigmoid, np.full(8, 40, np.float32), "stairs"),
    "saturated by its bias": (lambda b: jax.nn.sigmoid(40 + b), X, "stairs"),
    "noise": (
        lambda x: 1e4 + jnp.sin(x.astype(jnp.float32)),
        X,
        "noise hides smaller errors",
    ),
    "hidden": (
        lambda x: 1e8 + jnp.sin(x.astype(jnp.float32)),
        X,
        "does not stand out from the noise",
    ),
    "sums to one, in float32": (
        lambda x: jnp.sum(jax.nn.softmax(x.astype(jnp.float32))),
        X,
        "does not stand out from the noise",
    ),
    "edge": (jnp.sqrt, np.float32([0, 0]), "at a border of where f is defined"),
    "jump": (jnp.sign, np.zeros(1, np.float32), "does not stand out"),
    "infinite slope": (jnp.cbrt, np.zeros(2, np.float32), "too steep"),
    "straight-through": (
        lambda x: x + jax.lax.stop_gradient(jnp.round(x) - x),
        3 * X,
        "stairs",
    ),
    "undefined": (jnp.log, np.float32([-1, 1]), "not finite at the point"),
}


# What is hidden by rounding shows where it is widened.
ROUNDED = {"noise", "hidden", "sums to one, in float32"}


@pytest.mark.parametrize("name", BLIND)
def test_what_cannot_be_seen_is_neither_passed_nor_accused(name):
    f, x, reason = BLIND[name]
    precision = "own" if name in ROUNDED else None
    result = check(f, x, transformations=False, precision=precision)
    assert result.verdict is Verdict.INCONCLUSIVE, str(result)
    assert reason in result.reason
    assert result.resolution > result.rtol


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(ROUNDED))
def test_what_only_rounding_hides_passes(name):
    f, x, _ = BLIND[name]
    result = check(f, x, transformations=False)
    assert result.verdict is Verdict.PASS, str(result)


def test_a_kink_is_noted():
    result = check(jnp.abs, 0.0)
    assert "kink in args[0]" in result.notes[0]


def test_a_zero_derivative_is_judged_against_the_size_of_f():
    result = check(lambda x, y: 2 * x, X, X)
    absolute = {g.leaf: g.absolute for g in result.findings}
    assert absolute == {"args[0]": False, "args[1]": True}
    assert "zero derivative" in str(result)


def test_a_function_that_draws_its_own_numbers_is_named_as_random():
    rng = np.random.default_rng(0)
    result = check(lambda x: x * rng.uniform(), X)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "not deterministic" in result.reason


def test_a_function_that_is_random_at_run_time_is_named_as_random():
    rng = np.random.default_rng(0)

    def noise(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        draw = lambda a: rng.uniform(size=a.shape).astype(a.dtype)  # noqa: E731
        return x + jax.pure_callback(
            draw, shape, jax.lax.stop_gradient(x), vmap_method="sequential"
        )

    result = check(noise, X[:2])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert "not deterministic" in result.reason


def test_a_rule_that_is_not_finite_at_a_moved_point_is_no_fault():
    result = check(jnp.abs, X + 1j * X[::-1], transformations=False)
    assert result.verdict is Verdict.PASS


@pytest.mark.parametrize("seed", range(2))
def test_no_seed_accuses_a_relu_network(seed):
    kernels = normal(1, 16, 64) / 4, normal(2, 64, 1) / 8

    def f(x):
        return jax.nn.relu(x @ kernels[0]) @ kernels[1]

    result = check(f, normal(3, 16), seed=seed)
    assert result.verdict is Verdict.PASS
    assert result.seed == seed
