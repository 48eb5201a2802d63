"""Each planted mistake gets the hint that names it, and what looks like it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import mostly_slow, normal, wrong_jvp, wrong_vjp
from located import accusation, cause

from gradstab.gradcheck.places.localize import hint
from gradstab.gradcheck.subject.problem import problem

X = normal(0, 8, 6), normal(1, 6, 6), normal(2, 6)


def dense(x, kernel, bias):
    return jnp.tanh(x @ kernel + bias[None])


def gradients(w, x):
    return jax.vjp(dense, *x)[1](w)


def of_dense(leaf, wrong):
    """The gradient of one argument of a dense layer, from (cotangent, true one, args).

    For cotangents that are not used as they should be.
    """

    def rule(x, w, g):
        return tuple(wrong(w, g[i], x) if i == leaf else g[i] for i in range(3))

    return dense, X, f"args[{leaf}]", rule


def bias_of(change):
    """The gradient of the bias, for another cotangent."""
    return of_dense(2, lambda w, g, x: gradients(change(w), x)[2])


def alone(f, wrong, *shape):
    """The gradient of the only argument, from (cotangent, true one, the argument)."""
    return (
        f,
        (normal(3, *shape),),
        "args[0]",
        lambda x, w, g: (wrong(w, g[0], x[0]),),
    )


def softmax(x):
    return jax.nn.softmax(x)


def normalised(x):
    centred = x - jnp.mean(x, axis=1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=1, keepdims=True))


def without_mean(w, g, x):
    inverse = jax.lax.rsqrt(jnp.var(x, axis=1, keepdims=True))
    unit = normalised(x)
    return inverse * (w - unit * jnp.mean(w * unit, axis=1, keepdims=True))


def without_variance(w, g, x):
    inverse = jax.lax.rsqrt(jnp.var(x, axis=1, keepdims=True))
    return inverse * (w - jnp.mean(w, axis=1, keepdims=True))


def mask(w, rows):
    return w.at[rows].set(0)


def drop(*index):
    return lambda w, g, x: g.at[index].set(0)


def to_bfloat16(a):
    return a.astype(jnp.bfloat16).astype(a.dtype)


def noisy(size):
    """Relative errors of one size, of either sign."""
    return lambda w, g, x: g * (1 + jnp.asarray(size, g.dtype) * jnp.sin(1e3 * x))


FACTORS = {
    "detached": (of_dense(0, lambda w, g, x: 0 * g), "no gradient at all"),
    "two": (of_dense(1, lambda w, g, x: 2 * g), "a constant factor of 2"),
    "a half": (of_dense(0, lambda w, g, x: g / 2), "a constant factor of 1/2"),
    "three quarters": (
        of_dense(1, lambda w, g, x: g * 0.75),
        "a constant factor of 3/4",
    ),
    "a decimal": (of_dense(1, lambda w, g, x: g * 1.02), "a constant factor of 1.02"),
    "sign": (of_dense(2, lambda w, g, x: -g), "the sign is wrong"),
    "sign and factor": (of_dense(2, lambda w, g, x: -2 * g), "a constant factor of -2"),
    "mean for sum": (
        of_dense(2, lambda w, g, x: g / 8),
        "a constant factor of 1/8, and 8 is the size of axis 0 of the output: "
        "a mean for a sum?",
    ),
    "sum for mean": (
        alone(lambda x: jnp.mean(x**2), lambda w, g, x: 35 * g, 5, 7),
        "a constant factor of 35, and 35 is the number of entries of args[0]: "
        "a sum for a mean?",
    ),
    "root": (
        alone(lambda q: jnp.sum(jnp.sin(q)), lambda w, g, x: g * 7**0.5, 5, 7),
        "a constant factor of sqrt(7), and 7 is the size of axis 1 of args[0]",
    ),
}

COTANGENTS = {
    "ignored": (
        of_dense(0, lambda w, g, x: gradients(jnp.ones_like(w), x)[0]),
        "the cotangent is ignored, as if it were one",
    ),
    "first row for all": (
        bias_of(lambda w: jnp.broadcast_to(w[:1], w.shape)),
        "the first row of the cotangent, along axis 0 of the output, is used for all",
    ),
    "mean row for all": (
        bias_of(lambda w: jnp.broadcast_to(w.mean(0, keepdims=True), w.shape)),
        "the mean of the cotangent over axis 0 of the output is used for all its rows",
    ),
    "missing sum": (
        bias_of(lambda w: mask(w, slice(1, None))),
        "only the first row of the cotangent is used: is a sum over axis 0 of the "
        "output missing?",
    ),
    "last row dropped": (
        bias_of(lambda w: mask(w, -1)),
        "the last row of the cotangent, along axis 0 of the output, dropped",
    ),
    "last block dropped": (
        bias_of(lambda w: mask(w, slice(-3, None))),
        "the last 3 of 8 rows of the cotangent, along axis 0 of the output, dropped",
    ),
    "last block only": (
        bias_of(lambda w: mask(w, slice(None, -3))),
        "only the last 3 of 8 rows of the cotangent, along axis 0 of the output, used: "
        "is a running sum lost?",
    ),
    "transposed": (
        alone(
            lambda x: jnp.outer(x, jnp.sin(x)),
            lambda w, g, x: jax.vjp(lambda x: jnp.outer(x, jnp.sin(x)), x)[1](w.T)[0],
            5,
        ),
        "the cotangent of the output is transposed, or summed over axis 0 instead of 1",
    ),
}

GRADIENTS = {
    "transposed": (
        of_dense(1, lambda w, g, x: g.T),
        "the gradient is transposed (axes 0 and 1)",
    ),
    "last element": (
        alone(jnp.tanh, drop(-1), 16),
        "no gradient for the last element, and right ones for the others",
    ),
    "last block": (
        alone(jnp.tanh, drop(slice(-4, None)), 16),
        "no gradient for the last 4 of 16 elements, and right ones for the others",
    ),
    "last row": (
        of_dense(1, drop(-1)),
        "no gradient for the last row (axis 0), and right ones for the others",
    ),
    "first column": (
        of_dense(1, drop(slice(None), 0)),
        "no gradient for the first row (axis 1), and right ones for the others",
    ),
    "some": (
        alone(jnp.tanh, drop(jnp.array([3, 4, 9])), 16),
        "no gradient for 3 of 16 entries, and right ones for the others",
    ),
    "softmax": (
        alone(softmax, lambda w, g, x: softmax(x) * w, 3, 7),
        "the error is a multiple of the output: is a normalising term missing along "
        "axis 1",
    ),
    "layer norm without its mean": (
        alone(normalised, without_mean, 3, 7),
        "the error is constant: is a centring term missing along axis 1",
    ),
    "layer norm without its variance": (
        alone(normalised, without_variance, 3, 7),
        "the error is a multiple of the output: is a normalising term missing along "
        "axis 1",
    ),
    "exchanged": (
        (
            lambda a, b: jnp.sin(a) * b,
            (normal(0, 9), normal(1, 9)),
            "args[0]",
            lambda x, w, g: g[::-1],
        ),
        "exchanged with the gradient of args[1]",
    ),
    "nan": (
        alone(jnp.tanh, lambda w, g, x: g.at[2:4].set(jnp.nan), 16),
        "not finite in 2 of 16 entries and right in the others: is something infinite "
        "or undefined computed there under a mask?",
    ),
}

ROUNDINGS = {
    "gradient": (
        alone(jnp.tanh, lambda w, g, x: to_bfloat16(g), 64),
        "the gradient is rounded to bfloat16",
    ),
    "cotangent": (
        of_dense(0, lambda w, g, x: gradients(to_bfloat16(w), x)[0]),
        "the cotangent is rounded to bfloat16",
    ),
    "half precision": (
        alone(jnp.tanh, lambda w, g, x: g.astype(jnp.float16).astype(g.dtype), 64),
        "the gradient is rounded to float16",
    ),
    "residual": (
        alone(jnp.sin, lambda w, g, x: w * jnp.cos(to_bfloat16(x)), 64),
        "relative errors near 2^-",
    ),
}

# Each looks like one of the above, and is not.
NEAR_MISSES = {
    "a factor on half of the entries": alone(
        jnp.tanh, lambda w, g, x: g.at[:8].multiply(2), 16
    ),
    "a sign on half of the entries": alone(
        jnp.tanh, lambda w, g, x: g.at[:8].multiply(-1), 16
    ),
    "reversed, not transposed": of_dense(1, lambda w, g, x: g[::-1]),
    "transposed and scaled": of_dense(1, lambda w, g, x: 1.1 * g.T),
    "a row in the middle": bias_of(lambda w: mask(w, 4)),
    "the last row halved": bias_of(lambda w: w.at[-1].multiply(0.5)),
    "the first row for half": bias_of(
        lambda w: jnp.concatenate([jnp.broadcast_to(w[:1], (4, 6)), w[4:]])
    ),
    "the last element halved": alone(jnp.tanh, lambda w, g, x: g.at[-1].divide(2), 16),
    "a zero too many, and others wrong": alone(
        jnp.tanh, lambda w, g, x: g.at[-1].set(0).at[3].multiply(3), 16
    ),
    "an error of no direction": alone(
        softmax, lambda w, g, x: g + jnp.sin(9 * x) * jnp.sum(w), 3, 7
    ),
    "a sum of columns, where every gradient is constant": alone(
        lambda x: jnp.sin(jnp.sum(x, axis=1)), lambda w, g, x: g.at[0].multiply(3), 3, 7
    ),
    "one gradient replaced by another": (
        lambda a, b: jnp.sin(a + b),
        (normal(0, 9), normal(1, 9)),
        "args[0]",
        lambda x, w, g: (g[0] * jnp.cos(x[0]), g[1]),
    ),
    "errors of one per cent": alone(jnp.tanh, noisy(3e-2), 64),
    "errors of 1e-5": alone(jnp.tanh, noisy(1e-5), 64),
    "one error of 2^-9": alone(
        jnp.tanh, lambda w, g, x: g.at[5].multiply(1 + 2.0**-9), 64
    ),
}

KNOWN = {
    f"{kind}: {name}": case
    for kind, cases in (
        ("factor", FACTORS),
        ("cotangent", COTANGENTS),
        ("gradient", GRADIENTS),
        ("rounding", ROUNDINGS),
    )
    for name, case in cases.items()
}

# The quick run takes one of each way to a hint; the slow one all.
_QUICK = (
    "factor: mean for sum",
    "cotangent: missing sum",
    "gradient: last row",
    "gradient: softmax",
    "rounding: gradient",
    "a factor on half of the entries",
    "a row in the middle",
)


@pytest.mark.parametrize("case", mostly_slow(KNOWN, *_QUICK))
def test_a_planted_mistake_is_named(case):
    (f, args, leaf, wrong), expected = case
    assert cause(wrong_vjp(f, wrong), *args, leaf=leaf).startswith(expected)


@pytest.mark.parametrize("case", mostly_slow(NEAR_MISSES, *_QUICK))
def test_nothing_is_said_of_what_only_looks_like_it(case):
    f, args, leaf, wrong = case
    assert cause(wrong_vjp(f, wrong), *args, leaf=leaf) == ""


@pytest.mark.slow
def test_a_size_is_not_named_if_the_factor_is_another():
    f, args, leaf, wrong = of_dense(2, lambda w, g, x: g / 8.01)
    assert cause(wrong_vjp(f, wrong), *args, leaf=leaf) == "a constant factor of 0.1248"


@pytest.mark.slow
def test_undefined_numbers_beside_wrong_ones_are_only_counted():
    def wrong(x, w, g):
        return (g[0].at[2:4].set(jnp.nan).at[9].multiply(2),)

    assert cause(wrong_vjp(jnp.tanh, wrong), normal(0, 16)) == (
        "not finite in 2 of 16 entries"
    )


def test_a_right_rule_has_no_cause():
    assert cause(jnp.tanh, normal(0, 16)) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (lambda t: -t, "the sign is wrong"),
        (lambda t: t.at[-1].set(0), "no gradient for the last element"),
    ],
)
def test_a_wrong_jvp_is_explained_like_the_vjp_that_jax_makes_of_it(wrong, expected):
    rule = wrong_jvp(jnp.tanh, wrong)
    assert cause(rule, normal(0, 16), mode="forward").startswith(expected)


@pytest.mark.slow
def test_a_jvp_alone_is_explained_by_its_tangents():

    rule = wrong_jvp(jnp.tanh, lambda t: 2 * t)
    task = problem(rule, (normal(0, 16),), modes=("forward",))
    rng = np.random.default_rng(0)
    found = hint(task, task.leaves, accusation(mode="forward"), rng)
    assert found == "a constant factor of 2"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_hints_do_not_depend_on_the_directions(seed):
    f, args, _, wrong = GRADIENTS["softmax"][0]
    assert "multiple of the output" in cause(wrong_vjp(f, wrong), *args, seed=seed)


@pytest.mark.slow
def test_a_hint_is_said_in_float32_only_if_its_noise_allows_it():
    def f(x):
        return jnp.tanh(x.astype(jnp.float32))

    halved = wrong_vjp(f, lambda x, w, g: (g[0] / 2,))
    own = {"precision": "own"}
    assert cause(halved, normal(0, 64), **own) == "a constant factor of 1/2"
    # The noise hides whether that is a factor.
    barely = wrong_vjp(f, lambda x, w, g: (g[0] * (1 + 1e-6),))
    assert cause(barely, normal(0, 64), **own) == ""
