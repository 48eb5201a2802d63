"""Code in mixed precision, widened: the function and the rule that were meant."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstab as gs
from gradstab.gradcheck.subject.unrounded import unrounded

pytestmark = pytest.mark.usefixtures("quick_compiler")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 6)).astype(np.float32)
W = RNG.standard_normal((6, 6))


def halved(f, dtype, share=0.5):
    """The function f with a rule whose gradient is this share of the right one."""
    rule = jax.custom_vjp(f)

    def backward(x, w):
        return ((share * jax.vjp(f, x)[1](w)[0]).astype(dtype),)

    rule.defvjp(lambda x: (f(x), x), backward)
    return rule


def layer(x, dtype):
    return jax.nn.relu(x.astype(dtype) @ jnp.asarray(W, dtype))


def scanned(x, dtype):
    w = jnp.asarray(W, dtype)
    step = jax.checkpoint(lambda h, _: (jnp.tanh(h @ w), jnp.sum(h, dtype=dtype)))
    return jax.lax.scan(step, x.astype(dtype), None, length=3)[1]


def branched(x, dtype):
    h = x.astype(dtype)
    return jax.lax.cond(h[0, 0] > 0, jnp.sin, lambda h: h * h, h)


def masked(x, dtype):
    kept = jax.random.bernoulli(jax.random.key(0), jnp.float32(0.5), x.shape)
    return jnp.where(kept, jax.nn.softmax(x.astype(dtype)), 0)


def scattered(x, dtype):
    h = x.astype(dtype)
    return jnp.zeros((3, 6), dtype).at[jnp.array([0, 2, 2, 0])].add(h).max(axis=0)


def pooled(x, dtype):
    return jax.lax.reduce_window(
        x.astype(dtype), -jnp.inf, jax.lax.max, (2, 2), (1, 1), "SAME"
    )


FUNCTIONS = {
    f.__name__: f for f in (layer, scanned, branched, masked, scattered, pooled)
}


def widened(f, *, forward=False):
    like = jax.eval_shape(f, jnp.asarray(X))
    options = {"forward": forward, "dtype": jnp.bfloat16}
    return unrounded(lambda p: (f(*p),), (jnp.asarray(X),), (like,), **options)


QUICK = {"layer", "scanned"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in FUNCTIONS
    ],
)
@pytest.mark.parametrize("forward", [True, False], ids=["forward", "reverse"])
def test_it_is_the_same_code_written_in_float64(name, forward, monkeypatch):
    f = FUNCTIONS[name]
    found = widened(lambda x: f(x, jnp.bfloat16), forward=forward)
    held = W.astype(jnp.bfloat16).astype(np.float64)
    monkeypatch.setitem(globals(), "W", held)  # the weights as bfloat16 holds them

    def expected(p):
        return (f(p[0], jnp.float64),)

    with jax.enable_x64(True):
        point = (jnp.asarray(X, jnp.float64),)
        chex.assert_trees_all_close(found(point), expected(point), rtol=1e-13)
        w = jax.tree.map(jnp.ones_like, expected(point))
        ours, theirs = (jax.vjp(g, point)[1](w) for g in (found, expected))
        chex.assert_trees_all_close(ours, theirs, rtol=1e-12, atol=1e-12)
        if forward:
            ours, theirs = (
                jax.jvp(g, (point,), (point,))[1] for g in (found, expected)
            )
            chex.assert_trees_all_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_its_derivative_is_that_of_the_rule_and_not_that_of_the_body():
    found = widened(halved(lambda x: layer(x, jnp.bfloat16), jnp.float32))
    plain = widened(lambda x: layer(x, jnp.bfloat16))
    with jax.enable_x64(True):
        point = (jnp.asarray(X, jnp.float64),)
        w = plain(point)
        ours, theirs = (jax.vjp(g, point)[1](w)[0][0] for g in (found, plain))
        np.testing.assert_allclose(ours, theirs / 2, rtol=1e-13)


REFUSED = {
    "loop until convergence": lambda h: jax.lax.while_loop(
        lambda h: jnp.sum(h) > 1, lambda h: h / 2, h
    ),
    "digits": lambda h: jax.lax.bitcast_convert_type(h, jnp.uint16).astype(h.dtype),
    "complex numbers": lambda h: jnp.abs(jnp.fft.fft(h.astype(jnp.float32))),
    "callback": lambda h: jax.pure_callback(
        np.sin, jax.ShapeDtypeStruct(h.shape, h.dtype), h
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_widened_is_refused(name):
    def f(x):
        inside = jax.lax.stop_gradient(x.astype(jnp.bfloat16))
        return REFUSED[name](inside).astype(jnp.bfloat16) * x.astype(jnp.bfloat16)

    point = (jnp.asarray(X),)
    found = widened(f)
    with jax.enable_x64(True), pytest.raises(NotImplementedError, match="in float64"):
        found((point[0].astype(jnp.float64),))


# In bfloat16 differences of so many kinks and sums see nothing.
def deep(x):
    h = x.astype(jnp.bfloat16)
    for _ in range(3):
        h = jax.nn.relu(h @ jnp.asarray(W, jnp.bfloat16) / 2)
    return jnp.sum(h)


@pytest.mark.slow
def test_a_wrong_rule_that_bfloat16_hides_is_found_and_placed():
    check = gs.check(halved(deep, jnp.float32), X)
    assert check.verdict == gs.Verdict.FAIL
    (place,) = check.locations
    assert place.expected == pytest.approx(2 * place.value, rel=1e-6)
    assert "factor of 1/2" in place.hint
    assert "was widened to float64, because it rounds" in check.notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kinks_and_rounding_in_bfloat16_are_no_errors(seed):
    """Differences in bfloat16 took them for errors at zeros and ties."""
    for f in (deep, halved(deep, jnp.float32, share=1.0)):
        check = gs.check(f, X, seed=seed)
        assert check.verdict == gs.Verdict.PASS
        own = [g for g in check.findings if "the rule itself" in g.oracle]
        formula = [g for g in check.findings if "differences" in g.oracle]
        assert all(g.error < 1e-12 for g in formula)
        assert all(1e-4 < g.error < 0.05 for g in own)
        assert check.resolution == pytest.approx(2 * max(g.error for g in own))


@pytest.mark.slow
def test_a_rule_that_is_right_but_for_its_rounding_is_accused_of_that():
    """Residuals kept in eight bits: right in float64, useless as it is."""

    def f(x):
        return jnp.tanh(x.astype(jnp.bfloat16))

    rule = jax.custom_vjp(f)

    def backward(x, w):
        coarse = (1e3 + x.astype(jnp.bfloat16)) - jnp.bfloat16(1e3)
        return ((w * (1 - jnp.tanh(coarse) ** 2)).astype(x.dtype),)

    rule.defvjp(lambda x: (f(x), x), backward)
    check = gs.check(rule, X)
    assert check.verdict == gs.Verdict.FAIL
    assert "loses its digits" in check.reason


@pytest.mark.slow
def test_a_rule_that_rounds_more_than_its_function_does_goes_on_doing_so():
    rule = jax.custom_vjp(lambda x: jnp.sin(x.astype(jnp.float32)))

    def backward(x, w):
        slope = jnp.cos(x).astype(jnp.bfloat16)
        return ((w * slope.astype(w.dtype)).astype(x.dtype),)

    rule.defvjp(lambda x: (rule(x), x), backward)
    check = gs.check(rule, X, rtol=1e-4)
    assert check.verdict == gs.Verdict.FAIL
    (formula,) = (g for g in check.findings if "differences" in g.oracle)
    assert 1e-4 < formula.error < 1e-2
    assert gs.check(rule, X).resolution > formula.error


def test_code_with_another_value_at_every_trace_is_not_frozen_by_one():
    calls = iter(range(100))

    def f(x):
        return jnp.sin(x.astype(jnp.float32)) + 0.01 * next(calls)

    check = gs.check(f, X, transformations=False)
    assert check.verdict == gs.Verdict.INCONCLUSIVE
    assert "not deterministic" in check.reason


@pytest.mark.slow
def test_code_that_is_made_for_its_dtype_is_not_judged_in_another():
    """Rounding is what it computes: widened, it is another function."""

    def f(x):
        lost = x - jax.lax.stop_gradient(x).astype(jnp.bfloat16).astype(x.dtype)
        return 1e3 * lost + 1e-3 * x

    check = gs.check(f, X)
    assert check.verdict != gs.Verdict.FAIL
    assert "in its own" in check.notes[0]
