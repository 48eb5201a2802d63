"""Mutants: every planted mistake is found, named and measured."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from custom_rules import compared, normal, wrong_jvp, wrong_vjp

from gradstab.gradcheck import Verdict


def dense(x, kernel, bias):
    return jnp.tanh(x @ kernel + bias[None])


MISTAKES = {
    "sign flipped": lambda x, w, g: (-g[0],),
    "five per cent": lambda x, w, g: (0.95 * g[0],),
    "one in a thousand": lambda x, w, g: (1.001 * g[0],),
    "zero": lambda x, w, g: (0 * g[0],),
    "one block": lambda x, w, g: (g[0].at[2:4].multiply(1.01),),
    "last entry dropped": lambda x, w, g: (g[0].at[-1].set(0),),
    "ignores the cotangent": lambda x, w, g: (1 - jnp.tanh(x[0]) ** 2,),
    "bfloat16 inside": lambda x, w, g: (g[0].astype("bfloat16").astype(g[0].dtype),),
    "nan": lambda x, w, g: (g[0].at[0].set(jnp.nan),),
}


@pytest.mark.parametrize("wrong", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_wrong_vjp_fails(wrong):
    result = compared(wrong_vjp(jnp.tanh, wrong), jnp.linspace(-1, 1, 16))
    assert result.verdict is Verdict.FAIL, str(result)


@pytest.mark.parametrize("name", ["sign flipped", "five per cent"])
@pytest.mark.parametrize("size", [4, 1024, pytest.param(65536, marks=pytest.mark.slow)])
def test_a_wrong_vjp_fails_at_every_size(name, size):
    rule = wrong_vjp(jnp.tanh, MISTAKES[name])
    assert compared(rule, jnp.linspace(-1, 1, size)).verdict is Verdict.FAIL


@pytest.mark.parametrize("size", [4, 4096])
def test_one_wrong_entry_fails_at_every_size(size):
    rule = wrong_vjp(jnp.tanh, lambda x, w, g: (g[0].at[1].multiply(2),))
    result = compared(rule, jnp.linspace(-1, 1, size))
    assert result.verdict is Verdict.FAIL


@pytest.mark.parametrize("wrong", [lambda t: -t, lambda t: 0 * t, lambda t: 1.001 * t])
def test_a_wrong_jvp_fails_in_both_modes(wrong):
    result = compared(wrong_jvp(jnp.tanh, wrong), jnp.linspace(-1, 1, 1024))
    assert result.verdict is Verdict.FAIL
    assert {g.mode for g in result.findings if g.state == "differs"} == {
        "forward",
        "reverse",
    }


def test_a_wrong_jvp_fails_without_the_help_of_its_transpose():
    rule = wrong_jvp(jnp.tanh, lambda t: 1.001 * t)
    result = compared(rule, jnp.linspace(-1, 1, 16), modes=("forward",))
    assert result.verdict is Verdict.FAIL
    assert [g.mode for g in result.findings] == ["forward"]


ARGUMENTS = {
    "transposed": (1, lambda x, w, g: (g[0], g[1].T, g[2])),
    "broadcast sum dropped": (2, lambda x, w, g: (g[0], g[1], g[2] / 8)),
    "first row for all": (
        2,
        lambda x, w, g: (*g[:2], jax.vjp(dense, *x)[1](w.at[1:].set(0))[2]),
    ),
    "detached": (0, lambda x, w, g: (0 * g[0], g[1], g[2])),
}


@pytest.mark.parametrize(("leaf", "wrong"), ARGUMENTS.values(), ids=ARGUMENTS.keys())
def test_the_argument_whose_gradient_is_wrong_is_named(leaf, wrong):
    args = normal(0, 8, 6), normal(1, 6, 6), normal(2, 6)
    result = compared(wrong_vjp(dense, wrong), *args)
    assert result.verdict is Verdict.FAIL
    differing = [g.leaf for g in result.findings if g.state == "differs"]
    assert differing == [f"args[{leaf}]"]
    assert f"args[{leaf}]" in str(result).splitlines()[0]


def test_an_argument_of_small_weight_is_not_overlooked():
    def f(a, b):
        return jnp.sum(jnp.sin(a)) + 1e-6 * jnp.sum(jnp.cos(b))

    rule = wrong_vjp(f, lambda x, w, g: (g[0], 0 * g[1]))
    result = compared(rule, normal(0, 32), normal(1, 32))
    assert result.verdict is Verdict.FAIL
    assert result.findings[0].leaf == "args[1]"


def test_a_nested_argument_is_named_by_its_path():
    def f(params):
        return params["head"]["kernel"] * jnp.sin(params["head"]["bias"])

    rule = wrong_vjp(
        f, lambda x, w, g: (g[0] | {"head": g[0]["head"] | {"bias": 0 * w}},)
    )
    params = {"head": {"kernel": normal(0, 4), "bias": normal(1, 4)}}
    result = compared(rule, params)
    assert result.findings[0].leaf == "args[0].head.bias"


def test_softmax_without_its_normalising_term_fails():
    rule = wrong_vjp(
        lambda x: jax.nn.softmax(x), lambda x, w, g: (jax.nn.softmax(x[0]) * w,)
    )
    assert compared(rule, normal(0, 1024)).verdict is Verdict.FAIL


@pytest.mark.parametrize("factor", [0.95, 0.0])
def test_a_wrong_rule_fails_in_code_that_exists_in_float32_only(factor):
    def f(x):
        return jnp.tanh(x.astype(jnp.float32))

    rule = wrong_vjp(f, lambda x, w, g: (factor * g[0],))
    result = compared(rule, normal(0, 64), precision="own")
    assert result.precision == "float32"
    assert result.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(0.9, Verdict.FAIL), (1.1, Verdict.FAIL), (1.0, Verdict.PASS)],
)
def test_ten_per_cent_are_found_in_code_that_exists_in_bfloat16_only(factor, verdict):
    def f(x):
        return jax.nn.softmax(x.astype(jnp.bfloat16))

    rule = wrong_vjp(f, lambda x, w, g: ((factor * g[0]).astype(g[0].dtype),))
    result = compared(rule, normal(0, 4, 16), precision="own")
    assert result.precision == "bfloat16"
    # The differences see no better than 0.5; the body of the rule acquits it.
    assert result.verdict is verdict, str(result)


def test_the_measured_error_is_that_which_was_planted():
    result = compared(wrong_vjp(jnp.tanh, MISTAKES["one in a thousand"]), normal(0, 64))
    # Proportional to the Jacobian, so the table of both is too: no sampling error.
    np.testing.assert_allclose(result.findings[0].error, 1e-3, rtol=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_an_error_of_twice_the_resolution_never_passes(seed):
    size = 16
    x = normal(seed, size)
    resolution = compared(wrong_vjp(jnp.tanh, lambda x, w, g: g), x).resolution
    error = np.outer(normal(seed + 10, size), normal(seed + 20, size))
    error *= 2 * resolution / np.linalg.norm(error)
    jacobian = np.linalg.norm(1 - np.tanh(x.astype(np.float64)) ** 2)

    def planted(x, w, g):
        return (g[0] + jnp.asarray(error * jacobian, w.dtype) @ w,)

    rule = wrong_vjp(jnp.tanh, planted)
    assert compared(rule, x, rtol=resolution).verdict is not Verdict.PASS
    # Who asks for less gets a PASS, but one that does not deny the error.
    assert compared(rule, x, rtol=1e-6).resolution >= 2 * resolution


def test_a_rule_that_is_wrong_beside_a_kink_fails():
    def f(x):
        return jax.nn.relu(x)

    rule = wrong_vjp(f, lambda x, w, g: (1.01 * g[0],))
    ties = jnp.where(jnp.arange(16) % 4 == 0, 0, normal(0, 16))
    assert compared(rule, ties).verdict is Verdict.FAIL


def test_a_rule_outside_the_one_sided_slopes_of_a_kink_fails():
    def three_at_the_tie(x, w, g):
        return (jnp.where(x[0] == 0, 3 * w, g[0]),)

    ties = jnp.where(jnp.arange(16) % 4 == 0, 0, normal(0, 16))
    rule = wrong_vjp(lambda x: jax.nn.relu(x), three_at_the_tie)
    assert compared(rule, ties).verdict is Verdict.FAIL
