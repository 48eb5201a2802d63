"""A mode that a function has not is left out with a note; what is broken raises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

import gradstab as gs
from gradstab.testing import check_grads

pytestmark = pytest.mark.cases

X = np.float32([0.3, -0.2, 0.8])
QUICK = {"transformations": False, "locate": False, "at": "given"}


@jax.custom_vjp
def softmax(x):
    e = jnp.exp(x - jnp.max(x))
    return e / jnp.sum(e)


softmax.defvjp(
    lambda x: (softmax(x),) * 2,
    lambda y, w: (y * (w - jnp.sum(y * w)),),
)


@jax.custom_vjp
def square(x):
    return x * x


square.defvjp(lambda x: (square(x), x), lambda x, w: (2 * x * w,))


@jax.custom_vjp
def root(x):
    return jnp.sqrt(x)


root.defvjp(lambda x: (root(x), x), lambda x, w: (w / (2 * root(x)),))


def fourth(x):
    return square(square(x))


def _two_steps(x):
    return jax.lax.scan(lambda c, _: (square(c), None), x, length=2)[0]


CALLS_ITSELF = {
    "softmax": softmax,
    "twice": fourth,
    "under jit": jax.jit(fourth),
    "in a scan": _two_steps,
}
MORE_CALLS = {
    "mapped in a scan": jax.vmap(_two_steps),
    "in a branch": lambda x: jax.lax.cond(x[0] > 0, fourth, square, x),
    "in its own rule": lambda x: root(1 + x**2),
    "checkpointed": jax.checkpoint(fourth),
}


@pytest.mark.parametrize(
    "f",
    [
        *(pytest.param(f, id=name) for name, f in CALLS_ITSELF.items()),
        *(pytest.param(f, id=n, marks=pytest.mark.slow) for n, f in MORE_CALLS.items()),
    ],
)
def test_the_second_order_of_a_rule_that_calls_itself_passes_with_a_note(f):
    result = gs.check(f, X, order=2, **QUICK)
    assert result.verdict is gs.Verdict.PASS
    assert any("forward over reverse does not exist" in note for note in result.notes)


def test_a_wrong_second_derivative_of_a_rule_that_calls_itself_fails():
    @jax.custom_vjp
    def cube(x):
        return x**3

    # The slope is right, but half of it is detached.
    def backward(x, w):
        return (1.5 * (x**2 + jax.lax.stop_gradient(x**2)) * w,)

    cube.defvjp(lambda x: (cube(x), x), backward)
    result = gs.check(lambda x: cube(cube(x)), X, order=2, **QUICK)
    assert result.verdict is gs.Verdict.FAIL


@pytest.mark.parametrize(
    "order", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 4))]
)
def test_the_drop_in_takes_rules_that_call_themselves_at_any_order(order):
    check_grads(fourth, (np.float32(0.7),), order, modes=["rev"])


def _window_sum(x):
    zero = np.zeros((), x.dtype)
    return jax.lax.reduce_window(x, zero, lambda a, b: a + b, (2,), (1,), "VALID")


def _sparse_product(x):
    indices = sparse.BCOO.fromdense(jnp.eye(3, dtype=x.dtype)[::-1]).indices
    matrix = sparse.BCOO((x, indices), shape=(3, 3))
    return (matrix @ matrix).todense()


FORWARD_ONLY = {
    "a window with a computation of its own": _window_sum,
    "such a window beside a rule": lambda x: _window_sum(jax.nn.relu(x)),
    "sparse times sparse": _sparse_product,
    "an unbounded loop": lambda x: jax.lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, x)
    )[1],
}


@pytest.mark.parametrize("f", FORWARD_ONLY.values(), ids=FORWARD_ONLY.keys())
def test_a_missing_reverse_mode_is_left_out_whatever_its_error(f):
    result = gs.check(f, X, **QUICK)
    assert result.verdict is gs.Verdict.PASS
    assert {g.mode for g in result.findings} == {"forward"}
    assert any(n.startswith("reverse mode was not checked:") for n in result.notes)


def test_a_function_without_any_mode_raises_what_jax_raises():
    def f(x):
        return jax.pure_callback(np.sin, x, x)

    with pytest.raises(ValueError, match="Pure callbacks do not support JVP"):
        gs.check(f, X, **QUICK)


def _too_many(x):
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, w: (w, w))
    return f(x)


def _not_a_tuple(x):
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, w: w * jnp.cos(x))
    return f(x)


def _no_pair(x):
    f = jax.custom_jvp(jnp.sin)
    f.defjvp(lambda p, t: t[0])
    return f(x)


def _unwritten(x):
    def rule(p, t):
        raise NotImplementedError("to be written")

    f = jax.custom_jvp(jnp.sin)
    f.defjvp(rule)
    return f(x)


BROKEN = {
    "too many cotangents": (_too_many, (TypeError, ValueError), "Custom VJP bwd rule"),
    "no tuple": (_not_a_tuple, (TypeError, ValueError), "Custom VJP bwd rule"),
    "no pair": (_no_pair, TypeError, "must produce a pair"),
    "not written": (_unwritten, NotImplementedError, "to be written"),
}


@pytest.mark.parametrize(("f", "kind", "text"), BROKEN.values(), ids=BROKEN.keys())
def test_what_a_broken_rule_raises_is_raised(f, kind, text):
    with pytest.raises(kind, match=text):
        gs.check(f, X, **QUICK)


def _closing_over_an_argument(a, x):
    @jax.custom_vjp
    def scaled(x):
        return a * x

    scaled.defvjp(lambda x: (a * x, None), lambda _, w: (a * w,))
    return scaled(x)


def _closing_over_something_computed(a, x):
    scale = jnp.exp(a)

    @jax.custom_vjp
    def scaled(x):
        return 2 * x

    scaled.defvjp(lambda x: (2 * x, x), lambda x, w: (w * 2 + 0 * scale,))
    return jnp.sin(scaled(x))


def _closing_inside_of_another(a, x):
    return jax.nn.relu(_closing_over_an_argument(a, jnp.tanh(x)))


@pytest.mark.parametrize(
    "f",
    [
        _closing_over_an_argument,
        _closing_over_something_computed,
        _closing_inside_of_another,
        jax.jit(_closing_over_an_argument),
    ],
)
def test_a_rule_that_closes_over_an_argument_is_named(f):
    with pytest.raises(jax.errors.UnexpectedTracerError, match=r"scaled.*pass it as"):
        gs.check(f, np.float32(1.5), X, **QUICK)
