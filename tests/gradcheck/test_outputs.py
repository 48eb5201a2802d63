"""Outputs are judged one by one: a small one does not hide behind a large one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import compared, with_vjp

from gradstab.gradcheck import Verdict
from gradstab.gradcheck.subject.problem import problem

X = jnp.array([0.3, -0.7, 1.2, 0.5])
BATCH = np.random.default_rng(0).standard_normal((64, 3), np.float32)
PARAMS = {"w": jnp.full((3, 2), 0.3), "b": jnp.array([1.0, 2.0])}

pytestmark = [pytest.mark.cases, pytest.mark.usefixtures("quick_compiler")]


def with_cotangents(f, *factors):
    """f with a rule that multiplies the cotangent of each output by a factor."""

    def bwd(args, w):
        leaves, treedef = jax.tree.flatten(w)
        scaled = [k * leaf for k, leaf in zip(factors, leaves, strict=True)]
        return jax.vjp(f, *args)[1](jax.tree.unflatten(treedef, scaled))

    return with_vjp(f, bwd)


def batch_norm(x, gain):
    mean, var = jnp.mean(x, 0), jnp.var(x, 0)
    unit = (x - mean[None]) * jax.lax.rsqrt(var + 1e-5)[None]
    return unit * gain[None], mean, var


def loss_and_penalty(params, x):
    loss = jnp.sum(jnp.tanh(x @ params["w"] + params["b"][None]) ** 2)
    return {"loss": 1e8 * loss, "penalty": 1e-6 * jnp.sum(params["w"] ** 2)}


LOPSIDED = {
    "matrix and sum": (lambda x: (10 * jnp.outer(x, x), 1e-7 * jnp.sin(x).sum()), X),
    "ratio of 1e9": (lambda x: (1e6 * jnp.sin(x), 1e-3 * jnp.cos(x)), X),
    "ratio of 1e14": (lambda x: (1e9 * jnp.sin(x), 1e-5 * jnp.cos(x)), X),
    "small one first": (lambda x: (jnp.prod(x) * 1e-6, 1e5 * jnp.exp(x)), X),
    "loss and penalty": (loss_and_penalty, PARAMS, BATCH),
}


@pytest.mark.parametrize("name", LOPSIDED)
def test_a_rule_that_ignores_the_smaller_of_two_outputs_fails(name):
    f, *args = LOPSIDED[name]
    factors = (0, 1) if name == "small one first" else (1, 0)
    result = compared(with_cotangents(f, *factors), *args)
    assert result.verdict is Verdict.FAIL, str(result)
    accused = [g for g in result.findings if g.state == "differs"]
    small = {"small one first": "output[0]", "loss and penalty": "output['penalty']"}
    assert (small.get(name, "output[1]"),) in {g.output for g in accused}
    assert compared(with_cotangents(f, 1, 1), *args).verdict is Verdict.PASS


def test_one_per_cent_of_the_smallest_of_many_outputs_is_found():
    def f(x):
        return tuple(10.0 ** (-2 * i) * jnp.sin(x + i) for i in range(6))

    result = compared(with_cotangents(f, *[1] * 5, 1.01), X)
    assert result.verdict is Verdict.FAIL, str(result)
    assert compared(with_cotangents(f, *[1] * 6), X).verdict is Verdict.PASS


def test_a_tangent_that_ignores_a_small_output_fails_in_both_modes():
    f = jax.custom_jvp(lambda x: (1e9 * jnp.sin(x), jnp.cos(x)))
    f.defjvp(lambda x, v: (f(*x), (1e9 * jnp.cos(*x) * v[0], jnp.zeros_like(v[0]))))
    result = compared(f, X)
    modes = {g.mode for g in result.findings if g.state == "differs"}
    assert modes == {"forward", "reverse"}


OWN = {
    "ratio of 1e3": (lambda x: (1e3 * jnp.sin(x), jnp.cos(x)), X),
    "statistics": (lambda x: batch_norm(x, jnp.ones(3, x.dtype)), BATCH),
    "logits and entropy": (
        lambda x: (300 * x, -jnp.sum(jax.nn.softmax(x) * jax.nn.log_softmax(x))),
        X,
    ),
}


@pytest.mark.parametrize("case", OWN.values(), ids=OWN.keys())
def test_in_float32_a_ratio_of_a_thousand_hides_nothing(case):
    f, x = case
    num = len(f(x))
    wrong = with_cotangents(f, *[1] * (num - 1), 0)
    assert compared(wrong, x, precision="own").verdict is Verdict.FAIL
    right = with_cotangents(f, *[1] * num)
    assert compared(right, x, precision="own").verdict is Verdict.PASS


CONSTANT = {
    "count": lambda x: (1e9 * jnp.sin(x), jnp.asarray(3.0, x.dtype), jnp.zeros(2)),
    "sums to one": lambda x: (1e4 * jnp.sin(x), jnp.sum(jax.nn.softmax(x))),
    "jumps": lambda x: (1e5 * jnp.sin(x), jnp.floor(x), jnp.sign(x)),
    "tiny constant": lambda x: {"y": jnp.exp(x), "eps": jnp.asarray(1e-12, x.dtype)},
}


@pytest.mark.parametrize("f", CONSTANT.values(), ids=CONSTANT.keys())
def test_an_output_without_a_derivative_is_no_obstacle(f):
    result = compared(f, X)
    assert result.verdict is Verdict.PASS, str(result)


def test_a_derivative_that_a_constant_output_does_not_have_fails():
    f = jax.custom_vjp(lambda x: (1e6 * jnp.sin(x), jnp.ones((), x.dtype)))
    f.defvjp(lambda x: (f(x), x), lambda x, w: (1e6 * w[0] * jnp.cos(x) + 1e-2 * w[1],))
    assert compared(f, X).verdict is Verdict.FAIL


def test_what_depends_on_a_small_output_only_is_seen_beside_a_large_one():
    def f(x, y):
        return {"large": 1e9 * jnp.sin(x), "small": 1e-9 * y, "n": jnp.ones(3)}

    assert compared(f, X, X).verdict is Verdict.PASS
    result = compared(with_cotangents(f, 1, 1, 0), X, X)
    assert result.verdict is Verdict.FAIL
    assert "args[1]" in result.reason


def test_a_small_output_that_is_saturated_is_not_passed():
    result = compared(lambda x: (jnp.sin(x), jax.nn.sigmoid(x + 60)), X)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.findings[0].output == ("output[1]",)


def test_outputs_of_like_size_cost_nothing_more():
    one = compared(lambda x: jnp.stack([jnp.sin(x), 9 * jnp.cos(x)]), X)
    two = compared(lambda x: (jnp.sin(x), 9 * jnp.cos(x)), X)
    assert two.verdict is Verdict.PASS
    assert two.evaluations == one.evaluations


def test_the_place_of_an_error_in_a_small_output_is_found():
    def f(x):
        return 1e9 * jnp.sin(x), jnp.cos(x)

    result = compared(with_cotangents(f, 1, 0), X, locate=True)
    assert result.locations[0].count == 4
    assert "no gradient at all" in result.locations[0].hint


def test_outputs_are_named_by_their_paths():
    def named(f):
        return problem(f, (X,)).output_names

    assert named(jnp.sin) == ("output",)
    nested = "output[0]", "output[2][0]", "output[2][1]"
    assert named(lambda x: (x, 3, [2 * x, x])) == nested
    assert named(lambda x: {"loss": x, "aux": {"m": x}}) == (
        "output['aux']['m']",
        "output['loss']",
    )
